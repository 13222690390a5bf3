"""The release of very many quarantined messages: kept back by the guard, released with the operator's command."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.loads import STRANGER, Load
from benchmarks.processes import SMTPGUARD, BenchmarkError, Ended, free_port, run_command
from benchmarks.results import RATE, Measurement
from benchmarks.systems import Ground, Wanted, waiting
from benchmarks.throughput import send

FILLING = Load("release", sessions=50, keeps=True, to=STRANGER)
FILLING_SECONDS = 3600
ADDRESSES = 10_000
IDS_A_COMMAND = 5000
"""Their 120 KB are less than a command may have as arguments."""
COMMAND = "smtpguard quarantine release ID... --reason benchmark"


def measure_release(ground: Ground, wanted: Wanted, messages: int) -> Measurement:
    """Measure the release of so many messages, once."""
    measurement = Measurement("release", f"{messages:,}", wanted.name, 0, command=COMMAND)
    try:
        return measurement.with_figures(_fill_and_release(ground, wanted, messages))
    except BenchmarkError as error:
        return measurement.failed(str(error))


def _fill_and_release(ground: Ground, wanted: Wanted, messages: int) -> dict[str, float]:
    with ground.stores[wanted.engine].copy(ADDRESSES) as url:
        with ground.guard(wanted, url) as guard:
            filling = send(FILLING, guard, ground.sink, messages, within=FILLING_SECONDS)
        settings = ground.guard_settings(wanted, url, port=free_port())
        before = ground.sink.count()
        commands = _release_all(waiting(settings), settings)
        if (came := ground.sink.count() - before) != messages:
            raise BenchmarkError(f"{came} messages of {messages} have come to smtp-sink")
    seconds = sum(each.seconds for each in commands)
    return {
        "messages": messages,
        "seconds": seconds,
        RATE: messages / seconds,
        "peak": max(each.peak_mib for each in commands),
        "kept/s": filling[RATE],
    }


def _release_all(ids: Sequence[str], settings: Path) -> list[Ended]:
    release: list[str | Path] = [
        *SMTPGUARD,
        "-c",
        settings,
        "quarantine",
        "release",
        "--reason",
        "benchmark",
        "--by",
        "benchmark",
    ]
    return [run_command([*release, *ids[start : start + IDS_A_COMMAND]]) for start in range(0, len(ids), IDS_A_COMMAND)]
