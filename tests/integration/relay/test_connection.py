"""One connection: its socket, its memory, its end."""

import asyncio
import socket
import ssl
import tracemalloc

import pytest

from smtpguard.errors import SmarthostUnavailable
from smtpguard.relay.connection import UPLOAD_SLICE_OCTETS, SmarthostConnection
from smtpguard.relay.tls import TlsSession
from tests.integration.relay.deliveries import ALICE, WIRE, begin, chunks
from tests.support.eventually import eventually
from tests.support.scripted_smarthost import ScriptedSmarthost, hang, stall


async def test_octets_wait_nowhere_in_this_process(relay_to) -> None:
    """Neither for more to come (Nagle) nor in the transport, once an upload has ended."""
    async with ScriptedSmarthost() as scripted:
        transaction = begin(relay_to(scripted))
        await transaction.rcpt([ALICE])
        connection = transaction._connection
        assert connection is not None
        assert connection._transport is not None
        own = connection._transport.get_extra_info("socket")

        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert connection._transport.get_write_buffer_limits() == (0, 0)
        await transaction.abort()


async def test_closed_while_it_connects() -> None:
    async with ScriptedSmarthost(greeting=hang()) as scripted:
        connection = SmarthostConnection("smarthost")
        connection.close()
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: connection, scripted.host, scripted.port)
        await connection.lost

        assert not connection.is_clean
        with pytest.raises(SmarthostUnavailable, match="closed by the guard"):
            connection.write(b"NOOP\r\n", replies=1)


async def test_a_handshake_without_headway_ends() -> None:
    async with ScriptedSmarthost(greeting=hang()) as scripted:
        connection = SmarthostConnection("smarthost")
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: connection, scripted.host, scripted.port)
        with pytest.raises(SmarthostUnavailable, match=r"no TLS handshake within 0\.01 s"):
            await connection.start_tls(TlsSession(ssl.create_default_context(), "localhost"), 0.01)

        await scripted.wait_until_closed()


async def test_no_tls_over_words_that_nobody_has_read() -> None:
    async with ScriptedSmarthost() as scripted:
        connection = SmarthostConnection("smarthost")
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: connection, scripted.host, scripted.port)
        await eventually(lambda: bool(connection._replies))
        with pytest.raises(SmarthostUnavailable, match="it spoke before TLS began"):
            await connection.start_tls(TlsSession(ssl.create_default_context(), "localhost"), 20)

        await scripted.wait_until_closed()
        assert scripted.connections[0].commands == []


async def test_no_dot_goes_into_a_socket_that_is_being_closed(relay_to) -> None:
    """The event loop knows that the connection is lost, and has not told yet."""
    async with ScriptedSmarthost() as scripted:
        transaction = begin(relay_to(scripted))
        await transaction.rcpt([ALICE])
        await transaction.send_body(chunks(WIRE))
        connection = transaction._connection
        assert connection is not None
        assert connection._transport is not None
        connection._transport.abort()
        with pytest.raises(SmarthostUnavailable, match="closed"):
            await transaction.finish()

        await scripted.wait_until_closed()
        assert not scripted.messages


@pytest.mark.parametrize("slice_octets", [UPLOAD_SLICE_OCTETS, 30_000_000])
async def test_a_blocked_upload_ends(relay_to, monkeypatch, slice_octets: int) -> None:
    """In the middle as well as in the last slice."""
    monkeypatch.setattr("smtpguard.relay.connection.UPLOAD_SLICE_OCTETS", slice_octets)
    async with ScriptedSmarthost(body={0: stall()}, receive_buffer=65536) as scripted:
        smarthost = relay_to(scripted, block_timeout=0.05)
        transaction = begin(smarthost)
        await transaction.rcpt([ALICE])
        with pytest.raises(SmarthostUnavailable, match=r"took no octet for 0\.05 s"):
            await transaction.send_body(chunks(b"x" * 20_000_000 + b"\r\n"))

        assert smarthost._pool.idle == 0


@pytest.mark.parametrize("tls", ["none", "starttls"])
async def test_a_blocked_upload_copies_no_more_than_a_slice(relay_to, certificates, tls: str) -> None:
    wire = b"x" * 20_000_000 + b"\r\n"
    secure = {} if tls == "none" else {"tls": certificates.server_context()}
    trust = {} if tls == "none" else {"tls": tls, "ca_file": certificates.ca_file}
    async with ScriptedSmarthost(body={0: stall()}, receive_buffer=65536, **secure) as scripted:
        transaction = begin(relay_to(scripted, block_timeout=0.05, **trust))
        await transaction.rcpt([ALICE])
        tracemalloc.start()
        try:
            with pytest.raises(SmarthostUnavailable):
                await transaction.send_body(chunks(wire))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert peak < 4 * UPLOAD_SLICE_OCTETS
