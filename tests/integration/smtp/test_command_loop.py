"""The command loop where it is easily wrong: an application held back, one that is deaf, and timers of the dead."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from smtpguard.smtp import connection
from tests.support.certificates import make_certificates
from tests.support.eventually import eventually
from tests.support.guard import RunningGuard, guarding, verify
from tests.support.scripted_smarthost import ScriptedSmarthost, hang, hold
from tests.support.transcript import connected, greeted

pytestmark = pytest.mark.usefixtures("nothing_outlives")

ALICE, STRANGER = "alice@verified.example", "xyz123@provider.example"


@pytest.fixture
async def smarthost() -> AsyncIterator[ScriptedSmarthost]:
    async with ScriptedSmarthost() as smarthost:
        yield smarthost


@pytest.fixture
async def guard(sqlite_url, smarthost) -> AsyncIterator[RunningGuard]:
    async with guarding(sqlite_url, smarthost.port) as guard:
        await verify(guard.desks, ALICE)
        yield guard


def sessions(guard: RunningGuard) -> tuple[connection.Connection, ...]:
    return guard.guard._server._context.sessions.all()


async def test_application_that_was_held_back_is_seen_to_leave(guard, smarthost, monkeypatch) -> None:
    """A big packet with the end of the message in it, and nobody there any more before the final dot went out."""
    monkeypatch.setattr("smtpguard.smtp.input.HIGH_WATER_OCTETS", 64)
    go_on = asyncio.Event()
    smarthost.data = hold(go_on)
    with capture_logs() as lines:
        async with greeted(guard.port) as client:
            await client.envelope(ALICE)
            await client.ask("DATA", "354 *")
            await client.send_octets(b"Subject: x\r\n\r\n" + b"x" * 1000 + b"\r\n.\r\n")
            await smarthost.wait_for_command("DATA")
            client.reset()
        await eventually(lambda: not sessions(guard))
        go_on.set()
        await eventually(lambda: bool(lines))

    assert [(line["event"], line["outcome"]) for line in lines] == [("transaction-ended", "client-gone")]
    assert smarthost.messages == []


async def test_handshake_of_an_application_that_was_held_back(sqlite_url, smarthost, tmp_path, monkeypatch) -> None:
    """STARTTLS was the last of many commands in one packet."""
    monkeypatch.setattr("smtpguard.smtp.input.HIGH_WATER_OCTETS", 64)
    certificates = make_certificates(tmp_path)
    tls = {"certificate_file": str(certificates.server_file)}
    async with guarding(sqlite_url, smarthost.port, tls=tls) as guard, greeted(guard.port) as client:
        await client.send(*["NOOP"] * 50, "STARTTLS")
        await client.expect(*["250 *"] * 50, "220 *")
        async with asyncio.timeout(10):
            await client.writer.start_tls(certificates.client_context(), server_hostname="localhost")
        await client.ask("EHLO app.example", "250-*")


async def test_application_that_reads_nothing_and_leaves_while_a_recipient_is_asked_for(
    sqlite_url, smarthost, monkeypatch
) -> None:
    """What it never reads does not keep its session."""
    monkeypatch.setattr(connection, "CLOSE_GRACE_SECONDS", 0.05)
    smarthost.rcpt = hang()
    loop = asyncio.get_running_loop()
    async with guarding(sqlite_url, smarthost.port, smtp={"idle_timeout": 1}) as guard:
        await verify(guard.desks, ALICE)
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            deaf.setblocking(False)
            await loop.sock_connect(deaf, ("127.0.0.1", guard.port))
            await loop.sock_sendall(deaf, b"EHLO app.example\r\n")
            await eventually(lambda: len(sessions(guard)) == 1)
            (session,) = sessions(guard)
            session._output.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
            while session._output.get_write_buffer_size() < 1000:
                await loop.sock_sendall(deaf, b"HELP\r\n" * 20)
                await asyncio.sleep(0)
            await loop.sock_sendall(deaf, b"MAIL FROM:<crm@app.example>\r\nRCPT TO:<%b>\r\n" % ALICE.encode())
            await smarthost.wait_for_command("RCPT")
            deaf.shutdown(socket.SHUT_WR)

            await eventually(lambda: not sessions(guard))


async def test_session_that_is_gone_before_its_message_is_done_sets_no_timer(guard, smarthost) -> None:
    """It would be said to have been idle for too long, minutes later."""
    go_on = asyncio.Event()
    smarthost.dot = hold(go_on)
    with capture_logs() as lines:
        async with greeted(guard.port) as client:
            await client.envelope(ALICE)
            await client.ask("DATA", "354 *")
            await client.send("x", ".")
            await smarthost.wait_for_message()
            (session,) = sessions(guard)
            client.reset()
        await eventually(lambda: not sessions(guard))
        go_on.set()
        await eventually(session._handler_coroutine.done)
        await eventually(lambda: lines != [])

    assert [line["outcome"] for line in lines] == ["accepted"]
    assert session._clock._timer is None


@pytest.mark.parametrize("field", [b".X-Smtpguard-Purpose: a\r\n", b"X-Smtpguard-Purpose:\r\n. a\r\n"])
async def test_dot_in_front_of_a_header_line_hides_no_field(guard, smarthost, field) -> None:
    """The smarthost takes it away, be it needed or not; then the field would be there."""
    async with greeted(guard.port) as client:
        said = await client.message(ALICE, STRANGER, wire=b"Subject: a\r\n. b\r\n" + field + b"\r\n..body\r\n")
    (waiting,) = await guard.waiting()
    content = await guard.desks.store.quarantine.content(waiting.id)

    assert said.startswith("250 ")
    for message in (smarthost.messages[0].message, content.message):
        assert message.endswith(b"+0000\r\nSubject: a\r\n b\r\n\r\n.body\r\n")


async def test_pipelined_behind_a_half_closed_quit(guard, smarthost) -> None:
    """All of it at once: what stands before QUIT is answered, what stands behind it is not carried out."""
    async with connected(guard.port) as client:
        envelope = f"MAIL FROM:<crm@app.example>\r\nRCPT TO:<{ALICE}>\r\n"
        bdat = f"{envelope}BDAT 3\r\na\r\nBDAT 4 LAST\r\nb\r\n."
        data = f"{envelope}DATA\r\nSubject: x\r\n\r\nQUIT\r\n.\r\n"
        await client.send_octets(f"EHLO a\r\n{data}{bdat}{data}QUIT\r\n{envelope}QUIT\r\n".encode())
        client.writer.write_eof()
        await client.expect("220 *", "250-*")
        for replies in (["354 *"], ["250 *"], ["354 *"]):
            await client.expect("250 *", "250 *", *replies, "250 2.0.0 OK *")
        await client.expect("221 *")
        assert await client.at_end()

    assert len(smarthost.messages) == 3
    assert smarthost.count("MAIL") == 3
