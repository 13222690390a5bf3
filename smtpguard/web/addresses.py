"""The operations on the address book. No address ever stands in a URL: it goes in a body, and a page is asked for by
the number of the address before it.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from smtpguard.domain.api_token import Scope
from smtpguard.domain.decision import decide
from smtpguard.domain.mailbox import Mailbox, parse_mailbox
from smtpguard.domain.standing import CustomerUnnamed, Standing, Voucher
from smtpguard.errors import MailboxSyntaxError
from smtpguard.service.import_addresses import import_entries
from smtpguard.web.bodies import (
    MAX_ENTRIES,
    AddressAnswer,
    AddressPage,
    CheckAnswer,
    CheckBody,
    FlagBody,
    ImportAnswer,
    ImportBody,
    LookupBody,
    PutBody,
    RejectedEntry,
    VerifyBody,
    address_answer,
)
from smtpguard.web.operation import Call, NoQuery, Operation
from smtpguard.web.problems import Problem

DEFAULT_LIMIT = 50
MAX_LIMIT = 500
MAX_NUMBER = 2**63 - 1
MAX_IMPORT_OCTETS = MAX_ENTRIES * 1024

Limit = Annotated[int, Meta(ge=1, le=MAX_LIMIT)]


class AddressQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which addresses."""

    standing: Standing | None = None
    after: Annotated[int, Meta(ge=0, le=MAX_NUMBER)] | None = None
    limit: Limit = DEFAULT_LIMIT


async def check(call: Call[CheckBody, NoQuery]) -> CheckAnswer:
    """Say what would be done with mail to an address for a customer; nothing is put on record."""
    body = call.body
    try:
        mailbox = parse_mailbox(body.address)
    except MailboxSyntaxError as error:
        return CheckAnswer(valid=False, why=str(error))
    policy = call.office.policies.get(body.application)
    if policy is None:
        raise Problem(422, "no-such-application", "There is no application of this name.")
    facts = await call.office.addresses.facts(mailbox, customer=body.customer)
    decision = decide(mailbox, facts, body.customer or CustomerUnnamed.NONE, policy)
    record = await call.office.addresses.show(mailbox)
    return CheckAnswer(
        valid=True,
        address=mailbox.lookup_key,
        standing=record.standing(call.office.clock()).value,
        customers=len(record.bindings),
        verdict=decision.verdict.value,
        reason=decision.reason.value,
    )


async def look_up(call: Call[LookupBody, NoQuery]) -> AddressAnswer:
    """Tell all that is on record of an address, which may be nothing."""
    return await _told(call, parse_mailbox(call.body.address))


async def put(call: Call[PutBody, NoQuery]) -> AddressAnswer:
    """Put an address on record."""
    body = call.body
    mailbox = parse_mailbox(body.address)
    now = call.office.clock()
    vouchers = [
        Voucher(each.customer, "import", each.verified_at or now, call.by, each.source) for each in body.vouchers
    ]
    await call.office.addresses.put(mailbox, bindings=body.bindings, vouchers=vouchers, by=call.by)
    return await _told(call, mailbox)


async def list_(call: Call[None, AddressQuery]) -> AddressPage:
    """List addresses by their lookup keys."""
    query, office = call.query, call.office
    after = None
    if query.after is not None:
        after = await office.store.address_book.lookup_key(query.after)
        if after is None:
            raise Problem(400, "bad-query", "after: there is no such page.")
    records = await office.addresses.list(limit=query.limit + 1, after=after, standing=query.standing)
    page, now = records[: query.limit], office.clock()
    number = await office.store.address_book.number(page[-1].lookup_key) if len(records) > query.limit else None
    return AddressPage([address_answer(each, now) for each in page], None if number is None else str(number))


async def import_(call: Call[ImportBody, NoQuery]) -> ImportAnswer:
    """Import a batch: an entry that is wrong is left out and named, and the rest is imported."""
    entries = [
        (each.address, each.standing, each.customer, each.verified_at, each.source, each.reason)
        for each in call.body.entries
    ]
    office = call.office
    report, rejected = await import_entries(
        entries, store=office.store, clock=office.clock, by=call.by, name="API", valid_for=office.addresses.valid_for
    )
    return ImportAnswer(report.imported, [RejectedEntry(each.line, each.why) for each in rejected])


async def flag(call: Call[FlagBody, NoQuery]) -> AddressAnswer:
    """Stop all mail to an address."""
    mailbox = parse_mailbox(call.body.address)
    await call.office.addresses.flag(mailbox, by=call.by, reason=call.body.reason.strip())
    return await _told(call, mailbox)


async def unflag(call: Call[FlagBody, NoQuery]) -> AddressAnswer:
    """Take a flag away."""
    mailbox = parse_mailbox(call.body.address)
    await call.office.addresses.unflag(mailbox, by=call.by, why=call.body.reason.strip())
    return await _told(call, mailbox)


async def verify(call: Call[VerifyBody, NoQuery]) -> AddressAnswer:
    """Vouch for an address."""
    body = call.body
    mailbox = parse_mailbox(body.address)
    await call.office.addresses.verify(mailbox, customer=body.customer, by=call.by, why=body.reason.strip())
    return await _told(call, mailbox)


async def _told(call: Call[Any, NoQuery], mailbox: Mailbox) -> AddressAnswer:
    return address_answer(await call.office.addresses.show(mailbox), call.office.clock())


_READ, _WRITE = Scope.ADDRESSES_READ, Scope.ADDRESSES_WRITE

OPERATIONS: tuple[Operation[Any, Any], ...] = (
    Operation("POST", "/addresses/check", _READ, "Check an address before it is saved", check, CheckAnswer, CheckBody),
    Operation("POST", "/addresses/lookup", _READ, "All on record of an address", look_up, AddressAnswer, LookupBody),
    Operation("GET", "/addresses", _READ, "List addresses", list_, AddressPage, query=AddressQuery),
    Operation("PUT", "/addresses", _WRITE, "Put an address on record", put, AddressAnswer, PutBody),
    Operation(
        "POST",
        "/addresses/import",
        _WRITE,
        "Import a batch of addresses",
        import_,
        ImportAnswer,
        ImportBody,
        max_body_octets=MAX_IMPORT_OCTETS,
    ),
    Operation("POST", "/addresses/flag", _WRITE, "Stop all mail to an address", flag, AddressAnswer, FlagBody),
    Operation("POST", "/addresses/unflag", _WRITE, "Take a flag away", unflag, AddressAnswer, FlagBody),
    Operation("POST", "/addresses/verify", _WRITE, "Vouch for an address", verify, AddressAnswer, VerifyBody),
)
