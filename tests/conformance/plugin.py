"""A pytest plugin for a process of its own, in which aiosmtpd's tests meet GuardSMTP in the place of their SMTP.

The whole session is ours: no command is overridden. Only what lies behind a session is aiosmtpd's: the handler of a
test gets the recipients (``handle_RCPT``) and the message (``handle_DATA``) that the acceptor would get, and a test's
authenticator is asked about logins. Hooks for which the guard has no place are not called.

    python -m pytest -p tests.conformance.plugin ...
"""

import asyncio
import json
import random
import re
import socket
import ssl
import sys
import types
from collections.abc import Callable
from importlib.resources import files
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import aiosmtpd.controller
import aiosmtpd.handlers
import aiosmtpd.smtp
import pytest
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword

from smtpguard.domain.application import Application
from smtpguard.domain.envelope import MailParameters, RcptParameters, ReversePath
from smtpguard.domain.mailbox import Mailbox
from smtpguard.domain.message import unstuffed
from smtpguard.domain.policy import Policy
from smtpguard.domain.reply import R250_OK, R250_RECIPIENT_OK, Reply, peer_reply
from smtpguard.service.header import checked_header
from smtpguard.service.rates import Rates
from smtpguard.service.record import Ended
from smtpguard.settings import SmtpSettings
from smtpguard.smtp.context import Admission, SessionContext
from smtpguard.smtp.session import GuardSMTP
from smtpguard.smtp.sessions import Sessions
from smtpguard.spool import Spool, WireMessage
from smtpguard.telemetry import get_logger

EVERYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))
PORTS = range(10_000, 30_000)  # below those that systems hand out by themselves, so that nobody takes it meanwhile


class HandedOver:
    """A transaction whose recipients and message go to the handler of a test."""

    def __init__(self, server: "ConformingSMTP", reverse_path: ReversePath) -> None:
        self._server = server
        self._envelope = Envelope()
        self._envelope.mail_from = str(reverse_path) or "<>"
        self._envelope.smtp_utf8 = False
        self.offer_count = 0

    @property
    def has_recipients(self) -> bool:
        return bool(self._envelope.rcpt_tos)

    async def add_recipient(self, recipient: Mailbox, parameters: RcptParameters) -> Reply:
        self.offer_count += 1
        status = await self._server.call("RCPT", self._envelope, str(recipient), [])
        if status is None:
            self._envelope.rcpt_tos.append(str(recipient))
        return R250_RECIPIENT_OK if status is None else reply_of(status)

    async def end_of_data(self, message: WireMessage, *, client_gone: Callable[[], bool]) -> Reply:
        try:
            checked_header(message)
            content = b"".join(unstuffed(message.pieces()))
        except Ended as ended:
            return ended.reply
        finally:
            message.close()
        self._envelope.original_content = content
        self._envelope.content = content.decode("utf-8", "surrogateescape") if self._server.decodes else content
        try:
            status = await self._server.call("DATA", self._envelope)
        except Exception as error:
            answer: Reply = await self._server.handle_exception(error)
            return answer
        return R250_OK if status is None else reply_of(status)

    async def refuse(self, reply: Reply, *, why: str) -> None:
        """Nothing is held."""

    async def abort(self) -> None:
        """Nothing is held."""


class HandingOver:
    """The acceptor."""

    def __init__(self, server: "ConformingSMTP") -> None:
        self._server = server
        self.spool = Spool(max_buffered_bytes=2**30, spool_above=2**17, directory=None)

    def begin(
        self, origin: Any, reverse_path: ReversePath, parameters: MailParameters, *, size: int | None
    ) -> HandedOver:
        return HandedOver(self._server, reverse_path)

    async def offers(self) -> None:
        """Say that nothing is known of what lies behind."""


class AskingLogins:
    """Logins that a test's authenticator, or its older callback, decides about."""

    def __init__(self, server: "ConformingSMTP", authenticator: Any, callback: Any) -> None:
        self._server = server
        self._authenticator = authenticator
        self._callback = callback

    async def check(self, username: str, password: str, *, network: str) -> Application | None:
        given = LoginPassword(username.encode(), password.encode())
        if self._authenticator is not None:
            result = self._authenticator(self._server, self._server.session, Envelope(), "PLAIN", given)
        else:
            result = AuthResult(success=bool(self._callback and self._callback("PLAIN", *given)))
        return self._server.application if result.success else None

    def close(self) -> None:
        """Nothing is held."""


class ConformingSMTP(GuardSMTP):
    """GuardSMTP under the arguments of the stock class."""

    def __init__(
        self,
        handler: Any,
        *,
        data_size_limit: int | None = aiosmtpd.smtp.DATA_SIZE_DEFAULT,
        decode_data: bool = False,
        hostname: str | None = None,
        tls_context: ssl.SSLContext | None = None,
        require_starttls: bool = False,
        timeout: float = 300,
        auth_required: bool = False,
        auth_require_tls: bool = True,
        auth_callback: Any = None,
        authenticator: Any = None,
        loop: asyncio.AbstractEventLoop | None = None,
        **_: Any,  # what the guard has no place for
    ) -> None:
        loop = loop or aiosmtpd.smtp.make_loop()
        self.handler = handler
        self.decodes = decode_data
        self.application = Application("test", () if auth_required else EVERYWHERE, Policy(), username="test")
        settings = SmtpSettings(
            hostname=hostname or socket.getfqdn(),
            max_message_bytes=max(1024, data_size_limit or 2**30),
            idle_timeout=timeout,
            auth_without_tls=not auth_require_tls,
        )
        logins: Any = AskingLogins(self, authenticator, auth_callback)
        acceptor: Any = HandingOver(self)
        context = SessionContext(
            settings=settings.model_copy(update={"max_message_bytes": data_size_limit or 2**30}),
            acceptor=acceptor,
            admission=Admission(
                (self.application,), logins, tls_context, tls_required=bool(tls_context and require_starttls)
            ),
            rates=Rates(loop.time),
            sessions=Sessions(max_sessions=1000, max_per_network=1000),
            spawn=loop.create_task,
            logger=get_logger(),
        )
        super().__init__(context, loop=loop, implicit_tls=False)

    async def call(self, hook: str, envelope: Envelope, *arguments: Any) -> Any:
        """Call a hook of the handler; None where it has none."""
        method = getattr(self.handler, f"handle_{hook}", None)
        return None if method is None else await method(self, self.session, envelope, *arguments)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, Mock):  # of a test without a socket
            transport.get_extra_info = {"peername": ("127.0.0.1", 1)}.get
            transport.is_closing.return_value = False
        super().connection_made(transport)
        self._writer: Any = self._output  # where their tests look for a StreamWriter
        self._writer.transport = self._output


def reply_of(status: str) -> Reply:
    """Read what a hook returned."""
    return peer_reply(int(status[:3]), [status[4:]])


def swap() -> None:
    """Put our class wherever aiosmtpd has its own."""
    stock = aiosmtpd.smtp.SMTP
    for module in (aiosmtpd.smtp, aiosmtpd.controller, aiosmtpd.handlers):
        for name in [name for name, value in vars(module).items() if value is stock]:
            setattr(module, name, ConformingSMTP)


def provide_pkg_resources() -> None:
    """Their conftest takes one function out of a package that newer Pythons come without."""
    module: Any = types.ModuleType("pkg_resources")
    module.resource_filename = lambda package, name: str(files(package) / name)
    sys.modules["pkg_resources"] = module


def free_port() -> int:
    """Return a port that nobody listens on."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def use_port(port: int) -> None:
    """Let their servers listen on this port."""
    from aiosmtpd.tests import conftest

    conftest.HostPort.__new__.__defaults__ = ("localhost", port)
    conftest.Global.SrvAddr = conftest.HostPort()
    aiosmtpd.controller.InetMixin.__init__.__defaults__ = (None, port, None)


def compare_codes() -> None:
    """Let a reply that a test expects equal any of the same code: the words are everybody's own."""
    from aiosmtpd.testing.statuscodes import StatusCode

    StatusCode.__eq__ = lambda self, other: codes(self) <= codes(other)
    StatusCode.__hash__ = tuple.__hash__


def codes(reply: tuple[int, bytes]) -> set[str]:
    """Return the reply code, and the enhanced one where there is one."""
    code, text = reply
    return {str(code), *re.findall(r"^[245]\.\d+\.\d+(?= )", text.decode())}


class Recorder:
    """Writes down how each test ended."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._outcomes: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # One that fails at its end has not passed.
        if report.when == "call" or report.failed:
            self._outcomes[report.nodeid.removeprefix("tests/").replace(".py::", "::")] = report.outcome

    def pytest_sessionfinish(self) -> None:
        self._file.write_text(json.dumps(self._outcomes))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes", type=Path, required=True, help="where to write how each test ended")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    provide_pkg_resources()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Recorder(config.getoption("outcomes")))
    compare_codes()
    swap()
    use_port(free_port())
