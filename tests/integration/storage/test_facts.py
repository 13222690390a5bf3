"""Look-ups: what the address book says at RCPT and at the end of data."""

import asyncio
import itertools
import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert

from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.domain.standing import NOTHING_ON_RECORD, AddressFacts, Voucher
from smtpguard.storage import open_store
from smtpguard.storage.postgres import LOOK_UP, RECORD, PostgresDatabase
from smtpguard.storage.postgres_statements import KNOWN_ADDRESSES, LOOK_UPS, SEEN_BINDINGS
from smtpguard.storage.sqlite import _connect
from smtpguard.storage.sqlite_hot_path import LOOK_UP as SQLITE_LOOK_UP
from smtpguard.storage.sqlite_hot_path import LOOK_UP_FOR_CUSTOMER
from smtpguard.storage.tables import addresses, bindings, vouchers
from tests.integration.storage.builders import NOW, SECOND, act, connected, flag, import_row, voucher

CUSTOMERS = (None, "A", "B", "C")
VALID_UNTIL = (None, NOW - SECOND, NOW, NOW + timedelta(microseconds=1))
REVOKED_AT = (None, NOW - SECOND, NOW + SECOND)
VOUCHERS = [
    Voucher(customer, "operator", NOW - SECOND * number, "anna", "", valid_until, revoked_at)
    for number, (customer, valid_until, revoked_at) in enumerate(
        itertools.product((None, "A", "B"), VALID_UNTIL, REVOKED_AT)
    )
]
VOUCHER_SETS = [(), *((one,) for one in VOUCHERS), *itertools.combinations(VOUCHERS[::5], 2)]
BINDING_SETS = [(), ("A",), ("B",), ("A", "B")]
CASES = {
    f"u{number}@example.org": case
    for number, case in enumerate(itertools.product((True, False), (True, False), VOUCHER_SETS, BINDING_SETS))
}


def expected(case, customer: str | None) -> AddressFacts:
    """The same question, asked of plain values."""
    on_record, flagged, given, bound = case
    holding = {one.customer for one in given if one.holds(NOW)}
    return AddressFacts(
        on_record=on_record,
        flagged=flagged,
        vouched_address_wide=None in holding,
        vouched_for_any_customer=bool(holding - {None}),
        vouched_for_customer=customer is not None and customer in holding,
        bound_to_customer=customer is not None and customer in bound,
        bound_to_others=customer is not None and bool(set(bound) - {customer}),
        vouched_since=max((one.verified_at for one in given if one.holds(NOW)), default=None),
    )


def put_cases(url: str) -> None:
    columns = ("id", "lookup_key", "address", "first_seen", "last_seen", "flag_reason", "flag_since", "flag_by")
    address_rows, binding_rows, voucher_rows = [], [], []
    for number, (key, (on_record, flagged, given, bound)) in enumerate(CASES.items(), start=1):
        seen = (NOW, NOW) if on_record else (None, None)
        flag_values = ("why", NOW, "anna") if flagged else (None, None, None)
        address_rows.append(dict(zip(columns, (number, key, key, *seen, *flag_values), strict=True)))
        binding_rows += [{"address_id": number, "customer": one, "first_seen": NOW, "last_seen": NOW} for one in bound]
        voucher_rows += [
            {
                "address_id": number,
                "customer": one.customer or "",
                "method": one.method,
                "verified_at": one.verified_at,
                "verified_by": one.by,
                "evidence": one.evidence,
                "valid_until": one.valid_until,
                "revoked_at": one.revoked_at,
            }
            for one in given
        ]
    with connected(url) as connection:
        for table, rows in ((addresses, address_rows), (bindings, binding_rows), (vouchers, voucher_rows)):
            connection.execute(insert(table), rows)


async def test_truth_table(store, store_url) -> None:
    """Every fact for every mix of flag, vouchers (holding, expired, revoked) and bindings, and every customer."""
    put_cases(store_url)

    for customer in CUSTOMERS:
        facts = await store.address_book.facts(list(CASES), customer=customer, now=NOW)

        assert {key: expected(case, customer) for key, case in CASES.items()} == facts


async def test_nothing_on_record(store) -> None:
    facts = await store.address_book.facts(["nobody@example.org"], customer="A", now=NOW)

    assert {"nobody@example.org": NOTHING_ON_RECORD} == facts


async def test_no_keys(store) -> None:
    assert {} == await store.address_book.facts([], customer="A", now=NOW)


async def test_key_asked_about_twice(store) -> None:
    key = "u@example.org"
    await store.address_book.import_rows([import_row(key)], now=NOW, by="anna")

    facts = await store.address_book.facts([key, "nobody@example.org", key], customer=None, now=NOW)

    assert [key, "nobody@example.org"] == list(facts)
    assert facts[key].vouched_address_wide


async def test_thousand_recipients(store) -> None:
    """All recipients of a big transaction in one look-up, each with its own facts."""
    keys = [f"u{number}@example.org" for number in range(1000)]
    await store.address_book.import_rows([import_row(key) for key in keys[::2]], now=NOW, by="anna")

    facts = await store.address_book.facts(keys, customer=None, now=NOW)

    assert keys[::2] == [key for key in keys if facts[key].vouched_address_wide]


async def test_look_ups_together_do_not_mix(store) -> None:
    """Sessions that ask at once, for other addresses, customers and times, each hear their own answer."""
    mailbox = parse_mailbox("u@example.org")
    await store.address_book.verify(mailbox, voucher("A", valid_until=NOW + SECOND), act())

    async def ask(number: int) -> tuple[bool, bool]:
        asked_for, at = "AB"[number % 2], NOW + SECOND * (number % 3)
        keys = [f"nobody{number}@example.org"] * (number % 4) + [mailbox.lookup_key]
        facts = await store.address_book.facts(keys, customer=asked_for, now=at)
        return facts[mailbox.lookup_key].vouched_for_customer, asked_for == "A" and at < NOW + SECOND

    answers = await asyncio.gather(*(ask(number) for number in range(60)))

    assert [right for _, right in answers] == [heard for heard, _ in answers]


async def test_flag_holds_at_once_on_another_node(store, store_url) -> None:
    mailbox = parse_mailbox("u@example.org")
    async with open_store(store_url) as another:
        before = await another.address_book.facts([mailbox.lookup_key], customer=None, now=NOW)
        await store.address_book.flag(mailbox, flag(), act())
        after = await another.address_book.facts([mailbox.lookup_key], customer=None, now=NOW)

    assert not before[mailbox.lookup_key].flagged
    assert after[mailbox.lookup_key].flagged


async def test_time_in_another_zone_is_the_same_time(store) -> None:
    mailbox = parse_mailbox("u@example.org")
    await store.address_book.verify(mailbox, voucher(valid_until=NOW), act())
    elsewhere = NOW.astimezone(datetime.fromisoformat("2026-01-01T00:00:00+05:30").tzinfo)

    for at, holds in ((elsewhere - SECOND, True), (elsewhere, False)):
        facts = await store.address_book.facts([mailbox.lookup_key], customer=None, now=at)

        assert holds == facts[mailbox.lookup_key].vouched_address_wide


async def test_cancelled_look_up_does_not_disturb_the_others(store) -> None:
    key = "u@example.org"
    await store.address_book.import_rows([import_row(key)], now=NOW, by="anna")
    looks = [asyncio.ensure_future(store.address_book.facts([key], customer=None, now=NOW)) for _ in range(20)]
    await asyncio.sleep(0)

    for look in looks[::2]:
        look.cancel()
    answers = await asyncio.gather(*looks, return_exceptions=True)

    assert all(answer[key].on_record for answer in answers[1::2])


async def test_impossible_customer_fails_alone(postgres_url) -> None:
    """PostgreSQL cannot be asked for a NUL; who asks along with it is answered."""
    async with open_store(postgres_url) as store:
        asked = [
            store.address_book.facts(["u@example.org"], customer=customer, now=NOW) for customer in ("A", "\0", "B")
        ]
        good, bad, fine = await asyncio.gather(*asked, return_exceptions=True)

    assert {"u@example.org": NOTHING_ON_RECORD} == good == fine
    assert isinstance(bad, Exception)


ARRAYS = {
    "lookup_key": "{u@example.org}", "now": f"{{{NOW.isoformat()}}}",
    "key": "{u@example.org}", "customer": "{A}", "at": f"{{{NOW.isoformat()}}}",
}  # fmt: skip


@pytest.mark.parametrize(
    ("manner", "statement", "reads"), [(LOOK_UP, LOOK_UPS, 6), (RECORD, KNOWN_ADDRESSES, 1), (RECORD, SEEN_BINDINGS, 1)]
)
def test_plan_reads_indexes_only(postgres_url, manner, statement, reads) -> None:
    """The plan is made once and stays, and that may be while the tables are empty: it must not be for empty tables."""
    name, parameters = statement.given(ARRAYS)
    values = ", ".join(f"'{parameter}'" for parameter in parameters)
    connection = PostgresDatabase(postgres_url).connect(manner)
    with connection:
        connection.execute(statement.preparation)
        plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN EXECUTE {name.decode()} ({values})"))

    assert reads == len(re.findall("Index (?:Only )?Scan", plan))
    assert not re.findall("Seq Scan|Hash|Merge|Bitmap", plan)


@pytest.mark.parametrize(("look_up", "reads"), [(SQLITE_LOOK_UP, 3), (LOOK_UP_FOR_CUSTOMER, 6)])
def test_plan_of_sqlite_reads_indexes_only(sqlite_url, look_up, reads) -> None:
    connection = _connect(Path(sqlite_url.removeprefix("sqlite:///")), busy_seconds=1)
    parameters = look_up.arranged({"lookup_key": "x", "customer": "A", "now": 0})
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {look_up.text}", parameters)]
    connection.close()

    assert reads == len([step for step in plan if step.startswith("SEARCH")])
    assert not [step for step in plan if step.startswith("SCAN")]
