"""One connection to the smarthost: commands go out, and each reply is counted off against a command.

Which reply answers which command is known by their order alone. So whatever disturbs it breaks the connection for
good: a word that nobody asked for, nonsense, silence for too long, a 421, the end of the stream. A broken connection
is closed at once; replies that came before the break can still be read. Under TLS it carries the octets itself.
"""

import asyncio
import select
import socket
from collections import deque
from collections.abc import Container, Iterator, Mapping
from typing import cast

from smtpguard.domain.reply import Reply
from smtpguard.errors import SmarthostUnavailable
from smtpguard.relay.alarm import Alarm
from smtpguard.relay.parser import PeerReply, ReplyParser, ReplySyntaxError
from smtpguard.relay.tls import TlsError, TlsSession

POSITIVE = range(200, 300)
REFUSAL = range(400, 600)
SERVICE_CLOSING = 421  # RFC 5321 3.8: may come in the place of any reply

UPLOAD_SLICE_OCTETS = 128 * 1024  # what of a body is handed to the transport, and may be copied by it, at a time
QUIT_SECONDS = 2.0  # for the answer to QUIT, which is a courtesy


class SmarthostGone(SmarthostUnavailable):
    """The smarthost ended the connection."""


class SmarthostConnection(asyncio.Protocol):
    """One connection, used by one caller at a time. ``name`` is for messages."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.capabilities: Mapping[str, str] = {}
        """What EHLO offered: keywords in upper case, with what follows them."""
        self.transactions = 0
        """How many transactions it has been borrowed for."""
        self.is_reset = True
        """Whether the smarthost knows of no transaction: none has begun since it took a message, or ever."""
        self._loop = asyncio.get_running_loop()
        self.opened_at = self._loop.time()
        self.alarm = Alarm(self._loop)
        """For whoever holds the connection: its own while a reply is awaited, and after QUIT."""
        self.lost: asyncio.Future[None] = self._loop.create_future()
        """Done as soon as the socket is closed."""
        self.early_refusal: Reply | None = None
        """A refusal that came unasked, and broke the connection."""
        self._transport: asyncio.Transport | None = None
        self._tls: TlsSession | None = None
        self._unread = select.poll()
        self._parser = ReplyParser()
        self._expected = 1  # the greeting
        self._replies: deque[PeerReply] = deque()
        self._news: asyncio.Future[bool] | None = None
        self.is_paused = False
        """Whether the kernel takes no more for now."""
        self.is_gone = False
        """Whether the smarthost has ended it, as far as the event loop has read."""
        self._dot_waits = False
        self._broken = ""

    @property
    def age(self) -> float:
        """How long it has been open, in seconds."""
        return self._loop.time() - self.opened_at

    @property
    def is_reused(self) -> bool:
        """Whether it has carried a transaction before this one."""
        return self.transactions > 1

    @property
    def is_clean(self) -> bool:
        """Whether it can carry another transaction: it is whole, and no reply is due or unread."""
        whole = not self._broken and self._transport is not None and not self._transport.is_closing()
        return whole and not (self._expected or self._replies or self.is_paused)

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless it was closed in the meantime."""
        self._transport = cast("asyncio.Transport", transport)
        # No buffer beside the kernel's: what has left write() and flush() does not wait in this process.
        self._transport.set_write_buffer_limits(high=0)
        own: socket.socket = self._transport.get_extra_info("socket")
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unread.register(own.fileno(), select.POLLIN)
        if self._broken:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Count off the replies in these octets; once broken, any answer (that to QUIT) ends it."""
        if self._broken:
            self._abort()
            return
        try:
            if self._tls is None:
                self._listen(data)
            else:
                for octets in self._decrypt(data, self._tls):
                    self._listen(octets)
        except (ReplySyntaxError, TlsError) as error:
            self._break(str(error))
        if not self._expected and self._parser.is_mid_reply:
            self._break("it spoke unasked")
        if self._tls is not None and self._tls.is_closed:
            self.eof_received()
        if self._replies:
            self._wake()

    def eof_received(self) -> None:
        """Take the end of the stream for the end of the connection."""
        shaking_hands = self._tls is not None and not self._tls.is_established
        self._break(f"it closed the connection{' in the TLS handshake' * shaking_hands}", gone=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end of the connection, whoever ended it."""
        self._break(f"the connection was lost: {exc or 'closed'}", gone=True)
        self.lost.set_result(None)

    def pause_writing(self) -> None:
        """Note that the kernel takes no more for now."""
        self.is_paused = True

    def resume_writing(self) -> None:
        """Note that the kernel has taken everything."""
        self.is_paused = False
        if self._dot_waits:
            self._dot_waits = False
            self._expected += 1
        self._wake()

    # What the relay calls

    async def start_tls(self, session: TlsSession, seconds: float) -> None:
        """Speak TLS from here on; raise SmarthostUnavailable if the handshake fails, or makes no headway for so long.

        What was said before the handshake cannot be trusted: a word that nobody has read yet breaks the connection.
        """
        if self._replies or self._parser.is_mid_reply:
            self._break("it spoke before TLS began")
        self._usable()
        self._tls = session
        self.data_received(b"")  # begins the handshake
        while not session.is_established:
            if self._broken:
                raise self._error()
            if not await self._news_within(seconds):
                self._break(f"no TLS handshake within {seconds:g} s")

    def write(self, data: bytes | memoryview, *, replies: int = 0) -> None:
        """Hand octets to the transport, to which that many replies are due.

        Raises SmarthostUnavailable if the connection is broken; nothing was handed over.
        """
        transport = self._usable()
        octets = data if self._tls is None else self._encrypt(data, self._tls)
        self._expected += replies
        transport.write(octets)

    async def flush(self, seconds: float) -> None:
        """Wait until the kernel has taken everything, or the connection is broken.

        It breaks when nothing was taken within that many seconds.
        """
        while self.is_paused and not self._broken:
            before = self._unsent()
            if not await self._news_within(seconds) and self._unsent() >= before:
                self._break(f"it took no octet for {seconds:g} s")

    async def upload(self, wire: bytes | bytearray | memoryview, seconds: float) -> None:
        """Write octets to which no reply is due and wait until the kernel has taken all of them.

        Raises SmarthostUnavailable if the smarthost says anything meanwhile, or takes nothing for that many seconds.
        """
        view = memoryview(wire)
        for start in range(0, len(view), UPLOAD_SLICE_OCTETS):
            await asyncio.sleep(0)  # others have their turn
            await self.catch_up()
            self.write(view[start : start + UPLOAD_SLICE_OCTETS])
            await self.flush(seconds)
        if self._broken:
            raise self._error()

    async def end_body(self, rest: bytes | bytearray | memoryview, seconds: float) -> None:
        """Write the rest of a body and the final dot at once, and wait until the kernel has taken them.

        Only then a reply is due. Raises SmarthostUnavailable, as ``upload`` does: the dot did not leave this process.
        """
        transport = self._usable()
        self.write(b"".join((rest, b".\r\n")))
        if transport.is_closing():
            raise self.failed("the connection was lost: it took no more", gone=True)
        if not self.is_paused:
            self._expected += 1
            return
        self._dot_waits = True
        await self.flush(seconds)
        if self._dot_waits:
            raise self._error()

    def has_unread(self) -> bool:
        """Whether the kernel has something from the smarthost, be it the end of the stream."""
        transport = self._transport
        return transport is not None and not transport.is_closing() and bool(self._unread.poll(0))

    async def catch_up(self) -> None:
        """Let the event loop read what the smarthost has said by now, even if only the kernel has it.

        What is written next, before anything else is awaited, cannot be taken for what such a word answers.
        """
        while self.has_unread():  # noqa: ASYNC110 - the kernel sets no event
            await asyncio.sleep(0)

    async def reply(self, seconds: float) -> PeerReply:
        """Return the next reply, whatever it says; raise SmarthostUnavailable if none comes within the seconds."""
        while not self._replies:
            if self._broken:
                raise self._error()
            if not await self._news_within(seconds):
                self._break(f"no reply within {seconds:g} s")
        return self._replies.popleft()

    async def answer(self, seconds: float, *, wanted: Container[int] = POSITIVE) -> Reply:
        """Return the next reply if its code is wanted, or if it is a refusal.

        Raises SmarthostUnavailable for every other, for 421 unless it is wanted, and if none comes within the seconds.
        """
        reply = (self._replies.popleft() if self._replies else await self.reply(seconds)).cleaned
        if reply.code in wanted or (reply.code in REFUSAL and reply.code != SERVICE_CLOSING):
            return reply
        raise self.failed(f"it said: {reply}")

    def ensure_in_step(self) -> None:
        """Raise SmarthostUnavailable if the smarthost said too much: the replies may belong to other commands."""
        if self._broken and not self.is_gone:
            raise self._error()

    def failed(self, reason: str, *, gone: bool = False) -> SmarthostUnavailable:
        """Break the connection and return the error to raise; if it was broken already, with the first reason.

        ``gone``: it is the smarthost that ends it.
        """
        self._break(reason, gone=gone)
        return self._error()

    def close(self) -> None:
        """Close it at once, with whatever is under way; what has not left this process is dropped."""
        self._break("it was closed by the guard")

    def quit(self) -> None:
        """Take leave with QUIT and close as soon as it is answered; close at once what is not clean."""
        if not self.is_clean:
            self.close()
            return
        self.write(b"QUIT\r\n")
        self._broken = "it was closed by the guard"
        self.alarm.set(QUIT_SECONDS, self._abort)

    # Inside

    def _usable(self) -> asyncio.Transport:
        transport = self._transport
        if transport is None or transport.is_closing():
            self._break("the connection is closed", gone=True)
        if transport is None or self._broken:
            raise self._error()
        return transport

    def _listen(self, octets: bytes) -> None:
        for reply in self._parser.feed(octets):
            if self._expected and not self._broken and reply.code != SERVICE_CLOSING:
                self._expected -= 1
                self._replies.append(reply)
            else:
                self._hear_out_of_turn(reply)

    def _decrypt(self, data: bytes, session: TlsSession) -> Iterator[bytes]:
        was_established = session.is_established
        try:
            yield from session.decrypt(data)
        finally:
            transport = cast("asyncio.Transport", self._transport)
            transport.write(session.to_send())  # of the handshake, or an alert that tells why it fails
        if not was_established and session.is_established:
            self._wake()

    def _encrypt(self, data: bytes | memoryview, session: TlsSession) -> bytes:
        session.encrypt(data)
        return session.to_send()

    def _hear_out_of_turn(self, reply: PeerReply) -> None:
        """Hear what ends the connection: a reply that nobody asked for, or a 421."""
        closing = reply.code == SERVICE_CLOSING
        if self._broken:
            return
        if not self._expected:
            self.early_refusal = reply.cleaned if reply.code in REFUSAL and not closing else None
            self._break(f"it said unasked: {reply.cleaned}", gone=closing)
            return
        self._expected -= 1
        self._replies.append(reply)
        self._break(f"it said: {reply.cleaned}", gone=True)

    def _break(self, reason: str, *, gone: bool = False) -> None:
        if self._broken:
            return
        self._broken, self.is_gone = reason, gone
        self._abort()
        self._wake()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _error(self) -> SmarthostUnavailable:
        kind = SmarthostGone if self.is_gone else SmarthostUnavailable
        return kind(f"smarthost {self.name}: {self._broken}")

    def _news_within(self, seconds: float) -> asyncio.Future[bool]:
        """Return what is done as soon as there is news, with False if there is none in time.

        An alarm that is left behind finds it done already.
        """
        self._news = self._loop.create_future()
        self.alarm.set(seconds, self._time_out)
        return self._news

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(True)

    def _time_out(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(False)

    def _unsent(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport else 0
