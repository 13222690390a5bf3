"""``smtpguard address``: the address book."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smtpguard.cli.address_import import import_
from smtpguard.cli.address_invite import invite
from smtpguard.cli.common import Address, AsJson, By, Customer, Reason, at_desks, mailbox_of, words
from smtpguard.cli.listing import DEFAULT_LIMIT, Form, Limit, show_listing
from smtpguard.cli.output import Cells, iso, print_fields, print_json, say, utc
from smtpguard.domain.mailbox import ascii_lower
from smtpguard.domain.standing import AddressRecord, Binding, Flag, Standing, Voucher

if TYPE_CHECKING:
    from smtpguard.app import Desks

MAX_CUSTOMERS_IN_A_CELL = 3
STANDINGS = ", ".join(standing.value for standing in Standing)

app = typer.Typer(no_args_is_help=True, help="Look at the address book, and change it.")
app.command("import")(import_)
app.command()(invite)


@app.command()
def verify(
    ctx: typer.Context,
    address: Address,
    *,
    by: By,
    customer: Customer = None,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="WHY", callback=words, help="How it is known.")
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(
            "--until",
            metavar="YYYY-MM-DD",
            formats=["%Y-%m-%d"],
            help="It holds until this day begins (UTC), and not for as long as the settings say.",
        ),
    ] = None,
) -> None:
    """Vouch for an address. Its owner reads it and, with --customer, is that customer. A flag stays, and wins."""
    mailbox = mailbox_of(address)

    async def work(desks: "Desks") -> AddressRecord:
        end = until and until.replace(tzinfo=UTC)
        await desks.addresses.verify(mailbox, customer=customer, by=by, why=reason or "", valid_until=end)
        return await desks.addresses.show(mailbox)

    record = at_desks(ctx, work)
    say(f"{record.address}: verified {_whom(customer)}")
    if record.flag:
        say("It is flagged all the same, and gets nothing before `smtpguard address unflag`.")
    if customer is None and len(record.bindings) > 1:
        say(
            f"It is on record for {len(record.bindings)} customers: mail that names one of them wants a verification "
            "with --customer."
        )


@app.command()
def flag(ctx: typer.Context, address: Address, *, by: By, reason: Reason) -> None:
    """Stop all mail to an address. It holds at once, whatever vouches for the address."""
    mailbox = mailbox_of(address)
    at_desks(ctx, lambda desks: desks.addresses.flag(mailbox, by=by, reason=reason))
    say(f"{mailbox.lookup_key}: flagged")


@app.command()
def unflag(ctx: typer.Context, address: Address, *, by: By, reason: Reason) -> None:
    """Take a flag away. What vouched for the address before counts again."""
    mailbox = mailbox_of(address)

    async def work(desks: "Desks") -> Standing:
        await desks.addresses.unflag(mailbox, by=by, why=reason)
        return (await desks.addresses.show(mailbox)).standing(desks.clock())

    standing = at_desks(ctx, work)
    say(f"{mailbox.lookup_key}: no longer flagged, now {standing.value}")


@app.command()
def show(ctx: typer.Context, address: Address, as_json: AsJson = False) -> None:
    """Show all that is on record of an address."""
    mailbox = mailbox_of(address)

    async def work(desks: "Desks") -> tuple[AddressRecord, datetime]:
        return await desks.addresses.show(mailbox), desks.clock()

    record, now = at_desks(ctx, work)
    if as_json:
        print_json(address_fields(record, now))
        return
    print_fields(
        (
            ("Address", record.address),
            ("Standing", record.standing(now).value),
            ("Flag", _flag_line(record.flag) if record.flag else None),
            *(("Verified", _voucher_line(voucher, now)) for voucher in record.vouchers),
            *(("Customer", _binding_line(binding)) for binding in record.bindings),
            ("First seen", f"{utc(record.first_seen)} UTC" if record.first_seen else None),
            ("Last seen", f"{utc(record.last_seen)} UTC" if record.last_seen else None),
        )
    )


@app.command("list")
def list_(
    ctx: typer.Context,
    limit: Limit = DEFAULT_LIMIT,
    after: Annotated[str | None, typer.Option("--after", metavar="ADDRESS", help="Begin behind this one.")] = None,
    standing: Annotated[
        Standing | None, typer.Option("--standing", metavar="STANDING", help=f"Only these: {STANDINGS}.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List addresses, in alphabetical order."""

    async def work(desks: "Desks") -> None:
        async def fetch(rows: int, key: str | None) -> list[AddressRecord]:
            return await desks.addresses.list(limit=rows, after=key, standing=standing)

        await show_listing(
            _form(desks.clock()), fetch, limit=limit, after=after and ascii_lower(after), as_json=as_json
        )

    at_desks(ctx, work)


def address_fields(record: AddressRecord, now: datetime) -> dict[str, Any]:
    """Return what programs are told of an address."""
    return {
        "address": record.address,
        "standing": record.standing(now).value,
        "flag": record.flag and _plain(asdict(record.flag)),
        "bindings": [_plain(asdict(binding)) for binding in record.bindings],
        "vouchers": [_plain(asdict(voucher)) for voucher in record.vouchers],
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: iso(value) if isinstance(value, datetime) else value for key, value in values.items()}


def _form(now: datetime) -> Form[AddressRecord, str]:
    return Form(
        heads=(("Address", "Flag"), ("Standing",), ("Verified", "On record")),
        cells=lambda record: _cells(record, now),
        fields=lambda record: address_fields(record, now),
        key=lambda record: record.lookup_key,
    )


def _cells(record: AddressRecord, now: datetime) -> Cells:
    holding = [voucher.customer or "address-wide" for voucher in record.vouchers if voucher.holds(now)]
    return (
        (record.address, record.flag.reason if record.flag else ""),
        (record.standing(now).value,),
        (_some(holding), _some([binding.customer for binding in record.bindings])),
    )


def _some(customers: list[str]) -> str:
    shown = customers[:MAX_CUSTOMERS_IN_A_CELL]
    others = len(customers) - len(shown)
    return ", ".join([*shown, f"+{others}"] if others else shown)


def _whom(customer: str | None) -> str:
    return f"for customer {customer}" if customer else "address-wide"


def _flag_line(flag: Flag) -> str:
    return f"{flag.reason} (by {flag.by}, {utc(flag.since)} UTC)"


def _binding_line(binding: Binding) -> str:
    return f"{binding.customer}, seen from {utc(binding.first_seen)} to {utc(binding.last_seen)} UTC"


def _voucher_line(voucher: Voucher, now: datetime) -> str:
    parts = [f"{_whom(voucher.customer)}, {utc(voucher.verified_at)} UTC, {voucher.method} by {voucher.by}"]
    parts += [voucher.evidence] if voucher.evidence else []
    parts += [f"until {utc(voucher.valid_until)} UTC"] if voucher.valid_until else []
    parts += [] if voucher.holds(now) else ["no longer holds"]
    return "; ".join(parts)
