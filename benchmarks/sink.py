"""smtp-sink: the mail server behind everything; it takes each message and counts it."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import free_port, running, wait_until

BACKLOG = 1000
MAX_SESSIONS = 2000
TAIL_OCTETS = 400
_COUNT = re.compile(rb"mesg=([0-9]+)")


@dataclass(frozen=True)
class Sink:
    """A running smtp-sink, and the file that it writes its counters into."""

    port: int
    pid: int
    counters: Path

    def count(self) -> int:
        """Return how many messages it has taken."""
        with self.counters.open("rb") as file:
            file.seek(max(0, self.counters.stat().st_size - TAIL_OCTETS))
            counts = _COUNT.findall(file.read())
        return int(counts[-1]) if counts else 0

    def wait_for(self, count: int, *, within: float) -> None:
        """Wait until it has taken so many; raise BenchmarkError if it has not within so many seconds."""
        wait_until(lambda: self.count() >= count, f"smtp-sink has taken {count} messages", within=within)


def sink_command(port: int | str) -> list[str]:
    """Return the command; as root it must be told for whom to give that up."""
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    return ["smtp-sink", *user, "-c", "-m", str(MAX_SESSIONS), f"127.0.0.1:{port}", str(BACKLOG)]


@contextmanager
def running_sink(directory: Path) -> Iterator[Sink]:
    """Run it for as long as the block."""
    port = free_port()
    counters = directory / "smtp-sink.log"
    with running(sink_command(port), log=counters, port=port) as pid:
        yield Sink(port, pid, counters)
