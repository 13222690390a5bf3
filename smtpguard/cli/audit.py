"""``smtpguard audit``: who did what, and whether the record of it is whole."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from smtpguard.cli.common import AsJson, at_desks, fail
from smtpguard.cli.listing import DEFAULT_LIMIT, Form, Limit, show_listing
from smtpguard.cli.output import Cells, iso, say, utc
from smtpguard.domain.audit import RecordedAct

if TYPE_CHECKING:
    from smtpguard.app import Desks

app = typer.Typer(no_args_is_help=True, help="Look at the audit log, and verify it.")


@app.command("list")
def list_(
    ctx: typer.Context,
    limit: Limit = DEFAULT_LIMIT,
    after: Annotated[int | None, typer.Option("--after", metavar="ID", help="Begin behind this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """List acts, the newest first."""

    async def work(desks: "Desks") -> None:
        async def fetch(rows: int, key: int | None) -> list[RecordedAct]:
            return await desks.store.audit_log.list(limit=rows, after=key)

        await show_listing(FORM, fetch, limit=limit, after=after, as_json=as_json)

    at_desks(ctx, work)


@app.command()
def verify(ctx: typer.Context) -> None:
    """Check that no act was changed or taken out. Exit code 1 and the first that does not fit."""
    broken = at_desks(ctx, lambda desks: desks.store.audit_log.verify())
    if broken is not None:
        fail(f"the audit log was changed: act {broken} does not follow from the one before it")
    say("OK")


def act_fields(recorded: RecordedAct) -> dict[str, Any]:
    """Return what programs are told of an act."""
    act = recorded.act
    return {
        "id": recorded.id,
        "at": iso(act.at),
        "actor": act.actor,
        "kind": act.kind.value,
        "subject": act.subject,
        "why": act.why,
        "previous_hash": recorded.previous_hash,
        "hash": recorded.hash,
    }


def _cells(recorded: RecordedAct) -> Cells:
    act = recorded.act
    return (str(recorded.id), act.kind.value), (utc(act.at), act.actor), (act.subject, act.why)


FORM: Form[RecordedAct, int] = Form(
    heads=(("ID", "Act"), ("At (UTC)", "By"), ("On", "Why")),
    cells=_cells,
    fields=act_fields,
    key=lambda recorded: recorded.id,
)
