"""A short campaign (see tests/soak): guard, store and smarthost are killed under load, and nothing is lost."""

import random
from pathlib import Path

import pytest

from tests.soak.campaign import Plan, run_campaign
from tests.soak.checker import violations
from tests.soak.nemesis import Act, Nemesis
from tests.support.databases import PostgresServer

pytestmark = pytest.mark.timeout(300)  # some ten seconds, but many processes: a busy machine takes its time

SEED = 2019
APPLICATIONS = 8
MESSAGES = 20
"""For each application; more, until the nemesis is done."""


async def every_act(nemesis: Nemesis) -> None:
    """All of them, and the guard is killed once more."""
    acts = [*nemesis.acts, Act.KILL_GUARD]
    random.Random(SEED).shuffle(acts)
    await nemesis.follow(acts)


async def survive(store_url: str, directory: Path, server: PostgresServer | None) -> None:
    """Nothing is lost, nobody bypassed, nothing changed, and nothing twice but what nobody can know of."""
    plan = Plan(SEED, APPLICATIONS, MESSAGES, every_act)
    report = await run_campaign(plan, store_url, directory, server=server)

    assert violations(report.history) == []
    assert report.summary["messages"] >= APPLICATIONS * MESSAGES
    assert set(report.acts) == {act for act in Act if server or act is not Act.KILL_POSTGRESQL}


async def test_campaign_on_sqlite(sqlite_url, tmp_path) -> None:
    await survive(sqlite_url, tmp_path, None)


async def test_campaign_on_postgresql(own_postgres_server, tmp_path) -> None:
    await survive(own_postgres_server.new_store(), tmp_path, own_postgres_server)
