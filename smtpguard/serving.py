"""The life of the service: it starts, reads its settings again, tells the service manager, and ends, as signals say."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import smtpguard
from smtpguard.errors import SettingsError
from smtpguard.settings import Endpoint, Settings, masked_url
from smtpguard.systemd import ServiceManager
from smtpguard.telemetry import Event, Logger, get_logger


class Service(Protocol):
    """What runs: the guard in this process, or workers that do."""

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where applications deliver."""

    @property
    def web_endpoints(self) -> tuple[Endpoint, ...]:
        """Where its API is."""

    @property
    def page_endpoints(self) -> tuple[Endpoint, ...]:
        """Where the recipients' pages are."""

    async def reload(self, settings: Settings) -> tuple[str, ...]:
        """Take over what can be; return the sections that want a restart. Raises SettingsError."""

    async def is_alive(self) -> bool:
        """Whether the service manager may hear that it is."""


async def serve(
    settings: Settings, load: Callable[[], Settings], service: AbstractAsyncContextManager[Service]
) -> None:
    """Run the service until SIGTERM or SIGINT; ``load`` the settings again at SIGHUP."""
    logger = get_logger()
    manager = ServiceManager(os.environ, pid=os.getpid())
    signals: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, signals.put_nowait, number)
    async with service as running:
        _log_start(logger, settings, running)
        listening = (*running.endpoints, *running.web_endpoints, *running.page_endpoints)
        manager.ready(f"Listening on {', '.join(map(str, listening))}")
        while await _next_signal(signals, running, manager) == signal.SIGHUP:
            manager.reloading()
            await _reload(running, load, logger)
            manager.ready("Settings read again")
        manager.stopping()
    logger.info(Event.GUARD_STOPPED)


async def _next_signal(signals: asyncio.Queue[int], running: Service, manager: ServiceManager) -> int:
    while True:
        try:
            async with asyncio.timeout(manager.watchdog_seconds):
                return await signals.get()
        except TimeoutError:
            if await running.is_alive():
                manager.alive()


async def _reload(running: Service, load: Callable[[], Settings], logger: Logger) -> None:
    try:
        want_restart = await running.reload(await asyncio.to_thread(load))
    except SettingsError as error:
        logger.error(Event.RELOAD_FAILED, error=str(error))
    else:
        logger.info(Event.SETTINGS_RELOADED, want_restart=list(want_restart))


def _log_start(logger: Logger, settings: Settings, running: Service) -> None:
    logger.info(
        Event.GUARD_STARTED,
        version=smtpguard.__version__,
        listen=[str(endpoint) for endpoint in running.endpoints],
        web=[str(endpoint) for endpoint in running.web_endpoints],
        pages=[str(endpoint) for endpoint in running.page_endpoints],
        smarthost=str(Endpoint(settings.smarthost.host, settings.smarthost.port)),
        store=masked_url(settings.store.url),
        mode=settings.policy.mode.value,
        workers=settings.smtp.workers,
    )
    if settings.verification.invite_on_quarantine and settings.lacking_for_invitations:
        logger.info(Event.INVITATIONS_OFF, not_set=list(settings.lacking_for_invitations))
