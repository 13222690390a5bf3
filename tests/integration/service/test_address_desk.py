"""The operator's acts on the address book, and the import, on both stores."""

from smtpguard.app import clock
from smtpguard.domain.audit import ActKind
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.domain.standing import Standing
from smtpguard.service.import_addresses import ImportReport, import_addresses

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


async def do_import(desks, lines: list[str]) -> tuple[ImportReport, list[int]]:
    rejected: list[int] = []
    report = await import_addresses(
        lines,
        store=desks.store,
        clock=clock,
        by="ben",
        name="customers.csv",
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
