"""The command on a store of the test's own, and messages that wait there."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from typer.testing import CliRunner

from smtpguard.app import Desks, clock, new_transaction_id, open_desks
from smtpguard.cli.main import app
from smtpguard.domain.decision import Reason
from smtpguard.domain.envelope import MailParameters, ReversePath
from smtpguard.domain.ids import quarantined_id
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.domain.message import HeaderSummary
from smtpguard.domain.quarantined import QuarantinedMessage, QuarantineState
from tests.support.guard import make_settings
from tests.support.process import SMTPGUARD, free_port, run

ON_BOTH_ENGINES = pytest.mark.parametrize("smtpguard", ["sqlite_url", "postgres_url"], indirect=True)
"""For what depends on the store; what is printed is the same on both."""

OPERATOR = "test-operator"
SENDER = parse_mailbox("billing@shop.example")
BODY = b"Subject: hello\r\n\r\n.dot\r\nhello\r\n"


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Its output, one JSON object a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def row(self) -> dict[str, Any]:
        (row,) = self.rows
        return row


@dataclass(frozen=True)
class CommandLine:
    """``smtpguard`` in a terminal of its own, with the settings in the environment."""

    store_url: str
    smarthost_port: int = field(default_factory=free_port)
    """Nobody listens there unless the test says so."""

    @property
    def environment(self) -> dict[str, str]:
        return {
            "SMTPGUARD_STORE__URL": self.store_url,
            "SMTPGUARD_SMARTHOST__PORT": str(self.smarthost_port),
            "SMTPGUARD_SMARTHOST__HOST": "127.0.0.1",
            "SMTPGUARD_SMTP__HOSTNAME": "guard.example",
            "SMTPGUARD_WEB__LISTEN": "",
            "SMTPGUARD_OPERATOR": OPERATOR,
        }

    async def __call__(self, *arguments: str, **environment: str) -> Ended:
        """Run a command in this process, beside the test's loop: a second quicker. One at a time."""
        return await asyncio.to_thread(self._invoke, arguments, self.environment | environment)

    async def process(self, *arguments: str, stdin: bytes = b"", **environment: str) -> Ended:
        """Run a command as a process."""
        return Ended(*await run(*SMTPGUARD, *arguments, env=self.environment | environment, stdin=stdin))

    def _invoke(self, arguments: Sequence[str], environment: dict[str, str]) -> Ended:
        result = CliRunner().invoke(app, arguments, env=environment, prog_name="smtpguard", catch_exceptions=False)
        return Ended(result.exit_code, result.stdout, result.stderr)

    @asynccontextmanager
    async def desks(self) -> AsyncIterator[Desks]:
        """The same store, in this process."""
        async with open_desks(make_settings(self.store_url, self.smarthost_port)) as desks:
            yield desks

    async def keep(
        self,
        *recipients: str,
        subject: str = "hello",
        customer: str | None = "C-1",
        reverse_path: ReversePath = SENDER,
        message: bytes = BODY,
    ) -> list[str]:
        """Put one message into quarantine, for so many recipients; return the ids."""
        transaction = new_transaction_id(clock())
        messages = [
            QuarantinedMessage(
                id=quarantined_id(transaction, number),
                transaction_id=transaction,
                state=QuarantineState.QUARANTINED,
                recipient=parse_mailbox(recipient),
                reverse_path=reverse_path,
                parameters=MailParameters(),
                application="crm",
                customer=customer,
                reason=Reason.NOT_VERIFIED,
                received_at=clock(),
                subject=subject,
                size=len(message),
            )
            for number, recipient in enumerate(recipients, start=1)
        ]
        summary = HeaderSummary(subject, "Billing <billing@shop.example>", "", "<1@shop.example>")
        async with self.desks() as desks:
            await desks.store.quarantine.keep(messages, summary, [message])
        return [each.id for each in messages]

    async def states(self) -> dict[str, str]:
        """The state of every message, by id."""
        async with self.desks() as desks:
            listed = await desks.quarantine.list(limit=0, states=frozenset(QuarantineState))
        return {message.id: message.state.value for message in listed}
