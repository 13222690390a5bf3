"""A worker as its supervisor sees it: a process, and the channel to it."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from smtpguard.errors import SmtpguardError
from smtpguard.workers.channel import Answer, Begin, Channel, Ping, Reload

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

Spawn = Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]


class WorkerProcess:
    """A worker, from its start to its end."""

    def __init__(self, process: subprocess.Popen[bytes], channel: Channel) -> None:
        loop = asyncio.get_running_loop()
        self.pid = process.pid
        self.is_ready = False
        """Whether it serves."""
        self._ended: asyncio.Future[str] = loop.create_future()
        self._process = process
        self._channel = channel
        self._speaking = asyncio.Lock()
        self._ping: asyncio.Task[Answer | None] | None = None
        self._killed_because = ""
        threading.Thread(target=self._wait, args=(loop,), name=f"worker-{self.pid}", daemon=True).start()

    @classmethod
    async def start(cls, number: int, descriptors: Iterable[int]) -> "WorkerProcess":
        """Start a process that inherits these files. Raises OSError."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = _start(number, theirs.fileno(), descriptors)
        return cls(process, await Channel.over(ours))

    @property
    def ended(self) -> asyncio.Future[str]:
        """Done when its process has ended; how. Who is cancelled while waiting cancels nobody else's waiting."""
        return asyncio.shield(self._ended)

    async def begin(self, order: Begin) -> None:
        """Have it serve. Raises SmtpguardError where it cannot; then its process ends, or has ended."""
        answer = await self.ask(order)
        if answer is None:
            raise SmtpguardError(f"a worker ended before it could serve: {await self.ended}")
        if answer.error is not None:
            raise SmtpguardError(answer.error)
        self.is_ready = True

    async def ask(self, order: Begin | Reload | Ping) -> Answer | None:
        """Give an order and return the answer; None: the worker is gone."""
        async with self._speaking:
            await self._channel.send(order)
            answer = await self._channel.receive()
        return answer if isinstance(answer, Answer) else None

    def responds(self, spawn: Spawn) -> bool:
        """Whether it has answered since this was asked the last time; if not, it is killed."""
        if self._ping is not None and not self._ping.done():
            self.kill("it did not respond")
            return False
        self._ping = spawn(self.ask(Ping()))
        return True

    def end(self) -> None:
        """Have it finish what is past the end of data, and end."""
        self._channel.close()

    def kill(self, why: str) -> None:
        """End it at once, if it has not ended."""
        if not self._ended.done():
            self._killed_because = why
            self._process.kill()

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        code = self._process.wait()
        with suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(self._note_end, code)

    def _note_end(self, code: int) -> None:
        self.is_ready = False
        self._ended.set_result(self._killed_because or _how(code))


def _start(number: int, channel: int, descriptors: Iterable[int]) -> subprocess.Popen[bytes]:
    """Start the process. It finds the modules where this one has found them, and inherits that signals are blocked.

    A Ctrl-C reaches every process of the terminal, and a service manager may signal all of them; only the supervisor
    is to act on it.
    """
    command = [sys.executable, "-P", "-m", "smtpguard.workers.worker", str(number), str(channel)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        return subprocess.Popen(  # noqa: S603 - nothing in it comes from outside
            command, stdin=subprocess.DEVNULL, pass_fds=(channel, *descriptors), env=environment
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:  # most of the real-time signals have no name
        return f"killed by signal {-code}"
