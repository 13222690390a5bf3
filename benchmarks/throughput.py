"""Messages a second: smtp-source sends as fast as a system takes; the systems take turns, in another order each round.

The clock runs from the start of smtp-source until every message has got where it belongs: to the sink, or, of mail
that is kept back, to its 250.
"""

import subprocess
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from subprocess import DEVNULL
from tempfile import TemporaryFile

from benchmarks import proc
from benchmarks.loads import Load
from benchmarks.processes import BenchmarkError, ended_at_last, last_line, wait_until
from benchmarks.results import RATE, Measurement
from benchmarks.sink import Sink
from benchmarks.systems import System

MOST_SECONDS = 120.0
QUIET_SECONDS = 1.0


@dataclass(frozen=True)
class Pace:
    """How long to measure: about so many seconds at a time, in so many rounds."""

    seconds: float = 2.0
    rounds: int = 3


@dataclass
class Contest:
    """Systems that run side by side and are measured in turn."""

    series: str
    systems: Sequence[System]
    sink: Sink
    addresses: int
    pace: Pace
    _rates: dict[tuple[str, str], float] = field(default_factory=dict, init=False)

    def measure(self, loads: Sequence[Load]) -> Iterator[Measurement]:
        """Measure each system under each load, round by round."""
        for number in range(self.pace.rounds):
            for load in loads:
                for system in rotated(self.systems, number):
                    yield self._measure(system, load, number)

    def _measure(self, system: System, load: Load, number: int) -> Measurement:
        measurement = Measurement(self.series, load.name, system.name, number, command=load.shown())
        try:
            if (system.name, load.name) not in self._rates:
                self._send(system, load)  # it warms the system up, and tells how many messages the wanted time takes
            return measurement.with_figures(self._send(system, load))
        except BenchmarkError as error:
            self._settle()
            return measurement.failed(str(error))

    def _send(self, system: System, load: Load) -> dict[str, float]:
        last_rate = self._rates.get((system.name, load.name), 0)
        messages = load.messages_for(last_rate, self.pace.seconds, self.addresses)
        figures = send(load, system, self.sink, messages)
        self._rates[system.name, load.name] = figures[RATE]
        return figures

    def _settle(self) -> None:
        """Wait until nothing arrives any more: what is late must not count for the next run."""
        last = -1
        while last != self.sink.count():
            last = self.sink.count()
            time.sleep(QUIET_SECONDS)


def rotated(systems: Sequence[System], number: int) -> list[System]:
    """Return the systems in the order of a round."""
    order = deque(systems)
    order.rotate(-number)
    return list(order)


def send(load: Load, system: System, sink: Sink, messages: int, *, within: float = MOST_SECONDS) -> dict[str, float]:
    """Send so many messages; return the figures. Raises BenchmarkError where one is missing, or one too many came."""
    through, kept = (0, messages) if load.is_kept_back else (messages, 0)
    wanted = sink.count() + through
    kept_before = system.kept() if kept else 0
    proc.forget_peaks(system.pids)
    used, used_by_store = proc.cpu_seconds(system.pids), proc.cpu_seconds(system.store_pids)
    began = time.perf_counter()
    _run_source(load.command(messages, system.port), within=within)
    sink.wait_for(wanted, within=within)
    seconds = time.perf_counter() - began
    used, used_by_store = proc.cpu_seconds(system.pids) - used, proc.cpu_seconds(system.store_pids) - used_by_store
    memory, of_store = proc.memory(system.pids), proc.memory(system.store_pids)
    _ensure_equal(wanted, sink.count(), "messages that smtp-sink has taken")
    if kept:
        _ensure_equal(kept_before + kept, system.kept(), "messages that are kept back")
    return {
        "messages": messages,
        "seconds": seconds,
        RATE: messages / seconds,
        "cpu": 1000 * used / messages,
        "store cpu": 1000 * used_by_store / messages,
        "rss": memory.largest_rss,
        "peak": memory.largest_peak,
        "pss": memory.pss,
        "store pss": of_store.pss,
    }


def _ensure_equal(wanted: int, found: int, what: str) -> None:
    if wanted != found:
        raise BenchmarkError(f"{what}: {found}, and not {wanted}")


def _run_source(command: Sequence[str], *, within: float) -> None:
    with TemporaryFile() as errors:
        process = subprocess.Popen(command, stdin=DEVNULL, stdout=DEVNULL, stderr=errors, start_new_session=True)
        with ended_at_last(process):
            wait_until(lambda: process.poll() is not None, "smtp-source has sent it all", within=within)
        if process.returncode != 0:
            raise BenchmarkError(f"smtp-source ended with {process.returncode}: {last_line(errors)}")
