"""How much one peer may do in a minute, counted in bounded memory."""

from collections.abc import Callable

from smtpguard.domain.application import network_of

WINDOW_SECONDS = 60.0
MAX_PEERS = 4096
"""How many are remembered; beyond that the one that began first is forgotten."""


class PeerLimit:
    """Counts what is done from each network. ``clock`` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float], *, limit: int) -> None:
        self._clock = clock
        self._limit = limit
        self._counts: dict[str, tuple[float, int]] = {}

    def count(self, peer: str) -> int | None:
        """Count one more; return the seconds to wait where that is too many, None where it is not."""
        now, network = self._clock(), network_of(peer)
        began, number = self._counts.get(network, (now, 0))
        if now - began >= WINDOW_SECONDS:
            began, number = now, 0
            self._counts.pop(network, None)
        self._counts[network] = began, number + 1
        if len(self._counts) > MAX_PEERS:
            del self._counts[next(iter(self._counts))]
        return round(WINDOW_SECONDS - (now - began)) + 1 if number >= self._limit else None
