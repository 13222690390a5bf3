"""smtp-sink: takes every message, and appends it to a file."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.eventually import eventually
from tests.support.peers import need
from tests.support.process import answers, free_port, running


@dataclass(frozen=True)
class Sink:
    """A running smtp-sink, and the file that it appends every message to."""

    port: int
    dump: Path

    def recipients(self) -> list[str]:
        """The recipients of all messages, in the order of their arrival."""
        lines = self.dump.read_text("latin-1").splitlines() if self.dump.exists() else []
        return [line.partition("<")[2].partition(">")[0] for line in lines if line.startswith("X-Rcpt-Args:")]


@asynccontextmanager
async def smtp_sink(directory: Path) -> AsyncIterator[Sink]:
    """Run Postfix's smtp-sink."""
    program = need("smtp-sink", "postfix")
    port = free_port()
    user = ["-u", "root"] if os.geteuid() == 0 else []
    dump = directory / "sink.dump"
    command = [program, *user, "-D", str(dump), f"127.0.0.1:{port}", "100"]
    async with running(*command, log=directory / "sink.log"):
        await eventually(lambda: answers(port))
        yield Sink(port, dump)
