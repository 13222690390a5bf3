"""TLS towards applications: STARTTLS and implicit, and what survives neither."""

import asyncio
import ssl

import pytest

from smtpguard.domain.application import protocol_keyword
from smtpguard.errors import SettingsError
from smtpguard.settings import TlsSettings
from smtpguard.smtp.tls import load_certificate
from tests.support.certificates import make_certificates
from tests.support.eventually import eventually
from tests.support.guard import guarding, verify
from tests.support.scripted_smarthost import ScriptedSmarthost
from tests.support.transcript import connected, greeted

ALICE, STRANGER = "alice@verified.example", "xyz123@provider.example"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def smarthost():
    async with ScriptedSmarthost() as smarthost:
        yield smarthost


@pytest.fixture
async def guard(sqlite_url, smarthost, certificates):
    sections = {"smtp": {"tls_listen": "127.0.0.1:0"}, "tls": {"certificate_file": certificates.server_file}}
    async with guarding(sqlite_url, smarthost.port, **sections) as guard:
        await verify(guard.desks, ALICE)
        yield guard


async def test_message_after_starttls(guard, smarthost, certificates) -> None:
    async with greeted(guard.port) as client:
        await client.starttls(certificates.client_context())
        await client.ask("EHLO app.example", "250-*")
        said = await client.message(ALICE, STRANGER)

    assert said.startswith("250 2.0.0 ")
    assert b" with ESMTPS id " in smarthost.messages[0].message
    assert b"(using TLSv1.3 with cipher " in smarthost.messages[0].message
    assert await guard.waiting_for() == [STRANGER]


async def test_message_under_implicit_tls(guard, smarthost, certificates) -> None:
    async with connected(guard.tls_port, certificates.client_context()) as client:
        await client.hello()
        said = await client.message(ALICE, STRANGER)
        await client.ask("QUIT", "221 *")

        assert await client.at_end()

    assert said.startswith("250 2.0.0 ")
    assert b" with ESMTPS id " in smarthost.messages[0].message


async def test_starttls_is_offered_until_it_was_used(guard, certificates) -> None:
    async with connected(guard.port) as client:
        await client.expect("220 *")
        await client.ask("EHLO a", "*STARTTLS*")
        await client.starttls(certificates.client_context())
        await client.ask("STARTTLS", "503 5.5.1 *")
        await client.send("EHLO a")

        assert "STARTTLS" not in await client.reply()


async def test_silence_before_a_handshake_begins_with_starttls(sqlite_url, smarthost, certificates) -> None:
    sections = {"smtp": {"idle_timeout": 1}, "tls": {"certificate_file": certificates.server_file}}
    never = asyncio.get_running_loop().create_future()
    async with guarding(sqlite_url, smarthost.port, **sections) as guard, greeted(guard.port) as client:
        await asyncio.wait([never], timeout=0.6)
        await client.ask("STARTTLS", "220 *")
        await asyncio.wait([never], timeout=0.6)
        await client.writer.start_tls(certificates.client_context(), server_hostname="localhost")
        await client.ask("NOOP", "250 *")


async def test_nothing_said_before_starttls_counts_behind_it(guard, certificates) -> None:
    """RFC 3207 4.2."""
    async with greeted(guard.port) as client:
        await client.envelope(ALICE)
        await client.starttls(certificates.client_context())
        await client.ask("MAIL FROM:<a@b.example>", "503 *")
        await client.ask("EHLO app.example", "250-*")
        await client.ask("RCPT TO:<alice@verified.example>", "503 *")


@pytest.mark.parametrize("injected", ["EHLO evil.example", "NOOP", "x" * 20_000], ids=lambda line: line[:4])
async def test_command_pipelined_behind_starttls_is_never_carried_out(guard, injected) -> None:
    """CVE-2011-0411 and its kin: what came in the clear must not be taken for what came under TLS."""
    async with greeted(guard.port) as client:
        await client.send("STARTTLS", injected)
        await client.expect("421 4.7.0 *")

        assert await client.at_end()


async def test_no_certificate_no_starttls(sqlite_url, smarthost) -> None:
    async with guarding(sqlite_url, smarthost.port) as guard, greeted(guard.port) as client:
        await client.ask("STARTTLS", "502 5.5.1 *")
        await client.ask("STARTTLS now", "502 5.5.1 *")


async def test_starttls_takes_no_argument(guard) -> None:
    async with greeted(guard.port) as client:
        await client.ask("STARTTLS now", "501 5.5.4 *")
        await client.ask("NOOP", "250 *")


async def test_mail_is_refused_before_tls_where_it_is_required(sqlite_url, smarthost, certificates) -> None:
    tls = {"certificate_file": certificates.server_file, "required": True}
    async with guarding(sqlite_url, smarthost.port, tls=tls) as guard, greeted(guard.port) as client:
        for command in ("MAIL FROM:<a@b.example>", "RCPT TO:<a@b.example>", "DATA", "VRFY a"):
            await client.ask(command, "530 5.7.0 *")
        await client.ask("NOOP", "250 *")
        await client.starttls(certificates.client_context())
        await client.ask("EHLO app.example", "250-*")
        await client.ask("MAIL FROM:<a@b.example>", "250 *")


@pytest.mark.parametrize("garbage", [b"EHLO app.example\r\n", b"\x16\x03\x01\x00\x05hello", b"\0" * 5000])
@pytest.mark.parametrize("implicit", [False, True])
async def test_broken_handshake_ends_the_session(guard, smarthost, garbage, implicit) -> None:
    async with connected(guard.tls_port if implicit else guard.port) as client:
        if not implicit:
            await client.hello()
            await client.ask("STARTTLS", "220 *")
        await client.send_octets(garbage)
        client.writer.write_eof()
        async with asyncio.timeout(10):
            while await client.reader.read(1000):
                pass

    async with greeted(guard.port) as client:  # and the guard goes on
        assert (await client.message(ALICE)).startswith("250 ")


@pytest.mark.parametrize("implicit", [False, True])
async def test_client_that_leaves_in_the_handshake_leaves_nothing_behind(guard, implicit) -> None:
    sessions = guard.guard._server._context.sessions
    async with connected(guard.tls_port if implicit else guard.port) as client:
        if not implicit:
            await client.hello()
            await client.ask("STARTTLS", "220 *")
        client.reset()

    await eventually(lambda: not sessions.all())


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
async def test_old_tls_is_refused(guard, certificates) -> None:
    context = certificates.client_context()
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")

    with pytest.raises((ssl.SSLError, ConnectionError)):
        async with connected(guard.tls_port, context):
            pass


async def test_tls_1_2_is_taken(guard, certificates) -> None:
    context = certificates.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with connected(guard.tls_port, context) as client:
        await client.hello()


async def test_big_message_under_tls(guard, smarthost, certificates) -> None:
    """More than any buffer in between holds."""
    wire = b"Subject: big\r\n\r\n" + b"0123456789abcdef\r\n" * 200_000
    async with connected(guard.tls_port, certificates.client_context()) as client:
        await client.hello()
        said = await client.message(ALICE, wire=wire)

    assert said.startswith("250 ")
    assert smarthost.messages[0].message.endswith(wire)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("", "no start line|pem lib|PEM"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "."),
    ],
)
def test_certificate_that_cannot_be_used(tmp_path, text, message) -> None:
    file = tmp_path / "guard.pem"
    if text is not None:
        file.write_text(text)

    with pytest.raises(SettingsError, match=rf"^tls\.certificate_file: .*{message}") as error:
        load_certificate(TlsSettings(certificate_file=file))

    assert "\n" not in str(error.value)


def test_key_of_another_certificate(tmp_path, certificates) -> None:
    with pytest.raises(SettingsError, match="key values mismatch"):
        load_certificate(TlsSettings(certificate_file=certificates.server_file, key_file=certificates.client_file))


def test_encrypted_key_is_not_asked_about(tmp_path, certificates) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    key = load_pem_private_key(certificates.server_file.read_bytes(), None)
    file = tmp_path / "key.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))

    with pytest.raises(SettingsError, match="the key is encrypted"):
        load_certificate(TlsSettings(certificate_file=certificates.server_file, key_file=file))


@pytest.mark.parametrize(
    ("attributes", "keyword"),
    [
        ((False, False, True, False), "SMTP"),
        ((True, False, False, False), "ESMTP"),
        ((True, False, True, False), "ESMTPS"),
        ((True, False, False, True), "ESMTPA"),
        ((True, True, True, True), "UTF8SMTPSA"),
    ],
)
def test_protocol_keyword(attributes, keyword) -> None:
    """RFC 3848, RFC 6531 3.7.3."""
    extended, smtputf8, tls, authenticated = attributes

    assert keyword == protocol_keyword(extended=extended, smtputf8=smtputf8, tls=tls, authenticated=authenticated)
