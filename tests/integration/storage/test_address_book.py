"""The address book: acts, what is on record, lists."""

import pytest
from sqlalchemy import func, insert, select

from smtpguard.domain.audit import ActKind
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.domain.standing import AddressRecord, Binding, Standing
from smtpguard.errors import ActRefused, NotFound
from smtpguard.storage import long_work
from smtpguard.storage.tables import addresses, vouchers
from tests.integration.storage.builders import NOW, SECOND, act, connected, flag, import_row, voucher

ANNA = parse_mailbox("Anna@Example.org")


async def on_record(store, *keys: str) -> dict[str, bool]:
    facts = await store.address_book.facts(keys, customer=None, now=NOW)
    return {key: facts[key].on_record for key in keys}


async def acts(store) -> list[tuple[ActKind, str]]:
    return [(one.act.kind, one.act.subject) for one in await store.audit_log.list(limit=0, after=None)]


async def test_verify_puts_all_on_record(store) -> None:
    given = voucher("A", evidence="letter", valid_until=NOW + SECOND)

    await store.address_book.verify(ANNA, given, act(ActKind.ADDRESS_VERIFY, ANNA.lookup_key))

    record = await store.address_book.record(ANNA.lookup_key)
    assert record == AddressRecord(
        address="Anna@Example.org",
        lookup_key="anna@example.org",
        flag=None,
        bindings=(Binding("A", NOW, NOW),),
        vouchers=(given,),
        first_seen=NOW,
        last_seen=NOW,
    )
    assert [(ActKind.ADDRESS_VERIFY, ANNA.lookup_key)] == await acts(store)


async def test_address_wide_verification_binds_nobody(store) -> None:
    await store.address_book.verify(ANNA, voucher(), act())

    record = await store.address_book.record(ANNA.lookup_key)
    assert () == record.bindings
    assert (voucher(),) == record.vouchers


async def test_empty_customer_is_no_customer_and_not_everybody(store) -> None:
    """'' stands for "address-wide" in the table: a mistake of a caller must not verify for everybody."""
    with pytest.raises(Exception, match="customer_named"):
        await store.address_book.verify(ANNA, voucher(""), act())

    assert {ANNA.lookup_key: False} == await on_record(store, ANNA.lookup_key)


async def test_voucher_leaves_the_flag(store) -> None:
    await store.address_book.flag(ANNA, flag(), act())
    await store.address_book.verify(ANNA, voucher(), act())

    record = await store.address_book.record(ANNA.lookup_key)
    assert Standing.FLAGGED is record.standing(NOW)
    assert flag() == record.flag


async def test_flag_leaves_the_vouchers(store) -> None:
    await store.address_book.verify(ANNA, voucher(), act())
    await store.address_book.flag(ANNA, flag(), act())
    await store.address_book.unflag(ANNA, act())

    assert Standing.VERIFIED is (await store.address_book.record(ANNA.lookup_key)).standing(NOW)


async def test_newer_flag_replaces_the_older(store) -> None:
    newer = flag("bounced", since=NOW + SECOND, by="bob")
    await store.address_book.flag(ANNA, flag(), act(ActKind.ADDRESS_FLAG, "first"))
    await store.address_book.flag(ANNA, newer, act(ActKind.ADDRESS_FLAG, "second"))

    assert newer == (await store.address_book.record(ANNA.lookup_key)).flag
    assert [(ActKind.ADDRESS_FLAG, "second"), (ActKind.ADDRESS_FLAG, "first")] == await acts(store)


async def test_unflag_nobody(store) -> None:
    """An address that only live traffic has bound is not on record either."""
    await store.address_book.bind([ANNA.lookup_key], customer="A", now=NOW)

    with pytest.raises(NotFound, match=r"^Anna@Example.org is not on record$"):
        await store.address_book.unflag(ANNA, act())

    assert [] == await acts(store)


async def test_unflag_what_is_not_flagged(store) -> None:
    await store.address_book.verify(ANNA, voucher(), act())

    with pytest.raises(ActRefused, match=r"^Anna@Example.org is not flagged$"):
        await store.address_book.unflag(ANNA, act())

    assert 1 == len(await acts(store))


async def test_act_that_cannot_be_recorded_is_not_done(store, store_url) -> None:
    """The act and its row in the audit log are one transaction."""
    with connected(store_url) as connection:
        connection.exec_driver_sql("DROP TABLE audit_log")

    with pytest.raises(Exception, match="audit_log"):
        await store.address_book.flag(ANNA, flag(), act())

    assert {ANNA.lookup_key: False} == await on_record(store, ANNA.lookup_key)


async def test_text_stays_as_first_seen(store) -> None:
    await store.address_book.verify(ANNA, voucher(), act())
    await store.address_book.flag(parse_mailbox("ANNA@example.ORG"), flag(), act(at=NOW + SECOND))

    record = await store.address_book.record(ANNA.lookup_key)
    assert ("Anna@Example.org", NOW, NOW + SECOND) == (record.address, record.first_seen, record.last_seen)


async def test_last_seen_moves_forwards_only(store) -> None:
    for at in (NOW, NOW + SECOND, NOW - SECOND):
        await store.address_book.bind([ANNA.lookup_key], customer="A", now=at)
        await store.address_book.verify(ANNA, voucher(), act(at=at))

    record = await store.address_book.record(ANNA.lookup_key)
    assert (Binding("A", NOW, NOW + SECOND),) == record.bindings
    assert (NOW, NOW + SECOND) == (record.first_seen, record.last_seen)


async def test_bind_many(store) -> None:
    keys = ["a@x.example", "b@x.example", "c@x.example"]
    await store.address_book.bind(keys[:1], customer="A", now=NOW)

    await store.address_book.bind(keys, customer="A", now=NOW + SECOND)

    bound = {key: (await store.address_book.record(key)).bindings for key in keys}
    new = (Binding("A", NOW + SECOND, NOW + SECOND),)
    assert {keys[0]: (Binding("A", NOW, NOW + SECOND),), keys[1]: new, keys[2]: new} == bound


async def test_bind_nobody(store) -> None:
    await store.address_book.bind([], customer="A", now=NOW)


async def test_bind_to_no_customer(store) -> None:
    with pytest.raises(Exception, match="customer_named"):
        await store.address_book.bind([ANNA.lookup_key], customer="", now=NOW)


async def test_bound_address_is_not_on_record(store) -> None:
    """Live traffic to an unknown address binds customers to it and leaves it unknown."""
    await store.address_book.bind([ANNA.lookup_key], customer="A", now=NOW)

    record = await store.address_book.record(ANNA.lookup_key)
    assert {ANNA.lookup_key: False} == await on_record(store, ANNA.lookup_key)
    assert Standing.UNKNOWN is record.standing(NOW)
    assert ("anna@example.org", None, None) == (record.address, record.first_seen, record.last_seen)
    assert (Binding("A", NOW, NOW),) == record.bindings


async def test_bound_address_comes_on_record(store) -> None:
    """With the text that it is put on record with."""
    await store.address_book.bind([ANNA.lookup_key], customer="A", now=NOW - SECOND)

    await store.address_book.verify(ANNA, voucher("B"), act())

    record = await store.address_book.record(ANNA.lookup_key)
    assert ("Anna@Example.org", NOW, NOW) == (record.address, record.first_seen, record.last_seen)
    assert ["A", "B"] == [binding.customer for binding in record.bindings]


async def test_record_of_nobody(store) -> None:
    record = await store.address_book.record("nobody@example.org")

    nothing = AddressRecord("nobody@example.org", "nobody@example.org", None, (), (), None, None)
    assert nothing == record


async def test_vouchers_in_the_order_they_were_given(store) -> None:
    given = [voucher(customer, method=f"m{number}") for number, customer in enumerate(["B", None, "A", "B"])]
    for one in given:
        await store.address_book.verify(ANNA, one, act())

    assert tuple(given) == (await store.address_book.record(ANNA.lookup_key)).vouchers


async def put_each_standing(store, url: str) -> None:
    await store.address_book.bind(["unknown@x.example"], customer="A", now=NOW)
    await store.address_book.import_rows(
        [
            import_row("verified@x.example"),
            import_row("for-a@x.example", customer="A"),
            import_row("unverified@x.example", Standing.UNVERIFIED),
            import_row("revoked@x.example", Standing.UNVERIFIED),
            import_row("expired@x.example", Standing.UNVERIFIED),
            import_row("flagged@x.example", Standing.FLAGGED),
            import_row("flagged-verified@x.example"),
        ],
        now=NOW,
        by="anna",
    )
    await store.address_book.flag(parse_mailbox("flagged-verified@x.example"), flag(), act())
    await store.address_book.verify(parse_mailbox("expired@x.example"), voucher(valid_until=NOW), act())
    with connected(url) as connection:
        revoked = select(addresses.c.id).where(addresses.c.lookup_key == "revoked@x.example").scalar_subquery()
        values = {"customer": "", "method": "m", "verified_at": NOW, "verified_by": "x", "evidence": ""}
        connection.execute(insert(vouchers).values(address_id=revoked, revoked_at=NOW, **values))


@pytest.mark.parametrize("standing", [*Standing, None])
async def test_list_by_standing(store, store_url, standing) -> None:
    """The filter in SQL says what ``AddressRecord.standing`` says; without one all that is on record is listed."""
    await put_each_standing(store, store_url)
    wanted = {standing} if standing else set(Standing) - {Standing.UNKNOWN}

    listed = await store.address_book.list(limit=0, after=None, standing=standing, now=NOW)

    everything = [
        record
        for one in Standing
        for record in await store.address_book.list(limit=0, after=None, standing=one, now=NOW)
    ]
    assert 8 == len(everything)
    assert {record.standing(NOW) for record in listed} == wanted
    assert [record.lookup_key for record in listed] == sorted(
        record.lookup_key for record in everything if record.standing(NOW) in wanted
    )


async def test_list_in_pages(store, monkeypatch) -> None:
    """Keys come in the order of their octets on both engines, whatever the locale, and nothing twice or never."""
    monkeypatch.setattr(long_work, "PAGE_ROWS", 3)
    keys = sorted(f"{letter}{number}@x.example" for letter in "a-_~é日" for number in (1, 10, 2))
    rows = [import_row(key, Standing.UNVERIFIED, customer="A") for key in keys]
    await store.address_book.import_rows(rows, now=NOW, by="anna")

    for size in (1, 2, 3, 4, 7, 17, 18, 19, 0):
        found: list[AddressRecord] = []
        while page := await store.address_book.list(
            limit=size, after=found[-1].lookup_key if found else None, standing=None, now=NOW
        ):
            assert len(page) <= (size or len(keys))
            found += page

        assert keys == [record.lookup_key for record in found]
        assert all(len(record.bindings) == 1 for record in found)


async def test_nothing_is_ever_removed_by_acts(store, store_url) -> None:
    await store.address_book.verify(ANNA, voucher("A"), act())
    await store.address_book.flag(ANNA, flag(), act())
    await store.address_book.unflag(ANNA, act())

    with connected(store_url) as connection:
        assert 1 == connection.execute(select(func.count()).select_from(vouchers)).scalar_one()


async def test_number_stands_for_an_address(store) -> None:
    await store.address_book.verify(ANNA, voucher(), act())
    number = await store.address_book.number(ANNA.lookup_key)

    assert await store.address_book.lookup_key(number) == ANNA.lookup_key
    assert await store.address_book.lookup_key(number + 1) is None
    assert await store.address_book.number("ben@example.org") is None
