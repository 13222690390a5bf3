"""The mail servers of the field behind the installed guard."""

import asyncio
import smtplib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.certificates import make_certificates
from tests.support.eventually import eventually
from tests.support.guard import verify
from tests.support.peers.clients import by_smtplib, extensions
from tests.support.peers.guarded import Guarded, guarded
from tests.support.peers.servers import SERVERS, MailServer
from tests.support.peers.submission import MESSAGE, SENDER, Submission
from tests.support.peers.wanted import NO_SUCH_USER, NOT_THIS_MESSAGE, REFUSED, REFUSED_SENDER, Wanted
from tests.support.scripted_smarthost import CAPABILITIES, ScriptedSmarthost, Transaction

pytestmark = pytest.mark.peers

ALICE, BOB = "alice@verified.example", "bob@verified.example"
STRANGER = "xyz123@provider.example"
LOGIN = ("guard", "secret")
DEPENDING = {"8BITMIME", "DSN", "SMTPUTF8"}
"""Extensions that are offered where the smarthost offers them."""

over_tls = pytest.mark.parametrize(
    "server", [name for name, server in SERVERS.items() if server.speaks_tls], indirect=True
)


@pytest.fixture(params=SERVERS)
def server(request) -> MailServer:
    return SERVERS[request.param]


@pytest.fixture
async def recipients_side() -> AsyncIterator[ScriptedSmarthost]:
    """Where the mail server delivers to."""
    async with ScriptedSmarthost(capabilities=(*CAPABILITIES, "SMTPUTF8")) as smarthost:
        yield smarthost


@asynccontextmanager
async def guard_before(
    server, recipients_side, store_url, directory, *, wanted=None, **settings
) -> AsyncIterator[Guarded]:
    wanted = wanted or Wanted(recipients_side.port)
    async with server.run(wanted) as port:
        async with guarded(store_url, port, directory, verified=[ALICE, BOB, REFUSED], **settings) as guard:
            yield guard


def recipients(deliveries: list[Transaction]) -> list[str]:
    """To whom the mail server delivered, be it in one transaction or in several."""
    return sorted(recipient for delivery in deliveries for recipient in delivery.recipients)


async def submit(guard: Guarded, *recipients: str, **fields):
    return await by_smtplib(replace(Submission(guard.port, recipients), **fields), Path())


async def test_mixed_message_and_release(server, recipients_side, sqlite_url, tmp_path) -> None:
    """The verified recipients get it at once, the other one when an operator releases it: all the same octets."""
    async with guard_before(server, recipients_side, sqlite_url, tmp_path) as guard:
        report = await submit(guard, ALICE, STRANGER, BOB)
        await eventually(lambda: recipients(recipients_side.messages) == [ALICE, BOB])
        [waiting] = await guard.waiting()
        code, out, err = await guard.process.command("quarantine", "release", waiting.id, "--reason", "a letter")
        await eventually(lambda: recipients(recipients_side.messages) == [ALICE, BOB, STRANGER])
        left = await guard.waiting()

    assert report.accepted, report
    assert waiting.recipient.text == STRANGER
    assert code == 0, out + err
    assert left == []
    assert all(delivery.message.endswith(MESSAGE) for delivery in recipients_side.messages)


async def test_refusal_of_one_recipient(server, recipients_side, sqlite_url, tmp_path) -> None:
    async with guard_before(server, recipients_side, sqlite_url, tmp_path) as guard:
        report = await submit(guard, ALICE, REFUSED)
        await eventually(lambda: recipients(recipients_side.messages) == [ALICE])

    assert report.accepted
    assert REFUSED in report.said
    assert "(550, " in report.said
    assert NO_SUCH_USER in report.said


async def test_refusal_of_the_message(server, recipients_side, sqlite_url, tmp_path) -> None:
    """It is refused for all of its recipients, those who would have been quarantined too."""
    async with guard_before(server, recipients_side, sqlite_url, tmp_path) as guard:
        report = await submit(guard, ALICE, STRANGER, sender=REFUSED_SENDER)
        waiting = await guard.waiting()

    assert not report.accepted
    assert "(550, " in report.said
    assert NOT_THIS_MESSAGE in report.said
    assert waiting == []
    assert recipients_side.messages == []


async def test_release_that_is_refused(server, recipients_side, sqlite_url, tmp_path) -> None:
    """The message waits on, and the operator reads the mail server's words."""
    async with guard_before(server, recipients_side, sqlite_url, tmp_path) as guard:
        assert (await submit(guard, STRANGER, sender=REFUSED_SENDER)).accepted
        [waiting] = await guard.waiting()
        code, _, err = await guard.process.command("quarantine", "release", waiting.id, "--reason", "a letter")
        left = await guard.waiting()

    assert code == 1
    assert NOT_THIS_MESSAGE in err
    assert left == [waiting]


async def test_offers_what_the_mail_server_offers(server, recipients_side, sqlite_url, tmp_path) -> None:
    async with server.run(Wanted(recipients_side.port)) as port, guarded(sqlite_url, port, tmp_path) as guard:
        offered = extensions(port)
        passed_on = extensions(guard.port)

    assert offered & DEPENDING == server.offers
    assert passed_on & DEPENDING == server.offers
    assert passed_on >= {"SIZE", "PIPELINING", "ENHANCEDSTATUSCODES"}


@over_tls
async def test_tls_and_login(server, recipients_side, sqlite_url, tmp_path) -> None:
    """The guard checks the mail server's certificate, and logs in where it knows a login."""
    certificates = make_certificates(tmp_path)
    login = LOGIN if server.logs_in else None
    wanted = Wanted(recipients_side.port, certificates.server_file, login)
    settings = {"SMARTHOST__TLS": "starttls", "SMARTHOST__CA_FILE": str(certificates.ca_file)}
    if login:
        settings |= {"SMARTHOST__USERNAME": login[0], "SMARTHOST__PASSWORD": login[1]}
    async with guard_before(server, recipients_side, sqlite_url, tmp_path, wanted=wanted, **settings) as guard:
        report = await submit(guard, ALICE, STRANGER, REFUSED)
        assert report.accepted, report
        delivery = await recipients_side.wait_for_message()
        [waiting] = await guard.waiting()

    assert NO_SUCH_USER in report.said
    assert delivery.recipients == [ALICE]
    assert b"TLS" in delivery.message.partition(b";")[0]
    assert waiting.recipient.text == STRANGER


@over_tls
async def test_certificate_of_an_unknown_authority(server, recipients_side, sqlite_url, tmp_path) -> None:
    """Whoever shows it gets nothing; the application tries again later."""
    (tmp_path / "another").mkdir()
    certificates, another = make_certificates(tmp_path), make_certificates(tmp_path / "another")
    wanted = Wanted(recipients_side.port, another.server_file)
    settings = {"SMARTHOST__TLS": "starttls", "SMARTHOST__CA_FILE": str(certificates.ca_file)}
    async with guard_before(server, recipients_side, sqlite_url, tmp_path, wanted=wanted, **settings) as guard:
        report = await submit(guard, ALICE)

    assert not report.accepted
    assert "(451, " in report.said
    assert recipients_side.messages == []


def send_with_options(port: int, recipients: list[str], mail_options: list[str], rcpt_options: list[str]) -> dict:
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        return client.sendmail(SENDER, recipients, MESSAGE, mail_options, rcpt_options)


async def test_smtputf8(server, recipients_side, sqlite_url, tmp_path) -> None:
    """A non-ASCII address reaches the recipient where the mail server offers SMTPUTF8; else the client is told so."""
    recipient = "jürgen@verified.example"
    async with guard_before(server, recipients_side, sqlite_url, tmp_path) as guard:
        await verify(guard.desks, recipient)
        sending = asyncio.to_thread(send_with_options, guard.port, [recipient], ["SMTPUTF8", "BODY=8BITMIME"], [])
        if "SMTPUTF8" in server.offers:
            refused = await sending
            delivery = await recipients_side.wait_for_message()
            assert refused == {}
            assert delivery.recipients == [recipient]
        else:
            with pytest.raises(smtplib.SMTPNotSupportedError):
                await sending


async def test_delivery_status_notifications(server, sqlite_url, tmp_path) -> None:
    """What the application asks for reaches the recipient's side as it was given, at a release too (RFC 3461)."""
    mail_options = ["RET=HDRS", "ENVID=invoice+2B1"]
    rcpt_options = ["NOTIFY=FAILURE,DELAY", "ORCPT=rfc822;a+2Bb@c.example"]
    async with ScriptedSmarthost(capabilities=(*CAPABILITIES, "DSN")) as recipients_side:
        async with guard_before(server, recipients_side, sqlite_url, tmp_path) as guard:
            refused = await asyncio.to_thread(
                send_with_options, guard.port, [ALICE, STRANGER], mail_options, rcpt_options
            )
            await recipients_side.wait_for_message()
            [waiting] = await guard.waiting()
            code, out, err = await guard.process.command("quarantine", "release", waiting.id, "--reason", "a letter")
            await recipients_side.wait_for_message(2)
        commands = [command for connection in recipients_side.connections for command in connection.commands]

    assert refused == {}
    assert code == 0, out + err
    assert all(set(mail_options) <= set(delivery.parameters) for delivery in recipients_side.messages)
    for recipient in (ALICE, STRANGER):
        [command] = [command for command in commands if command.startswith(f"RCPT TO:<{recipient}>")]
        assert set(rcpt_options) <= set(command.split(" "))
