"""Errands: work that nobody waits for, a few at a time, with a bounded line in front of it."""

from collections.abc import Callable, Coroutine, Hashable
from typing import Any


class Errands:
    """The line and the tasks that work it off. An errand is not to raise."""

    def __init__(self, spawn: Callable[[Coroutine[Any, Any, Any]], Any], *, at_once: int, max_waiting: int) -> None:
        self._spawn = spawn
        self._at_once = at_once
        self._max_waiting = max_waiting
        self._waiting: dict[Hashable, Callable[[], Coroutine[Any, Any, None]]] = {}
        self._working = 0
        self._is_closed = False

    def begin(self, key: Hashable, errand: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Have an errand done soon; of two with the same key that wait one is. False: it is not, the line is full."""
        if key in self._waiting:
            return True
        if self._is_closed or len(self._waiting) >= self._max_waiting:
            return False
        self._waiting[key] = errand
        if self._working < self._at_once:
            self._working += 1
            self._spawn(self._work())
        return True

    def close(self) -> None:
        """Begin no more; what is under way goes on."""
        self._is_closed = True
        self._waiting.clear()

    async def _work(self) -> None:
        try:
            while self._waiting:
                key = next(iter(self._waiting))
                await self._waiting.pop(key)()
        finally:
            self._working -= 1
