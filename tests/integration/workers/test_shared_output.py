"""The log of several processes on one pipe: what is a line stays a line."""

import fcntl
import os
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from smtpguard.workers.shared import new_log_lock
from tests.support.eventually import eventually

PIPE_OCTETS = 65_536
WRITER = """
import sys
from smtpguard.workers.shared import shared_output

output, (letter, length, lines) = shared_output(int(sys.argv[1])), sys.argv[2:]
for _ in range(int(lines)):
    output.write(letter * int(length))
    output.write("\\n")
    output.flush()
"""


@dataclass(frozen=True)
class Pipe:
    """A pipe that processes write to under one lock."""

    reader: int
    writer: int
    lock: int

    def write(self, letter: str, *, length: int, lines: int = 1) -> subprocess.Popen[bytes]:
        """Start a process that writes lines of one letter."""
        return subprocess.Popen(
            [sys.executable, "-c", WRITER, str(self.lock), letter, str(length), str(lines)],
            stdout=self.writer,
            pass_fds=[self.lock],
            cwd=Path(__file__).parents[3],
        )

    @property
    def waiting(self) -> int:
        """How many octets nobody has read."""
        return int(struct.unpack("i", fcntl.ioctl(self.reader, termios.FIONREAD, b"\0\0\0\0"))[0])

    def lines_of(self, *writers: subprocess.Popen[bytes]) -> list[str]:
        """Read until all of them have ended."""
        closing = threading.Thread(target=lambda: ([each.wait() for each in writers], os.close(self.writer)))
        closing.start()
        with open(self.reader, encoding="ascii", closefd=False) as stream:
            lines = stream.read().splitlines()
        closing.join()
        return lines


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reader, writer = os.pipe()
    with new_log_lock() as lock:
        yield Pipe(reader, writer, lock.fileno())
    os.close(reader)


def test_long_lines_of_several_do_not_mix(pipe) -> None:
    """Each of them is longer than what the kernel writes at once."""
    written = [pipe.write(letter, length=200_000, lines=20) for letter in "abc"]
    lines = pipe.lines_of(*written)

    assert sorted(lines) == sorted(letter * 200_000 for letter in "abc" for _ in range(20))
    assert [each.returncode for each in written] == [0, 0, 0]


async def test_line_behind_one_that_was_cut_off_is_a_line(pipe) -> None:
    """A worker is killed while it waits for a slow reader, in the middle of a line."""
    killed = pipe.write("x", length=1_000_000)
    await eventually(lambda: pipe.waiting == PIPE_OCTETS)
    killed.kill()
    killed.wait()
    lines = pipe.lines_of(pipe.write("a", length=10, lines=2))

    assert lines == ["x" * PIPE_OCTETS, "a" * 10, "a" * 10]
