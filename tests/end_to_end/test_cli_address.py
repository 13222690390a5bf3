"""``smtpguard address`` as an operator types it."""

import re

import pytest

from tests.support.command_line import ON_BOTH_ENGINES, OPERATOR, CommandLine

KUNDE, ANNA = "kunde@webmail.test", "anna@mail.example"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@pytest.fixture
def smtpguard(request) -> CommandLine:
    return CommandLine(request.getfixturevalue(getattr(request, "param", "sqlite_url")))


@ON_BOTH_ENGINES
async def test_verify_flag_unflag(smtpguard):
    """A flag wins over the voucher and does not erase it."""
    verified = await smtpguard("address", "verify", ANNA, "--customer", "C-1", "--reason", "letter of 3 May")
    flagged = await smtpguard("address", "flag", ANNA, "--reason", "a stranger complained", "--by", "bruno")
    row = (await smtpguard("address", "show", ANNA, "--json")).row
    unflagged = await smtpguard("address", "unflag", ANNA, "--reason", "a mistake")
    after = (await smtpguard("address", "show", ANNA, "--json")).row

    assert (verified.code, verified.out) == (0, f"{ANNA}: verified for customer C-1\n")
    assert (flagged.code, flagged.out) == (0, f"{ANNA}: flagged\n")
    assert (unflagged.code, unflagged.out) == (0, f"{ANNA}: no longer flagged, now verified\n")
    assert list(row) == ["address", "standing", "flag", "bindings", "vouchers"]
    assert (row["address"], row["standing"]) == (ANNA, "flagged")
    assert TIME.fullmatch(row["flag"].pop("since"))
    assert row["flag"] == {"reason": "a stranger complained", "by": "bruno"}
    (binding,), (voucher,) = row["bindings"], row["vouchers"]
    assert list(binding) == ["customer", "first_seen", "last_seen"]
    assert (binding["customer"], binding["first_seen"]) == ("C-1", binding["last_seen"])
    assert TIME.fullmatch(voucher.pop("verified_at"))
    assert TIME.fullmatch(voucher.pop("valid_until"))
    assert voucher == {
        "customer": "C-1",
        "method": "operator",
        "by": OPERATOR,
        "evidence": "letter of 3 May",
        "revoked_at": None,
    }
    assert (after["standing"], after["flag"], len(after["vouchers"])) == ("verified", None, 1)


async def test_verification_until_a_day(smtpguard):
    ended = await smtpguard("address", "verify", ANNA, "--until", "2999-05-04")
    shown = await smtpguard("address", "show", ANNA)
    past = await smtpguard("address", "verify", ANNA, "--until", "2019-05-04")

    assert ended.code == 0
    assert "until 2999-05-04 00:00:00 UTC" in shown.out
    assert (past.code, past.err) == (
        1,
        f"smtpguard: {ANNA}: a verification until 2019-05-04 00:00 UTC would not hold any more\n",
    )


async def test_verification_of_a_flagged_address_says_that_it_does_not_help(smtpguard):
    await smtpguard("address", "flag", ANNA, "--reason", "x")
    ended = await smtpguard("address", "verify", ANNA)

    assert ended.code == 0
    assert "flagged all the same" in ended.out
    assert (await smtpguard("address", "show", ANNA, "--json")).row["standing"] == "flagged"


async def test_address_wide_verification_of_a_shared_address_says_that_it_does_not_help(smtpguard):
    await smtpguard.process("address", "import", "-", stdin=f"address,customer\n{KUNDE},C-1\n{KUNDE},C-2\n".encode())
    wide = await smtpguard("address", "verify", KUNDE)
    for_one = await smtpguard("address", "verify", KUNDE, "--customer", "C-1")

    assert "on record for 2 customers" in wide.out
    assert for_one.out == f"{KUNDE}: verified for customer C-1\n"


async def test_unflag_of_what_is_not_flagged_is_one_line(smtpguard):
    unknown = await smtpguard("address", "unflag", ANNA, "--reason", "x")
    await smtpguard("address", "verify", ANNA)
    unflagged = await smtpguard("address", "unflag", ANNA, "--reason", "x")

    assert (unknown.code, unknown.out, unknown.err) == (1, "", f"smtpguard: {ANNA} is not on record\n")
    assert (unflagged.code, unflagged.out, unflagged.err) == (1, "", f"smtpguard: {ANNA} is not flagged\n")


async def test_show_of_an_unknown_address(smtpguard):
    shown = await smtpguard("address", "show", ANNA)
    row = (await smtpguard("address", "show", ANNA, "--json")).row

    assert (shown.code, shown.err) == (0, "")
    assert re.search(r"^Standing +unknown$", shown.out, re.MULTILINE)
    assert row == {"address": ANNA, "standing": "unknown", "flag": None, "bindings": [], "vouchers": []}


async def test_show_for_people(smtpguard):
    await smtpguard("address", "verify", ANNA, "--customer", "C-1", "--reason", "letter")
    await smtpguard("address", "flag", ANNA, "--reason", "[red]complaint[/]", "--by", "bruno")
    shown = (await smtpguard("address", "show", "ANNA@Mail.Example")).out

    assert re.search(r"^Standing +flagged$", shown, re.MULTILINE)
    assert re.search(r"^Flag +\[red\]complaint\[/\] \(by bruno, .* UTC\)$", shown, re.MULTILINE)
    assert re.search(
        rf"^Verified +for customer C-1, .* UTC, operator by {OPERATOR}; letter; until .* UTC$", shown, re.MULTILINE
    )
    assert re.search(r"^Customer +C-1, seen from ", shown, re.MULTILINE)


async def test_list(smtpguard):
    rows = "".join(
        f"{address},{standing},{customer}\n"
        for address, standing, customer in [
            ("b@mail.example", "verified", "C-2"),
            ("a@mail.example", "unverified", "C-1"),
            ("c@mail.example", "flagged", ""),
            ("d@mail.example", "verified", ""),
            *((KUNDE, "unverified", f"C-{number}") for number in range(5)),
        ]
    )
    await smtpguard.process("address", "import", "-", stdin=f"address,standing,customer\n{rows}".encode())

    async def listed(*arguments: str) -> list[str]:
        return [row["address"] for row in (await smtpguard("address", "list", "--json", *arguments)).rows]

    everything = ["a@mail.example", "b@mail.example", "c@mail.example", "d@mail.example", KUNDE]
    assert await listed() == everything
    assert await listed("--limit", "0") == everything
    assert await listed("--after", "B@Mail.Example") == everything[2:]
    assert await listed("--standing", "verified") == ["b@mail.example", "d@mail.example"]
    assert await listed("--standing", "flagged") == ["c@mail.example"]
    assert await listed("--standing", "unverified") == ["a@mail.example", KUNDE]
    page = await smtpguard("address", "list", "--json", "--limit", "2")
    assert page.err == "smtpguard: there is more: --after b@mail.example\n"
    table = (await smtpguard("address", "list")).out.splitlines()
    assert [line.split()[0] for line in table] == ["Address", *everything]
    assert table[-1].endswith("C-0, C-1, C-2, +2")
    assert "address-wide" in table[-2]
