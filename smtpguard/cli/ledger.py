"""``smtpguard ledger``: what was relayed to whom, and each other verdict."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from smtpguard.cli.common import AsJson, at_desks, mailbox_of
from smtpguard.cli.listing import DEFAULT_LIMIT, Form, Limit, show_listing
from smtpguard.cli.output import Cells, iso, utc
from smtpguard.domain.ledger import LedgerRow

if TYPE_CHECKING:
    from smtpguard.app import Desks

app = typer.Typer(no_args_is_help=True, help="Look at what was relayed to whom.")


@app.command("list")
def list_(
    ctx: typer.Context,
    recipient: Annotated[
        str | None, typer.Option("--recipient", metavar="ADDRESS", help="Only what concerns this one.")
    ] = None,
    limit: Limit = DEFAULT_LIMIT,
    after: Annotated[int | None, typer.Option("--after", metavar="ID", help="Begin behind this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """List what was done for each recipient of each transaction, the newest first."""
    lookup_key = mailbox_of(recipient).lookup_key if recipient is not None else None

    async def work(desks: "Desks") -> None:
        async def fetch(rows: int, key: int | None) -> list[LedgerRow]:
            return await desks.store.ledger.list(limit=rows, after=key, recipient=lookup_key)

        await show_listing(FORM, fetch, limit=limit, after=after, as_json=as_json)

    at_desks(ctx, work)


def entry_fields(row: LedgerRow) -> dict[str, Any]:
    """Return what programs are told of an entry."""
    entry, decision = row.entry, row.entry.decision
    return {
        "id": row.id,
        "at": iso(entry.at),
        "transaction": entry.transaction_id,
        "application": entry.application,
        "recipient": decision.recipient.text,
        "customer": entry.customer,
        "verdict": decision.verdict.value,
        "reason": decision.reason.value,
        "would_be": decision.would_be.value if decision.would_be else None,
        "smarthost_reply": entry.smarthost_reply,
        "message_id": entry.message_id,
        "subject_digest": entry.subject_digest,
    }


def _cells(row: LedgerRow) -> Cells:
    entry, decision = row.entry, row.entry.decision
    would_be = f"would be {decision.would_be.value}" if decision.would_be else ""
    return (
        (str(row.id), decision.verdict.value),
        (utc(entry.at), entry.customer or ""),
        (decision.recipient.text, entry.smarthost_reply),
        (decision.reason.value, would_be),
    )


FORM: Form[LedgerRow, int] = Form(
    heads=(
        ("ID", "Verdict"),
        ("At (UTC)", "Customer"),
        ("Recipient", "Smarthost's reply"),
        ("Reason", "In observe mode"),
    ),
    cells=_cells,
    fields=entry_fields,
    key=lambda row: row.id,
)
