"""The sessions that are open: how many, and how many of each network."""

import asyncio
from typing import Generic, TypeVar

Session = TypeVar("Session")


class Sessions(Generic[Session]):
    """All open sessions. The caller compares before it adds."""

    def __init__(self, *, max_sessions: int, max_per_network: int) -> None:
        self._max_sessions = max_sessions
        self._max_per_network = max_per_network
        self._open: set[Session] = set()
        self.opened = 0
        """How many there have been."""
        self._networks: dict[str, int] = {}
        self._all_ended = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether there are as many as there may be."""
        return len(self._open) >= self._max_sessions

    @property
    def number(self) -> int:
        """How many are open."""
        return len(self._open)

    def all(self) -> tuple[Session, ...]:
        """Return those that are open now."""
        return tuple(self._open)

    def add(self, session: Session) -> None:
        """Count a session."""
        self._open.add(session)
        self.opened += 1

    def discard(self, session: Session) -> None:
        """Count a session off, once or more."""
        self._open.discard(session)
        if not self._open:
            self._all_ended.set()

    async def wait_for_end(self) -> None:
        """Return when none is open."""
        while self._open:
            self._all_ended.clear()
            await self._all_ended.wait()

    def enter(self, network: str) -> bool:
        """Count a session of this network; False if it has as many as it may: then nothing was counted."""
        sessions = self._networks.get(network, 0)
        if sessions >= self._max_per_network:
            return False
        self._networks[network] = sessions + 1
        return True

    def leave(self, network: str) -> None:
        """Count off a session that entered."""
        self._networks[network] -= 1
        if not self._networks[network]:
            del self._networks[network]
