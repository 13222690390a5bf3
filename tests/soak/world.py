"""What the applications of a campaign and its nemesis share."""

import asyncio
import itertools
import random

VERIFIED = frozenset(f"user{number}@verified.example" for number in range(60))
STRANGERS = 0.4
"""How many of the recipients nobody has verified."""


class World:
    """The state of affairs, and the one clock of a campaign: moments that only grow."""

    def __init__(self, port: int, *, applications: int) -> None:
        self.port = port
        """Where the guard listens, whenever it does."""
        self.attempts = 0
        """How many attempts have ended."""
        self.guard_is_up = asyncio.Event()
        self.all_is_well = asyncio.Event()
        self.enough = asyncio.Event()
        self._applications = applications
        self._waiting = 0
        self._moments = itertools.count(1)
        self._progress = asyncio.Condition()

    def moment(self) -> int:
        """Return a moment that is later than all before."""
        return next(self._moments)

    async def attempt_ended(self) -> None:
        """Note that an application has ended an attempt."""
        self.attempts += 1
        await self._tell()

    async def better_days(self) -> None:
        """Wait until all is well."""
        self._waiting += 1
        await self._tell()
        await self.all_is_well.wait()
        self._waiting -= 1

    async def progress(self, target: int) -> None:
        """Wait until so many attempts have ended, or all applications wait for better days."""
        async with self._progress:
            await self._progress.wait_for(lambda: self.attempts >= target or self._waiting == self._applications)

    async def _tell(self) -> None:
        async with self._progress:
            self._progress.notify_all()

    def recipients(self, message: str, dice: random.Random) -> list[str]:
        """One to five: verified ones, flagged ones among them, and strangers of this message's own."""
        count = dice.randint(1, 5)
        strangers = sum(dice.random() < STRANGERS for _ in range(count))
        known = dice.sample(sorted(VERIFIED), count - strangers)
        return known + [f"stranger{number}.{message}@provider.example" for number in range(strangers)]
