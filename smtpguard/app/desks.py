"""The desks: what operators, other systems and recipients work with."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, partial
from typing import TYPE_CHECKING

from smtpguard.app.sources import clock, new_link_token, new_transaction_id
from smtpguard.app.tasks import Spawn, task_group
from smtpguard.relay.smarthost import Smarthost
from smtpguard.service.address_desk import AddressDesk
from smtpguard.service.answers import Answers
from smtpguard.service.challenges import Challenges
from smtpguard.service.confirmed_release import ConfirmedRelease
from smtpguard.service.invitation_desk import InvitationDesk
from smtpguard.service.inviting import Inviter
from smtpguard.service.metrics import Metrics
from smtpguard.service.quarantine_desk import QuarantineDesk
from smtpguard.service.token_desk import TokenDesk
from smtpguard.settings import Settings
from smtpguard.storage import Store, open_store
from smtpguard.telemetry import Logger, get_logger

if TYPE_CHECKING:
    from smtpguard.service.invitation_mail import InvitationMail


@dataclass(frozen=True)
class Desks:
    """What there is to work with."""

    addresses: AddressDesk
    invitations: InvitationDesk
    quarantine: QuarantineDesk
    tokens: TokenDesk
    store: Store
    clock: Callable[[], datetime]


@asynccontextmanager
async def open_desks(settings: Settings, *, logger: Logger | None = None) -> AsyncIterator[Desks]:
    """Open the store for an operator. Raises SchemaMismatch, StoreUnavailable."""
    logger = logger or get_logger()
    async with open_store(settings.store.url) as store:
        smarthost = Smarthost(settings.smarthost, hostname=settings.smtp.hostname)
        try:
            async with (
                task_group(logger) as spawn,
                desks_over(settings, store=store, smarthost=smarthost, spawn=spawn, logger=logger) as desks,
            ):
                yield desks
        finally:
            await smarthost.close()


@asynccontextmanager
async def desks_over(
    settings: Settings,
    *,
    store: Store,
    smarthost: Smarthost,
    spawn: Spawn,
    logger: Logger,
    metrics: Metrics | None = None,
) -> AsyncIterator[Desks]:
    """Put up the desks over a store and a smarthost that are open, before the tasks that they spawn end.

    ``metrics`` None: nobody asks for the numbers.
    """
    addresses = AddressDesk(store, clock, days(settings.verification.valid_for))
    quarantine = QuarantineDesk(store, smarthost, clock)
    challenges = Challenges()
    invitations = _invitation_desk(settings, quarantine, challenges, spawn, logger, metrics or Metrics())
    try:
        yield Desks(addresses, invitations, quarantine, TokenDesk(store, clock), store, clock)
    finally:
        invitations.close()
        challenges.close()


def days(number: int) -> timedelta | None:
    """Return so many days; in the settings 0 is for ever."""
    return timedelta(days=number) if number else None


def _invitation_desk(
    settings: Settings,
    quarantine: QuarantineDesk,
    challenges: Challenges,
    spawn: Spawn,
    logger: Logger,
    metrics: Metrics,
) -> InvitationDesk:
    verification, store = settings.verification, quarantine.store
    release = ConfirmedRelease(
        quarantine, spawn, up_to_days=verification.release_up_to, clock=clock, logger=logger, metrics=metrics
    )
    inviter = Inviter(
        store,
        quarantine.smarthost,
        challenges,
        verification,
        link_base=settings.web.public_url,
        lacking=settings.lacking_for_invitations,
        mail=cache(partial(_invitation_mail, settings)),
        clock=clock,
        new_id=new_transaction_id,
        new_token=new_link_token,
        logger=logger,
        metrics=metrics,
    )
    answers = Answers(
        store,
        challenges,
        verification.organisation,
        days(verification.valid_for),
        release.begin,
        clock,
        logger,
        metrics,
    )
    return InvitationDesk(inviter, answers, release, spawn, logger, metrics, invites=verification.invite_on_quarantine)


def _invitation_mail(settings: Settings) -> "InvitationMail":
    from smtpguard.service.invitation_mail import InvitationMail  # noqa: PLC0415 - heavy, and many need none

    return InvitationMail(settings.verification)
