"""The play: the shop sends its invoices, an operator acts, a recipient decides, and it is checked who got what."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from smtpguard.app import clock
from smtpguard.cli.demo.cast import GRETA, INVOICES, NILS, REMINDER, XYZ, Letter, address_book
from smtpguard.cli.demo.check import Facts, failures
from smtpguard.cli.demo.crm import Submission, send
from smtpguard.cli.demo.mail_server import Delivery
from smtpguard.cli.demo.recipient import ReadInvitation, press, read_invitation
from smtpguard.cli.demo.show import Screen
from smtpguard.cli.demo.stage import Stage, built_stage
from smtpguard.domain.decision import Reason
from smtpguard.domain.invitation import Answer, parse_token, token_digest
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.domain.quarantined import QuarantinedMessage, QuarantineState
from smtpguard.errors import ActRefused
from smtpguard.service.import_addresses import RejectedRow, import_addresses
from smtpguard.settings import PolicySettings

OPERATOR = "demo"
LOOK_SECONDS = 0.1
"""How often it is looked whether something has happened."""
MAX_LOOKS = 150
"""For what the guard does by itself."""


async def run_demo(screen: Screen, *, stay: bool, policy: PolicySettings | None = None) -> list[str]:
    """Play, and return what failed. ``stay``: go on until a signal, for a second terminal to try things.

    ``policy`` is there to show that a guard that does not guard is noticed.
    """
    _clean_up_at(signal.SIGTERM, signal.SIGHUP)
    with TemporaryDirectory(prefix="smtpguard-demo-") as directory:
        async with built_stage(Path(directory), policy or PolicySettings()) as stage:
            submissions = await _play(stage, screen)
            invitation = await _invitation(stage)
            failed = await _judge(stage, submissions, answer=None)
            if failed or invitation is None:
                return failed
            if stay:
                screen.conclude()
                await _stay(stage, screen, invitation)
                return []
            screen.show_invitation(NILS, invitation)
            await _say_yes(stage, screen, invitation)
            failed = await _judge(stage, submissions, answer=Answer.YES)
            if not failed:
                screen.conclude()
    return failed


async def _play(stage: Stage, screen: Screen) -> list[Submission]:
    screen.tell_story()
    await _import_address_book(stage)
    submissions = await _send(stage, INVOICES)
    screen.show_result(submissions, stage.mail_server.deliveries, await _quarantined(stage))
    screen.begin_acts()
    submissions += await _flag_greta(stage, screen)
    await _discard_made_up(stage, screen)
    return submissions


async def _judge(stage: Stage, submissions: Sequence[Submission], *, answer: Answer | None) -> list[str]:
    rows = await stage.desks.store.ledger.list(limit=0, after=None)
    ledger = [row.entry for row in rows]
    return failures(
        Facts(submissions, tuple(stage.mail_server.deliveries), await _quarantined(stage), ledger, answer=answer)
    )


async def _import_address_book(stage: Stage) -> None:
    rejected: list[RejectedRow] = []
    await import_addresses(
        address_book(),
        store=stage.desks.store,
        clock=clock,
        by=OPERATOR,
        name="address-book.csv",
        valid_for=stage.desks.addresses.valid_for,
        on_rejected=rejected.append,
        on_imported=lambda _: None,
    )
    if rejected:
        raise ActRefused(f"the address book of the demo is wrong: {rejected[0].why}")


async def _send(stage: Stage, letters: Sequence[Letter]) -> list[Submission]:
    try:
        return await asyncio.to_thread(send, letters, stage.port, clock())
    except OSError as error:
        raise ActRefused(f"the CRM could not send: {error}") from error


async def _flag_greta(stage: Stage, screen: Screen) -> list[Submission]:
    reason = "wants no more mail"
    await stage.desks.addresses.flag(parse_mailbox(GRETA.mailbox), by=OPERATOR, reason=reason)
    submissions = await _send(stage, [REMINDER])
    kept = await _find(stage, REMINDER, GRETA.mailbox)
    screen.show_flag(GRETA, reason, kept)
    return submissions


async def _discard_made_up(stage: Stage, screen: Screen) -> None:
    letter = next(letter for letter in INVOICES if XYZ in letter.recipients)
    if message := await _find(stage, letter, XYZ):
        why = "made-up address"
        await stage.desks.quarantine.discard(message.id, by=OPERATOR, why=why)
        screen.show_discard(letter.customer, message, why)


async def _invitation(stage: Stage) -> ReadInvitation | None:
    """Return what Nils is sent because his invoice is kept; a guard that does not guard keeps none."""

    async def has_come() -> bool:
        return any(each.recipient == NILS.mailbox for each in stage.mail_server.deliveries)

    if not await _find(stage, INVOICES[-1], NILS.mailbox) or not await _comes_true(has_come):
        return None
    message = next(each.message for each in stage.mail_server.deliveries if each.recipient == NILS.mailbox)
    try:
        return read_invitation(message)
    except ValueError as error:
        raise ActRefused(f"{NILS.name} cannot read the invitation: {error}") from error


async def _say_yes(stage: Stage, screen: Screen, invitation: ReadInvitation) -> None:
    """Say Yes, and wait for what that lets go."""

    async def is_on_record() -> bool:
        rows = await stage.desks.store.ledger.list(limit=1, after=None)
        return rows[0].entry.decision.reason is Reason.RELEASED

    try:
        await press(invitation.link, Answer.YES)
    except (OSError, ValueError) as error:
        raise ActRefused(f"the page of the invitation cannot be used: {error}") from error
    if await _comes_true(is_on_record):
        screen.show_yes(NILS)


async def _stay(stage: Stage, screen: Screen, invitation: ReadInvitation) -> None:
    """Stay until a signal says to go; tell of what is pressed, and of each further delivery."""
    loop = asyncio.get_running_loop()
    asked_to_go = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, asked_to_go.set)
    untold: list[Delivery] = []
    stage.mail_server.on_delivery = untold.append
    waiting = await stage.desks.quarantine.list(limit=1, states={QuarantineState.QUARANTINED})
    screen.offer_page(NILS, invitation)
    screen.invite(stage, waiting[0].id)
    told: Answer | None = None
    while not asked_to_go.is_set():
        delivered, untold[:] = tuple(untold), ()  # before the answer is read, which comes before what it lets go
        answer = await _answer(stage, invitation)
        if answer not in (None, told):
            screen.show_answer(NILS, answer)
        told = answer
        for delivery in delivered:
            screen.show_delivery(delivery)
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await asked_to_go.wait()


async def _answer(stage: Stage, invitation: ReadInvitation) -> Answer | None:
    digest = token_digest(parse_token(invitation.token) or b"")
    found = await stage.desks.store.invitations.find(digest)
    return found.answer if found else None


async def _comes_true(is_so: Callable[[], Awaitable[bool]]) -> bool:
    """Wait, with patience, for what happens by itself."""
    for _ in range(MAX_LOOKS):
        if await is_so():
            return True
        await asyncio.sleep(LOOK_SECONDS)
    return False


async def _quarantined(stage: Stage) -> list[QuarantinedMessage]:
    return await stage.desks.quarantine.list(limit=0, states=frozenset(QuarantineState))


async def _find(stage: Stage, letter: Letter, recipient: str) -> QuarantinedMessage | None:
    """Find a letter in quarantine; in a guard that does not guard it is not there."""
    wanted = (letter.customer.reference, letter.subject, recipient)
    found = (
        message
        for message in await stage.desks.quarantine.list(limit=0, states={QuarantineState.QUARANTINED})
        if (message.customer, message.subject, message.recipient.text) == wanted
    )
    return next(found, None)


def _clean_up_at(*numbers: signal.Signals) -> None:
    """Let a signal that would end the process cancel the play instead, so that nothing is left behind."""
    task = asyncio.current_task()
    if task is not None:
        for number in numbers:
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
