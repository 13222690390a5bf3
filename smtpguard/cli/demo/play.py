"""The play: the shop sends its invoices, an operator acts, and then it is checked who got what."""

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from smtpguard.app import clock
from smtpguard.cli.demo.cast import GRETA, INVOICES, NILS, REMINDER, XYZ, Letter, address_book
from smtpguard.cli.demo.check import Facts, failures
from smtpguard.cli.demo.crm import Submission, send
from smtpguard.cli.demo.show import Screen
from smtpguard.cli.demo.stage import Stage, built_stage
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.domain.quarantined import QuarantinedMessage, QuarantineState
from smtpguard.errors import ActRefused
from smtpguard.service.import_addresses import RejectedRow, import_addresses
from smtpguard.settings import PolicySettings

OPERATOR = "demo"


async def run_demo(screen: Screen, *, stay: bool, policy: PolicySettings | None = None) -> list[str]:
    """Play, and return what failed. ``stay``: go on until a signal, for a second terminal to try things.

    ``policy`` is there to show that a guard that does not guard is noticed.
    """
    _clean_up_at(signal.SIGTERM, signal.SIGHUP)
    with TemporaryDirectory(prefix="smtpguard-demo-") as directory:
        async with built_stage(Path(directory), policy or PolicySettings()) as stage:
            failed = await _play(stage, screen)
            if stay and not failed:
                await _stay(stage, screen)
    return failed


async def _play(stage: Stage, screen: Screen) -> list[str]:
    screen.tell_story()
    await _import_address_book(stage)
    submissions = await _send(stage, INVOICES)
    screen.show_result(submissions, stage.mail_server.deliveries, await _quarantined(stage))
    screen.begin_acts()
    submissions += await _flag_greta(stage, screen)
    await _release_to_nils(stage, screen)
    await _discard_made_up(stage, screen)
    rows = await stage.desks.store.ledger.list(limit=0, after=None)
    facts = Facts(
        submissions, tuple(stage.mail_server.deliveries), await _quarantined(stage), [row.entry for row in rows]
    )
    failed = failures(facts)
    if not failed:
        screen.conclude()
    return failed


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


async def _release_to_nils(stage: Stage, screen: Screen) -> None:
    if message := await _find(stage, INVOICES[-1], NILS.mailbox):
        why = "proved that the mailbox is his"
        mailbox = message.recipient
        await stage.desks.addresses.verify(mailbox, customer=NILS.reference, by=OPERATOR, why=why)
        reply = await stage.desks.quarantine.release(message.id, by=OPERATOR, why=why)
        screen.show_release(NILS, message, why, reply)


async def _discard_made_up(stage: Stage, screen: Screen) -> None:
    letter = next(letter for letter in INVOICES if XYZ in letter.recipients)
    if message := await _find(stage, letter, XYZ):
        why = "made-up address"
        await stage.desks.quarantine.discard(message.id, by=OPERATOR, why=why)
        screen.show_discard(letter.customer, message, why)


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


async def _stay(stage: Stage, screen: Screen) -> None:
    """Stay until a signal says to go; tell of each further delivery."""
    loop = asyncio.get_running_loop()
    asked_to_go = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, asked_to_go.set)
    stage.mail_server.on_delivery = screen.show_delivery
    waiting = await stage.desks.quarantine.list(limit=1, states={QuarantineState.QUARANTINED})
    screen.invite(stage, waiting[0].id)
    await asked_to_go.wait()


def _clean_up_at(*numbers: signal.Signals) -> None:
    """Let a signal that would end the process cancel the play instead, so that nothing is left behind."""
    task = asyncio.current_task()
    if task is not None:
        for number in numbers:
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
