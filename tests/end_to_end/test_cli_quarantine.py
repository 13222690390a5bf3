"""``smtpguard quarantine`` as an operator types it."""

import asyncio
import json
import os
import pty
import re
import signal
from pathlib import Path

import pytest

from smtpguard.domain.envelope import NULL_REVERSE_PATH
from tests.support.command_line import BODY, ON_BOTH_ENGINES, OPERATOR, CommandLine
from tests.support.process import SMTPGUARD, clean_environment
from tests.support.scripted_smarthost import ScriptedSmarthost, drop, hang, refuse

KUNDE, XYZ, ANNA = "kunde@webmail.test", "xyz123@provider.example", "anna@mail.example"
NOWHERE = "01K2ABCDEFGHJKMNPQRS-1"
FIELDS = [
    "id", "state", "recipient", "reverse_path", "application", "customer", "reason",
    "subject", "size", "received_at", "decided_at", "decided_by", "decided_why",
]  # fmt: skip
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@pytest.fixture
async def smarthost():
    async with ScriptedSmarthost() as running:
        yield running


@pytest.fixture
def smtpguard(request, smarthost) -> CommandLine:
    return CommandLine(request.getfixturevalue(getattr(request, "param", "sqlite_url")), smarthost.port)


# list


@ON_BOTH_ENGINES
async def test_list_as_json(smtpguard):
    (message_id,) = await smtpguard.keep(KUNDE)

    row = (await smtpguard("quarantine", "list", "--json")).row
    assert list(row) == FIELDS
    assert TIME.fullmatch(row.pop("received_at"))
    assert row == {
        "id": message_id,
        "state": "quarantined",
        "recipient": KUNDE,
        "reverse_path": "billing@shop.example",
        "application": "crm",
        "customer": "C-1",
        "reason": "not-verified",
        "subject": "hello",
        "size": len(BODY),
        "decided_at": None,
        "decided_by": None,
        "decided_why": None,
    }


async def test_null_reverse_path_is_an_empty_string(smtpguard):
    (message_id,) = await smtpguard.keep(KUNDE, reverse_path=NULL_REVERSE_PATH, customer=None)

    row = (await smtpguard("quarantine", "list", "--json")).row
    shown = await smtpguard("quarantine", "show", message_id)
    assert (row["reverse_path"], row["customer"]) == ("", None)
    assert re.search(r"^Reverse-path +<> \(null\)$", shown.out, re.MULTILINE)


async def test_table_has_whole_ids(smtpguard):
    message_ids = await smtpguard.keep(KUNDE, "a" * 64 + "@" + "b" * 60 + ".example")

    listed = await smtpguard("quarantine", "list", COLUMNS="80")
    assert (listed.code, listed.err) == (0, "")
    assert [line.split()[0] for line in listed.out.splitlines()] == ["ID", *message_ids]


async def test_subject_of_a_stranger_is_only_text(smtpguard):
    subject = "\x1b]0;owned\x07\x1b[2J[bold red]pay[/] [link=http://x.test]here[/link] \u202egnp"
    (message_id,) = await smtpguard.keep(KUNDE, subject=subject)

    for arguments in (["list"], ["show", message_id], ["list", "--json"], ["show", message_id, "--json"]):
        out = (await smtpguard("quarantine", *arguments, FORCE_COLOR="1", COLUMNS="300")).out
        assert [part for part in ("\x1b]", "\x1b[2J", "\x07", "\u202e") if part in out] == []
        assert "[bold red]pay[/] [link=http://x.test]here[/link]" in out


async def test_terminal_without_the_letters_of_a_subject(smtpguard):
    await smtpguard.keep(KUNDE, subject="請求書")

    listed = await smtpguard.process("quarantine", "list", PYTHONIOENCODING="ascii")
    assert (listed.code, listed.err) == (0, "")
    assert r"\u8acb\u6c42\u66f8" in listed.out


async def test_nothing_in_quarantine(smtpguard):
    for arguments in ([], ["--json"]):
        listed = await smtpguard("quarantine", "list", *arguments)
        assert (listed.code, listed.out, listed.err) == (0, "", "nothing to list\n")


async def test_pages(smtpguard):
    message_ids = await smtpguard.keep(*(f"user{number:02}@mail.example" for number in range(60)))
    message_ids.sort()

    first = await smtpguard("quarantine", "list", "--json")
    second = await smtpguard("quarantine", "list", "--json", "--after", message_ids[49])
    everything = await smtpguard("quarantine", "list", "--json", "--limit", "0")
    one = await smtpguard("quarantine", "list", "--json", "--limit", "1", "--after", message_ids[3].lower())
    assert [row["id"] for row in first.rows] == message_ids[:50]
    assert first.err == f"smtpguard: there is more: --after {message_ids[49]}\n"
    assert [row["id"] for row in second.rows] == message_ids[50:]
    assert second.err == ""
    assert [row["id"] for row in everything.rows] == message_ids
    assert [row["id"] for row in one.rows] == [message_ids[4]]


async def test_list_is_what_is_open_unless_asked(smtpguard):
    first, second, third = await smtpguard.keep(KUNDE, XYZ, ANNA)
    await smtpguard("quarantine", "release", first, "--reason", "x")
    await smtpguard("quarantine", "discard", second, "--reason", "x")

    async def listed(*arguments: str) -> list[str]:
        return [row["id"] for row in (await smtpguard("quarantine", "list", "--json", *arguments)).rows]

    assert await listed() == [third]
    assert await listed("--all") == [first, second, third]
    assert await listed("--state", "released") == [first]
    assert await listed("--state", "discarded", "--state", "quarantined") == [second, third]


async def test_reader_who_goes_is_no_error(smtpguard):
    """As in ``smtpguard quarantine list | head -1``."""
    await smtpguard.keep(*(f"user{number}@mail.example" for number in range(2000)))
    process = await asyncio.create_subprocess_exec(
        *SMTPGUARD, "quarantine", "list", "--json", "--limit", "0",
        env=clean_environment(smtpguard.environment),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, limit=1024,
    )  # fmt: skip
    await process.stdout.readline()
    process.stdout._transport.close()

    assert await process.stderr.read() == b""
    assert await process.wait() == 1


@pytest.mark.parametrize("option", ["--json", "--all"])
async def test_full_disk_is_one_line(smtpguard, option):
    await smtpguard.keep(KUNDE)
    with Path("/dev/full").open("wb") as full:
        process = await asyncio.create_subprocess_exec(
            *SMTPGUARD, "quarantine", "list", option,
            env=clean_environment(smtpguard.environment), stdout=full, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, err = await process.communicate()

    assert (process.returncode, err) == (1, b"smtpguard: No space left on device\n")


# show


async def test_show(smtpguard):
    (message_id,) = await smtpguard.keep(KUNDE, subject="Your invoice")

    shown = await smtpguard("quarantine", "show", message_id)
    assert shown.code == 0
    for line in (
        f"ID {message_id}", f"Transaction {message_id[:-2]}", "State quarantined", "Reason not-verified",
        f"Recipient {KUNDE}", "Customer C-1", "Reverse-path billing@shop.example", "Application crm",
        f"Size {len(BODY)} octets", "Subject Your invoice", "From Billing <billing@shop.example>",
        "Message-ID <1@shop.example>",
    ):  # fmt: skip
        assert line in re.sub(" +", " ", shown.out), line
    assert "Decided" not in shown.out


async def test_show_as_json(smtpguard):
    (message_id,) = await smtpguard.keep(KUNDE)

    row = (await smtpguard("quarantine", "show", message_id, "--json")).row
    parameters = ["body", "smtputf8", "ret", "envid", "notify", "orcpt"]
    assert list(row) == [*FIELDS, "transaction", *parameters, "from", "date", "message_id"]
    assert (row["id"], row["from"]) == (message_id, "Billing <billing@shop.example>")


@ON_BOTH_ENGINES
async def test_content_is_byte_for_byte(smtpguard):
    message = b"Subject: \xff\x00\r\n\r\n.dot\r\n\x1b[31m\r\n" + bytes(range(256)) + b"\r\n"
    (message_id,) = await smtpguard.keep(KUNDE, message=message)
    process = await asyncio.create_subprocess_exec(
        *SMTPGUARD, "quarantine", "show", message_id, "--content",
        env=clean_environment(smtpguard.environment), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip

    assert (await process.communicate())[0] == message
    assert process.returncode == 0


async def test_content_is_not_written_to_a_terminal(smtpguard):
    (message_id,) = await smtpguard.keep(KUNDE)
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *SMTPGUARD, "quarantine", "show", message_id, "--content",
        env=clean_environment(smtpguard.environment), stdout=theirs, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, err = await process.communicate()
    os.close(theirs)
    os.close(ours)

    assert process.returncode == 1
    assert err.startswith(b"smtpguard: a stranger wrote this message, and a terminal would obey it: ")


async def test_decided_message_tells_by_whom_and_why(smtpguard):
    (message_id,) = await smtpguard.keep(KUNDE)
    await smtpguard("quarantine", "discard", message_id, "--reason", "made up", "--by", "anna")

    shown = await smtpguard("quarantine", "show", message_id)
    row = (await smtpguard("quarantine", "show", message_id, "--json")).row
    assert re.search(r"^Decided +\S+ \S+ UTC, by anna: made up$", shown.out, re.MULTILINE)
    assert re.search(r"^Content +gone$", shown.out, re.MULTILINE)
    assert (row["state"], row["decided_by"], row["decided_why"]) == ("discarded", "anna", "made up")
    assert TIME.fullmatch(row["decided_at"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", NOWHERE],
        ["show", NOWHERE, "--content"],
        ["release", NOWHERE, "--reason", "x"],
        ["discard", NOWHERE, "--reason", "x"],
        ["settle", NOWHERE, "--sent", "--reason", "x"],
    ],
    ids=lambda arguments: " ".join(arguments).replace(NOWHERE, "ID"),
)
async def test_no_such_id_is_one_line(smtpguard, arguments):
    ended = await smtpguard("quarantine", *arguments)

    assert (ended.code, ended.out) == (1, "")
    assert ended.err == f"smtpguard: there is no quarantined message {NOWHERE}\n"


# discard


async def test_discard_removes_the_content(smtpguard):
    (message_id,) = await smtpguard.keep(KUNDE)
    ended = await smtpguard("quarantine", "discard", message_id, "--reason", "made up")
    content = await smtpguard("quarantine", "show", message_id, "--content")

    assert (ended.code, ended.out, ended.err) == (0, f"{message_id}: discarded\n", "")
    assert (content.code, content.out) == (1, "")
    assert content.err.startswith(f"smtpguard: the content of message {message_id} is gone")


async def test_each_id_gets_a_line(smtpguard):
    first, second, third = await smtpguard.keep(KUNDE, XYZ, ANNA)
    await smtpguard("quarantine", "discard", second, "--reason", "x")
    ended = await smtpguard("quarantine", "discard", first, second, NOWHERE, third.lower(), "--reason", "x")

    assert ended.code == 1
    assert ended.out == f"{first}: discarded\n{third}: discarded\n"
    refused, unknown = ended.err.splitlines()
    assert re.fullmatch(rf"smtpguard: message {second} is discarded, by {OPERATOR} at .*, not quarantined", refused)
    assert unknown == f"smtpguard: there is no quarantined message {NOWHERE}"


# release


@ON_BOTH_ENGINES
async def test_release_sends_to_the_one_recipient(smtpguard, smarthost):
    first, second = await smtpguard.keep(KUNDE, XYZ)
    ended = await smtpguard("quarantine", "release", first, "--reason", "confirmed by telephone")

    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"{first}: released: 250 2.0.0 queued as 1\n"
    (message,) = smarthost.messages
    assert (message.recipients, message.message) == ([KUNDE], BODY)
    assert await smtpguard.states() == {first: "released", second: "quarantined"}


async def test_release_of_what_is_released(smtpguard, smarthost):
    (message_id,) = await smtpguard.keep(KUNDE)
    await smtpguard("quarantine", "release", message_id, "--reason", "x")
    again = await smtpguard("quarantine", "release", message_id, "--reason", "x")

    assert (again.code, again.out) == (1, "")
    assert again.err.startswith(f"smtpguard: message {message_id} is released, by {OPERATOR} at ")
    assert len(smarthost.messages) == 1


async def test_smarthost_that_is_down_leaves_it_waiting(smtpguard, smarthost):
    await smarthost.stop()
    first, second = await smtpguard.keep(KUNDE, XYZ)
    ended = await smtpguard("quarantine", "release", first, second, "--reason", "x")

    assert (ended.code, ended.out) == (1, "")
    assert [line.split(": ")[:2] for line in ended.err.splitlines()] == [["smtpguard", first], ["smtpguard", second]]
    assert await smtpguard.states() == {first: "quarantined", second: "quarantined"}


async def test_smarthost_that_refuses_leaves_it_waiting(smtpguard, smarthost):
    smarthost.rcpt = {KUNDE: refuse(550, "5.1.1 \x1b[31mno such user")}
    first, second = await smtpguard.keep(KUNDE, XYZ)
    ended = await smtpguard("quarantine", "release", first, second, "--reason", "x")

    assert ended.code == 1
    assert ended.err.startswith(f"smtpguard: {first}: the smarthost refused it: 550 5.1.1 ")
    assert "\x1b" not in ended.err
    assert ended.out.startswith(f"{second}: released: ")
    assert await smtpguard.states() == {first: "quarantined", second: "released"}


async def test_flagged_recipient_is_refused(smtpguard, smarthost):
    (message_id,) = await smtpguard.keep(KUNDE)
    await smtpguard("address", "flag", KUNDE, "--reason", "a stranger complained")
    refused = await smtpguard("quarantine", "release", message_id, "--reason", "x")
    despite = await smtpguard("quarantine", "release", message_id, "--reason", "x", "--despite-flag")

    assert (refused.code, refused.out) == (1, "")
    assert refused.err == f"smtpguard: {message_id}: {KUNDE} is flagged; see --despite-flag\n"
    assert (despite.code, despite.err) == (0, "")
    assert [message.recipients for message in smarthost.messages] == [[KUNDE]]


@ON_BOTH_ENGINES
async def test_two_operators_at_once_release_once(smtpguard, smarthost):
    message_ids = await smtpguard.keep(KUNDE, XYZ, ANNA)
    ended = await asyncio.gather(
        *(smtpguard.process("quarantine", "release", *message_ids, "--reason", "x", "--by", who) for who in ("a", "b"))
    )

    released = sorted(line.partition(":")[0] for each in ended for line in each.out.splitlines())
    assert released == message_ids
    assert sorted(message.recipients[0] for message in smarthost.messages) == sorted([KUNDE, XYZ, ANNA])
    assert sum(len(each.err.splitlines()) for each in ended) == len(message_ids)


# maybe-sent


async def test_release_that_lost_the_smarthost_is_maybe_sent(smtpguard, smarthost):
    smarthost.dot = drop()
    (message_id,) = await smtpguard.keep(KUNDE)
    ended = await smtpguard("quarantine", "release", message_id, "--reason", "x")

    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith(f"smtpguard: {message_id} is maybe sent, settle it: ")
    assert await smtpguard.states() == {message_id: "maybe-sent"}


async def killed_at_the_dot(smtpguard: CommandLine, smarthost: ScriptedSmarthost, number: int) -> tuple[str, str]:
    """Kill a release that waits for the answer to the final dot; return the id and what it said."""
    smarthost.dot = hang()
    (message_id,) = await smtpguard.keep(KUNDE)
    process = await asyncio.create_subprocess_exec(
        *SMTPGUARD, "quarantine", "release", message_id, "--reason", "x",
        env=clean_environment(smtpguard.environment), stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    await smarthost.wait_for_message()
    process.send_signal(number)
    _, err = await process.communicate()
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    smarthost.dot = None
    return message_id, err.decode()


@ON_BOTH_ENGINES
async def test_killed_release_is_settled_as_not_sent_and_released(smtpguard, smarthost):
    message_id, _ = await killed_at_the_dot(smtpguard, smarthost, signal.SIGKILL)
    listed = (await smtpguard("quarantine", "list", "--json")).row
    again = await smtpguard("quarantine", "release", message_id, "--reason", "x")
    discarded = await smtpguard("quarantine", "discard", message_id, "--reason", "x")
    settled = await smtpguard("quarantine", "settle", message_id, "--not-sent", "--reason", "not in its log")
    released = await smtpguard("quarantine", "release", message_id, "--reason", "x")

    assert (listed["id"], listed["state"]) == (message_id, "maybe-sent")
    assert (again.code, discarded.code) == (1, 1)
    assert again.err == f"smtpguard: message {message_id} is maybe-sent, not quarantined\n"
    assert (settled.code, settled.out, settled.err) == (0, f"{message_id}: quarantined\n", "")
    assert released.code == 0
    assert await smtpguard.states() == {message_id: "released"}


async def test_killed_release_is_settled_as_sent(smtpguard, smarthost):
    message_id, _ = await killed_at_the_dot(smtpguard, smarthost, signal.SIGKILL)
    settled = await smtpguard("quarantine", "settle", message_id, "--sent", "--reason", "it is in its log")
    again = await smtpguard("quarantine", "settle", message_id, "--sent", "--reason", "x")

    assert (settled.code, settled.out) == (0, f"{message_id}: released\n")
    assert again.code == 1
    assert await smtpguard.states() == {message_id: "released"}
    assert len(smarthost.messages) == 1


async def test_interrupted_release_says_where_to_look(smtpguard, smarthost):
    message_id, err = await killed_at_the_dot(smtpguard, smarthost, signal.SIGINT)

    assert (
        err == f"smtpguard: {message_id}: interrupted; `smtpguard quarantine show {message_id}` says how far it came\n"
    )
    assert await smtpguard.states() == {message_id: "maybe-sent"}


async def test_settle_of_what_waits_is_refused(smtpguard):
    (message_id,) = await smtpguard.keep(KUNDE)
    ended = await smtpguard("quarantine", "settle", message_id, "--sent", "--reason", "x")

    assert (ended.code, ended.out) == (1, "")
    assert ended.err == f"smtpguard: message {message_id} is quarantined, not maybe-sent\n"


# who acted


async def test_acts_are_in_the_audit_log(smtpguard):
    (message_id,) = await smtpguard.keep(KUNDE)
    await smtpguard("quarantine", "release", message_id, "--reason", "ask Anna", "--by", "bruno")

    acts = [json.loads(line) for line in (await smtpguard("audit", "list", "--json")).out.splitlines()]
    assert [(act["kind"], act["actor"], act["subject"], act["why"]) for act in acts] == [
        ("release-end", "bruno", message_id, "ask Anna"),
        ("release-begin", "bruno", message_id, "ask Anna"),
    ]
