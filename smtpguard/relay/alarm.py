"""A deadline that is moved all the time and hardly ever passes: it costs a comparison, not a timer of the event loop.

The timer behind it is never later than the deadline. It may go off before, for nothing, and is set again then.
"""

import asyncio
import math
from collections.abc import Callable


class Alarm:
    """Does one thing after some time, unless something else is set, or it is cleared, before."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._action: Callable[[], object] | None = None
        self._due = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = math.inf

    def set(self, seconds: float, action: Callable[[], object]) -> None:
        """Do this in so many seconds, in place of what was to be done."""
        self._due, self._action = self._loop.time() + seconds, action
        if self._due < self._timer_due:
            self._start_timer()

    def clear(self) -> None:
        """Do nothing."""
        self._action = None

    def _start_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_due = self._loop.call_at(self._due, self._go_off), self._due

    def _go_off(self) -> None:
        has_passed = self._due <= self._timer_due
        self._timer, self._timer_due = None, math.inf
        if self._action is None:
            return
        if not has_passed:
            self._start_timer()
            return
        action, self._action = self._action, None
        action()
