"""The operations on the quarantine: list, show, release, discard, settle."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from smtpguard.domain.api_token import Scope
from smtpguard.domain.quarantined import OPEN_STATES, QuarantineState
from smtpguard.errors import StoreError
from smtpguard.web.bodies import (
    MessageAnswer,
    MessagePage,
    ReasonedBody,
    ReleaseBody,
    SettleBody,
    message_answer,
)
from smtpguard.web.operation import Call, NoQuery, Operation
from smtpguard.web.problems import Problem

DEFAULT_LIMIT = 50
MAX_LIMIT = 500


class MessageQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which messages; no state: those that are open."""

    state: Annotated[list[QuarantineState], Meta(max_length=len(QuarantineState))] = []
    after: Annotated[str, Meta(max_length=100)] | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT


async def list_(call: Call[None, MessageQuery]) -> MessagePage:
    """List messages, the oldest first."""
    query = call.query
    states = frozenset(query.state) or OPEN_STATES
    messages = await call.office.quarantine.list(limit=query.limit + 1, after=query.after, states=states)
    page = messages[: query.limit]
    following = page[-1].id if len(messages) > query.limit else None
    return MessagePage([message_answer(each) for each in page], following)


async def show(call: Call[Any, NoQuery]) -> MessageAnswer:
    """Tell of a message."""
    return message_answer(await call.office.store.quarantine.get(call.path["message_id"]))


async def release(call: Call[ReleaseBody, NoQuery]) -> MessageAnswer:
    """Send a message to its one recipient."""
    body = call.body
    try:
        await call.office.quarantine.release(
            call.path["message_id"], by=call.by, why=body.reason.strip(), despite_flag=body.despite_flag
        )
    except StoreError as error:
        detail = "The store failed, maybe after it was sent: if it is maybe-sent, settle it."
        raise Problem(503, "store-unavailable", detail) from error
    return await show(call)


async def discard(call: Call[ReasonedBody, NoQuery]) -> MessageAnswer:
    """Remove a message and its content for good."""
    await call.office.quarantine.discard(call.path["message_id"], by=call.by, why=call.body.reason.strip())
    return await show(call)


async def settle(call: Call[SettleBody, NoQuery]) -> MessageAnswer:
    """Say what became of a maybe-sent message."""
    body = call.body
    await call.office.quarantine.settle(call.path["message_id"], sent=body.sent, by=call.by, why=body.reason.strip())
    return await show(call)


_ONE = "/quarantine/{message_id:str}"
_READ, _DECIDE = Scope.QUARANTINE_READ, Scope.QUARANTINE_DECIDE

OPERATIONS: tuple[Operation[Any, Any], ...] = (
    Operation("GET", "/quarantine", _READ, "List quarantined messages", list_, MessagePage, query=MessageQuery),
    Operation("GET", _ONE, _READ, "Show a message", show, MessageAnswer),
    Operation(
        "POST", f"{_ONE}/release", _DECIDE, "Send a message to its recipient", release, MessageAnswer, ReleaseBody
    ),
    Operation("POST", f"{_ONE}/discard", _DECIDE, "Remove a message for good", discard, MessageAnswer, ReasonedBody),
    Operation("POST", f"{_ONE}/settle", _DECIDE, "Settle a maybe-sent message", settle, MessageAnswer, SettleBody),
)
