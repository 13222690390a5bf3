"""The allocator of the process: what was freed goes back to the system.

A guard that has carried big messages would otherwise keep their memory: the allocator of glibc raises the size from
which on it asks the system for memory of its own, and gives back, with each such piece that is freed, and it has an
arena for each thread. mallopt(3); other C libraries are left alone.
"""

import ctypes
from contextlib import suppress

_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

MMAP_THRESHOLD_OCTETS = 262_144
"""More than uvloop reads at a time: to ask the system for each such piece makes big messages dearer."""
ARENAS = 2


def give_back_what_is_freed() -> None:
    """Set up the allocator, once at the start."""
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_OCTETS)
        mallopt(_M_ARENA_MAX, ARENAS)
