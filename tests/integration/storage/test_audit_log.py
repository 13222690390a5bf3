"""The audit log: one chain, whoever appends, and nobody changes it unnoticed."""

import asyncio
from dataclasses import replace
from datetime import datetime

import pytest
from sqlalchemy import delete, insert, select, update

from smtpguard.domain.audit import FIRST_HASH, ActKind, act_hash
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.storage import long_work, open_store
from smtpguard.storage.tables import audit_log
from tests.integration.storage.builders import NOW, SECOND, act, connected, flag


async def record(store, number: int) -> None:
    for each in range(1, number + 1):
        await store.audit_log.audit(act(subject=f"{each}", at=NOW + each * SECOND))


async def test_chain(store) -> None:
    await record(store, 3)

    newest, middle, oldest = await store.audit_log.list(limit=0, after=None)
    assert ["3", "2", "1"] == [one.act.subject for one in (newest, middle, oldest)]
    assert FIRST_HASH == oldest.previous_hash
    assert (oldest.hash, middle.hash) == (middle.previous_hash, newest.previous_hash)
    assert act_hash(oldest.hash, middle.act) == middle.hash
    assert await store.audit_log.verify() is None


async def test_empty_chain(store) -> None:
    assert [] == await store.audit_log.list(limit=0, after=None)
    assert await store.audit_log.verify() is None


async def test_act_comes_back(store) -> None:
    """To the microsecond, whatever the zone."""
    elsewhere = NOW.astimezone(datetime.fromisoformat("2026-01-01T00:00:00-03:30").tzinfo)
    done = replace(act(ActKind.RELEASE_FAIL, at=elsewhere, why="\u20ac \U0001f600"), actor="jos\u00e9")

    await store.audit_log.audit(done)

    [recorded] = await store.audit_log.list(limit=0, after=None)
    assert done == recorded.act
    assert await store.audit_log.verify() is None


async def test_odd_characters(store) -> None:
    """The hash is that of what could be kept."""
    await store.audit_log.audit(act(why="a\0b\udc80"))

    [recorded] = await store.audit_log.list(limit=0, after=None)
    assert "a\ufffdb\ufffd" == recorded.act.why
    assert await store.audit_log.verify() is None


async def test_list_in_pages(store, monkeypatch) -> None:
    monkeypatch.setattr(long_work, "PAGE_ROWS", 3)
    await record(store, 8)

    for size in (1, 3, 5, 8, 9, 0):
        found: list[int] = []
        while page := await store.audit_log.list(limit=size, after=found[-1] if found else None):
            found += [one.id for one in page]

        assert [8, 7, 6, 5, 4, 3, 2, 1] == found


async def test_two_nodes_append_to_one_chain(store, store_url) -> None:
    """Within transactions that do other things as well, some of which fail."""

    async def audit(node, number: int) -> None:
        await node.address_book.flag(parse_mailbox(f"u{number % 5}@x.example"), flag(), act(subject=f"{number}"))

    async def fail(node) -> None:
        with pytest.raises(Exception, match="is not on record"):
            await node.address_book.unflag(parse_mailbox("nobody@x.example"), act())

    async with open_store(store_url) as another:
        nodes = [store, another]
        await asyncio.gather(
            *(audit(nodes[number % 2], number) for number in range(60)),
            *(fail(nodes[number % 2]) for number in range(6)),
        )

    acts = await store.audit_log.list(limit=0, after=None)
    assert list(range(60, 0, -1)) == [one.id for one in acts]
    assert {f"{number}" for number in range(60)} == {one.act.subject for one in acts}
    assert await store.audit_log.verify() is None


@pytest.mark.parametrize("page_rows", [2, 1000])
@pytest.mark.parametrize(
    "change",
    [
        {"at": NOW},
        {"actor": "bob"},
        {"kind": ActKind.DISCARD.value},
        {"kind": "unheard-of"},
        {"subject": "another"},
        {"why": ""},
        {"hash": "0" * 64},
        {"previous_hash": "0" * 64},
    ],
    ids=str,
)
async def test_changed_act_is_found(store, store_url, monkeypatch, change, page_rows) -> None:
    monkeypatch.setattr(long_work, "PAGE_ROWS", page_rows)
    await record(store, 5)
    with connected(store_url) as connection:
        connection.execute(update(audit_log).where(audit_log.c.id == 3).values(change))

    assert 3 == await store.audit_log.verify()


async def test_act_whose_hash_was_made_to_fit_is_found(store, store_url) -> None:
    """The next one does not follow it."""
    await record(store, 5)
    third = (await store.audit_log.list(limit=0, after=None))[2]
    forged = replace(third.act, actor="bob")
    with connected(store_url) as connection:
        values = {"actor": "bob", "hash": act_hash(third.previous_hash, forged)}
        connection.execute(update(audit_log).where(audit_log.c.id == 3).values(values))

    assert 4 == await store.audit_log.verify()


@pytest.mark.parametrize(("removed", "found"), [(1, 2), (3, 4)])
async def test_removed_act_is_found(store, store_url, removed, found) -> None:
    await record(store, 5)
    with connected(store_url) as connection:
        connection.execute(delete(audit_log).where(audit_log.c.id == removed))

    assert found == await store.audit_log.verify()


async def test_inserted_act_is_found(store, store_url) -> None:
    await record(store, 3)
    with connected(store_url) as connection:
        row = dict(connection.execute(select(audit_log).where(audit_log.c.id == 3)).one()._mapping)
        connection.execute(insert(audit_log), row | {"id": 4})

    assert 4 == await store.audit_log.verify()
