"""``smtpguard address import``: a wrong row is named and the rest is in."""

import asyncio
import os
import pty
import re

import pytest

from tests.support.command_line import ON_BOTH_ENGINES, OPERATOR, CommandLine
from tests.support.process import SMTPGUARD, clean_environment

ROWS = 10_000


@pytest.fixture
def smtpguard(request) -> CommandLine:
    return CommandLine(request.getfixturevalue(getattr(request, "param", "sqlite_url")))


@pytest.fixture
def addresses(tmp_path):
    """Ten thousand rows, three of them bad: no address, no such standing, and an octet that is no UTF-8."""
    lines = [f"user{number}@mail.example,verified,C-{number},2019-05-31,crm," for number in range(ROWS - 3)]
    lines.insert(10, "user.mail.example,verified,,,,")
    lines.insert(5000, "user@mail.example,certain,,,,")
    file = tmp_path / "addresses.csv"
    text = "\n".join(["address,standing,customer,verified_at,source,reason", *lines]).encode()
    file.write_bytes(text + b"\nm\xfcller@mail.example,verified,,,,\n")
    return file


@ON_BOTH_ENGINES
async def test_ten_thousand_rows_with_three_bad_ones(smtpguard, addresses):
    ended = await smtpguard.process("address", "import", str(addresses))
    again = await smtpguard("address", "import", str(addresses), "--json")
    listed = (await smtpguard("address", "list", "--json", "--limit", "0")).rows
    acts = (await smtpguard("audit", "list", "--json")).rows

    assert ended.code == 1
    assert ended.out == "9997 rows imported, 3 rejected\n"
    assert ended.err.splitlines() == [
        f"{addresses}:12: the local part is not followed by @ and a domain",
        f"{addresses}:5002: standing 'certain' is not one of verified, unverified, flagged",
        f"{addresses}:10001: the address holds the character U+DCFC",
    ]
    assert again.code == 1
    assert again.row == {"imported": 9997, "rejected": 3}
    assert len(listed) == 9997
    assert {row["standing"] for row in listed} == {"verified"}
    assert {len(row["vouchers"]) for row in listed} == {1}
    assert [(act["kind"], act["actor"], act["subject"], act["why"]) for act in acts] == [
        ("address-import", OPERATOR, str(addresses), "9997 rows imported, 3 rejected")
    ] * 2


async def test_all_rows_good(smtpguard):
    ended = await smtpguard.process(
        "address", "import", "-", stdin=b"\xef\xbb\xbfaddress\r\na@x.example\r\n\r\nb@x.example"
    )

    assert (ended.code, ended.out, ended.err) == (0, "2 rows imported, 0 rejected\n", "")


async def test_rejected_row_of_standard_input(smtpguard):
    ended = await smtpguard.process("address", "import", "-", stdin=b"address\na@x.example\nnonsense\x1b[31m\n")

    assert (ended.code, ended.out) == (1, "1 rows imported, 1 rejected\n")
    assert ended.err == "-:3: the address holds the character U+001B\n"


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"", "line 1: it is empty; it wants a header row with the column `address`"),
        (b"standing\n", "line 1: the column `address` is missing"),
        (b"address,colour\n", "line 1: there is no column 'colour'"),
        (b"a@x.example\n", "line 1: there is no column 'a@x.example'"),
        (b"address\n" + b"x" * 70_000, "line 2 has more than 65536 octets"),
        (b"\xff\xfea\0d\0", "line 1: "),
    ],
    ids=["empty", "no address column", "unknown column", "no header", "no line end", "UTF-16"],
)
async def test_file_that_is_no_csv_of_addresses_is_one_line(smtpguard, tmp_path, header, said):
    file = tmp_path / "addresses.csv"
    file.write_bytes(header)
    ended = await smtpguard("address", "import", str(file))

    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith(f"smtpguard: {file}: {said}")
    assert ended.err.count("\n") == 1


async def test_missing_file_is_one_line(smtpguard, tmp_path):
    file = tmp_path / "none.csv"
    missing = await smtpguard("address", "import", str(file))
    directory = await smtpguard("address", "import", str(tmp_path))

    assert (missing.code, missing.out) == (1, "")
    assert missing.err == f"smtpguard: {file} cannot be read: No such file or directory\n"
    assert (directory.code, directory.err) == (1, f"smtpguard: {tmp_path} cannot be read: Is a directory\n")


async def test_progress_is_shown_on_a_terminal(smtpguard, addresses):
    """And the rejected rows stay readable beside it."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *SMTPGUARD, "address", "import", str(addresses),
        env=clean_environment(smtpguard.environment | {"TERM": "xterm", "COLUMNS": "100"}),
        stdout=asyncio.subprocess.PIPE, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = asyncio.to_thread(read_all, ours)
    (out, _), err = await asyncio.gather(process.communicate(), shown)

    assert out == b"9997 rows imported, 3 rejected\n"
    assert re.search(rb"\d+%", err)
    assert b"5002: standing 'certain' is not one of" in err


def read_all(terminal: int) -> bytes:
    seen = b""
    try:
        while chunk := os.read(terminal, 65536):
            seen += chunk
    except OSError:  # the other side is closed
        pass
    os.close(terminal)
    return seen
