"""The installed command as a process, and other servers: on ports of their own, ended by their own process id."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.eventually import eventually

SMTPGUARD = (sys.executable, "-m", "smtpguard")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of this process without any setting of a guard."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("SMTPGUARD_")}
    return kept | dict(extra or {})


async def answers(port: int) -> bool:
    """Whether something listens."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def run(*command: str | Path, env: Mapping[str, str] | None = None, stdin: bytes = b"") -> tuple[int, str, str]:
    """Run a command to its end: exit code, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=clean_environment(env),
    )
    async with asyncio.timeout(90):
        out, err = await process.communicate(stdin)
    return process.returncode or 0, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")


@asynccontextmanager
async def running(
    *command: str | Path, log: Path, env: Mapping[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a server for as long as the block, in a process group of its own; both outputs are appended to ``log``."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=clean_environment(env),
            start_new_session=True,
        )
    try:
        yield process
    finally:
        await stop(process)


async def stop(process: asyncio.subprocess.Process, number: int = signal.SIGTERM) -> int:
    """End a process of ours and what it started; return its exit code."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    try:
        async with asyncio.timeout(30):
            return await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return await process.wait()


class GuardProcess:
    """``smtpguard serve`` as a process, with its log."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.environment = environment
        self.log = log
        self.process: asyncio.subprocess.Process | None = None
        self.port = 0

    async def start(self, *command: str) -> None:
        """Start it, with another command than ``serve`` where one is given, and wait until it says that it listens."""
        log_bytes = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                *SMTPGUARD, *(command or ("serve",)), stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                env=clean_environment(self.environment), start_new_session=True,
            )  # fmt: skip
        await eventually(lambda: self._ended() or self.events("guard-started", behind=log_bytes) != [], within=60)
        assert not self._ended(), self.log.read_text()
        listens = self.events("guard-started")[-1]["listen"]
        self.port = int(listens[0].rpartition(":")[2]) if listens else 0

    async def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        return await stop(self.process, number)

    def events(self, name: str, *, behind: int = 0) -> list[dict[str, Any]]:
        """The log lines of one event, from so many octets of the log on. It is asked again and again: it reads no others."""
        if not self.log.exists():
            return []
        with self.log.open("rb") as log:
            log.seek(behind)
            lines = [line for line in log.read().decode().splitlines() if line.startswith("{") and f'"{name}"' in line]
        return [event for event in map(json.loads, lines) if event["event"] == name]

    async def command(self, *arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        """Run an operator's command on the same store."""
        return await run(*SMTPGUARD, *arguments, env=self.environment, stdin=stdin)

    async def quarantine(self) -> list[dict[str, Any]]:
        """What ``quarantine list --json`` shows."""
        code, out, err = await self.command("quarantine", "list", "--json", "--limit", "0")
        assert code == 0, err
        return [json.loads(line) for line in out.splitlines()]

    def _ended(self) -> bool:
        return self.process is not None and self.process.returncode is not None


@asynccontextmanager
async def guard_process(
    store_url: str, smarthost_port: int, directory: Path, **extra: str
) -> AsyncIterator[GuardProcess]:
    """Run the installed command between this test and a smarthost."""
    environment = {
        "SMTPGUARD_SMTP__LISTEN": "127.0.0.1:0",
        "SMTPGUARD_SMTP__HOSTNAME": "guard.example",
        "SMTPGUARD_SMARTHOST__HOST": "127.0.0.1",
        "SMTPGUARD_SMARTHOST__PORT": str(smarthost_port),
        "SMTPGUARD_STORE__URL": store_url,
        "SMTPGUARD_WEB__LISTEN": "",
        "SMTPGUARD_OPERATOR": "test",
        **extra,
    }
    guard = GuardProcess(environment, directory / "guard.log")
    await guard.start()
    try:
        yield guard
    finally:
        await guard.end()
