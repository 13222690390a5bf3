"""The mail clients of the field, each through the installed guard as if it spoke to the smarthost itself."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from tests.support.certificates import make_certificates
from tests.support.eventually import eventually
from tests.support.peers.clients import CLIENTS, Client, by_jakarta_mail_in_chunks, by_smtplib, comparable, extensions
from tests.support.peers.exim import exim
from tests.support.peers.guarded import Guarded, guarded
from tests.support.peers.submission import MESSAGE, SENDER, Report, Submission
from tests.support.peers.wanted import Wanted
from tests.support.process import free_port
from tests.support.scripted_smarthost import ScriptedSmarthost, Transaction, refuse

pytestmark = pytest.mark.peers

ALICE, GONE = "alice@verified.example", "gone@verified.example"
STRANGER = "xyz123@provider.example"
PASSWORD = "opensesame"


@pytest.fixture(params=CLIENTS)
def client(request) -> Client:
    return CLIENTS[request.param]


async def without_a_guard(
    client: Client, recipients: tuple[str, ...], directory: Path, **script
) -> tuple[Report, Transaction | None]:
    """What the client says, and what it sends, where it speaks to the smarthost itself."""
    async with ScriptedSmarthost(**script) as smarthost:
        report = await client(Submission(smarthost.port, recipients), directory)
    return report, smarthost.messages[0] if smarthost.messages else None


async def test_mixed_message(client, sqlite_url, tmp_path) -> None:
    """The verified recipient's copy arrives as it was sent, the other one waits as it was sent; nobody notices."""
    report, direct = await without_a_guard(client, (ALICE, STRANGER), tmp_path)
    async with (
        ScriptedSmarthost() as smarthost,
        guarded(sqlite_url, smarthost.port, tmp_path, verified=[ALICE]) as guard,
    ):
        heard = await client(Submission(guard.port, (ALICE, STRANGER)), tmp_path)
        [relayed] = smarthost.messages
        [waiting] = await guard.waiting()
        kept = await guard.content(waiting)

    assert comparable(heard) == comparable(report)
    assert heard.accepted
    assert relayed.recipients == [ALICE]
    assert_one_field_before(relayed.message, direct.message)
    assert waiting.recipient.text == STRANGER
    assert_one_field_before(kept, direct.message)


def assert_one_field_before(message: bytes, sent: bytes) -> None:
    """The message is what was sent, with one Received field before it (RFC 5321 4.4)."""
    assert message.endswith(sent)
    field = message.removesuffix(sent).replace(b"\r\n\t", b" ").replace(b"\r\n ", b" ")
    assert field.startswith(b"Received: ")
    assert field.count(b"\r\n") == 1
    assert field.endswith(b"\r\n")


async def test_refusal_of_one_recipient(client, sqlite_url, tmp_path) -> None:
    """It is heard in the smarthost's words, and reported as it is without the guard.

    The sender is verified: a mail server before the guard sends it a bounce.
    """
    script = {"rcpt": {GONE: refuse(550, "5.1.1 no such user here")}}
    report, direct = await without_a_guard(client, (ALICE, GONE), tmp_path, **script)
    async with (
        ScriptedSmarthost(**script) as smarthost,
        guarded(sqlite_url, smarthost.port, tmp_path, verified=[ALICE, GONE, SENDER]) as guard,
    ):
        heard = await client(Submission(guard.port, (ALICE, GONE)), tmp_path)
        relayed = smarthost.messages[0] if smarthost.messages else None
        waiting = await guard.waiting()

    assert comparable(heard) == comparable(report)
    assert (relayed and relayed.recipients) == (direct and direct.recipients)
    assert waiting == []


async def test_refusal_by_policy(client, sqlite_url, tmp_path) -> None:
    """Where an unverified recipient is to be refused, the application is told."""
    async with (
        ScriptedSmarthost() as smarthost,
        guarded(sqlite_url, smarthost.port, tmp_path, POLICY__UNVERIFIED="reject") as guard,
    ):
        report = await client(Submission(guard.port, (STRANGER,)), tmp_path)
        waiting = await guard.waiting()

    assert "550" in report.said or client is CLIENTS["django"]
    assert not report.accepted
    assert waiting == []
    assert smarthost.messages == []


@pytest.mark.parametrize("security", ["starttls", "implicit"])
async def test_login_under_tls(client, security, sqlite_url, tmp_path) -> None:
    """The application logs in once it has checked the guard's certificate, and is known by its name."""
    certificates = make_certificates(tmp_path)
    tls_port = free_port()
    async with (
        ScriptedSmarthost() as smarthost,
        guarded(
            sqlite_url,
            smarthost.port,
            tmp_path,
            verified=[ALICE],
            TLS__CERTIFICATE_FILE=str(certificates.server_file),
            TLS__REQUIRED="true",
            SMTP__TLS_LISTEN=f"127.0.0.1:{tls_port}",
            APPLICATION=application_with_login("webshop", PASSWORD),
        ) as guard,
    ):
        port = tls_port if security == "implicit" else guard.port
        submission = Submission(port, (ALICE, STRANGER), "localhost", security=security, ca_file=certificates.ca_file)
        wrong = await client(replace(submission, username="webshop", password="guess"), tmp_path)
        right = await client(replace(submission, username="webshop", password=PASSWORD), tmp_path)
        [relayed] = smarthost.messages
        [waiting] = await guard.waiting()

    assert not wrong.accepted
    assert right.accepted, right
    assert relayed.recipients == [ALICE]
    assert b"ESMTPSA" in relayed.message.partition(b";")[0]
    assert (waiting.recipient.text, waiting.application) == (STRANGER, "webshop")


def application_with_login(name: str, password: str) -> str:
    hashed = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(password)
    return json.dumps([{"name": name, "username": name, "password_hash": hashed}])


async def test_jakarta_mail_in_chunks(sqlite_url, tmp_path) -> None:
    async with (
        ScriptedSmarthost() as smarthost,
        guarded(sqlite_url, smarthost.port, tmp_path, verified=[ALICE]) as guard,
    ):
        assert "CHUNKING" in extensions(guard.port)
        submission = Submission(guard.port, (ALICE, STRANGER), message=MESSAGE.replace(b"\r\n.", b"\r\n,"))
        report = await by_jakarta_mail_in_chunks(submission, tmp_path)
        [relayed] = smarthost.messages
        [waiting] = await guard.waiting()
        kept = await guard.content(waiting)

    assert report.accepted, report
    assert relayed.recipients == [ALICE]
    assert_one_field_before(relayed.message, submission.message)
    assert_one_field_before(kept, submission.message)


async def test_exim_in_chunks(sqlite_url, tmp_path) -> None:
    """An Exim on the application's machine sends by BDAT whatever it can."""
    async with (
        ScriptedSmarthost() as smarthost,
        guarded(sqlite_url, smarthost.port, tmp_path, verified=[ALICE]) as guard,
    ):
        assert "CHUNKING" in extensions(guard.port)
        async with exim(Wanted(guard.port)) as port:
            report = await by_smtplib(Submission(port, (ALICE, STRANGER)), tmp_path)
            relayed = await smarthost.wait_for_message()
            await eventually(lambda: is_waiting_for(guard, STRANGER))
        [waiting] = await guard.waiting()
        kept = await guard.content(waiting)

    assert report.accepted
    assert relayed.recipients == [ALICE]
    assert relayed.message.endswith(MESSAGE)
    assert kept.endswith(MESSAGE)


async def is_waiting_for(guard: Guarded, recipient: str) -> bool:
    return await guard.waiting_for() == [recipient]
