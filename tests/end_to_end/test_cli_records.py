"""``smtpguard ledger`` and ``smtpguard audit``: what happened, and whether the record of it is whole."""

import json
import re
import sqlite3
from contextlib import closing

import psycopg
import pytest

from smtpguard.app import clock
from smtpguard.domain.decision import Decision, Reason, Verdict
from smtpguard.domain.ledger import LedgerEntry
from smtpguard.domain.mailbox import parse_mailbox
from tests.support.command_line import ON_BOTH_ENGINES, OPERATOR, CommandLine

ANNA, BRUNO = "anna@mail.example", "bruno@mail.example"


@pytest.fixture
def smtpguard(request) -> CommandLine:
    return CommandLine(request.getfixturevalue(getattr(request, "param", "sqlite_url")))


def change_an_act(url: str, number: int, *, why: str) -> None:
    """Rewrite history, as somebody with access to the database could."""
    statement = f"UPDATE audit_log SET why = '{why}' WHERE id = {number}"
    if url.startswith("sqlite:///"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
            connection.execute(statement)
    else:
        with psycopg.connect(url) as connection:
            connection.execute(statement)


def entry(recipient: str, **changes) -> LedgerEntry:
    decision = Decision(parse_mailbox(recipient), Verdict.RELAY, Reason.VERIFIED)
    made = LedgerEntry("01K2ABCDEFGHJKMNPQRS", clock(), "crm", decision, "C-1", "250 2.0.0 queued", "<1@x.example>", "")
    return made._replace(**changes)


async def test_ledger_as_json(smtpguard):
    would_be = Decision(parse_mailbox(BRUNO), Verdict.RELAY, Reason.UNKNOWN, would_be=Verdict.QUARANTINE)
    async with smtpguard.desks() as desks:
        await desks.store.ledger.record([entry(ANNA), entry(BRUNO, decision=would_be, customer=None)])

    newest, oldest = (await smtpguard("ledger", "list", "--json")).rows
    assert list(oldest) == [
        "id", "at", "transaction", "application", "recipient", "customer",
        "verdict", "reason", "would_be", "smarthost_reply", "message_id", "subject_digest",
    ]  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", oldest["at"])
    assert (oldest["recipient"], oldest["verdict"], oldest["reason"], oldest["would_be"]) == (
        ANNA,
        "relay",
        "verified",
        None,
    )
    assert (newest["recipient"], newest["customer"], newest["would_be"]) == (BRUNO, None, "quarantine")
    assert newest["id"] > oldest["id"]


async def test_ledger_of_one_recipient_in_pages(smtpguard):
    async with smtpguard.desks() as desks:
        await desks.store.ledger.record([entry(ANNA) for _ in range(3)] + [entry(BRUNO)])

    everything = (await smtpguard("ledger", "list", "--json", "--recipient", "ANNA@mail.example")).rows
    page = await smtpguard("ledger", "list", "--json", "--recipient", ANNA, "--limit", "2")
    rest = await smtpguard("ledger", "list", "--json", "--recipient", ANNA, "--after", str(page.rows[-1]["id"]))
    assert [row["recipient"] for row in everything] == [ANNA] * 3
    assert page.err == f"smtpguard: there is more: --after {page.rows[-1]['id']}\n"
    assert page.rows + rest.rows == everything


async def test_ledger_for_people(smtpguard):
    async with smtpguard.desks() as desks:
        await desks.store.ledger.record([entry(ANNA)])

    head, row = (await smtpguard("ledger", "list")).out.splitlines()
    assert head.split()[:2] == ["ID", "Verdict"]
    assert ANNA in row
    assert row.split()[1] == "relay"
    assert " verified" in row
    assert "250 2.0.0 queued" in row


async def test_ledger_of_a_wrong_address_is_one_line(smtpguard):
    ended = await smtpguard("ledger", "list", "--recipient", "nonsense")

    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("smtpguard: 'nonsense': ")


async def test_audit_log_that_is_whole(smtpguard):
    await smtpguard("address", "flag", ANNA, "--reason", "first")
    await smtpguard("address", "unflag", ANNA, "--reason", "second")
    newest, oldest = (await smtpguard("audit", "list", "--json")).rows
    page = await smtpguard("audit", "list", "--json", "--limit", "1")
    table = await smtpguard("audit", "list")
    verified = await smtpguard("audit", "verify")

    assert list(oldest) == ["id", "at", "actor", "kind", "subject", "why", "previous_hash", "hash"]
    assert (oldest["kind"], oldest["actor"], oldest["subject"], oldest["why"]) == (
        "address-flag",
        OPERATOR,
        ANNA,
        "first",
    )
    assert newest["previous_hash"] == oldest["hash"]
    assert page.rows == [newest]
    assert page.err == f"smtpguard: there is more: --after {newest['id']}\n"
    assert [line.split()[0] for line in table.out.splitlines()] == ["ID", str(newest["id"]), str(oldest["id"])]
    assert (verified.code, verified.out, verified.err) == (0, "OK\n", "")


async def test_empty_audit_log_is_whole(smtpguard):
    assert (await smtpguard("audit", "verify")).out == "OK\n"


@ON_BOTH_ENGINES
async def test_changed_audit_log_is_found(smtpguard):
    for why in ("first", "second", "third"):
        await smtpguard("address", "flag", ANNA, "--reason", why)
    second = (await smtpguard("audit", "list", "--json")).rows[1]["id"]
    change_an_act(smtpguard.store_url, second, why="another")
    ended = await smtpguard("audit", "verify")

    assert (ended.code, ended.out) == (1, "")
    assert ended.err == f"smtpguard: the audit log was changed: act {second} does not follow from the one before it\n"


async def test_act_of_json_can_be_checked_without_smtpguard(smtpguard):
    """The fields are those that the hash is computed over."""
    import hashlib

    await smtpguard("address", "flag", ANNA, "--reason", "é\U0001f600")
    act = (await smtpguard("audit", "list", "--json")).row

    at = act["at"].replace("Z", "+00:00")
    hashed = json.dumps([act["previous_hash"], at, act["actor"], act["kind"], act["subject"], act["why"]])
    assert hashlib.sha256(hashed.encode()).hexdigest() == act["hash"]
