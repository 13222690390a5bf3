"""The supervisor: it has the listening sockets and the settings, and keeps the workers running.

It serves nobody itself. Workers have what it has checked: nothing is read from the settings file by a worker.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from tempfile import TemporaryDirectory

from smtpguard.errors import SettingsError, SmtpguardError
from smtpguard.relay.tls import client_context
from smtpguard.serving import serve
from smtpguard.settings import Settings
from smtpguard.smtp.tls import load_certificate
from smtpguard.sockets import Part, Sockets, listen
from smtpguard.telemetry import Event, Logger, configure_logging, get_logger
from smtpguard.workers.channel import Answer, Begin, Reload
from smtpguard.workers.process import Spawn, WorkerProcess
from smtpguard.workers.shared import new_log_lock, new_rates_file, shared_output

YOUNG_SECONDS = 30.0
"""A worker that lives for less dies young."""
FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 30.0
_MAX_DOUBLINGS = 10  # more than enough for that; a power without a bound is no float any more after a night of deaths
ANSWER_SECONDS = 10.0
"""How long a worker may take to take over settings."""
BEGIN_SECONDS = 60.0
"""How long a worker may take to begin that is started again; an upgrade of the store was made at the start."""
KILL_AFTER_SECONDS = 10.0
"""How long beyond ``shutdown_timeout`` a worker may take to end."""


def run(settings: Settings, load: Callable[[], Settings], only: Part | None) -> None:
    """Run the guard, or one part of it, as several processes, until SIGTERM or SIGINT."""
    with new_log_lock() as log_lock, new_rates_file() as rates, TemporaryDirectory(prefix="smtpguard-") as metrics:
        shared = SharedFiles(log_lock.fileno(), rates.fileno(), metrics)
        configure_logging(format_=settings.log.format, level=settings.log.level, stream=shared_output(shared.log_lock))
        asyncio.run(serve(settings, load, running_workers(settings, shared, only)))


@dataclass(frozen=True, slots=True)
class SharedFiles:
    """The numbers of the open files that all workers inherit, beside the sockets, and a directory for their metrics."""

    log_lock: int
    rates: int
    metrics: str


@asynccontextmanager
async def running_workers(
    settings: Settings, shared: SharedFiles, only: Part | None = None
) -> AsyncIterator["Workers"]:
    """Run the workers for as long as the block.

    At the end nobody listens any more, and the workers finish what is past the end of data. Raises SmtpguardError where
    one of them cannot begin.
    """
    _check_files(settings)
    with ExitStack() as listening:
        sockets = listen(settings, only)
        for each in sockets.all:
            listening.enter_context(each.socket)
        try:
            async with asyncio.TaskGroup() as group:
                workers = Workers(settings, sockets, shared, spawn=group.create_task, logger=get_logger())
                try:
                    await workers.start()
                    yield workers
                finally:
                    listening.close()
                    await workers.close()
        except BaseExceptionGroup as group_of_one:
            # What the block itself raised is for its caller, who knows of no group.
            [error, *others] = group_of_one.exceptions
            if others:
                raise
            raise error from None


class Workers:
    """The workers, by number."""

    def __init__(
        self,
        settings: Settings,
        sockets: Sockets,
        shared: SharedFiles,
        *,
        spawn: Spawn,
        logger: Logger,
    ) -> None:
        self.endpoints = tuple(each.endpoint for each in sockets.smtp)
        """Where applications deliver."""
        self.web_endpoints = tuple(each.endpoint for each in sockets.web)
        """Where the API is."""
        self.page_endpoints = tuple(each.endpoint for each in sockets.pages)
        """Where the recipients' pages are."""
        self._settings = settings
        self._sockets = tuple((each.socket.fileno(), each.implicit_tls) for each in sockets.smtp)
        self._web_sockets = tuple(each.socket.fileno() for each in sockets.web)
        self._page_sockets = tuple(each.socket.fileno() for each in sockets.pages)
        self._shared = shared
        self._spawn = spawn
        self._logger = logger
        self._workers: dict[int, WorkerProcess] = {}
        self._ending = asyncio.Event()

    async def start(self) -> None:
        """Start them all: the first one alone, which upgrades the store. Raises SmtpguardError."""
        await self._start(1)
        await asyncio.gather(*(self._start(number) for number in range(2, self._settings.smtp.workers + 1)))
        for number in self._workers:
            self._spawn(self._keep(number))

    async def reload(self, settings: Settings) -> tuple[str, ...]:
        """Have all of them take over the applications, the policy and all certificates.

        Returns the sections that differ from those in force and want a restart. Raises SettingsError: nothing changed,
        or its message says where.
        """
        reloaded = self._settings.reloaded(settings)
        _check_files(reloaded)
        want_restart = self._settings.want_restart(settings)
        self._settings = reloaded  # a worker that is started from now on begins with these
        order = Reload(self._share)
        answers = await asyncio.gather(*(_answer(worker, order) for worker in self._workers.values()))
        for number, answer in zip(self._workers, answers, strict=True):
            if answer is not None and answer.error is not None:
                raise SettingsError(f"worker {number} alone goes on with the old settings: {answer.error}")
        return want_restart

    async def is_alive(self) -> bool:
        """Whether any of them is; one that serves and has not answered since the last time is killed, to start anew."""
        responds = [worker.responds(self._spawn) for worker in self._workers.values() if worker.is_ready]
        return any(responds)

    async def close(self) -> None:
        """End them all, together; one that does not end is killed."""
        self._ending.set()
        for worker in self._workers.values():
            worker.end()
        seconds = self._settings.smtp.shutdown_timeout + KILL_AFTER_SECONDS
        ended = [worker.ended for worker in self._workers.values()]
        if ended:
            await asyncio.wait(ended, timeout=seconds)
        for worker in self._workers.values():
            worker.kill(f"it did not end within {seconds:g} s")

    @property
    def _share(self) -> Settings:
        return self._settings.share_of_one(self._settings.smtp.workers)

    async def _start(self, number: int) -> WorkerProcess:
        """Start a worker and have it serve. Raises SmtpguardError, OSError."""
        shared = self._shared
        inherited = [*(descriptor for descriptor, _ in self._sockets), *self._web_sockets, *self._page_sockets]
        worker = await WorkerProcess.start(number, [*inherited, shared.log_lock, shared.rates])
        self._workers[number] = worker
        if self._ending.is_set():
            worker.end()
        begin = Begin(
            self._share,
            self._sockets,
            self._web_sockets,
            self._page_sockets,
            shared.log_lock,
            shared.rates,
            shared.metrics,
        )
        await worker.begin(begin)
        self._logger.info(Event.WORKER_STARTED, worker=number, pid=worker.pid)
        return worker

    async def _keep(self, number: int) -> None:
        """Start a worker again whenever it dies, with a growing pause where it dies young again and again."""
        clock = asyncio.get_running_loop().time
        life: Awaitable[str] = self._workers[number].ended
        young_deaths = 0
        while True:
            began_at = clock()
            how = await life
            if self._ending.is_set():
                return
            young_deaths = young_deaths + 1 if clock() - began_at < YOUNG_SECONDS else 0
            pause = pause_after(young_deaths)
            self._logger.error(Event.WORKER_DIED, worker=number, how=how, pause=pause)
            self._workers[number].end()  # what is open of the channel here
            await self._pause(pause)
            if self._ending.is_set():
                return
            life = self._another_life(number)

    async def _another_life(self, number: int) -> str:
        """Start a worker again; return how it ended, at its start or later."""
        try:
            async with asyncio.timeout(BEGIN_SECONDS):
                worker = await self._start(number)
        except TimeoutError:
            self._workers[number].kill(how := f"it did not begin within {BEGIN_SECONDS:g} s")
            return how
        except (SmtpguardError, OSError) as error:
            return str(error)
        return await worker.ended

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ending.wait()


def pause_after(young_deaths: int) -> float:
    """Return how many seconds to wait before a worker is started again that has died young so often in a row."""
    if young_deaths < 2:
        return 0.0
    doublings = min(young_deaths - 2, _MAX_DOUBLINGS)
    return min(FIRST_PAUSE_SECONDS * 2.0**doublings, MAX_PAUSE_SECONDS)


async def _answer(worker: WorkerProcess, order: Reload) -> Answer | None:
    """Return a worker's answer; one that hangs is killed, and begins anew with what it was to take over."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await worker.ask(order)
    except TimeoutError:
        worker.kill("it did not answer")
        return None


def _check_files(settings: Settings) -> None:
    """Read the files of TLS, as the workers will. Raises SettingsError."""
    load_certificate(settings.tls)
    client_context(settings.smarthost)
