"""The address book over HTTP."""

from datetime import timedelta

import pytest

from smtpguard.app import clock
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.domain.policy import UnverifiedPolicy
from tests.support.api import Api, asking
from tests.support.guard import put_on_record, verify
from tests.support.transcript import greeted

ANNA = "anna@customer.example"


async def flag(api: Api, address: str, **headers: str) -> dict:
    return await api.done("POST", "/addresses/flag", {"address": address, "reason": "a stranger"}, **headers)


async def check(api: Api, address: str, **further: str) -> dict:
    return await api.done("POST", "/addresses/check", {"address": address, **further})


async def test_check(api) -> None:
    """As a decision would be; nothing is put on record by asking."""
    await verify(api.guard.desks, ANNA)
    await verify(api.guard.desks, "ben@customer.example", customer="4711")

    anna = await check(api, "Anna@CUSTOMER.example")
    assert anna == {
        "valid": True,
        "why": None,
        "address": ANNA,
        "standing": "verified",
        "customers": 0,
        "verdict": "relay",
        "reason": "verified",
    }
    assert (await check(api, ANNA, customer="4711"))["verdict"] == "relay"
    assert (await check(api, "ben@customer.example", customer="4711"))["verdict"] == "relay"
    ben = await check(api, "ben@customer.example", customer="4712")
    assert (ben["standing"], ben["customers"], ben["verdict"], ben["reason"]) == (
        "verified",
        1,
        "quarantine",
        "not-verified-for-customer",
    )
    assert (await check(api, "ben@customer.example"))["reason"] == "not-verified-for-customer"
    unknown = await check(api, "xyz123@provider.example")
    assert (unknown["standing"], unknown["reason"]) == ("unknown", "unknown")
    assert [each["address"] for each in (await api.done("GET", "/addresses"))["items"]] == [
        ANNA,
        "ben@customer.example",
    ]


NO_ADDRESSES = ["", "anna", "anna@", "a b@c.example", "anna@customer.example\r\nRCPT TO:<x@y>", "\0"]


async def test_check_of_what_is_no_address(api) -> None:
    for address in NO_ADDRESSES:
        said = await check(api, address)
        assert said["valid"] is False
        assert said["why"]
        assert said["verdict"] is None
        assert await api.refused("POST", "/addresses/lookup", {"address": address}) == (422, "invalid-address")


async def test_check_for_an_application(sqlite_url, smarthost) -> None:
    """Under the policy of that application."""
    crm = {"name": "strict", "networks": ["127.0.0.0/8"], "unverified": UnverifiedPolicy.REJECT}
    async with asking(sqlite_url, smarthost.port, application=[crm]) as api:
        assert (await check(api, ANNA, application="strict"))["verdict"] == "reject"
        assert (await check(api, ANNA))["verdict"] == "quarantine"
        body = {"address": ANNA, "application": "other"}
        assert await api.refused("POST", "/addresses/check", body) == (422, "no-such-application")


async def test_put(api) -> None:
    body = {
        "address": "Anna@customer.example",
        "bindings": ["4711", "4712"],
        "vouchers": [{"customer": "4711", "verified_at": "2026-05-03T12:00:00+02:00", "source": "letter"}],
        "on_behalf_of": "Zo\u00eb",
    }
    first = await api.done("PUT", "/addresses", body)

    assert first["standing"] == "verified"
    assert [each["customer"] for each in first["bindings"]] == ["4711", "4712"]
    [voucher] = first["vouchers"]
    assert (voucher["verified_at"], voucher["evidence"]) == ("2026-05-03T10:00:00Z", "letter")
    assert voucher["by"] == "token:crm on behalf of Zo\u00eb"
    again = await api.done("PUT", "/addresses", body)
    assert again["vouchers"] == first["vouchers"]
    assert await api.done("POST", "/addresses/lookup", {"address": ANNA}) == again


async def test_put_takes_no_flag_away(api) -> None:
    await flag(api, ANNA)

    put = await api.done("PUT", "/addresses", {"address": ANNA, "vouchers": [{"source": "x"}]})

    assert put["standing"] == "flagged"


async def test_import(api) -> None:
    """What is wrong is named and left out; the flag stays; the same again changes nothing."""
    await flag(api, "ben@customer.example")
    entries = [
        {"address": ANNA, "standing": "verified", "customer": "4711", "source": "crm"},
        {"address": "nobody"},
        {"address": "ben@customer.example", "standing": "verified"},
        {"address": "eve@customer.example", "standing": "flagged", "reason": "wrong"},
        {"address": ANNA, "standing": "good"},
    ]

    said = await api.done("POST", "/addresses/import", {"entries": entries})

    assert said["imported"] == 3
    assert [each["entry"] for each in said["rejected"]] == [2, 5]
    assert await api.done("POST", "/addresses/import", {"entries": entries}) == said
    listed = (await api.done("GET", "/addresses"))["items"]
    assert [(each["address"].partition("@")[0], each["standing"], len(each["vouchers"])) for each in listed] == [
        ("anna", "verified", 1),
        ("ben", "flagged", 1),
        ("eve", "flagged", 0),
    ]


async def test_flag_holds_from_the_next_command_on(api) -> None:
    await verify(api.guard.desks, ANNA)
    async with greeted(api.guard.port) as client:
        await client.envelope(ANNA)
        await flag(api, ANNA)
        await client.ask("DATA", "354 *")
        await client.send("Subject: x", "", "x", ".")
        await client.expect("250 *")

    [kept] = await api.guard.waiting()
    assert kept.reason.value == "flagged"


@pytest.mark.parametrize("valid_for", [10, 0])
async def test_what_is_vouched_for_ages(sqlite_url, smarthost, valid_for) -> None:
    """From now on, whenever it was verified, as on the command line."""
    entry = {"address": ANNA, "standing": "verified", "customer": "1", "verified_at": "2011-05-04"}
    put = {"address": ANNA, "vouchers": [{"customer": "2", "verified_at": "2011-05-04T00:00:00Z"}]}
    async with asking(sqlite_url, smarthost.port, verification={"valid_for": valid_for}) as api:
        begin = clock()
        await api.done("POST", "/addresses/import", {"entries": [entry]})
        await api.done("PUT", "/addresses", put)
        await api.done("POST", "/addresses/verify", {"address": ANNA, "customer": "3", "reason": "letter"})
        end = clock()
        vouchers = (await api.guard.desks.addresses.show(parse_mailbox(ANNA))).vouchers

    assert [each.customer for each in vouchers] == ["1", "2", "3"]
    lasts = timedelta(days=valid_for)
    for voucher in vouchers:
        if valid_for:
            assert begin + lasts <= voucher.valid_until <= end + lasts
        else:
            assert voucher.valid_until is None


async def test_flag_unflag_verify(api) -> None:
    reasoned = {"address": ANNA, "reason": "because"}
    assert await api.refused("POST", "/addresses/unflag", reasoned) == (404, "not-found")
    verified = await api.done("POST", "/addresses/verify", {**reasoned, "customer": "4711"})
    assert (verified["standing"], verified["vouchers"][0]["customer"]) == ("verified", "4711")
    assert await api.refused("POST", "/addresses/unflag", reasoned) == (409, "refused")
    flagged = await flag(api, ANNA)
    assert (flagged["standing"], flagged["flag"]["by"]) == ("flagged", "token:crm")
    assert (await api.done("POST", "/addresses/unflag", reasoned))["standing"] == "verified"

    acts = await api.guard.desks.store.audit_log.list(limit=3, after=None)
    assert [each.act.kind.value for each in acts] == ["address-unflag", "address-flag", "address-verify"]
    assert {each.act.actor for each in acts} == {"token:crm"}


async def test_pages(api) -> None:
    """Whatever comes and goes meanwhile; and no address in what a URL will hold."""
    names = [f"a{number}@customer.example" for number in range(7)]
    await put_on_record(api.guard.desks, names[:6])
    seen, after = [], None
    while True:
        page = await api.done("GET", f"/addresses?limit=2{f'&after={after}' if after else ''}")
        seen += [each["address"] for each in page["items"]]
        if after is None:
            await put_on_record(api.guard.desks, names[6:])
        after = page["next"]
        if after is None:
            break
        assert after.isdecimal()

    assert seen == names
    assert await api.refused("GET", "/addresses?after=999") == (400, "bad-query")
    flagged = await flag(api, names[3])
    assert (await api.done("GET", "/addresses?standing=flagged"))["items"] == [flagged]


WRONG_QUERIES = [
    "limit=0",
    "limit=501",
    "limit=x",
    "limit=1&limit=2",
    "after=x@y.example",
    f"after={2**63}",
    "standing=good",
    "x=1",
]


async def test_wrong_query(api) -> None:
    for query in WRONG_QUERIES:
        assert await api.refused("GET", f"/addresses?{query}") == (400, "bad-query")


async def test_lookup_of_an_address_with_odd_characters(api) -> None:
    """What RFC 6531 lets be an address is one here."""
    address = "\u00e4@xn--mnchen-3ya.example"
    await flag(api, address)

    assert (await api.done("POST", "/addresses/lookup", {"address": "\u00e4@m\u00fcnchen.example"}))[
        "standing"
    ] == "flagged"
    assert parse_mailbox(address).lookup_key == parse_mailbox("\u00e4@m\u00fcnchen.example").lookup_key
