"""The composition root: settings become objects, and all tasks belong to one TaskGroup. Here is the only clock."""

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import smtpguard
from smtpguard.domain.application import Application
from smtpguard.domain.ids import RANDOM_OCTETS, transaction_id
from smtpguard.relay.smarthost import Smarthost
from smtpguard.service.accept import Acceptor
from smtpguard.service.address_desk import AddressDesk
from smtpguard.service.quarantine_desk import QuarantineDesk
from smtpguard.settings import Endpoint, Settings, masked_url
from smtpguard.smtp.listener import SmtpServer
from smtpguard.storage import Store, current_revision, head_revision, is_embedded, open_store, upgrade
from smtpguard.telemetry import Event, Logger, get_logger

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


@asynccontextmanager
async def running_guard(settings: Settings) -> AsyncIterator[tuple[Endpoint, ...]]:
    """Run the guard for as long as the block; give the endpoints it listens on.

    At the end it listens no more, finishes what is past the end of data, and ends. Raises SchemaMismatch,
    StoreUnavailable, SettingsError.
    """
    logger = get_logger()
    await asyncio.to_thread(_upgrade_embedded, settings.store.url, logger)
    async with open_store(settings.store.url) as store:
        smarthost = Smarthost(settings.smarthost, hostname=settings.smtp.hostname)
        try:
            async with _tasks() as spawn:
                acceptor = Acceptor(store, smarthost, settings.smtp.hostname, clock, new_transaction_id, logger)
                server = SmtpServer(settings.smtp, applications(settings), acceptor, spawn=spawn, logger=logger)
                await server.start()
                try:
                    yield server.endpoints
                finally:
                    await server.close()
        finally:
            await smarthost.close()


async def serve(settings: Settings) -> None:
    """Run the guard until SIGTERM or SIGINT."""
    logger = get_logger()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running_guard(settings) as endpoints:
        logger.info(
            Event.GUARD_STARTED,
            version=smtpguard.__version__,
            listen=[str(endpoint) for endpoint in endpoints],
            smarthost=str(Endpoint(settings.smarthost.host, settings.smarthost.port)),
            store=masked_url(settings.store.url),
            mode=settings.policy.mode.value,
        )
        await stop.wait()
    logger.info(Event.GUARD_STOPPED)


def applications(settings: Settings) -> tuple[Application, ...]:
    """Build the applications with their policies."""
    return tuple(
        Application(each.name, each.networks, settings.policy.policy(each)) for each in settings.applications()
    )


@asynccontextmanager
async def _tasks() -> AsyncIterator[Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]]:
    """Give a way to start tasks; at the end of the block those that remain get LAST_SECONDS, and are cancelled then."""
    started: set[asyncio.Task[Any]] = set()
    try:
        async with asyncio.TaskGroup() as group:

            def spawn(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
                task = group.create_task(work)
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
