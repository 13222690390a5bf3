"""The benchmark in its smallest: one cell, the guard and no system."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.support.eventually import eventually
from tests.support.peers import need
from tests.support.process import clean_environment

pytestmark = pytest.mark.peers

ROOT = Path(__file__).parents[3]
SMALL = ("--cells", "k10", "--systems", "direct,guard", "--engines", "sqlite", "--addresses", "500")


@contextmanager
def benchmark(work: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    need("smtp-source", "postfix")
    command = [sys.executable, "-m", "benchmarks", *SMALL, "--work", str(work), *more]
    with subprocess.Popen(
        command, cwd=ROOT, env=clean_environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def left_over(work: Path) -> list[str]:
    """The processes that know the work directory."""
    processes = psutil.process_iter(["cmdline"])
    return [
        " ".join(each.info["cmdline"])
        for each in processes
        if any(str(work) in word for word in each.info["cmdline"] or ())
    ]


def test_one_cell(tmp_path) -> None:
    with benchmark(tmp_path, "--rounds", "1", "--seconds", "0.1") as process:
        out, _ = process.communicate(timeout=60)

    assert process.returncode == 0, out
    [results] = (tmp_path / "results").iterdir()
    head, *measured = map(json.loads, results.read_text().splitlines())
    assert head["machine"]["Python"]
    assert [(each["system"], each["failure"]) for each in measured] == [("direct", ""), ("guard-sqlite", "")]
    assert all(each["figures"]["messages/s"] > 0 for each in measured)
    assert measured[1]["figures"]["rss"] > 0
    assert "### The cells" in out
    assert left_over(tmp_path) == []


async def test_interrupted(tmp_path) -> None:
    """All that was started is ended, and what was measured is kept."""
    results = tmp_path / "results"
    with benchmark(tmp_path, "--rounds", "1000", "--seconds", "0.1") as process:
        await eventually(lambda: '"guard-sqlite"' in "".join(file.read_text() for file in results.glob("*")), within=60)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)

    assert process.returncode == 130
    assert left_over(tmp_path) == []
