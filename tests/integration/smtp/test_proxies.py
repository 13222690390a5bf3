"""The guard behind a proxy or another mail server: PROXY protocol and XCLIENT, from named networks only."""

import asyncio
import socket
import struct

import pytest

from smtpguard.service.password_hashes import hash_password
from tests.support.certificates import make_certificates
from tests.support.guard import guarding
from tests.support.scripted_smarthost import ScriptedSmarthost
from tests.support.transcript import Transcript, connected, greeted

STRANGER = "xyz123@provider.example"
LOOPBACK = "127.0.0.0/8"
CRM = {"name": "crm", "networks": ["10.1.0.0/16", "2001:db8::/32"]}
LOCAL = {"name": "local", "networks": LOOPBACK}
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


@pytest.fixture
async def smarthost():
    async with ScriptedSmarthost() as smarthost:
        yield smarthost


def version_2(command: int, family: int, addresses: bytes, tlv: bytes = b"") -> bytes:
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack("!H", len(addresses + tlv)) + addresses + tlv


def inet(source: str) -> bytes:
    return socket.inet_aton(source) + socket.inet_aton("192.0.2.9") + struct.pack("!HH", 4711, 25)


def inet6(source: str) -> bytes:
    addresses = (socket.inet_pton(socket.AF_INET6, address) for address in (source, "2001:db8::9"))
    return b"".join(addresses) + struct.pack("!HH", 4711, 25)


async def application_behind(guard, client: Transcript) -> str:
    await client.hello()
    await client.message(STRANGER)
    return (await guard.waiting())[-1].application


@pytest.mark.parametrize(
    ("header", "application"),
    [
        (b"PROXY TCP4 10.1.2.3 192.0.2.9 4711 25\r\n", "crm"),
        (b"PROXY TCP6 2001:db8::1 2001:db8::9 4711 25\r\n", "crm"),
        (b"PROXY UNKNOWN\r\n", "local"),
        (version_2(1, 0x11, inet("10.1.2.3")), "crm"),
        (version_2(1, 0x11, inet("10.1.2.3"), b"\x03\x00\x04abcd"), "crm"),
        (version_2(1, 0x21, inet6("2001:db8::1")), "crm"),
        (version_2(1, 0x21, inet6("::ffff:10.1.2.3")), "crm"),
        (version_2(0, 0x11, inet("10.1.2.3")), "local"),  # LOCAL: the proxy itself
        (version_2(0, 0x00, b""), "local"),
    ],
)
async def test_proxy_says_who_the_application_is(sqlite_url, smarthost, header, application) -> None:
    smtp = {"proxy_networks": LOOPBACK}
    async with (
        guarding(sqlite_url, smarthost.port, smtp=smtp, application=[CRM, LOCAL]) as guard,
        connected(guard.port) as client,
    ):
        await client.send_octets(header)

        assert await application_behind(guard, client) == application


async def test_header_and_commands_in_one_packet(sqlite_url, smarthost) -> None:
    smtp = {"proxy_networks": LOOPBACK}
    async with (
        guarding(sqlite_url, smarthost.port, smtp=smtp, application=[CRM]) as guard,
        connected(guard.port) as client,
    ):
        await client.send_octets(b"PROXY TCP4 10.1.2.3 192.0.2.9 4711 25\r\nEHLO app\r\nMAIL FROM:<a@b.example>\r\n")
        await client.expect("220 *", "250-*", "250 *")


@pytest.mark.parametrize(
    "header",
    [
        b"EHLO app.example\r\n",
        b"PROXY\r\n",
        b"PROXY TCP4 10.1.2.3\r\n",
        b"PROXY TCP4 10.1.2.3 192.0.2.9 99999 25\r\n",
        b"PROXY TCP4 2001:db8::1 192.0.2.9 4711 25\r\n",
        b"PROXY TCP4 10.1.2.3 192.0.2.9 4711 25 and more\r\n",
        b"PROXY " + b"x" * 200 + b"\r\n",
        SIGNATURE + b"\x11\x11\x00\x00",
        version_2(1, 0x11, b"abc"),
        version_2(2, 0x11, inet("10.1.2.3")),
        SIGNATURE[:7],
        b"",
    ],
    ids=lambda header: repr(header[:20]),
)
async def test_connection_without_a_proper_header_is_closed(sqlite_url, smarthost, header) -> None:
    """Without a word: only a proxy is entitled to one."""
    smtp = {"proxy_networks": LOOPBACK}
    async with guarding(sqlite_url, smarthost.port, smtp=smtp) as guard, connected(guard.port) as client:
        await client.send_octets(header)
        client.writer.write_eof()

        assert await client.at_end()


async def test_header_from_elsewhere_is_no_command(sqlite_url, smarthost) -> None:
    """Else everybody could pose as any application."""
    smtp = {"proxy_networks": "192.0.2.0/24"}
    async with (
        guarding(sqlite_url, smarthost.port, smtp=smtp, application=[CRM]) as guard,
        connected(guard.port) as client,
    ):
        await client.send_octets(b"PROXY TCP4 10.1.2.3 192.0.2.9 4711 25\r\n")
        await client.expect("220 *", "500 *")
        await client.ask("EHLO a", "250-*")
        await client.ask("MAIL FROM:<a@b.example>", "250 *")
        await client.ask(f"RCPT TO:<{STRANGER}>", "554 5.7.1 *")


async def test_proxy_in_front_of_implicit_tls(sqlite_url, smarthost, tmp_path) -> None:
    """The header comes in the clear, and the client's first words of TLS in the same packet."""
    certificates = make_certificates(tmp_path)
    sections = {
        "smtp": {"proxy_networks": LOOPBACK, "tls_listen": "127.0.0.1:0"},
        "tls": {"certificate_file": certificates.server_file},
        "application": [CRM, LOCAL],
    }
    async with guarding(sqlite_url, smarthost.port, **sections) as guard:
        reader, writer = await asyncio.open_connection("127.0.0.1", guard.tls_port)
        writer.transport.pause_reading()
        writer.write(b"PROXY TCP4 10.1.2.3 192.0.2.9 4711 25\r\n")
        await writer.start_tls(certificates.client_context(), server_hostname="localhost")
        client = Transcript(reader, writer)

        assert await application_behind(guard, client) == "crm"
        client.close()


async def test_xclient_says_who_the_application_is(sqlite_url, smarthost) -> None:
    smtp = {"xclient_networks": LOOPBACK}
    async with (
        guarding(sqlite_url, smarthost.port, smtp=smtp, application=[CRM, LOCAL]) as guard,
        greeted(guard.port) as client,
    ):
        await client.ask("XCLIENT ADDR=10.1.2.3 NAME=crm.example", "220 *")
        await client.ask("MAIL FROM:<a@b.example>", "503 *")  # it begins anew
        await client.ask("EHLO crm.example", "250-*")
        await client.message(STRANGER)
        (waiting,) = await guard.waiting()
        content = await guard.desks.store.quarantine.content(waiting.id)

    assert waiting.application == "crm"
    assert b"([10.1.2.3])" in content.message


async def test_xclient_says_who_logged_in(sqlite_url, smarthost) -> None:
    shop = {"name": "shop", "username": "shop", "password_hash": hash_password("x")}
    smtp = {"xclient_networks": LOOPBACK, "auth_without_tls": True}
    async with (
        guarding(sqlite_url, smarthost.port, smtp=smtp, application=[shop]) as guard,
        greeted(guard.port) as client,
    ):
        await client.ask("XCLIENT ADDR=[UNAVAILABLE] LOGIN=shop", "220 *")
        await client.ask("EHLO crm.example", "250-*")
        await client.message(STRANGER)
        (waiting,) = await guard.waiting()

    assert waiting.application == "shop"


async def test_xclient_from_elsewhere_is_refused(sqlite_url, smarthost) -> None:
    smtp = {"xclient_networks": "192.0.2.0/24"}
    async with (
        guarding(sqlite_url, smarthost.port, smtp=smtp, application=[CRM]) as guard,
        greeted(guard.port) as client,
    ):
        await client.ask("XCLIENT ADDR=10.1.2.3", "550 5.7.0 *")
        await client.ask("MAIL FROM:<a@b.example>", "250 *")
        await client.ask(f"RCPT TO:<{STRANGER}>", "554 5.7.1 *")


async def test_xclient_out_of_place(sqlite_url, smarthost) -> None:
    smtp = {"xclient_networks": LOOPBACK}
    async with guarding(sqlite_url, smarthost.port, smtp=smtp) as guard, greeted(guard.port) as client:
        await client.ask("XCLIENT COLOUR=red", "501 5.5.4 *")
        await client.ask("MAIL FROM:<a@b.example>", "250 *")
        await client.ask("XCLIENT ADDR=10.1.2.3", "503 5.5.1 *")


async def test_sessions_are_counted_under_the_real_application(sqlite_url, smarthost) -> None:
    smtp = {"proxy_networks": LOOPBACK, "max_sessions_per_network": 1}
    header = "PROXY TCP4 10.1.2.{} 192.0.2.9 4711 25"
    async with (
        guarding(sqlite_url, smarthost.port, smtp=smtp) as guard,
        connected(guard.port) as first,
        connected(guard.port) as second,
        connected(guard.port) as third,
    ):
        await first.ask(header.format(1), "220 *")
        await second.ask(header.format(1), "421 4.7.0 *")
        await third.ask(header.format(2), "220 *")
