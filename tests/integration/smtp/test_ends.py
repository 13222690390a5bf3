"""How sessions end, and what they leave: found by attacking them."""

import asyncio
import socket
import ssl

import pytest
from aiosmtpd.smtp import SMTP

from smtpguard.errors import SettingsError
from smtpguard.service.password_hashes import hash_password
from smtpguard.spool import WireMessage
from tests.support.certificates import make_certificates
from tests.support.eventually import eventually
from tests.support.guard import guarding, make_settings, verify
from tests.support.scripted_smarthost import ScriptedSmarthost, hold
from tests.support.transcript import connected, greeted

ALICE, STRANGER = "alice@verified.example", "xyz123@provider.example"


@pytest.fixture
def certificates(tmp_path):
    return make_certificates(tmp_path)


@pytest.fixture
async def smarthost():
    async with ScriptedSmarthost() as smarthost:
        yield smarthost


def sessions_of(guard):
    return guard.guard._server._context.sessions


class RudeTlsClient:
    """Speaks TLS by hand, and never says goodbye."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    async def connect(self, port: int) -> None:
        self._reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        await self._carry_out(self._tls.do_handshake)
        await self._carry_out(lambda: self._tls.read(1000))  # the greeting

    async def say(self, octets: bytes) -> None:
        await self._carry_out(lambda: self._tls.write(octets))

    async def _carry_out(self, step) -> None:
        while True:
            try:
                step()
            except ssl.SSLWantReadError:
                self.writer.write(self._outgoing.read())
                self._incoming.write(await self._reader.read(65_536))
            else:
                self.writer.write(self._outgoing.read())
                return


async def test_shutdown_does_not_wait_for_a_goodbye_under_tls(sqlite_url, smarthost, certificates) -> None:
    sections = {
        "smtp": {"tls_listen": "127.0.0.1:0", "shutdown_timeout": 0.5},
        "tls": {"certificate_file": certificates.server_file},
    }
    client = RudeTlsClient(certificates.client_context())
    async with asyncio.timeout(20):  # asyncio itself waits for 30 s
        async with guarding(sqlite_url, smarthost.port, **sections) as guard:
            await client.connect(guard.tls_port)
    client.writer.close()


async def test_session_that_was_told_to_end_is_dropped_under_tls(sqlite_url, smarthost, certificates) -> None:
    sections = {
        "smtp": {"tls_listen": "127.0.0.1:0", "max_errors": 1},
        "tls": {"certificate_file": certificates.server_file},
    }
    client = RudeTlsClient(certificates.client_context())
    async with guarding(sqlite_url, smarthost.port, **sections) as guard:
        await client.connect(guard.tls_port)
        await client.say(b"FOO\r\nFOO\r\n")
        await eventually(lambda: not sessions_of(guard).all(), within=20)
    client.writer.close()


async def test_sessions_that_come_all_at_once(sqlite_url, smarthost) -> None:
    """They lie in the backlog, and are let in before the first of them is counted."""
    async with guarding(sqlite_url, smarthost.port, smtp={"max_sessions": 5}) as guard:
        clients = [socket.create_connection(("127.0.0.1", guard.port)) for _ in range(50)]
        said = [await asyncio.to_thread(client.recv, 3) for client in clients]
        for client in clients:
            client.close()

    assert said.count(b"220") == 5
    assert said.count(b"421") == 45


async def test_peer_that_leaves_before_its_proxy_header(sqlite_url, smarthost) -> None:
    """As the health checks of load balancers do."""
    smtp = {"proxy_networks": "127.0.0.0/8"}
    async with guarding(sqlite_url, smarthost.port, smtp=smtp) as guard:
        _, writer = await asyncio.open_connection("127.0.0.1", guard.port)
        await eventually(lambda: sessions_of(guard).all())
        writer.close()
        await eventually(lambda: not sessions_of(guard).all(), within=5)


async def test_session_that_grows_old_while_a_message_is_finished(sqlite_url, smarthost) -> None:
    go = asyncio.Event()
    smarthost.dot = hold(go)
    async with guarding(sqlite_url, smarthost.port, smtp={"max_session_age": 0.3}) as guard:
        await verify(guard.desks, ALICE)
        async with greeted(guard.port) as client:
            asyncio.get_running_loop().call_later(0.6, go.set)
            assert (await client.message(ALICE)).startswith("250 ")
            await client.expect("421 4.4.2 *")
            assert await client.at_end()


async def test_half_close_behind_a_message_that_lies_in_a_file(sqlite_url, smarthost) -> None:
    async with guarding(sqlite_url, smarthost.port, smtp={"spool_above": 4096}) as guard:
        await verify(guard.desks, ALICE)
        async with greeted(guard.port) as client:
            await client.envelope(ALICE)
            await client.ask("DATA", "354 *")
            await client.send_octets(b"Subject: x\r\n\r\n" + (b"y" * 98 + b"\r\n") * 150 + b".\r\nQUIT\r\n")
            client.writer.write_eof()
            await client.expect("250 *", "221 *")


async def test_nothing_behind_quit_is_carried_out(sqlite_url, smarthost) -> None:
    application = {"name": "crm", "networks": "127.0.0.0/8", "max_messages_per_minute": 1}
    async with guarding(sqlite_url, smarthost.port, application=[application]) as guard:
        async with greeted(guard.port) as client:
            await client.send("QUIT", "MAIL FROM:<a@b.example>")
            await client.expect("221 *")
            assert await client.at_end()
        async with greeted(guard.port) as client:
            await client.ask("MAIL FROM:<a@b.example>", "250 *")


@pytest.mark.parametrize("chunked", [False, True])
async def test_unforeseen_error_within_a_message_ends_the_session(sqlite_url, smarthost, monkeypatch, chunked) -> None:
    """Nobody knows how much of it was read: the rest must not be taken for commands."""

    async def fail(self, octets) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(WireMessage, "_write", fail)
    async with guarding(sqlite_url, smarthost.port, smtp={"spool_above": 4096}) as guard:
        await verify(guard.desks, ALICE)
        async with greeted(guard.port) as client:
            await client.envelope(ALICE)
            if chunked:
                await client.send("BDAT 100000 LAST")
            else:
                await client.ask("DATA", "354 *")
            await client.send_octets(b"Subject: x\r\n\r\n" + (b"y" * 98 + b"\r\n") * 150)
            await client.expect("421 4.3.0 *")
            await client.send("MAIL FROM:<evil@x.example>", f"RCPT TO:<{ALICE}>", "DATA", "", ".")
            assert await client.at_end()

    assert smarthost.messages == []


async def test_unknown_verbs_hold_no_memory(sqlite_url, smarthost) -> None:
    """The stock class has a limit for each, in a dictionary of the class: whatever stood there before stays all there is."""
    before = set(SMTP.command_size_limits)
    async with guarding(sqlite_url, smarthost.port) as guard, greeted(guard.port) as client:
        for number in range(10):
            await client.ask(f"{number}" + "X" * 10_000, "500 *")
        (session,) = sessions_of(guard).all()

        assert set(session.command_size_limits) == before


async def test_long_password(sqlite_url, smarthost) -> None:
    """RFC 4954 4: 12,288 octets."""
    password = "p" * 3000
    shop = {"name": "shop", "username": "shop", "password_hash": hash_password(password)}
    async with (
        guarding(sqlite_url, smarthost.port, smtp={"auth_without_tls": True}, application=[shop]) as guard,
        greeted(guard.port) as client,
    ):
        await client.log_in("shop", password)


async def test_tls_that_is_required_from_now_on(sqlite_url, smarthost, certificates) -> None:
    tls = {"certificate_file": certificates.server_file}
    async with guarding(sqlite_url, smarthost.port, tls=tls) as guard, greeted(guard.port) as client:
        await guard.guard.reload(make_settings(sqlite_url, smarthost.port, tls=tls | {"required": True}))
        await client.ask("MAIL FROM:<a@b.example>", "530 5.7.0 *")
        await client.send_octets(b"BDAT 6 LAST\r\nNOOP\r\n")
        await client.expect("530 5.7.0 *")
        assert await client.at_end()  # a chunk follows, which is not to be taken for commands


async def test_certificate_that_a_listener_needs_stays(sqlite_url, smarthost, certificates) -> None:
    sections = {"smtp": {"tls_listen": "127.0.0.1:0"}, "tls": {"certificate_file": certificates.server_file}}
    async with guarding(sqlite_url, smarthost.port, **sections) as guard:
        with pytest.raises(SettingsError, match=r"without a restart: smtp\.tls_listen"):
            await guard.guard.reload(make_settings(sqlite_url, smarthost.port))
        async with connected(guard.tls_port, certificates.client_context()) as client:
            await client.hello()


async def test_trusted_mail_server_says_more_in_a_second_xclient(sqlite_url, smarthost) -> None:
    shop = {"name": "shop", "username": "shop", "password_hash": hash_password("x")}
    smtp = {"xclient_networks": "127.0.0.0/8", "auth_without_tls": True}
    async with (
        guarding(sqlite_url, smarthost.port, smtp=smtp, application=[shop]) as guard,
        greeted(guard.port) as client,
    ):
        await client.ask("XCLIENT LOGIN=shop", "220 *")
        await client.ask("XCLIENT ADDR=192.0.2.1", "220 *")
        await client.ask("EHLO app.example", "250-*")
        await client.message(STRANGER)

        assert [message.application for message in await guard.waiting()] == ["shop"]


@pytest.mark.parametrize("parameter", [b"ORCPT=utf-8;\xff@x", b"ORCPT=utf-8;\xed\xa0\x80@x"])
async def test_parameter_that_is_not_utf8_is_refused(sqlite_url, parameter) -> None:
    """It could be kept, and never be sent."""
    offers = ("PIPELINING", "SMTPUTF8", "8BITMIME", "DSN")
    async with ScriptedSmarthost(capabilities=offers) as smarthost, guarding(sqlite_url, smarthost.port) as guard:
        async with greeted(guard.port) as client:
            await client.ask("MAIL FROM:<a@b.example> SMTPUTF8", "250 *")
            await client.send_octets(b"RCPT TO:<%b> %b\r\n" % (STRANGER.encode(), parameter))
            await client.expect("501 5.5.4 *")
