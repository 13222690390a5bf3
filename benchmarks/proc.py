"""What a tree of processes has used, out of /proc: processor time and memory, children that have ended included."""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
KIB_A_MIB = 1024


@dataclass(frozen=True)
class Memory:
    """Resident memory in MiB."""

    largest_rss: float
    """Of the largest process, now."""
    largest_peak: float
    """Of the largest process, since ``forget_peaks``."""
    pss: float
    """Of all processes together; what they share counts once."""


@dataclass(frozen=True)
class _Status:
    parent: int
    cpu_seconds: float


def cpu_seconds(roots: Iterable[int]) -> float:
    """Return the processor time that these processes and their descendants have used so far."""
    statuses = [_status(pid) for pid in process_tree(roots)]
    return sum(status.cpu_seconds for status in statuses if status)


def memory(roots: Iterable[int]) -> Memory:
    """Return what these processes and their descendants hold."""
    maps = [_kib(pid, "smaps_rollup") for pid in process_tree(roots)]
    peaks = [_kib(pid, "status").get("VmHWM", 0) for pid in process_tree(roots)]
    return Memory(
        largest_rss=max((each.get("Rss", 0) for each in maps), default=0) / KIB_A_MIB,
        largest_peak=max(peaks, default=0) / KIB_A_MIB,
        pss=sum(each.get("Pss", 0) for each in maps) / KIB_A_MIB,
    )


def forget_peaks(roots: Iterable[int]) -> None:
    """Let the peak of each process begin at what it holds now (proc(5), clear_refs)."""
    for pid in process_tree(roots):
        with suppress(OSError):
            (PROC / str(pid) / "clear_refs").write_text("5")


def process_tree(roots: Iterable[int]) -> list[int]:
    """Return these processes and their descendants."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        status = _status(int(entry.name)) if entry.name.isdigit() else None
        if status:
            children.setdefault(status.parent, []).append(int(entry.name))
    found, ahead = [], list(roots)
    while ahead:
        pid = ahead.pop()
        found.append(pid)
        ahead += children.get(pid, [])
    return found


def _status(pid: int) -> _Status | None:
    """Read /proc/PID/stat; None: it has gone. The name, in brackets, may hold anything."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
    return _Status(int(fields[1]), sum(map(int, fields[11:15])) / TICKS_A_SECOND)


def _kib(pid: int, name: str) -> dict[str, int]:
    """Read the lines ``Name: NUMBER kB`` of a file of a process; nothing where it has gone."""
    try:
        lines = (PROC / str(pid) / name).read_text().splitlines()
    except OSError:
        return {}
    return {line.partition(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}
