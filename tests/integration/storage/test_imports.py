"""Imports: idempotent, and harmless to what people have decided."""

import asyncio
import threading
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.domain.standing import Binding, Flag, Standing
from smtpguard.storage import open_store
from smtpguard.storage.tables import addresses, vouchers
from tests.integration.storage.builders import (
    NOW,
    SECOND,
    act,
    connected,
    entry,
    flag,
    import_row,
    somebody_waits,
    voucher,
)
from tests.support.eventually import eventually

KEY = "anna@example.org"
ANNA = parse_mailbox("Anna@example.org")
LATER = NOW + timedelta(days=1)


async def records(store) -> list:
    return await store.address_book.list(limit=0, after=None, standing=None, now=NOW)


async def test_verified_row(store) -> None:
    rows = [import_row("Anna@example.org", customer="A", verified_at=NOW - SECOND, source="crm")]

    await store.address_book.import_rows(rows, now=NOW, by="anna")

    record = await store.address_book.record(KEY)
    given = voucher("A", method="import", verified_at=NOW - SECOND, by="anna", evidence="crm")
    assert ("Anna@example.org", NOW, NOW) == (record.address, record.first_seen, record.last_seen)
    assert (Binding("A", NOW, NOW),) == record.bindings
    assert (given,) == record.vouchers
    assert record.flag is None


async def test_verified_at_an_unknown_time(store) -> None:
    await store.address_book.import_rows([import_row(KEY)], now=NOW, by="anna")

    record = await store.address_book.record(KEY)
    assert [(None, NOW)] == [(one.customer, one.verified_at) for one in record.vouchers]
    assert () == record.bindings


async def test_unverified_row_is_put_on_record(store) -> None:
    await store.address_book.import_rows([import_row(KEY, Standing.UNVERIFIED, customer="A")], now=NOW, by="anna")

    record = await store.address_book.record(KEY)
    assert Standing.UNVERIFIED is record.standing(NOW)
    assert (Binding("A", NOW, NOW),) == record.bindings


async def test_flagged_row(store) -> None:
    rows = [import_row(KEY, Standing.FLAGGED, reason="wrong person", customer="A")]

    await store.address_book.import_rows(rows, now=NOW, by="anna")

    record = await store.address_book.record(KEY)
    assert Flag("wrong person", NOW, "anna") == record.flag
    assert () == record.vouchers


async def test_same_import_again(store) -> None:
    """Nothing changes but when things were last seen."""
    rows = [
        import_row("a@x.example", customer="A", verified_at=NOW),
        import_row("b@x.example"),
        import_row("c@x.example", Standing.UNVERIFIED, customer="C"),
        import_row("d@x.example", Standing.FLAGGED),
    ]
    await store.address_book.import_rows(rows, now=NOW, by="anna")
    before = await records(store)

    await store.address_book.import_rows(rows, now=LATER, by="bob")

    after = await records(store)
    assert [(one.vouchers, one.flag, one.first_seen) for one in before] == [
        (one.vouchers, one.flag, one.first_seen) for one in after
    ]
    assert {LATER} == {one.last_seen for one in after}
    assert [Binding("A", NOW, LATER), Binding("C", NOW, LATER)] == [seen for one in after for seen in one.bindings]


async def test_same_address_several_times_in_a_chunk(store) -> None:
    """The text of the first row stays; every customer is bound; each (customer, source) vouches once; a flag wins."""
    rows = [
        import_row("Anna@example.org", customer="A"),
        import_row("ANNA@example.org", customer="A"),
        import_row("anna@example.org", customer="A", source="billing"),
        import_row("anna@example.org", customer="B"),
        import_row("anna@example.org", customer="A"),
        import_row("anna@example.org"),
        import_row("anna@example.org", Standing.FLAGGED, reason="first"),
        import_row("anna@example.org", Standing.FLAGGED, reason="second"),
        import_row("anna@example.org", Standing.UNVERIFIED),
    ]

    await store.address_book.import_rows(rows, now=NOW, by="anna")

    [record] = await records(store)
    assert ("Anna@example.org", Flag("first", NOW, "anna")) == (record.address, record.flag)
    assert ["A", "B"] == [binding.customer for binding in record.bindings]
    assert {("A", "crm"), ("A", "billing"), ("B", "crm"), (None, "crm")} == {
        (one.customer, one.evidence) for one in record.vouchers
    }
    assert 4 == len(record.vouchers)


async def test_revoked_voucher_is_not_renewed(store, store_url) -> None:
    rows = [import_row(KEY, customer="A")]
    await store.address_book.import_rows(rows, now=NOW, by="anna")
    with connected(store_url) as connection:
        connection.execute(update(vouchers).values(revoked_at=NOW))

    await store.address_book.import_rows(rows, now=LATER, by="anna")

    [given] = (await store.address_book.record(KEY)).vouchers
    assert NOW == given.revoked_at


async def test_other_methods_vouch_beside_an_import(store) -> None:
    """Only imports vouch once; whatever an operator does is another voucher, the same twice too."""
    await store.address_book.import_rows([import_row(KEY, customer="A")], now=NOW, by="anna")
    for _ in range(2):
        await store.address_book.verify(ANNA, voucher("A", evidence="crm"), act())

    assert ["import", "operator", "operator"] == [one.method for one in (await store.address_book.record(KEY)).vouchers]


async def test_import_never_unflags(store) -> None:
    await store.address_book.flag(ANNA, flag(), act())

    rows = [import_row(KEY), import_row(KEY, Standing.UNVERIFIED), import_row(KEY, Standing.FLAGGED, reason="other")]
    await store.address_book.import_rows(rows, now=LATER, by="bob")

    assert flag() == (await store.address_book.record(KEY)).flag


async def test_import_revokes_nothing(store) -> None:
    await store.address_book.verify(ANNA, voucher("A"), act())

    await store.address_book.import_rows([import_row(KEY, Standing.UNVERIFIED)], now=LATER, by="bob")

    assert Standing.VERIFIED is (await store.address_book.record(KEY)).standing(NOW)


async def test_address_seen_in_traffic_comes_on_record(store) -> None:
    await store.address_book.bind([KEY], customer="A", now=NOW)

    await store.address_book.import_rows([import_row("Anna@example.org", customer="B")], now=LATER, by="bob")

    record = await store.address_book.record(KEY)
    assert ("Anna@example.org", LATER) == (record.address, record.first_seen)
    assert ["A", "B"] == [binding.customer for binding in record.bindings]


async def test_nothing_to_import(store) -> None:
    await store.address_book.import_rows([], now=NOW, by="anna")

    assert [] == await records(store)


async def test_awkward_text(store) -> None:
    """What COPY and SQL give a meaning of its own comes through as it is."""
    awkward = [r'"a\\b"@x.example', '"a,b"@x.example', "o'hara@x.example", '"a;--"@x.example', "jos\u00e9@x.example"]
    rows = [import_row(address, source="a\tb\\N\n") for address in awkward]

    await store.address_book.import_rows(rows, now=NOW, by="o'hara")

    found = await records(store)
    assert set(awkward) == {record.address for record in found}
    assert {("a\tb\\N\n", "o'hara")} == {(one.evidence, one.by) for record in found for one in record.vouchers}


async def test_failing_chunk_leaves_nothing(store) -> None:
    rows = [import_row("a@x.example"), import_row("b@x.example", verified_at=NOW.replace(tzinfo=None))]

    with pytest.raises(ValueError, match="no time zone"):
        await store.address_book.import_rows(rows, now=NOW, by="anna")

    assert [] == await records(store)
    await store.address_book.import_rows(rows[:1], now=NOW, by="anna")
    assert ["a@x.example"] == [record.address for record in await records(store)]


async def test_traffic_goes_on_beside_an_import(store) -> None:
    """Chunk after chunk into the same addresses that traffic binds: both come through, and nothing is lost."""
    rows = [import_row(f"u{number}@x.example", customer=f"C{number}") for number in range(500)]

    async def traffic(number: int) -> None:
        recipient = f"u{number}@x.example"
        await store.ledger.record([entry(recipient, customer=f"D{number}")])

    await asyncio.gather(
        *(store.address_book.import_rows(rows, now=NOW, by="anna") for _ in range(3)),
        *(traffic(number) for number in range(0, 500, 5)),
    )

    found = await records(store)
    assert 500 == len(found)
    assert 600 == sum(len(record.bindings) for record in found)
    assert 500 == sum(len(record.vouchers) for record in found)


async def test_deadlock_is_survived(postgres_url) -> None:
    """PostgreSQL ends one of two transactions that wait for each other; an import is begun again."""
    rows = [import_row("a@x.example"), import_row("b@x.example")]
    async with open_store(postgres_url) as store, asyncio.TaskGroup() as group:
        await store.address_book.import_rows(rows, now=NOW, by="anna")
        importing = threading.Event()

        def cross() -> None:
            """Hold b; once the import holds a and waits for b, want a."""
            with connected(postgres_url) as connection:
                connection.exec_driver_sql("SET LOCAL deadlock_timeout = '60s'")
                connection.execute(lock_of("b@x.example"))
                holding.set()
                importing.wait(20)
                connection.execute(lock_of("a@x.example"))

        holding = threading.Event()
        crossing = group.create_task(asyncio.to_thread(cross))
        await asyncio.to_thread(holding.wait, 20)
        again = group.create_task(store.address_book.import_rows(rows, now=LATER, by="bob"))
        await eventually(lambda: asyncio.to_thread(somebody_waits, postgres_url))
        importing.set()
        await asyncio.wait_for(asyncio.gather(crossing, again), 20)

        assert {LATER} == {record.last_seen for record in await records(store)}


def lock_of(key: str):
    return select(addresses.c.id).where(addresses.c.lookup_key == key).with_for_update()
