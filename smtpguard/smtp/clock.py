"""When a session has been idle for too long, and when it has grown old.

A session resets its clock at every reply. So the clock keeps deadlines and one timer, which goes off seldom and looks
then whether it is time for something: a timer that is set anew each time costs more than the command.
"""

import asyncio
import math
from collections.abc import Callable


class Clock:
    """The clock of a session; ``on_idle`` and ``on_old`` are called when it is time."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        idle_seconds: float,
        on_idle: Callable[[], None],
        on_old: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._idle_seconds = idle_seconds
        self._on_idle = on_idle
        self._on_old = on_old
        self._idle_at = math.inf
        self._old_at = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def reset(self, seconds: float | None = None) -> None:
        """Let a silence begin that may last so many seconds; as many as was said at first where nothing is said."""
        self._idle_at = self._loop.time() + (seconds or self._idle_seconds)
        if self._idle_at < self._timer_at:
            self._set_timer()

    def stop(self) -> None:
        """Let a silence last for ever, until the next reset: it is we who keep the application waiting."""
        self._idle_at = math.inf

    def grow_old_in(self, seconds: float) -> None:
        """Say how long it is until ``on_old``."""
        self._old_at = self._loop.time() + seconds
        if self._old_at < self._timer_at:
            self._set_timer()

    def cancel(self) -> None:
        """Call nothing any more, whatever is reset later."""
        self._idle_at = self._old_at = math.inf
        self._set_timer()
        self._timer_at = -math.inf

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = min(self._idle_at, self._old_at)
        self._timer = None if self._timer_at == math.inf else self._loop.call_at(self._timer_at, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        if now >= self._idle_at:
            self._on_idle()
        elif now >= self._old_at:
            self._old_at = math.inf
            self._on_old()
        self._set_timer()
