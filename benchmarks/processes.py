"""Programs as processes of the benchmark: commands that end, servers that are ended by their own process id.

Every server has a session of its own, so that Ctrl-C reaches the benchmark alone, which then ends them in order.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

START_SECONDS = 60
STOP_SECONDS = 60
POLL_SECONDS = 0.002
KIB_A_MIB = 1024

SMTPGUARD = (sys.executable, "-m", "smtpguard")


class BenchmarkError(Exception):
    """The benchmark cannot go on, or a part of it failed; one line says why."""


@dataclass(frozen=True)
class Ended:
    """A command that has ended with exit code 0."""

    seconds: float
    peak_mib: float
    """Of resident memory."""
    out: str


def run_command(command: Sequence[str | Path]) -> Ended:
    """Run a command to its end; raise BenchmarkError with the last line of what it said where it fails."""
    with TemporaryFile() as out, TemporaryFile() as err:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment())
        with ended_at_last(process):
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        if process.returncode != 0:
            raise BenchmarkError(f"{Path(command[0]).name} ended with {process.returncode}: {last_line(err)}")
        out.seek(0)
        return Ended(seconds, usage.ru_maxrss / KIB_A_MIB, out.read().decode("utf-8", "replace"))


@contextmanager
def running(command: Sequence[str | Path], *, log: Path, port: int) -> Iterator[int]:
    """Run a server for as long as the block; give its process id once something listens on the port."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(),
            start_new_session=True,
        )
    with ended_at_last(process):
        wait_until(lambda: process.poll() is not None or answers(port), f"{log.stem} listens", within=START_SECONDS)
        if process.returncode is not None:
            raise BenchmarkError(f"{log.stem} did not start: {last_line_of(log)}")
        yield process.pid


@contextmanager
def ended_at_last(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """End the process, whatever happens in the block, unless it has ended by itself."""
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()
            _wait_or_kill(process)


def _wait_or_kill(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        if os.getpgid(process.pid) == process.pid:  # what it started goes with it
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()


def end_process(pid: int) -> None:
    """End a process that is no child of ours, and wait until it has gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        with suppress(BenchmarkError):
            wait_until(lambda: not Path(f"/proc/{pid}").exists(), f"process {pid} ends", within=STOP_SECONDS)
            return


def wait_until(condition: Callable[[], bool], what: str, *, within: float) -> None:
    """Return as soon as the condition holds; raise BenchmarkError if it does not within so many seconds."""
    end = time.monotonic() + within
    while not condition():
        if time.monotonic() > end:
            raise BenchmarkError(f"waited {within:g} s in vain until {what}")
        time.sleep(POLL_SECONDS)


def answers(port: int) -> bool:
    """Whether something listens on this port of loopback."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def free_port() -> int:
    """Find a port of loopback that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def environment() -> dict[str, str]:
    """Return the environment without any setting of a guard: only the file of the benchmark counts."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith("SMTPGUARD_")}


def last_line_of(log: Path) -> str:
    """Return the last line of a log."""
    with log.open("rb") as file:
        return last_line(file)


def last_line(file: IO[bytes]) -> str:
    """Return the last line of an open file, cut."""
    file.seek(0)
    lines = file.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else "it said nothing"
