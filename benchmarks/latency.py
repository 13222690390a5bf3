"""How long one message takes, from when it was due to its 250: an open loop.

Messages fall due at a steady rate, whether or not the system keeps up, and wait for a free session of the client where
it does not; that waiting counts. A closed loop, which sends the next message when the last one is answered, would ask
nothing of a system while it stalls, and so leave out the worst (coordinated omission).
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import uvloop

from benchmarks.loads import KIB_4, REVERSE_PATH, VERIFIED
from benchmarks.processes import BenchmarkError
from benchmarks.results import Measurement, percentile
from benchmarks.systems import System
from benchmarks.throughput import rotated

SESSIONS = 20
PERCENTS = (50, 90, 99)
SLACK_SECONDS = 60
_BODY = b"Subject: benchmark\r\n\r\n" + (b"x" * 78 + b"\r\n") * (KIB_4 // 80) + b".\r\n"


@dataclass(frozen=True)
class Timetable:
    """So many messages a second, for so many seconds."""

    rate: int
    seconds: float

    @property
    def messages(self) -> int:
        """How many that are."""
        return int(self.rate * self.seconds)


class Due(NamedTuple):
    """A message to send, and the moment when it was due."""

    recipient: str
    moment: float


class Session:
    """One kept connection, without pipelining, as most applications have it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def greet(self) -> None:
        """Say EHLO."""
        await self._expect(b"220")
        await self._ask(b"EHLO bench.example.com", b"250")

    async def send(self, recipient: str) -> None:
        """Send one message; raise BenchmarkError where it is not taken."""
        await self._ask(b"MAIL FROM:<%s>" % REVERSE_PATH.encode(), b"250")
        await self._ask(b"RCPT TO:<%s>" % recipient.encode(), b"250")
        await self._ask(b"DATA", b"354")
        self._writer.write(_BODY)
        await self._expect(b"250")

    async def quit(self) -> None:
        """Say QUIT."""
        await self._ask(b"QUIT", b"221")

    def close(self) -> None:
        """Hang up."""
        self._writer.close()

    async def _ask(self, command: bytes, code: bytes) -> None:
        self._writer.write(command + b"\r\n")
        await self._expect(code)

    async def _expect(self, code: bytes) -> None:
        line = await self._reader.readline()
        while line[3:4] == b"-":
            line = await self._reader.readline()
        if not line.startswith(code):
            raise BenchmarkError(f"a reply was {line.decode('ascii', 'replace').strip()!r}, not {code.decode()}")


def measure_latency(
    systems: Sequence[System], rates: Sequence[int], *, seconds: float, rounds: int
) -> Iterator[Measurement]:
    """Measure each system at each rate, round by round."""
    for number in range(rounds):
        for rate in rates:
            for system in rotated(systems, number):
                measurement = Measurement("latency", f"{rate}/s", system.name, number)
                yield _measure(measurement, system, Timetable(rate, seconds))


def _measure(measurement: Measurement, system: System, timetable: Timetable) -> Measurement:
    try:
        latencies = uvloop.run(offer(system.port, timetable))
    except (BenchmarkError, OSError) as error:
        return measurement.failed(str(error))
    except TimeoutError:
        return measurement.failed(f"it was {SLACK_SECONDS} s late")
    percentiles = {f"p{percent}": percentile(latencies, percent) for percent in PERCENTS}
    return measurement.with_figures({**percentiles, "max": max(latencies), "messages": len(latencies)})


async def offer(port: int, timetable: Timetable) -> list[float]:
    """Send by the timetable; return how many milliseconds each message took from when it was due."""
    due: asyncio.Queue[Due | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def hand_out(message: Due | None) -> None:
        loop.call_soon_threadsafe(due.put_nowait, message)

    latencies: list[float] = []
    async with asyncio.timeout(timetable.seconds + SLACK_SECONDS):
        sessions = [Session(*await asyncio.open_connection("127.0.0.1", port)) for _ in range(SESSIONS)]
        try:
            for session in sessions:
                await session.greet()
            async with asyncio.TaskGroup() as tasks:
                for session in sessions:
                    tasks.create_task(_work_off(session, due, latencies))
                await asyncio.to_thread(_fall_due, timetable, time.perf_counter(), hand_out)
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            for session in sessions:
                session.close()
    return latencies


def _fall_due(timetable: Timetable, began: float, hand_out: Callable[[Due | None], None]) -> None:
    """Hand out each message when it is due; in a thread, since the timers of an event loop round to milliseconds."""
    for number in range(1, timetable.messages + 1):
        moment = began + number / timetable.rate
        time.sleep(max(0, moment - time.perf_counter()))
        hand_out(Due(f"{number}{VERIFIED}", moment))
    for _ in range(SESSIONS):
        hand_out(None)


async def _work_off(session: Session, due: "asyncio.Queue[Due | None]", latencies: list[float]) -> None:
    while message := await due.get():
        await session.send(message.recipient)
        latencies.append((time.perf_counter() - message.moment) * 1000)
    await session.quit()
