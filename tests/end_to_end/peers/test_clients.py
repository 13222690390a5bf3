"""The mail clients of the field, each through the installed guard as if it spoke to the smarthost itself.

All of them meet the same few guards; each test has a smarthost of its own, where the guard looks for one.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio
from argon2 import PasswordHasher

from tests.support.certificates import make_certificates
from tests.support.databases import new_sqlite_store
from tests.support.eventually import eventually
from tests.support.peers.clients import CLIENTS, Client, by_jakarta_mail_in_chunks, by_smtplib, comparable, extensions
from tests.support.peers.exim import exim
from tests.support.peers.guarded import Guarded, guarded
from tests.support.peers.submission import MESSAGE, SENDER, Report, Submission
from tests.support.peers.wanted import Wanted
from tests.support.process import free_port
from tests.support.scripted_smarthost import ScriptedSmarthost, Transaction, refuse, scripted_at

pytestmark = [pytest.mark.peers, pytest.mark.asyncio(loop_scope="module")]

ALICE, GONE = "alice@verified.example", "gone@verified.example"
STRANGER = "xyz123@provider.example"
PASSWORD = "opensesame"


@pytest.fixture(params=CLIENTS)
def client(request) -> Client:
    return CLIENTS[request.param]


@pytest.fixture(scope="module")
def smarthost_port() -> int:
    """Where the guards look for the smarthost; nobody listens there between two tests."""
    return free_port()


@pytest.fixture(scope="module")
def new_guard(sqlite_template, smarthost_port, tmp_path_factory):
    """Run a guard on a store of its own."""

    def run(*verified: str, **settings: str):
        directory = tmp_path_factory.mktemp("guard")
        url = new_sqlite_store(directory, sqlite_template)
        return guarded(url, smarthost_port, directory, verified=verified, **settings)

    return run


@asynccontextmanager
async def with_an_empty_quarantine(guard: Guarded) -> AsyncIterator[Guarded]:
    """Let a test have it, and leave it to the next one as it was."""
    yield guard
    for message in await guard.waiting():
        await guard.desks.quarantine.discard(message.id, by="test", why="the next test")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def usual_guard(new_guard) -> AsyncIterator[Guarded]:
    """The sender is verified: a mail server before the guard sends it a bounce."""
    async with new_guard(ALICE, GONE, SENDER) as guard:
        yield guard


@pytest_asyncio.fixture(loop_scope="module")
async def guard(usual_guard) -> AsyncIterator[Guarded]:
    async with with_an_empty_quarantine(usual_guard) as guard:
        yield guard


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def refusing_guard(new_guard) -> AsyncIterator[Guarded]:
    """It refuses whom nobody has verified, and keeps nothing."""
    async with new_guard(POLICY__UNVERIFIED="reject") as guard:
        yield guard


class UnderTls(NamedTuple):
    """A guard that wants TLS and a login, with its ports by the manner of TLS."""

    guard: Guarded
    ports: dict[str, int]
    ca_file: Path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def usual_guard_under_tls(new_guard, tmp_path_factory) -> AsyncIterator[UnderTls]:
    certificates = make_certificates(tmp_path_factory.mktemp("certificates"))
    tls_port = free_port()
    settings = {
        "TLS__CERTIFICATE_FILE": str(certificates.server_file),
        "TLS__REQUIRED": "true",
        "SMTP__TLS_LISTEN": f"127.0.0.1:{tls_port}",
        "APPLICATION": application_with_login("webshop", PASSWORD),
    }
    async with new_guard(ALICE, **settings) as guard:
        yield UnderTls(guard, {"starttls": guard.port, "implicit": tls_port}, certificates.ca_file)


@pytest_asyncio.fixture(loop_scope="module")
async def guard_under_tls(usual_guard_under_tls) -> AsyncIterator[UnderTls]:
    async with with_an_empty_quarantine(usual_guard_under_tls.guard):
        yield usual_guard_under_tls


def application_with_login(name: str, password: str) -> str:
    hashed = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(password)
    return json.dumps([{"name": name, "username": name, "password_hash": hashed}])


async def without_a_guard(
    client: Client, recipients: tuple[str, ...], directory: Path, **script
) -> tuple[Report, Transaction | None]:
    """What the client says, and what it sends, where it speaks to the smarthost itself."""
    async with ScriptedSmarthost(**script) as smarthost:
        report = await client(Submission(smarthost.port, recipients), directory)
    return report, smarthost.messages[0] if smarthost.messages else None


async def test_mixed_message(client, guard, smarthost_port, tmp_path) -> None:
    """The verified recipient's copy arrives as it was sent, the other one waits as it was sent; nobody notices."""
    report, direct = await without_a_guard(client, (ALICE, STRANGER), tmp_path)
    async with scripted_at(smarthost_port) as smarthost:
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


async def test_refusal_of_one_recipient(client, guard, smarthost_port, tmp_path) -> None:
    """It is heard in the smarthost's words, and reported as it is without the guard."""
    script = {"rcpt": {GONE: refuse(550, "5.1.1 no such user here")}}
    report, direct = await without_a_guard(client, (ALICE, GONE), tmp_path, **script)
    async with scripted_at(smarthost_port, **script) as smarthost:
        heard = await client(Submission(guard.port, (ALICE, GONE)), tmp_path)
        relayed = smarthost.messages[0] if smarthost.messages else None
        waiting = await guard.waiting()

    assert comparable(heard) == comparable(report)
    assert (relayed and relayed.recipients) == (direct and direct.recipients)
    assert waiting == []


async def test_refusal_by_policy(client, refusing_guard, smarthost_port, tmp_path) -> None:
    """Where an unverified recipient is to be refused, the application is told."""
    async with scripted_at(smarthost_port) as smarthost:
        report = await client(Submission(refusing_guard.port, (STRANGER,)), tmp_path)
        waiting = await refusing_guard.waiting()

    assert "550" in report.said or client is CLIENTS["django"]
    assert not report.accepted
    assert waiting == []
    assert smarthost.messages == []


@pytest.mark.parametrize("security", ["starttls", "implicit"])
async def test_login_under_tls(client, security, guard_under_tls, smarthost_port, tmp_path) -> None:
    """The application logs in once it has checked the guard's certificate, and is known by its name."""
    guard, ports, ca_file = guard_under_tls
    async with scripted_at(smarthost_port) as smarthost:
        submission = Submission(ports[security], (ALICE, STRANGER), "localhost", security=security, ca_file=ca_file)
        wrong = await client(replace(submission, username="webshop", password="guess"), tmp_path)
        right = await client(replace(submission, username="webshop", password=PASSWORD), tmp_path)
        [relayed] = smarthost.messages
        [waiting] = await guard.waiting()

    assert not wrong.accepted
    assert right.accepted, right
    assert relayed.recipients == [ALICE]
    assert b"ESMTPSA" in relayed.message.partition(b";")[0]
    assert (waiting.recipient.text, waiting.application) == (STRANGER, "webshop")


async def test_jakarta_mail_in_chunks(guard, smarthost_port, tmp_path) -> None:
    async with scripted_at(smarthost_port) as smarthost:
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


async def test_exim_in_chunks(guard, smarthost_port, tmp_path) -> None:
    """An Exim on the application's machine sends by BDAT whatever it can."""
    async with scripted_at(smarthost_port) as smarthost:
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
