"""``smtpguard quarantine``: the messages that wait, and what becomes of them."""

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from smtpguard.cli.common import AsJson, By, Reason, at_desks, fail
from smtpguard.cli.listing import DEFAULT_LIMIT, Form, Limit, show_listing
from smtpguard.cli.output import Cells, complain, iso, print_fields, print_json, say, utc
from smtpguard.domain.envelope import NULL_REVERSE_PATH
from smtpguard.domain.quarantined import OPEN_STATES, MessageContent, QuarantinedMessage, QuarantineState
from smtpguard.errors import SmtpguardError

if TYPE_CHECKING:
    from smtpguard.app import Desks

app = typer.Typer(no_args_is_help=True, help="Look at quarantined messages, release and discard them.")

Id = Annotated[str, typer.Argument(metavar="ID")]
Ids = Annotated[list[str], typer.Argument(metavar="ID")]
AT_ONCE = 10
"""How many messages are acted on at a time: their commits wait for the disk together."""
STATES = ", ".join(state.value for state in QuarantineState)


@app.command("list")
def list_(
    ctx: typer.Context,
    state: Annotated[
        list[QuarantineState] | None,
        typer.Option("--state", metavar="STATE", help=f"Only these, instead of the open ones: {STATES}. Repeatable."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All, not only those that are open.")] = False,
    limit: Limit = DEFAULT_LIMIT,
    after: Annotated[str | None, typer.Option("--after", metavar="ID", help="Begin behind this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """List messages, the oldest first."""
    if every and state:
        raise typer.BadParameter("--all and --state exclude each other")
    states = frozenset(QuarantineState) if every else frozenset(state or OPEN_STATES)

    async def work(desks: "Desks") -> None:
        async def fetch(rows: int, key: str | None) -> list[QuarantinedMessage]:
            return await desks.quarantine.list(limit=rows, after=key, states=states)

        await show_listing(FORM, fetch, limit=limit, after=after and _id(after), as_json=as_json)

    at_desks(ctx, work)


@app.command()
def show(
    ctx: typer.Context,
    message_id: Id,
    content: Annotated[
        bool, typer.Option("--content", help="Write the message itself to standard output, byte for byte.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show a message. Its envelope, the decision, what its header says, and what became of it."""
    if content and as_json:
        raise typer.BadParameter("--content and --json exclude each other")
    if content:
        _write_content(ctx, _id(message_id))
        return
    message, kept = at_desks(ctx, lambda desks: desks.quarantine.show(_id(message_id)))
    if as_json:
        print_json(message_fields(message) | _further_fields(message, kept))
    else:
        _print_message(message, kept)


@app.command()
def release(
    ctx: typer.Context,
    message_ids: Ids,
    *,
    by: By,
    reason: Reason,
    despite_flag: Annotated[
        bool, typer.Option("--despite-flag", help="Also where the recipient is flagged by now.")
    ] = False,
) -> None:
    """Send messages to their recipients. One that is refused does not stop the others; exit code 1 then."""

    async def act(desks: "Desks", message_id: str) -> str:
        reply = await desks.quarantine.release(message_id, by=by, why=reason, despite_flag=despite_flag)
        return f"released: {reply}"

    _each(ctx, message_ids, act)


@app.command()
def discard(ctx: typer.Context, message_ids: Ids, *, by: By, reason: Reason) -> None:
    """Remove messages and their content for good. One that is refused does not stop the others; exit code 1 then."""

    async def act(desks: "Desks", message_id: str) -> str:
        await desks.quarantine.discard(message_id, by=by, why=reason)
        return "discarded"

    _each(ctx, message_ids, act)


@app.command()
def settle(
    ctx: typer.Context,
    message_id: Id,
    *,
    by: By,
    reason: Reason,
    sent: Annotated[bool, typer.Option("--sent", help="It was sent: it counts as released.")] = False,
    not_sent: Annotated[bool, typer.Option("--not-sent", help="It was not sent: it waits again.")] = False,
) -> None:
    """Say what became of a maybe-sent message. The log of the mail server knows."""
    if sent == not_sent:
        raise typer.BadParameter("say one of --sent and --not-sent")

    async def act(desks: "Desks", each: str) -> str:
        await desks.quarantine.settle(each, sent=sent, by=by, why=reason)
        return "released" if sent else "quarantined"

    _each(ctx, [message_id], act)


def message_fields(message: QuarantinedMessage) -> dict[str, Any]:
    """Return what programs are told of a message."""
    return {
        "id": message.id,
        "state": message.state.value,
        "recipient": message.recipient.text,
        "reverse_path": str(message.reverse_path),
        "application": message.application,
        "customer": message.customer,
        "reason": message.reason.value,
        "subject": message.subject,
        "size": message.size,
        "received_at": iso(message.received_at),
        "decided_at": iso(message.decided_at),
        "decided_by": message.decided_by,
        "decided_why": message.decided_why,
    }


def _cells(message: QuarantinedMessage) -> Cells:
    state = "" if message.state is QuarantineState.QUARANTINED else message.state.value
    return (
        (message.id, f"{utc(message.received_at)} {state}".strip()),
        (message.recipient.text, message.subject),
        (message.reason.value, message.customer or ""),
    )


FORM: Form[QuarantinedMessage, str] = Form(
    heads=(("ID", "Received (UTC)"), ("Recipient", "Subject"), ("Reason", "Customer")),
    cells=_cells,
    fields=message_fields,
    key=lambda message: message.id,
)


def _each(ctx: typer.Context, message_ids: list[str], act: Callable[["Desks", str], Coroutine[Any, Any, str]]) -> None:
    """Act on each message, with a line for each, in their order; what is refused does not stop the rest."""

    async def work(desks: "Desks") -> bool:
        all_done = True
        async with asyncio.TaskGroup() as group:
            begun: deque[asyncio.Task[_Outcome]] = deque()
            try:
                for message_id in message_ids:
                    if len(begun) == AT_ONCE:
                        all_done &= (await begun.popleft()).told()
                    begun.append(group.create_task(_outcome(desks, _id(message_id), act)))
                while begun:
                    all_done &= (await begun.popleft()).told()
            finally:
                for task in begun:  # interrupted: tell of those that were done before
                    if task.done() and not task.cancelled():
                        task.result().told()
        return all_done

    if not at_desks(ctx, work):
        raise typer.Exit(1)


class _Outcome(NamedTuple):
    """What became of one message."""

    text: str
    is_refusal: bool = False

    def told(self) -> bool:
        """Tell it; return whether it went well."""
        (complain if self.is_refusal else say)(self.text)
        return not self.is_refusal


async def _outcome(
    desks: "Desks", message_id: str, act: Callable[["Desks", str], Coroutine[Any, Any, str]]
) -> _Outcome:
    try:
        return _Outcome(f"{message_id}: {await act(desks, message_id)}")
    except asyncio.CancelledError:
        complain(f"{message_id}: interrupted; `smtpguard quarantine show {message_id}` says how far it came")
        raise
    except SmtpguardError as error:
        text = str(error)
        return _Outcome(text if message_id in text else f"{message_id}: {text}", is_refusal=True)


def _id(text: str) -> str:
    """Ids are read out on the telephone: their letters are capitals however they are typed."""
    return text.strip().upper()


def _write_content(ctx: typer.Context, message_id: str) -> None:
    if sys.stdout.isatty():
        fail("a stranger wrote this message, and a terminal would obey it: pipe it, as into `less`")
    content = at_desks(ctx, lambda desks: desks.store.quarantine.content(message_id))
    sys.stdout.buffer.write(content.message)


def _further_fields(message: QuarantinedMessage, content: MessageContent | None) -> dict[str, Any]:
    return {
        "transaction": message.transaction_id,
        **_parameter_fields(message),
        "from": content.sender if content else None,
        "date": content.date if content else None,
        "message_id": content.message_id if content else None,
    }


def _parameter_fields(message: QuarantinedMessage) -> dict[str, Any]:
    """Return what MAIL and RCPT asked for beside the addresses."""
    mail, rcpt = message.parameters, message.rcpt_parameters
    return {
        "body": mail.body.value if mail.body else None,
        "smtputf8": mail.smtputf8,
        "ret": mail.ret,
        "envid": mail.envid,
        "notify": rcpt.notify,
        "orcpt": rcpt.orcpt,
    }


def _print_message(message: QuarantinedMessage, content: MessageContent | None) -> None:
    null = message.reverse_path is NULL_REVERSE_PATH
    parameters = _parameter_fields(message)
    decided = f"{utc(message.decided_at)} UTC, by {message.decided_by}: {message.decided_why}"
    print_fields(
        (
            ("ID", message.id),
            ("Transaction", message.transaction_id),
            ("State", message.state.value),
            ("Decided", decided if message.decided_at else None),
            ("Reason", message.reason.value),
            ("Recipient", message.recipient.text),
            ("Customer", message.customer),
            ("Reverse-path", "<> (null)" if null else str(message.reverse_path)),
            ("Application", message.application),
            ("Received", f"{utc(message.received_at)} UTC"),
            ("Size", f"{message.size} octets"),
            *((name.upper(), value if value is not True else "yes") for name, value in parameters.items() if value),
            ("Subject", message.subject),
            ("From", content.sender if content else None),
            ("Date", content.date if content else None),
            ("Message-ID", content.message_id if content else None),
            ("Content", None if content else "gone"),
        )
    )
