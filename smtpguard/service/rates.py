"""How many messages an application may begin: a minute's worth at once, then at its rate."""

from collections.abc import Callable
from dataclasses import dataclass

from smtpguard.domain.application import Application


@dataclass(slots=True)
class Bucket:
    """What an application may still begin, and when that was so."""

    messages: float
    at: float


class Rates:
    """Counts the messages of all sessions. ``clock`` gives seconds that never go back.

    It is meant to outlive the settings: a limit that is changed holds from the next message on.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: dict[str, Bucket] = {}

    def admits(self, application: Application) -> bool:
        """Count one message; whether it may come now. One that may not counts for nothing."""
        limit = application.max_messages_per_minute
        if not limit:
            return True
        bucket = self._filled(application.name, limit)
        if bucket.messages < 1:
            return False
        bucket.messages -= 1
        return True

    def _filled(self, name: str, limit: int) -> Bucket:
        now = self._clock()
        bucket = self._buckets.setdefault(name, Bucket(limit, now))
        bucket.messages = min(limit, bucket.messages + (now - bucket.at) * limit / 60)
        bucket.at = now
        return bucket
