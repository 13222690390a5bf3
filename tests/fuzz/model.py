"""What a session must answer, command by command: the guard's promises written down a second time, and simply.

A command is a method that returns the reply codes that must come; ``accepted`` are the messages that must be somewhere.
"""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

MAX_MESSAGE_BYTES = 20_000
MAX_AUTH_FAILURES = 3
MAX_RECIPIENTS = 6
MAX_RECEIVED_FIELDS = 50

VERIFIED = ("alice@verified.example", "bob@verified.example")
REFUSED = "gone@verified.example"
"""Verified, but the smarthost does not know it."""
UNVERIFIED, FLAGGED, UNKNOWN = "carol@record.example", "dave@verified.example", "xyz123@provider.example"
INTERNATIONAL = "jörg@verified.example"
"""Verified; its address needs SMTPUTF8."""

_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class MailCase(NamedTuple):
    """What follows MAIL, and the code after EHLO and after HELO."""

    arg: str
    extended: int = 250
    plain: int = 250

    @property
    def reverse_path(self) -> str:
        return self.arg.partition("<")[2].partition(">")[0]


class RcptCase(NamedTuple):
    """What follows RCPT, and the code after EHLO, after HELO, and where SMTPUTF8 was asked for."""

    arg: str
    extended: int = 250
    plain: int = 250
    smtputf8: int | None = None

    @property
    def recipient(self) -> str:
        return self.arg.partition("<")[2].partition(">")[0]


MAIL_CASES = (
    MailCase("FROM:<billing@shop.example>"),
    MailCase("from:<>"),
    MailCase("FROM: <Billing@Shop.Example>"),
    MailCase("FROM:<a@shop.example> BODY=8BITMIME SIZE=1000", plain=501),
    MailCase("FROM:<a@shop.example> AUTH=<>", plain=501),
    MailCase("FROM:<a@shop.example> ret=hdrs ENVID=QQ+2B314", plain=501),
    MailCase("FROM:<a@shop.example> SMTPUTF8", plain=501),
    MailCase("FROM:<jürgen@shop.example> SMTPUTF8", plain=501),
    MailCase("FROM:<jürgen@shop.example>", 553, 553),
    MailCase(f"FROM:<a@shop.example> SIZE={MAX_MESSAGE_BYTES + 1}", 552, 501),
    MailCase("FROM:<a@shop.example> SIZE=many", 501, 501),
    MailCase("FROM:<a@shop.example> SIZE=1 SIZE=1", 501, 501),
    MailCase("FROM:<a@shop.example> BODY=BINARYMIME", 501, 501),
    MailCase("FROM:<a@shop.example> RET=NOTHING", 501, 501),
    MailCase("FROM:<a@shop.example> ENVID=+zz", 501, 501),
    MailCase("FROM:<a@shop.example> FLY=HIGH", 555, 501),
    MailCase("FROM:a@shop.example", 501, 501),
    MailCase("FROM:<a@shop.example", 501, 501),
    MailCase("FROM:<a@>", 553, 553),
    MailCase("FROM:<a@shop.example>x", 501, 501),
    MailCase("TO:<a@shop.example>", 501, 501),
    MailCase("", 501, 501),
)

RCPT_CASES = (
    *(RcptCase(f"TO:<{recipient}>") for recipient in (*VERIFIED, *VERIFIED, UNVERIFIED, FLAGGED, UNKNOWN)),
    RcptCase(f"to: <{VERIFIED[0]}> NOTIFY=SUCCESS,DELAY", plain=501),
    RcptCase(f"TO:<{UNKNOWN}> ORCPT=rfc822;a+2Bb@x.example NOTIFY=NEVER", plain=501),
    RcptCase("TO:<Postmaster>"),
    RcptCase(f"TO:<{REFUSED}>", 550, 550),
    RcptCase(f"TO:<{INTERNATIONAL}>", 553, 553, 250),
    RcptCase(f"TO:<{VERIFIED[0]}> NOTIFY=NEVER,DELAY", 501, 501),
    RcptCase(f"TO:<{VERIFIED[0]}> ORCPT=rfc822", 501, 501),
    RcptCase(f"TO:<{VERIFIED[0]}> FLY=HIGH", 555, 501),
    RcptCase("TO:<>", 501, 501),
    RcptCase("TO:<@a.example:b@c.example>", 553, 553),
    RcptCase('TO:<"a@b.example>', 501, 501),
    RcptCase(f"TO:{VERIFIED[0]}", 501, 501),
    RcptCase("", 501, 501),
)


@dataclass
class Message:
    """A message that must have been accepted: for whom it was relayed, and for whom it is kept."""

    reverse_path: str
    relayed: tuple[str, ...]
    kept: tuple[str, ...]
    content: bytes
    transaction_id: str = ""


@dataclass
class Transaction:
    """What has been said since MAIL."""

    reverse_path: str
    smtputf8: bool
    offered: int = 0
    relayed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    content: bytes | None = None
    """What came by BDAT, None before."""


class Model:
    """One session, as it should go."""

    def __init__(self, *, tls: bool) -> None:
        self.tls = tls
        self.closed = False
        self.accepted: list[Message] = []
        self.extended: bool | None = None
        """What was said: EHLO, HELO, or None."""
        self._login = False
        self._known_peer = True
        self._transaction: Transaction | None = None
        self._failed_logins = 0

    @property
    def _may_submit(self) -> bool:
        return self._login or self._known_peer

    # Greeting

    def hello(self, *, extended: bool) -> list[int]:
        self.extended, self._transaction = extended, None
        return [250]

    def starttls(self) -> list[int]:
        if self.tls:
            return [503]
        self.tls, self.extended, self._login, self._transaction = True, None, False, None
        return [220]

    def auth(self, codes: list[int]) -> list[int]:
        """An exchange that ends with these codes where AUTH is in its place."""
        out_of_place = self.auth_out_of_place()
        if out_of_place is not None:
            return [out_of_place]
        self._login = codes[-1] == 235
        self._failed_logins += codes[-1] == 535
        if self._failed_logins < MAX_AUTH_FAILURES:
            return codes
        return [*codes, *self._close(421)]

    def auth_out_of_place(self) -> int | None:
        if self.extended is None:
            return 503
        if not self.tls:
            return 538
        return 503 if not self.extended or self._login or self._transaction else None

    def xclient(self, *, known_peer: bool, login: bool, valid: bool) -> list[int]:
        if self._transaction:
            return [503]
        if not valid:
            return [501]
        # Who was said to have logged in stays so, until somebody else is said to have.
        self._known_peer, self._login, self.extended = known_peer, self._login or login, None
        return [220]

    # Transactions

    def mail(self, case: MailCase) -> list[int]:
        if self.extended is None or self._transaction:
            return [503]
        code = case.extended if self.extended else case.plain
        if code == 250 and self._may_submit:
            self._transaction = Transaction(case.reverse_path, smtputf8="SMTPUTF8" in case.arg)
        return [code]

    def rcpt(self, case: RcptCase) -> list[int]:
        if self.extended is None:
            return [503]
        if not self._may_submit:
            return [530 if self.tls else 554]
        transaction = self._transaction
        if transaction is None or transaction.content is not None:
            return [503]
        code = case.extended if self.extended else case.plain
        if transaction.smtputf8 and case.smtputf8 is not None:
            code = case.smtputf8
        if code not in {250, 550}:  # refused before anybody is asked
            return [code]
        if transaction.offered >= MAX_RECIPIENTS:
            return [452]
        transaction.offered += 1
        if code == 250:
            is_verified = case.recipient in {*VERIFIED, INTERNATIONAL}
            (transaction.relayed if is_verified else transaction.kept).append(case.recipient)
        return [code]

    def data_refusal(self) -> int | None:
        transaction = self._transaction
        if self.extended is None or transaction is None or transaction.content is not None:
            return 503
        if transaction.relayed or transaction.kept:
            return None
        return 554 if transaction.offered else 503

    def data(self, content: bytes) -> list[int]:
        """DATA where it is not refused, and a message."""
        return [354, self._end_of_data(content)]

    def bdat(self, chunk: bytes, *, last: bool) -> list[int]:
        transaction = self._transaction
        if transaction is None or transaction.content is None:
            refusal = self.data_refusal()
            if refusal is not None:
                self._transaction = None  # RFC 3030 2
                return [refusal]
        assert transaction is not None
        transaction.content = (transaction.content or b"") + chunk
        if len(transaction.content) > MAX_MESSAGE_BYTES:
            self._transaction = None
            return [552]
        if not last:
            return [250]
        ends = transaction.content.endswith(b"\r\n") or not transaction.content
        return [self._end_of_data(transaction.content + (b"" if ends else b"\r\n"))]

    def bad_bdat(self) -> list[int]:
        return self._close(501)

    def rset(self) -> list[int]:
        self._transaction = None
        return [250]

    def _end_of_data(self, content: bytes) -> int:
        transaction, self._transaction = self._transaction, None
        assert transaction is not None
        if len(content) > MAX_MESSAGE_BYTES:
            return 552
        if _BARE.search(content):
            return 550
        if content.count(b"Received:") >= MAX_RECEIVED_FIELDS:
            return 554
        relayed, kept = tuple(transaction.relayed), tuple(sorted(transaction.kept))
        self.accepted.append(Message(transaction.reverse_path, relayed, kept, content))
        return 250

    # Whatever else

    def unknown_command(self) -> list[int]:
        return [500]

    def quit(self) -> list[int]:
        return self._close(221)

    def _close(self, code: int) -> list[int]:
        self.closed = True
        return [code]
