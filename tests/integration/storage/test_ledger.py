"""The ledger: what was done for whom."""

from datetime import timedelta

import pytest
from sqlalchemy import event

from smtpguard.domain.decision import Decision, Reason, Verdict
from smtpguard.domain.ledger import LedgerRow
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.domain.standing import Binding
from smtpguard.storage import long_work
from smtpguard.storage.ledger import CLOCKS_APART
from tests.integration.storage.builders import NOW, SECOND, entry


async def test_entry_comes_back(store) -> None:
    observed = Decision(parse_mailbox("Anna@Example.org"), Verdict.RELAY, Reason.UNKNOWN, would_be=Verdict.REJECT)
    recorded = entry(decision=observed, customer="A", smarthost_reply="250 2.0.0 \u20ac\0")

    await store.ledger.record([recorded])

    [row] = await store.ledger.list(limit=0, after=None)
    assert "250 2.0.0 \u20ac\ufffd" == row.entry.smarthost_reply
    assert "Anna@Example.org" == row.entry.decision.recipient.text
    assert (
        entry(
            decision=observed,
            customer="A",
            smarthost_reply="250 2.0.0 \u20ac\ufffd",
            transaction_id=recorded.transaction_id,
        )
        == row.entry
    )


@pytest.mark.parametrize("verdict", Verdict)
@pytest.mark.parametrize("would_be", [None, Verdict.QUARANTINE])
async def test_every_verdict(store, verdict, would_be) -> None:
    decision = Decision(parse_mailbox("a@x.example"), verdict, Reason.VERIFIED, would_be)

    await store.ledger.record([entry(decision=decision)])

    assert [decision] == [row.entry.decision for row in await store.ledger.list(limit=0, after=None)]


async def test_traffic_binds_customers(store) -> None:
    """Whatever the verdict was; the latest time stays, and no customer binds nothing."""
    await store.ledger.record(
        [
            entry("a@x.example", customer="A", at=NOW + SECOND),
            entry("a@x.example", customer="A"),
            entry("a@x.example", customer="B"),
            entry("b@x.example", customer=None),
        ]
    )
    await store.ledger.record([entry("a@x.example", customer="B", at=NOW + SECOND)])

    record = await store.address_book.record("a@x.example")
    assert (Binding("A", NOW + SECOND, NOW + SECOND), Binding("B", NOW, NOW + SECOND)) == record.bindings
    assert () == (await store.address_book.record("b@x.example")).bindings
    assert record.first_seen is None


async def test_nothing_to_record(store) -> None:
    await store.ledger.record([])

    assert [] == await store.ledger.list(limit=0, after=None)


async def test_list_newest_first_in_pages(store, monkeypatch) -> None:
    monkeypatch.setattr(long_work, "PAGE_ROWS", 3)
    entries = [entry(f"u{number}@x.example", at=NOW + number * SECOND) for number in range(10)]
    for one in entries:
        await store.ledger.record([one])

    for size in (1, 3, 4, 9, 10, 11, 0):
        found: list[LedgerRow] = []
        while page := await store.ledger.list(limit=size, after=found[-1].id if found else None):
            assert len(page) <= (size or len(entries))
            found += page

        assert entries[::-1] == [row.entry for row in found]


async def test_list_of_one_recipient(store) -> None:
    await store.ledger.record([entry("Anna@x.example"), entry("bob@x.example"), entry("ANNA@X.example")])

    rows = await store.ledger.list(limit=0, after=None, recipient="anna@x.example")

    assert ["ANNA@X.example", "Anna@x.example"] == [row.entry.decision.recipient.text for row in rows]


async def test_list_since(store) -> None:
    await store.ledger.record([entry(at=NOW - SECOND), entry(at=NOW), entry(at=NOW + SECOND)])

    rows = await store.ledger.list(limit=0, after=None, since=NOW)

    assert [NOW + SECOND, NOW] == [row.entry.at for row in rows]


async def test_list_since_with_clocks_that_disagree(store) -> None:
    """Rows of many hours, each a little before or behind its time: a list since any time has every row."""
    step, apart = timedelta(minutes=1), CLOCKS_APART - timedelta(seconds=1)
    times = [NOW + number * step - (apart if number % 7 == 0 else timedelta(0)) for number in range(1200)]
    await store.ledger.record([entry(at=at) for at in times])

    for since in (
        NOW - 2 * CLOCKS_APART,
        NOW,
        NOW + 255 * step,
        NOW + 600 * step,
        NOW + 1199 * step,
        NOW + 2000 * step,
    ):
        rows = await store.ledger.list(limit=0, after=None, since=since)

        assert sorted(at for at in times if at >= since) == sorted(row.entry.at for row in rows)


async def test_list_since_does_not_read_the_whole_ledger(store) -> None:
    """The plan finds where to begin by the sample."""
    plans = []

    def explain(connection, _cursor, statement, parameters, *_) -> None:
        if "ledger.at >=" in statement and not statement.startswith("EXPLAIN"):
            manner = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off") if manner == "EXPLAIN" else None
            plans.append(str(connection.exec_driver_sql(f"{manner} {statement}", parameters).all()))

    event.listen(store.ledger._long_work._engine, "before_cursor_execute", explain)
    await store.ledger.list(limit=10, after=None, since=NOW)

    [plan] = plans
    assert "ix_ledger_sampled_at" in plan
