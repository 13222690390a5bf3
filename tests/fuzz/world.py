"""The guard that a state machine talks to: real, in this process, with a smarthost that records and a store on SQLite.

It lives through all examples of a test, on an event loop that runs whenever somebody waits for something.
"""

import asyncio
import re
import ssl
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from structlog.testing import capture_logs

from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.service.password_hashes import hash_password
from smtpguard.smtp.context import SessionContext
from tests.fuzz import model
from tests.support.certificates import make_certificates
from tests.support.eventually import eventually
from tests.support.guard import RunningGuard, guarding, put_on_record, verify
from tests.support.scripted_smarthost import ScriptedSmarthost, Transaction, refuse

CAPABILITIES = ("PIPELINING", "SIZE 52428800", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES")
Result = TypeVar("Result")

PASSWORD = "correct horse"
FAILURES = {"session-failed", "transaction-failed", "ledger-failed", "take-back-failed", "transaction-cut-off"}
_RECEIVED = re.compile(rb"Received: from [^\r\n]*\r\n(?:\t[^\r\n]*\r\n)+")


class World:
    """The guard and what is around it."""

    def __init__(self, runner: asyncio.Runner, directory: Path, store_url: str) -> None:
        self._runner = runner
        self._store_url = store_url
        self._certificates = make_certificates(directory)
        self._stop = asyncio.Event()
        self._seen_messages = self._seen_transactions = 0
        self._smarthost: ScriptedSmarthost
        self.guard: RunningGuard
        self.log: list[Any] = []
        self.client_tls: ssl.SSLContext = self._certificates.client_context()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run the loop until this is done."""
        return self._runner.run(work)

    async def live(self, ready: asyncio.Future[None]) -> None:
        """Run the guard until it is told to stop; all in one task."""
        sections = {
            "smtp": {
                "tls_listen": "127.0.0.1:0",
                "max_message_bytes": model.MAX_MESSAGE_BYTES,
                "max_recipients": model.MAX_RECIPIENTS,
                "max_auth_failures": model.MAX_AUTH_FAILURES,
                "max_errors": 1000,
                "spool_above": 4096,
                "xclient_networks": ["127.0.0.0/8"],
            },
            "tls": {"certificate_file": self._certificates.server_file},
            "application": [
                {"name": "local", "networks": ["127.0.0.0/8"]},
                {"name": "crm", "username": "crm", "password_hash": hash_password(PASSWORD)},
            ],
        }
        rcpt = {model.REFUSED: refuse(550, "5.1.1 no such mailbox")}
        async with ScriptedSmarthost(capabilities=CAPABILITIES, rcpt=rcpt) as self._smarthost:
            async with guarding(self._store_url, self._smarthost.port, **sections) as self.guard:
                await self._fill_address_book()
                ready.set_result(None)
                await self._stop.wait()

    def stop(self) -> None:
        self._stop.set()

    async def begin(self) -> None:
        """Begin an example: whatever a failed one left behind is not its own."""
        await self._end_of_sessions()
        self.log.clear()
        self._seen_messages, self._seen_transactions = len(self._smarthost.messages), len(self._smarthost.transactions)
        await self._empty_quarantine()

    async def check(self, accepted: list[model.Message]) -> None:
        """Compare what is at the smarthost and in quarantine, now that the session is over."""
        await self._end_of_sessions()
        assert self._context.acceptor.spool.buffered_bytes == 0
        assert [line for line in self.log if line["event"] in FAILURES] == []
        self._check_offered()
        self._check_relayed([message for message in accepted if message.relayed])
        await self._check_kept(accepted)

    def _check_offered(self) -> None:
        allowed = {*model.VERIFIED, model.REFUSED, model.INTERNATIONAL}
        transactions = self._smarthost.transactions[self._seen_transactions :]
        assert {bare(path) for each in transactions for path in each.offered} - allowed == set()

    def _check_relayed(self, expected: list[model.Message]) -> None:
        relayed = self._smarthost.messages[self._seen_messages :]
        assert [self._facts(each) for each in relayed] == [
            (message.reverse_path, message.relayed, message.content) for message in expected
        ]

    def _facts(self, relayed: Transaction) -> tuple[str, tuple[str, ...], bytes]:
        recipients = tuple(bare(path) for path in relayed.recipients)
        return relayed.reverse_path, recipients, without_trace(relayed.message)

    async def _check_kept(self, accepted: list[model.Message]) -> None:
        waiting = await self.guard.waiting()
        for message in accepted:
            kept = [each for each in waiting if each.transaction_id == message.transaction_id]
            assert tuple(sorted(each.recipient.text for each in kept)) == message.kept
            if kept:
                _, content = await self.guard.desks.quarantine.show(kept[0].id)
                assert content is not None
                assert without_trace(content.message) == message.content
        assert len(waiting) == sum(len(message.kept) for message in accepted)

    async def _empty_quarantine(self) -> None:
        for each in await self.guard.waiting():
            await self.guard.desks.quarantine.discard(each.id, by="test", why="looked at")

    @property
    def _context(self) -> SessionContext:
        return self.guard.guard._server._context

    async def _end_of_sessions(self) -> None:
        await eventually(lambda: not self._context.sessions.all())

    async def _fill_address_book(self) -> None:
        desks = self.guard.desks
        await verify(desks, *model.VERIFIED, model.REFUSED, model.INTERNATIONAL, model.FLAGGED)
        await put_on_record(desks, [model.UNVERIFIED])
        await desks.addresses.flag(parse_mailbox(model.FLAGGED), by="test", reason="stranger")


def bare(path: str) -> str:
    """Return the address of a forward-path that may have parameters behind it."""
    return path.partition(">")[0]


def without_trace(message: bytes) -> bytes:
    """Take the guard's own trace field away, and nothing else."""
    match = _RECEIVED.match(message)
    assert match is not None
    return message[match.end() :]


@contextmanager
def world(directory: Path, store_url: str) -> Iterator[World]:
    """Let a world live for as long as the block."""
    with asyncio.Runner() as runner, capture_logs() as log:
        loop = runner.get_loop()
        made = World(runner, directory, store_url)
        made.log = log
        ready = loop.create_future()
        life = loop.create_task(made.live(ready))

        async def first(*waited_for: asyncio.Future[None]) -> None:
            await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)

        made.run(first(ready, life))
        try:
            if life.done():
                life.result()
            yield made
        finally:
            made.stop()
            runner.run(asyncio.wait_for(life, 20))
