"""The nemesis of a campaign: kills the guard, its store and the smarthost, and sets flags, as its dice say.

It acts on what happens, not on the time: after so many attempts of the applications.
"""

import asyncio
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path

from tests.soak.history import Flag
from tests.soak.world import VERIFIED, World
from tests.support.databases import PostgresServer
from tests.support.eventually import eventually
from tests.support.process import GuardProcess, answers, stop

MAX_ATTEMPTS_BETWEEN = 40
MAX_ATTEMPTS_WITHOUT = 20
FLAGS = 20
"""How many addresses are flagged at most: the others must go on."""


class Act(StrEnum):
    """What it does."""

    KILL_GUARD = "kill -9 of the guard"
    END_GUARD = "SIGTERM of the guard"
    KILL_SMARTHOST = "kill -9 of the smarthost"
    END_SMARTHOST = "SIGTERM of the smarthost"
    KILL_POSTGRESQL = "immediate stop of PostgreSQL"
    FLAG = "flag"


class Sink:
    """The smarthost, as a process on a port of its own."""

    def __init__(self, port: int, journal: Path, seed: int | None = None) -> None:
        self.port = port
        self.journal = journal
        self._seed = [] if seed is None else [str(seed)]
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.soak.sink", str(self.port), self.journal, *self._seed, start_new_session=True
        )
        await eventually(lambda: answers(self.port))

    async def end(self, number: int = signal.SIGTERM) -> None:
        """End it, if it runs."""
        if self._process is not None:
            await stop(self._process, number)
            self._process = None


class Nemesis:
    """Its acts; ``record`` is called with each flag."""

    def __init__(
        self,
        world: World,
        dice: random.Random,
        *,
        guard: GuardProcess,
        sink: Sink,
        server: PostgresServer | None,
        record: Callable[[Flag], None],
    ) -> None:
        self.done: Counter[Act] = Counter()
        self._world = world
        self._dice = dice
        self._guard = guard
        self._sink = sink
        self._server = server
        self._record = record
        self._unflagged = dice.sample(sorted(VERIFIED), FLAGS)

    @property
    def acts(self) -> list[Act]:
        """What it can do."""
        return [act for act in Act if act is not Act.KILL_POSTGRESQL or self._server]

    async def follow(self, acts: Sequence[Act]) -> None:
        """Do these, each after some attempts."""
        for act in acts:
            await self._world.progress(self._some_attempts(MAX_ATTEMPTS_BETWEEN))
            await self.do(act)

    async def rage(self, seconds: float) -> None:
        """Go on for so long."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            await self.follow([self._dice.choice(self.acts)])

    async def do(self, act: Act) -> None:
        """Do it, and bring back what was killed."""
        self.done[act] += 1
        match act:
            case Act.KILL_GUARD:
                await self._restart_guard(signal.SIGKILL)
            case Act.END_GUARD:
                await self._restart_guard(signal.SIGTERM)
            case Act.KILL_SMARTHOST:
                await self._restart_sink(signal.SIGKILL)
            case Act.END_SMARTHOST:
                await self._restart_sink(signal.SIGTERM)
            case Act.KILL_POSTGRESQL:
                await self._restart_postgresql()
            case Act.FLAG:
                await self._flag()

    async def _restart_guard(self, number: int) -> None:
        self._world.all_is_well.clear()
        self._world.guard_is_up.clear()
        await self._guard.end(number)
        await self._guard.start()
        self._world.guard_is_up.set()
        self._world.all_is_well.set()

    async def _restart_sink(self, number: int) -> None:
        self._world.all_is_well.clear()
        target = self._some_attempts(MAX_ATTEMPTS_WITHOUT)
        await self._sink.end(number)
        await self._world.progress(target)
        await self._sink.start()
        self._world.all_is_well.set()

    async def _restart_postgresql(self) -> None:
        assert self._server is not None
        self._world.all_is_well.clear()
        target = self._some_attempts(MAX_ATTEMPTS_WITHOUT)
        await asyncio.to_thread(self._server.kill)
        await self._world.progress(target)
        await asyncio.to_thread(self._server.start)
        self._world.all_is_well.set()

    def _some_attempts(self, most: int) -> int:
        return self._world.attempts + self._dice.randint(1, most)

    async def _flag(self) -> None:
        if not self._unflagged:
            return
        address, begun_at = self._unflagged.pop(), self._world.moment()
        code, _, _ = await self._guard.command("address", "flag", address, "--reason", "soak")
        self._record(Flag(address, begun_at, self._world.moment() if code == 0 else None))
