"""A campaign: applications, a nemesis, and the history of what came of it."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from smtpguard.app import Desks, open_desks
from smtpguard.domain.quarantined import QuarantineState
from tests.soak.application import Application
from tests.soak.history import Copy, Flag, History, Place, read_copies
from tests.soak.messages import identify
from tests.soak.nemesis import Act, Nemesis, Sink
from tests.soak.world import VERIFIED, World
from tests.support.databases import PostgresServer
from tests.support.guard import make_settings
from tests.support.process import GuardProcess, free_port, guard_process

FLAGGED_BEFORE = 5
"""How many of the verified addresses are flagged from the beginning."""
SETTINGS = {
    "SMTPGUARD_SMTP__SHUTDOWN_TIMEOUT": "2",
    "SMTPGUARD_SMARTHOST__CONNECT_TIMEOUT": "5",
}


@dataclass(frozen=True)
class Plan:
    """How a campaign is run. ``nemesis`` decides how long; the applications send ``messages`` each at least."""

    seed: int
    applications: int
    messages: int
    nemesis: Callable[[Nemesis], Awaitable[None]]


@dataclass(frozen=True)
class Report:
    """What came of a campaign."""

    history: History
    acts: Counter[Act]

    @property
    def summary(self) -> dict[str, int]:
        """The counts."""
        attempts = self.history.attempts
        places = Counter(copy.place for copy in self.history.copies)
        return {
            "messages": len({each.message for each in attempts}),
            "attempts": len(attempts),
            "acknowledged": sum(each.is_acknowledged for each in attempts),
            "put off": sum((each.reply or "").startswith("4") for each in attempts),
            "unanswered": sum(each.dot_at is not None and each.reply is None for each in attempts),
            "at the smarthost": places[Place.SMARTHOST],
            "in quarantine": places[Place.QUARANTINE],
            **{str(act): count for act, count in sorted(self.acts.items())},
        }


async def run_campaign(plan: Plan, store_url: str, directory: Path, *, server: PostgresServer | None) -> Report:
    """Run it; what it leaves in the directory is the evidence. ``server``: the PostgreSQL that the nemesis may kill."""
    history = History(VERIFIED)
    world = World(free_port(), applications=plan.applications)
    sink = Sink(free_port(), directory / "smarthost.journal", plan.seed)
    await sink.start()
    try:
        listen = {"SMTPGUARD_SMTP__LISTEN": f"127.0.0.1:{world.port}"}
        async with guard_process(store_url, sink.port, directory, **listen, **SETTINGS) as guard:
            await _import(guard, history)
            nemesis = Nemesis(
                world, random.Random(plan.seed), guard=guard, sink=sink, server=server, record=history.flags.append
            )
            await _fight(plan, world, nemesis, history)
    finally:
        await sink.end()
    history.copies += read_copies(sink.journal)
    async with open_desks(make_settings(store_url, sink.port)) as desks:
        history.copies += await _quarantined(desks)
    history.save(directory / "history.jsonl")
    return Report(history, nemesis.done)


async def _import(guard: GuardProcess, history: History) -> None:
    flagged = sorted(VERIFIED)[:FLAGGED_BEFORE]
    rows = [f"{address},verified\n" for address in sorted(VERIFIED)] + [f"{address},flagged\n" for address in flagged]
    code, _, err = await guard.command("address", "import", "-", stdin="".join(["address,standing\n", *rows]).encode())
    assert code == 0, err
    history.flags += [Flag(address, 0, 0) for address in flagged]


async def _fight(plan: Plan, world: World, nemesis: Nemesis, history: History) -> None:
    world.guard_is_up.set()
    world.all_is_well.set()
    async with asyncio.TaskGroup() as group:
        for number in range(plan.applications):
            dice = random.Random(f"{plan.seed} {number}")
            application = Application(f"app{number}", world, dice, history.attempts.append)
            group.create_task(application.run(at_least=plan.messages))
        await plan.nemesis(nemesis)
        world.enough.set()


async def _quarantined(desks: Desks) -> list[Copy]:
    copies = []
    for message in await desks.quarantine.list(limit=0, states=frozenset(QuarantineState)):
        content = await desks.store.quarantine.content(message.id)
        found = identify(content.message)
        copies.append(Copy(Place.QUARANTINE, message.recipient.text, found.message, found.attempt, found.digest))
    return copies
