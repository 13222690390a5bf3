"""Allowances: counted exactly, however many count."""

import asyncio
from contextlib import AsyncExitStack
from datetime import date, timedelta

import pytest

from smtpguard.storage import allowances as module
from smtpguard.storage import open_store

TODAY = date(2026, 5, 4)
DAY = timedelta(days=1)


async def take(store, *subjects: str, day: date = TODAY, limit: int = 2, kind: str = "mail") -> list[bool]:
    return await store.allowances.take(kind, subjects, day=day, limit=limit)


async def test_as_many_as_the_limit(store) -> None:
    assert [await take(store, "a") for _ in range(4)] == [[True], [True], [False], [False]]
    assert await take(store, "a", limit=3) == [True]


async def test_each_day_kind_and_subject_for_itself(store) -> None:
    assert await take(store, "a", "a", "a") == [True, True, False]
    assert await take(store, "a", day=TODAY + DAY) == [True]
    assert await take(store, "a", kind="other") == [True]
    assert await take(store, "b", "a", "A", "b") == [True, False, True, True]


async def test_what_is_given_back_can_be_taken_again(store) -> None:
    await take(store, "a", "a")
    await store.allowances.give_back("mail", ["a"], day=TODAY)
    assert await take(store, "a", "a") == [True, False]


async def test_more_than_was_taken_cannot_be_given_back(store) -> None:
    await take(store, "a")
    await store.allowances.give_back("mail", ["a", "a", "a", "never"], day=TODAY)
    assert await take(store, "a", "a", "a") == [True, True, False]


async def test_old_days_are_forgotten(store, monkeypatch) -> None:
    monkeypatch.setattr(module, "FORGOTTEN_AT_ONCE", 2)
    await take(store, "a", "b", "c", limit=1, day=TODAY - DAY)
    await take(store, "a", limit=1)

    assert [await store.allowances.forget(before=TODAY) for _ in range(3)] == [2, 1, 0]
    assert await take(store, "a", limit=1) == [False]
    assert await take(store, "a", limit=1, day=TODAY - DAY) == [True]


@pytest.mark.parametrize("limit", [1, 7])
async def test_two_processes_at_the_limit(store_url, limit) -> None:
    """They have nothing in common but the store; the orders of the subjects cross."""
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(open_store(store_url)) for _ in range(2)]
        subjects = (["a", "b"], ["b", "a"])
        taken = await asyncio.gather(
            *(take(stores[number % 2], *subjects[number % 2], limit=limit) for number in range(20))
        )

    assert sum(sum(each) for each in taken) == 2 * limit
