r"""A real SMTP server on 127.0.0.1 that follows a script: it refuses, waits, hangs, talks nonsense, or goes away.

    async with ScriptedSmarthost(rcpt={"bob@x.test": refuse(550, "5.1.1 no")}) as smarthost:
        settings = smarthost.settings(command_timeout=0.2)     # SmarthostSettings with its host and port
        ...
        message = await smarthost.wait_for_message()           # the first whose final dot came
        assert message.recipients == ["alice@x.test"]
        assert message.message == b"Subject: hi\r\n\r\n.\r\n"   # dots unstuffed; message.wire is what came

Each step of the dialogue has an action: ``greeting``, ``ehlo``, ``helo``, ``starttls``, ``auth`` (once name and password
are in), ``mail``, ``rcpt`` (one action, or one a recipient), ``data``, ``body`` (one an offset: done as soon as that many
octets of the body are in), ``dot``, ``rset``, ``quit``. With ``tls`` (the context of a server) it knows STARTTLS, or speaks
TLS from the start if ``implicit_tls``. The steps are attributes, and can be changed at any time: ``smarthost.dot = drop()``. The default everywhere is
``usual()``. Actions:

    usual()                 what a well-behaved server says (in the body: nothing)
    refuse(code, text)      that reply instead
    reply(code, *lines)     the same, of several lines
    raw(octets)             these octets instead
    hang()                  never an answer, though it goes on reading
    stall()                 neither an answer nor another read
    drop(), reset()         end the connection: FIN, RST (at the dot: the message is recorded before)
    hold(event, then=...)   wait until the asyncio.Event is set, without reading, then ...
    sequence(a, b, ...)     one after the other: sequence(raw(b"250 early\r\n"), usual())
    in_turn(a, b, ...)      a the first time, b the second, ... and then usual()

An action is an async function of the session; a test may bring its own.
"""

import asyncio
import socket
import ssl
import struct
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from smtpguard.settings import SmarthostSettings

Action = Callable[["Session"], Awaitable[None]]

CAPABILITIES = ("PIPELINING", "SIZE 52428800", "8BITMIME", "ENHANCEDSTATUSCODES")
PATIENCE_SECONDS = 20.0


class HangUp(Exception):
    """An action ended the connection."""


class ClientGone(Exception):
    """The client ended the connection."""


@dataclass
class Transaction:
    """One transaction, from MAIL on.

    ``offered`` are all recipients in their order, ``recipients`` those that got a 2yz. ``dot`` is whether the final
    dot came; ``code`` what it was answered with, None as long as it was not.
    """

    connection: "Connection" = field(repr=False)
    reverse_path: str
    parameters: tuple[str, ...]
    offered: list[str] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    rcpt_parameters: dict[str, str] = field(default_factory=dict)
    """What stood behind each recipient."""
    wire: bytes = b""
    dot: bool = False
    code: int | None = None

    @property
    def message(self) -> bytes:
        """The body without its dot-stuffing."""
        return (b"\r\n" + self.wire).replace(b"\r\n.", b"\r\n")[2:]


@dataclass(eq=False)
class Connection:
    """What came in on one connection; ``flights`` are the commands by the packet that they came in."""

    writer: asyncio.StreamWriter = field(repr=False)
    commands: list[str] = field(default_factory=list)
    flights: list[list[str]] = field(default_factory=list)
    transactions: list[Transaction] = field(default_factory=list)
    logins: list[tuple[str, str, str]] = field(default_factory=list)
    """Mechanism, name and password of each AUTH."""
    closed: bool = False

    @property
    def tls(self) -> ssl.SSLObject | None:
        """What is known of the TLS session, None without one."""
        return self.writer.get_extra_info("ssl_object")

    def say(self, octets: bytes) -> None:
        """Send octets out of turn."""
        self.writer.write(octets)

    def drop(self) -> None:
        """Close it (FIN)."""
        if not self.closed:  # asyncio's TLS loses its socket where it is closed twice
            self.closed = True
            self.writer.close()

    def end(self) -> None:
        """Close it at once, where TLS would wait for a farewell."""
        self.closed = True
        self.writer.transport.abort()

    def reset(self) -> None:
        """Close it (RST)."""
        linger_not = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)
        self.writer.transport.abort()


def reply(code: int, *lines: str) -> Action:
    """Answer with this reply."""

    async def act(session: "Session") -> None:
        session.reply(code, *lines)

    return act


def refuse(code: int, text: str) -> Action:
    """Answer with this refusal."""
    return reply(code, text)


def usual() -> Action:
    """Answer as a well-behaved server does."""

    async def act(session: "Session") -> None:
        if session.default is not None:
            code, lines = session.default
            session.reply(code, *lines)

    return act


def raw(octets: bytes) -> Action:
    """Send these octets."""

    async def act(session: "Session") -> None:
        session.connection.say(octets)

    return act


def hang() -> Action:
    """Read on, and never answer."""

    async def act(session: "Session") -> None:
        while True:
            await session.read()

    return act


def stall() -> Action:
    """Neither answer nor read."""

    async def act(_: "Session") -> None:
        await asyncio.get_running_loop().create_future()

    return act


def drop() -> Action:
    """Close the connection (FIN)."""

    async def act(session: "Session") -> None:
        session.connection.drop()
        raise HangUp

    return act


def reset() -> Action:
    """Close the connection (RST)."""

    async def act(session: "Session") -> None:
        session.connection.reset()
        raise HangUp

    return act


def hold(event: asyncio.Event, then: Action | None = None) -> Action:
    """Wait for the event without reading, then act."""

    async def act(session: "Session") -> None:
        await event.wait()
        await (then or usual())(session)

    return act


def sequence(*actions: Action) -> Action:
    """Do one after the other."""

    async def act(session: "Session") -> None:
        for action in actions:
            await action(session)

    return act


def in_turn(*actions: Action) -> Action:
    """Do another one each time, and what is usual when they are used up."""
    left = list(actions)

    async def act(session: "Session") -> None:
        action = left.pop(0) if left else usual()
        await action(session)

    return act


class Session:
    """The server's side of one connection."""

    def __init__(self, smarthost: "ScriptedSmarthost", reader: asyncio.StreamReader, connection: Connection) -> None:
        self.smarthost = smarthost
        self.connection = connection
        self.default: tuple[int, tuple[str, ...]] | None = None
        """What ``usual()`` says at this step: a code and lines."""
        self.code: int | None = None
        """What this step was answered with."""
        self._reader = reader
        self._buffer = b""
        self._transaction: Transaction | None = None
        self._commands = {
            "EHLO": self._ehlo,
            "HELO": self._helo,
            "STARTTLS": self._starttls,
            "AUTH": self._auth,
            "MAIL": self._mail,
            "RCPT": self._rcpt,
            "DATA": self._data,
            "RSET": self._rset,
            "NOOP": self._noop,
            "QUIT": self._quit,
        }

    def reply(self, code: int, *lines: str) -> None:
        """Send a reply; non-ASCII text goes out as UTF-8."""
        self.code = code
        texts = lines or ("",)
        seps = ["-"] * (len(texts) - 1) + [" "]
        self.connection.say("".join(f"{code}{sep}{text}\r\n" for sep, text in zip(seps, texts, strict=True)).encode())

    async def read(self) -> bytes:
        """Read what comes; raise ClientGone at the end."""
        octets = await self._reader.read(65536)
        if not octets:
            raise ClientGone
        return octets

    async def run(self) -> None:
        """Hold the whole dialogue."""
        await self._act(self.smarthost.greeting, 220, "smarthost.test ESMTP ready")
        while True:
            line = await self._read_line()
            self.connection.commands.append(line)
            self.connection.flights[-1].append(line)
            self.smarthost.notify()
            verb, _, argument = line.partition(" ")
            verb = verb.upper()
            if verb in self._commands:
                await self._commands[verb](argument)
            else:
                self.reply(502, "5.5.1 no such command")
            self.smarthost.notify()

    async def _ehlo(self, argument: str) -> None:
        self._transaction = None
        offers = self.smarthost.tls_capabilities if self.connection.tls else self.smarthost.capabilities
        await self._act(self.smarthost.ehlo, 250, f"smarthost.test greets {argument}", *offers)

    async def _helo(self, argument: str) -> None:
        self._transaction = None
        await self._act(self.smarthost.helo, 250, f"smarthost.test greets {argument}")

    async def _starttls(self, _: str) -> None:
        if self.smarthost.tls is None or self.connection.tls is not None:
            self.reply(503, "5.5.1 no TLS now")
            return
        await self._act(self.smarthost.starttls, 220, "2.0.0 go ahead")
        if self.code == 220:
            self._transaction = None
            await self.connection.writer.start_tls(self.smarthost.tls)

    async def _auth(self, argument: str) -> None:
        mechanism, _, response = argument.partition(" ")
        responses = [response] if response else []
        for prompt in {"PLAIN": [""], "LOGIN": ["VXNlcm5hbWU6", "UGFzc3dvcmQ6"]}[mechanism][len(responses) :]:
            self.reply(334, prompt)
            responses.append(await self._read_line())
        said = b"\0".join(b64decode(response, validate=True) for response in responses)
        *_, name, password = said.decode().split("\0")
        self.connection.logins.append((mechanism, name, password))
        await self._act(self.smarthost.auth, 235, "2.7.0 welcome")

    async def _mail(self, argument: str) -> None:
        if self._transaction is not None:
            self.reply(503, "5.5.1 nested MAIL")
            return
        path, *parameters = argument.removeprefix("FROM:").split(" ")
        await self._act(self.smarthost.mail, 250, "2.1.0 sender ok")
        if self._is_positive:
            self._transaction = Transaction(self.connection, path[1:-1], tuple(parameters))
            self.connection.transactions.append(self._transaction)
            self.smarthost.transactions.append(self._transaction)

    async def _rcpt(self, argument: str) -> None:
        if self._transaction is None:
            self.reply(503, "5.5.1 no MAIL before RCPT")
            return
        path, _, parameters = argument.removeprefix("TO:").partition("> ")
        recipient = path.removeprefix("<").removesuffix(">")
        script = self.smarthost.rcpt
        action = script.get(recipient) if isinstance(script, Mapping) else script
        self._transaction.offered.append(recipient)
        self._transaction.rcpt_parameters[recipient] = parameters
        await self._act(action, 250, "2.1.5 recipient ok")
        answered = self._transaction.recipients if self._is_positive else self._transaction.refused
        answered.append(recipient)

    async def _data(self, _: str) -> None:
        if self._transaction is None or not self._transaction.recipients:
            self.reply(554, "5.5.1 no valid recipients")
            return
        await self._act(self.smarthost.data, 354, "go ahead")
        if self.code != 354:
            return
        await self._body(self._transaction)
        transaction, self._transaction = self._transaction, None
        transaction.dot = True
        self.smarthost.messages.append(transaction)
        self.smarthost.notify()
        await self._act(self.smarthost.dot, 250, f"2.0.0 queued as {len(self.smarthost.messages)}")
        transaction.code = self.code

    async def _body(self, transaction: Transaction) -> None:
        stream, self._buffer = bytearray(b"\r\n" + self._buffer), b""
        due = sorted(self.smarthost.body.items())
        searched = 0
        try:
            while True:
                while due and due[0][0] <= len(stream) - 2:
                    await self._act(due.pop(0)[1], None)
                end = stream.find(b"\r\n.\r\n", searched)
                if end >= 0:
                    break
                searched = max(0, len(stream) - 4)
                stream += await self.read()
        except BaseException:
            transaction.wire = bytes(stream[2:])
            raise
        transaction.wire, self._buffer = bytes(stream[2 : end + 2]), bytes(stream[end + 5 :])

    async def _rset(self, _: str) -> None:
        self._transaction = None
        await self._act(self.smarthost.rset, 250, "2.0.0 reset")

    async def _noop(self, _: str) -> None:
        self.reply(250, "2.0.0 ok")

    async def _quit(self, _: str) -> None:
        await self._act(self.smarthost.quit, 221, "2.0.0 bye")
        self.connection.drop()
        raise HangUp

    @property
    def _is_positive(self) -> bool:
        return self.code is not None and 200 <= self.code < 300

    async def _act(self, action: Action | None, code: int | None, *lines: str) -> None:
        self.code = None
        self.default = None if code is None else (code, lines)
        await (action or usual())(self)

    async def _read_line(self) -> str:
        while b"\r\n" not in self._buffer:
            self._buffer += await self.read()
            self.connection.flights.append([])
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line.decode()


class ScriptedSmarthost:
    """The server; see the module's docstring.

    ``tls_capabilities`` are those under TLS, if they are others; ``receive_buffer`` makes the kernel's buffer small.
    """

    def __init__(
        self,
        *,
        capabilities: Sequence[str] = CAPABILITIES,
        tls: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        tls_capabilities: Sequence[str] | None = None,
        greeting: Action | None = None,
        ehlo: Action | None = None,
        helo: Action | None = None,
        starttls: Action | None = None,
        auth: Action | None = None,
        mail: Action | None = None,
        rcpt: Action | Mapping[str, Action] | None = None,
        data: Action | None = None,
        body: Mapping[int, Action] | None = None,
        dot: Action | None = None,
        rset: Action | None = None,
        quit: Action | None = None,  # noqa: A002 - the name of the command
        receive_buffer: int | None = None,
    ) -> None:
        self.capabilities = (*capabilities, "STARTTLS") if tls and not implicit_tls else capabilities
        self.tls_capabilities = capabilities if tls_capabilities is None else tls_capabilities
        self.tls = tls
        self.greeting = greeting
        self.ehlo = ehlo
        self.helo = helo
        self.starttls = starttls
        self.auth = auth
        self.mail = mail
        self.rcpt = rcpt
        self.data = data
        self.body = body or {}
        self.dot = dot
        self.rset = rset
        self.quit = quit
        self.connections: list[Connection] = []
        self.transactions: list[Transaction] = []
        """Every transaction whose MAIL was accepted."""
        self.messages: list[Transaction] = []
        """Those whose final dot came."""
        self.host = "127.0.0.1"
        self.port = 0
        self._implicit_tls = implicit_tls
        self._receive_buffer = receive_buffer
        self._is_stopped = False
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[BaseException] = []
        self._waiters: set[asyncio.Future[None]] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        if self._errors:
            raise self._errors[0]

    def settings(self, **overrides: Any) -> SmarthostSettings:
        """Return the settings that lead here."""
        return SmarthostSettings(**{"host": self.host, "port": self.port} | overrides)

    async def start(self) -> None:
        """Listen; after a ``stop`` on the same port again."""
        self._is_stopped = False
        listener = socket.create_server((self.host, self.port))
        if self._receive_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        self.port = listener.getsockname()[1]
        self._server = await asyncio.start_server(
            self._accept, sock=listener, ssl=self.tls if self._implicit_tls else None
        )

    async def stop(self) -> None:
        """Close the listener and every connection."""
        if self._server is not None:
            server, self._server = self._server, None
            self._is_stopped = True
            server.close()
            for task in self._tasks:
                task.cancel()
            for connection in self.connections:
                connection.end()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()

    @property
    def open_connections(self) -> list[Connection]:
        """The connections that neither side has closed."""
        return [connection for connection in self.connections if not connection.closed]

    async def wait_for(self, predicate: Callable[[], object], what: str = "the condition") -> None:
        """Wait until the predicate holds; it is looked at whenever something happened here."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not predicate():
                    await self._something_happens()
        except TimeoutError:
            commands = [connection.commands for connection in self.connections]
            raise AssertionError(f"waited in vain for {what}; the smarthost heard {commands}") from None

    async def wait_for_message(self, n: int = 1) -> Transaction:
        """Wait for the n-th message whose final dot came, and return it."""
        await self.wait_for(lambda: len(self.messages) >= n, f"message {n}")
        return self.messages[n - 1]

    async def wait_for_command(self, verb: str, n: int = 1) -> None:
        """Wait until a command has come for the n-th time, on whatever connection."""
        await self.wait_for(lambda: self.count(verb) >= n, f"{verb} number {n}")

    async def wait_until_closed(self) -> None:
        """Wait until no connection is open."""
        await self.wait_for(lambda: not self.open_connections, "all connections to be closed")

    def count(self, verb: str) -> int:
        """Return how often a command has come."""
        return sum(line.split(" ")[0] == verb for connection in self.connections for line in connection.commands)

    def notify(self) -> None:
        """Let those who wait look again."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _something_happens(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # asyncio does it by itself only for sockets that say IPPROTO_TCP, which socket.create_server does not.
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(writer)
        self.connections.append(connection)
        if self._is_stopped:  # accepted before, and handed over only now
            connection.end()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.notify()

    async def _serve(self, reader: asyncio.StreamReader, connection: Connection) -> None:
        try:
            await Session(self, reader, connection).run()
        except (HangUp, ClientGone, ConnectionError, ssl.SSLError):
            pass
        except Exception as error:
            self._errors.append(error)
        finally:
            connection.drop()
            self.notify()


def scripted_at(port: int, **script: Any) -> ScriptedSmarthost:
    """Return a smarthost for a port on which a guard looks for it already."""
    smarthost = ScriptedSmarthost(**script)
    smarthost.port = port
    return smarthost
