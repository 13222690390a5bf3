"""An event loop as far as a timer needs one: time passes when the test says so."""

import asyncio
from collections.abc import Callable
from typing import Any


class ManualLoop(asyncio.AbstractEventLoop):
    """It has a time, and timers. ``timers`` counts those that were ever set, ``due`` are those that still are."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers = 0
        self.due: list[asyncio.TimerHandle] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, **_: Any) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self)
        self.timers += 1
        self.due.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        """Let so much time pass; what is due meanwhile is done, each at its time."""
        end = self.now + seconds
        while self.due and (timer := min(self.due)).when() <= end:
            self.due.remove(timer)
            self.now = max(self.now, timer.when())
            timer._run()
        self.now = end

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        raise context["exception"]

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if handle in self.due:  # it is not where it goes off just now
            self.due.remove(handle)
