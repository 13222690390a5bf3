"""The composition root: settings become objects, and all tasks belong to one TaskGroup. Here is the only clock."""

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import smtpguard
from smtpguard.domain.application import Application
from smtpguard.domain.ids import RANDOM_OCTETS, transaction_id
from smtpguard.errors import SettingsError
from smtpguard.relay.smarthost import Smarthost
from smtpguard.service.accept import Acceptor
from smtpguard.service.address_desk import AddressDesk
from smtpguard.service.logins import Logins
from smtpguard.service.quarantine_desk import QuarantineDesk
from smtpguard.service.rates import Rates
from smtpguard.settings import Endpoint, Settings, masked_url
from smtpguard.smtp.connection import Admission, SessionContext
from smtpguard.smtp.listener import SmtpServer
from smtpguard.smtp.sessions import Sessions
from smtpguard.smtp.tls import load_certificate
from smtpguard.spool import Spool
from smtpguard.storage import Store, current_revision, head_revision, is_embedded, open_store, upgrade
from smtpguard.systemd import ServiceManager
from smtpguard.telemetry import Event, Logger, get_logger

LAST_SECONDS = 1.0
"""For what is only being written down when the sessions have ended."""

_FIXED_SECTIONS = ("smtp", "smarthost", "store", "log")  # what SIGHUP does not change


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
    quarantine: QuarantineDesk
    store: Store
    clock: Callable[[], datetime]


@asynccontextmanager
async def open_desks(settings: Settings) -> AsyncIterator[Desks]:
    """Open the store for an operator. Raises SchemaMismatch, StoreUnavailable."""
    async with open_store(settings.store.url) as store:
        smarthost = Smarthost(settings.smarthost, hostname=settings.smtp.hostname)
        try:
            yield Desks(AddressDesk(store, clock), QuarantineDesk(store, smarthost, clock), store, clock)
        finally:
            await smarthost.close()


class Guard:
    """A guard that runs."""

    def __init__(self, settings: Settings, server: SmtpServer, smarthost: Smarthost) -> None:
        self._settings = settings
        self._server = server
        self._smarthost = smarthost

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where it listens; those with TLS from the first octet come last."""
        return self._server.endpoints

    def reload(self, settings: Settings) -> tuple[str, ...]:
        """Take over the applications, the policy and all certificates; open sessions go on.

        Returns the sections that differ from those in force and want a restart. Raises SettingsError: nothing changed.
        """
        _refuse_unfit(settings, self._settings)
        admission = _admission(settings)
        self._smarthost.load_tls()
        self._server.replace_admission(admission)
        return tuple(name for name in _FIXED_SECTIONS if getattr(settings, name) != getattr(self._settings, name))


@asynccontextmanager
async def running_guard(settings: Settings) -> AsyncIterator[Guard]:
    """Run the guard for as long as the block.

    At the end it listens no more, finishes what is past the end of data, and ends. Raises SchemaMismatch,
    StoreUnavailable, SettingsError.
    """
    logger = get_logger()
    admission = _admission(settings)
    smarthost = Smarthost(settings.smarthost, hostname=settings.smtp.hostname)
    smarthost.load_tls()
    await asyncio.to_thread(_upgrade_embedded, settings.store.url, logger)
    async with open_store(settings.store.url) as store:
        try:
            async with _tasks() as spawn:
                context = _session_context(settings, admission, store, smarthost, spawn)
                server = SmtpServer(context)
                await server.start()
                try:
                    yield Guard(settings, server, smarthost)
                finally:
                    await server.close()
        finally:
            await smarthost.close()


async def serve(settings: Settings, load: Callable[[], Settings]) -> None:
    """Run the guard until SIGTERM or SIGINT; ``load`` the settings again at SIGHUP."""
    logger = get_logger()
    manager = ServiceManager(os.environ, pid=os.getpid())
    signals: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, signals.put_nowait, number)
    async with running_guard(settings) as guard:
        _log_start(logger, settings, guard)
        manager.ready(f"Listening on {', '.join(map(str, guard.endpoints))}")
        while await _next_signal(signals, manager) == signal.SIGHUP:
            manager.reloading()
            await _reload(guard, load, logger)
            manager.ready("Settings read again")
        manager.stopping()
    logger.info(Event.GUARD_STOPPED)


async def _next_signal(signals: asyncio.Queue[int], manager: ServiceManager) -> int:
    while True:
        try:
            async with asyncio.timeout(manager.watchdog_seconds):
                return await signals.get()
        except TimeoutError:
            manager.alive()


async def _reload(guard: Guard, load: Callable[[], Settings], logger: Logger) -> None:
    try:
        want_restart = guard.reload(await asyncio.to_thread(load))
    except SettingsError as error:
        logger.error(Event.RELOAD_FAILED, error=str(error))
    else:
        logger.info(Event.SETTINGS_RELOADED, want_restart=list(want_restart))


def _log_start(logger: Logger, settings: Settings, guard: Guard) -> None:
    logger.info(
        Event.GUARD_STARTED,
        version=smtpguard.__version__,
        listen=[str(endpoint) for endpoint in guard.endpoints],
        smarthost=str(Endpoint(settings.smarthost.host, settings.smarthost.port)),
        store=masked_url(settings.store.url),
        mode=settings.policy.mode.value,
    )


def _refuse_unfit(settings: Settings, running: Settings) -> None:
    """Raise SettingsError where what is taken over does not fit what stays as it is."""
    try:
        settings.model_copy(update={"smtp": running.smtp}).ensure_fit()
    except ValueError as error:
        raise SettingsError(f"without a restart: {error}") from error


def _admission(settings: Settings) -> Admission:
    admitted = applications(settings)
    return Admission(
        admitted,
        Logins(admitted, asyncio.get_running_loop().time),
        load_certificate(settings.tls),
        tls_required=settings.tls.required,
    )


def _session_context(
    settings: Settings,
    admission: Admission,
    store: Store,
    smarthost: Smarthost,
    spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
) -> SessionContext:
    smtp, logger = settings.smtp, get_logger()
    spool = Spool(
        max_buffered_bytes=smtp.max_buffered_bytes, spool_above=smtp.spool_above, directory=smtp.spool_directory
    )
    return SessionContext(
        settings=smtp,
        acceptor=Acceptor(store, smarthost, spool, smtp.hostname, clock, new_transaction_id, logger),
        admission=admission,
        rates=Rates(asyncio.get_running_loop().time),
        sessions=Sessions(max_sessions=smtp.max_sessions, max_per_network=smtp.max_sessions_per_network),
        spawn=spawn,
        logger=logger,
    )


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
        )
        for each in settings.applications()
    )


@asynccontextmanager
async def _tasks() -> AsyncIterator[Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]]:
    """Give a way to start tasks; at the end of the block those that remain get LAST_SECONDS, and are cancelled then."""
    started: set[asyncio.Task[Any]] = set()
    try:
        async with asyncio.TaskGroup() as group:

            def spawn(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
                task = group.create_task(_watched(work))
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


async def _watched(work: Coroutine[Any, Any, Any]) -> Any:
    """Carry out work that is not to raise; if it does, that ends no other."""
    try:
        return await work
    except Exception as error:  # noqa: BLE001 - in a TaskGroup it would cancel everybody
        with suppress(Exception):
            get_logger().error(Event.TRANSACTION_FAILED, exc_info=error)


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
