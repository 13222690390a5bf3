"""The service manager that started the process: sd_notify(3) of systemd, or nobody.

The protocol is one datagram; the bindings for it on offer are unmaintained, or want systemd's headers to install.
"""

import socket
import time
from collections.abc import Mapping
from contextlib import suppress


class ServiceManager:
    """Is told how the service is."""

    def __init__(self, environment: Mapping[str, str], *, pid: int) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog_seconds = _watchdog_seconds(environment, pid) if address else None
        """How often it wants to hear ``alive``; None: never."""

    def ready(self, status: str) -> None:
        """Say that the service does its work, from the start or again."""
        self._tell(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """Say that the settings are being read again."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that the service ends."""
        self._tell("STOPPING=1\nSTATUS=Finishing what is past the end of data")

    def alive(self) -> None:
        """Say that the service is alive."""
        self._tell("WATCHDOG=1")

    def _tell(self, state: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(0)  # mail does not wait for the service manager
            channel.sendto(state.encode("utf-8"), self._address)


def _watchdog_seconds(environment: Mapping[str, str], pid: int) -> float | None:
    """Half of what systemd allows, as sd_watchdog_enabled(3) recommends."""
    microseconds = environment.get("WATCHDOG_USEC", "")
    meant = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
    return int(microseconds) / 2_000_000 if microseconds.isdigit() and int(microseconds) and meant else None
