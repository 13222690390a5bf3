"""The operator's acts on the address book, and the import, on both stores."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, Table

from smtpguard.app import clock
from smtpguard.domain.audit import ActKind
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.domain.standing import Standing, Voucher
from smtpguard.errors import ActRefused, StoreUnavailable
from smtpguard.service.address_desk import AddressDesk
from smtpguard.service.import_addresses import ImportReport, import_addresses
from smtpguard.storage.dialects import fill

ANNA = parse_mailbox("anna@example.com")


async def test_address_goes_through_its_standings(desks) -> None:
    assert (await desks.addresses.show(ANNA)).standing(clock()) is Standing.UNKNOWN
    await desks.addresses.verify(ANNA, customer="7", by="ben", why="letter")
    assert (await desks.addresses.show(ANNA)).standing(clock()) is Standing.VERIFIED
    await desks.addresses.flag(ANNA, by="ben", reason="complaint")
    await desks.addresses.verify(ANNA, customer=None, by="ben", why="again")
    flagged = await desks.addresses.show(ANNA)
    await desks.addresses.unflag(ANNA, by="ben", why="a mistake")
    record = await desks.addresses.show(ANNA)

    assert flagged.standing(clock()) is Standing.FLAGGED
    assert flagged.flag.reason == "complaint"
    assert record.standing(clock()) is Standing.VERIFIED
    assert {voucher.customer for voucher in record.vouchers} == {"7", None}
    assert [binding.customer for binding in record.bindings] == ["7"]
    kinds = [each.act.kind for each in await desks.store.audit_log.list(limit=0, after=None)]
    assert kinds == [
        ActKind.ADDRESS_UNFLAG,
        ActKind.ADDRESS_VERIFY,
        ActKind.ADDRESS_FLAG,
        ActKind.ADDRESS_VERIFY,
    ]
    assert await desks.store.audit_log.verify() is None


async def test_voucher_holds_for_its_time_and_not_a_moment_longer(desks) -> None:
    begin, now = datetime(2026, 5, 4, 12, tzinfo=UTC), [datetime(2026, 5, 4, 12, tzinfo=UTC)]
    desk = AddressDesk(desks.store, lambda: now[0], timedelta(days=730))
    await desk.verify(ANNA, customer=None, by="ben", why="letter")
    end = begin + timedelta(days=730)

    async def found(at: datetime) -> tuple[bool, Standing, list[Standing]]:
        now[0] = at
        facts = await desks.store.address_book.facts([ANNA.lookup_key], customer=None, now=at)
        listed = [each for each in Standing if await desk.list(limit=0, standing=each)]
        return facts[ANNA.lookup_key].vouched_address_wide, (await desk.show(ANNA)).standing(at), listed

    assert await found(end - timedelta(microseconds=1)) == (True, Standing.VERIFIED, [Standing.VERIFIED])
    assert await found(end) == (False, Standing.UNVERIFIED, [Standing.UNVERIFIED])
    await desk.verify(ANNA, customer=None, by="ben", why="asked again")
    assert await found(end) == (True, Standing.VERIFIED, [Standing.VERIFIED])


async def test_voucher_with_an_end_of_its_own_or_none(desks) -> None:
    tomorrow = clock() + timedelta(days=1)
    await desks.addresses.verify(ANNA, customer="1", by="ben", why="x", valid_until=tomorrow)
    await AddressDesk(desks.store, clock, None).verify(ANNA, customer="2", by="ben", why="x")
    with pytest.raises(ActRefused, match="would not hold"):
        await desks.addresses.verify(ANNA, customer="3", by="ben", why="x", valid_until=clock())

    vouchers = (await desks.addresses.show(ANNA)).vouchers
    assert [(each.customer, each.valid_until) for each in vouchers] == [("1", tomorrow), ("2", None)]


async def test_import_of_an_old_verification_counts_from_the_import(desks) -> None:
    """An address book that is years old is not quarantined as a whole on the first day."""
    await do_import(desks, ["address,standing,verified_at\n", "anna@example.com,verified,2011-05-04\n"])
    [voucher] = (await desks.addresses.show(ANNA)).vouchers

    assert voucher.verified_at == datetime(2011, 5, 4, tzinfo=UTC)
    assert timedelta(days=729) < voucher.valid_until - clock() < timedelta(days=730)


async def do_import(desks, lines: Iterable[str]) -> tuple[ImportReport, list[int]]:
    rejected: list[int] = []
    report = await import_addresses(
        lines,
        store=desks.store,
        clock=clock,
        by="ben",
        name="customers.csv",
        valid_for=desks.addresses.valid_for,
        on_rejected=lambda row: rejected.append(row.line),
        on_imported=lambda _: None,
    )
    return report, rejected


async def test_import_takes_what_is_good_and_says_what_is_not(desks, monkeypatch) -> None:
    monkeypatch.setattr("smtpguard.service.import_addresses.CHUNK_ROWS", 5000)
    lines = ["address,standing,customer\n", "anna@example.com,verified,7\n", "nonsense,,\n"]
    lines += [f"user{number}@example.com,verified,{number}\n" for number in range(12_000)]
    lines += ["bad,bad\n"]
    report, rejected = await do_import(desks, lines)
    (act,) = await desks.store.audit_log.list(limit=0, after=None)

    assert report == ImportReport(imported=12_001, rejected=2)
    assert rejected == [3, 12_004]
    assert len(await desks.addresses.list(limit=0, standing=Standing.VERIFIED)) == 12_001
    assert (act.act.kind, act.act.subject, act.act.why) == (
        ActKind.ADDRESS_IMPORT,
        "customers.csv",
        "12001 rows imported, 2 rejected",
    )


async def test_import_reads_on_once_the_engine_has_the_rows(desks, monkeypatch) -> None:
    """Not before: to read and to hand over both take the interpreter."""
    acts: list[str] = []

    def lines() -> Iterator[str]:
        for line in ["address\n", "anna@example.com\n", "ben@example.com\n"]:
            acts.append(line.strip())
            yield line

    def note_and_fill(connection: Connection, table: Table, rows: Iterable[tuple[object, ...]]) -> None:
        fill(connection, table, rows)
        acts.append("staged")

    monkeypatch.setattr("smtpguard.service.import_addresses.CHUNK_ROWS", 1)
    monkeypatch.setattr("smtpguard.storage.imports.fill", note_and_fill)
    await do_import(desks, lines())

    assert acts == ["address", "anna@example.com", "staged", "ben@example.com", "staged"]


async def test_import_ends_where_the_store_takes_no_chunk(desks, monkeypatch) -> None:
    """The thread that reads ahead waits for a chunk that never gets into the store."""

    def fail(*_: object) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr("smtpguard.storage.imports.fill", fail)
    with pytest.raises(StoreUnavailable, match="gone"):
        await do_import(desks, ["address,standing\n", "anna@example.com,verified\n"])
    (act,) = await desks.store.audit_log.list(limit=0, after=None)

    assert act.act.why == "0 rows imported, 0 rejected"


async def test_import_again_changes_nothing(desks) -> None:
    lines = ["address,standing,customer,source\n", "anna@example.com,verified,7,crm\n", "eve@example.com,flagged,,\n"]
    await do_import(desks, lines)
    before = await desks.addresses.show(ANNA)
    await desks.addresses.flag(ANNA, by="ben", reason="complaint")
    await do_import(desks, lines)
    after = await desks.addresses.show(ANNA)

    assert after.vouchers == before.vouchers
    assert [binding.customer for binding in after.bindings] == ["7"]
    assert after.standing(clock()) is Standing.FLAGGED


async def test_put_only_adds(desks) -> None:
    """The same again changes nothing; a flag and what was on record stay."""
    vouchers = [Voucher("7", "import", clock(), "crm", "letter"), Voucher(None, "import", clock(), "crm", "call")]
    await desks.addresses.put(ANNA, bindings=["8"], vouchers=vouchers, by="crm")
    await desks.addresses.flag(ANNA, by="ben", reason="complaint")
    await desks.addresses.put(ANNA, bindings=[], vouchers=[], by="crm")
    await desks.addresses.put(ANNA, bindings=["8"], vouchers=vouchers, by="crm")

    record = await desks.addresses.show(ANNA)
    assert record.standing(clock()) is Standing.FLAGGED
    assert sorted(binding.customer for binding in record.bindings) == ["7", "8"]
    assert sorted((each.customer or "", each.evidence) for each in record.vouchers) == [("", "call"), ("7", "letter")]
    acts = await desks.store.audit_log.list(limit=0, after=None)
    assert [each.act.kind for each in acts].count(ActKind.ADDRESS_IMPORT) == 3


async def test_put_of_an_address_alone_puts_it_on_record(desks) -> None:
    await desks.addresses.put(ANNA, bindings=[], vouchers=[], by="crm")

    assert (await desks.addresses.show(ANNA)).standing(clock()) is Standing.UNVERIFIED
