"""The composition root: settings become objects, and all tasks belong to one TaskGroup. Here is the only clock."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from smtpguard.domain.application import Application
from smtpguard.domain.ids import RANDOM_OCTETS, transaction_id
from smtpguard.domain.invitation import TOKEN_OCTETS
from smtpguard.relay.smarthost import Smarthost
from smtpguard.service.accept import Acceptor
from smtpguard.service.address_desk import AddressDesk
from smtpguard.service.answers import Answers
from smtpguard.service.challenges import Challenges
from smtpguard.service.confirmed_release import ConfirmedRelease
from smtpguard.service.housekeeping import Housekeeping
from smtpguard.service.invitation_desk import InvitationDesk
from smtpguard.service.inviting import Inviter
from smtpguard.service.logins import Logins
from smtpguard.service.quarantine_desk import QuarantineDesk
from smtpguard.service.rates import Rates
from smtpguard.settings import Endpoint, Settings
from smtpguard.smtp.connection import Connection
from smtpguard.smtp.context import Admission, SessionContext
from smtpguard.smtp.listener import SmtpServer
from smtpguard.smtp.sessions import Sessions
from smtpguard.smtp.sockets import ListeningSocket, listen
from smtpguard.smtp.tls import load_certificate
from smtpguard.spool import Spool
from smtpguard.storage import Store, current_revision, head_revision, is_embedded, open_store, upgrade
from smtpguard.telemetry import Event, Logger, get_logger

if TYPE_CHECKING:
    from smtpguard.service.invitation_mail import InvitationMail

Spawn = Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]

LAST_SECONDS = 1.0
"""For what is only being written down when the sessions have ended."""


def clock() -> datetime:
    """Tell the time, aware, in UTC."""
    return datetime.now(UTC)  # noqa: TID251 - the only clock


def new_transaction_id() -> str:
    """Make an id that no other transaction has."""
    return transaction_id(clock(), secrets.token_bytes(RANDOM_OCTETS))


@dataclass(frozen=True)
class Desks:
    """What the command line works with."""

    addresses: AddressDesk
    invitations: InvitationDesk
    quarantine: QuarantineDesk
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
                _tasks(logger) as spawn,
                _invitation_desk(settings, store, smarthost, spawn, logger) as invitations,
            ):
                addresses = AddressDesk(store, clock, _days(settings.verification.valid_for))
                yield Desks(addresses, invitations, QuarantineDesk(store, smarthost, clock), store, clock)
        finally:
            await smarthost.close()


class Guard:
    """A guard that runs."""

    def __init__(
        self, settings: Settings, server: SmtpServer, smarthost: Smarthost, invitations: InvitationDesk
    ) -> None:
        self.invitations = invitations
        self._settings = settings
        self._server = server
        self._smarthost = smarthost

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where it listens; those with TLS from the first octet come last."""
        return self._server.endpoints

    async def reload(self, settings: Settings) -> tuple[str, ...]:
        """Take over the applications, the policy and all certificates; open sessions go on.

        Returns the sections that differ from those in force and want a restart. Raises SettingsError: nothing changed.
        """
        admission = _admission(self._settings.reloaded(settings))
        self._smarthost.load_tls()
        self._server.replace_admission(admission)
        return self._settings.want_restart(settings)

    async def is_alive(self) -> bool:
        """Whether it does its work: it does if this can be asked."""
        return True


@asynccontextmanager
async def running_guard(
    settings: Settings,
    *,
    sockets: Iterable[ListeningSocket] | None = None,
    rates: Rates | None = None,
    logger: Logger | None = None,
    keeps_house: bool = True,
) -> AsyncIterator[Guard]:
    """Run the guard for as long as the block.

    A worker brings the sockets and rates that it shares with others, and a logger that says which worker it is; one of
    them keeps house. At the end it listens no more, finishes what is past the end of data, and ends. Raises
    SchemaMismatch, StoreUnavailable, SettingsError.
    """
    logger = logger or get_logger()
    rates = rates or Rates(asyncio.get_running_loop().time)
    admission = _admission(settings)
    smarthost = Smarthost(settings.smarthost, hostname=settings.smtp.hostname)
    smarthost.load_tls()
    await asyncio.to_thread(_upgrade_embedded, settings.store.url, logger)
    async with open_store(settings.store.url) as store:
        try:
            async with (
                _tasks(logger) as spawn,
                _invitation_desk(settings, store, smarthost, spawn, logger) as invitations,
            ):
                await asyncio.to_thread(invitations.load_templates)
                acceptor = _acceptor(settings, store, smarthost, invitations, logger)
                sessions: Sessions[Connection] = Sessions(
                    max_sessions=settings.smtp.max_sessions, max_per_network=settings.smtp.max_sessions_per_network
                )
                server = SmtpServer(SessionContext(settings.smtp, acceptor, admission, rates, sessions, spawn, logger))
                await server.start(listen(settings.smtp) if sockets is None else sockets)
                housekeeping = spawn(_housekeeping(settings, store, logger).run()) if keeps_house else None
                try:
                    yield Guard(settings, server, smarthost, invitations)
                finally:
                    if housekeeping is not None:
                        housekeeping.cancel()
                    await server.close()
        finally:
            await smarthost.close()


def _admission(settings: Settings) -> Admission:
    admitted = applications(settings)
    return Admission(
        admitted,
        Logins(admitted, asyncio.get_running_loop().time),
        load_certificate(settings.tls),
        tls_required=settings.tls.required,
    )


@asynccontextmanager
async def _invitation_desk(
    settings: Settings, store: Store, smarthost: Smarthost, spawn: Spawn, logger: Logger
) -> AsyncIterator[InvitationDesk]:
    verification, challenges = settings.verification, Challenges()
    release = ConfirmedRelease(
        QuarantineDesk(store, smarthost, clock),
        spawn,
        up_to_days=verification.release_up_to,
        clock=clock,
        logger=logger,
    )
    inviter = Inviter(
        store,
        smarthost,
        challenges,
        verification,
        link_base=settings.web.public_url,
        lacking=settings.lacking_for_invitations,
        mail=cache(partial(_invitation_mail, settings)),
        clock=clock,
        new_id=new_transaction_id,
        new_token=partial(secrets.token_bytes, TOKEN_OCTETS),
        logger=logger,
    )
    answers = Answers(store, challenges, verification.organisation, release.begin, clock, logger)
    desk = InvitationDesk(inviter, answers, release, spawn, logger)
    try:
        yield desk
    finally:
        desk.close()
        challenges.close()


def _invitation_mail(settings: Settings) -> "InvitationMail":
    from smtpguard.service.invitation_mail import InvitationMail  # noqa: PLC0415 - heavy, and many need none

    return InvitationMail(settings.verification)


def _acceptor(
    settings: Settings, store: Store, smarthost: Smarthost, invitations: InvitationDesk, logger: Logger
) -> Acceptor:
    smtp = settings.smtp
    spool = Spool(
        max_buffered_bytes=smtp.max_buffered_bytes, spool_above=smtp.spool_above, directory=smtp.spool_directory
    )
    invites = settings.verification.invite_on_quarantine and not settings.lacking_for_invitations
    return Acceptor(
        store,
        smarthost,
        spool,
        smtp.hostname,
        clock,
        new_transaction_id,
        logger,
        settings.verification.max_verification_mails_per_day,
        on_kept=invitations.invite_kept if invites else None,
    )


def _housekeeping(settings: Settings, store: Store, logger: Logger) -> Housekeeping:
    return Housekeeping(store, _days(settings.quarantine.retention), clock, logger)


def _days(number: int) -> timedelta | None:
    """Return so many days; in the settings 0 is for ever."""
    return timedelta(days=number) if number else None


def applications(settings: Settings) -> tuple[Application, ...]:
    """Build the applications with their policies."""
    return tuple(
        Application(
            each.name,
            each.networks,
            settings.policy.policy(each),
            each.username,
            each.password_hash,
            each.max_messages_per_minute,
            frozenset(each.reverse_path_domains),
            each.may_verify,
        )
        for each in settings.applications()
    )


@asynccontextmanager
async def _tasks(logger: Logger) -> AsyncIterator[Spawn]:
    """Give a way to start tasks; at the end of the block those that remain get LAST_SECONDS, and are cancelled then."""
    started: set[asyncio.Task[Any]] = set()
    try:
        async with asyncio.TaskGroup() as group:

            def spawn(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
                task = group.create_task(_watched(work, logger))
                started.add(task)
                task.add_done_callback(started.discard)
                return task

            try:
                yield spawn
            finally:
                await _finish(started)
    except BaseExceptionGroup as group_of_one:
        # What the block itself raised is for its caller, who knows of no group.
        [error, *others] = group_of_one.exceptions
        if others:
            raise
        raise error from None


async def _watched(work: Coroutine[Any, Any, Any], logger: Logger) -> Any:
    """Carry out work that is not to raise; if it does, that ends no other."""
    try:
        return await work
    except Exception as error:  # in a TaskGroup it would cancel everybody
        with suppress(Exception):
            logger.error(Event.TRANSACTION_FAILED, exc_info=error)


async def _finish(started: set[asyncio.Task[Any]]) -> None:
    if started:
        _, late = await asyncio.wait(started, timeout=LAST_SECONDS)
        for task in late:
            task.cancel()


def _upgrade_embedded(url: str, logger: Logger) -> None:
    """Upgrade a store of our own; to upgrade a PostgreSQL is for its operator to say."""
    if not is_embedded(url):
        return
    current, head = current_revision(url), head_revision()
    if current != head:
        upgrade(url)
        logger.info(Event.SCHEMA_UPGRADED, from_revision=current, to_revision=head)
