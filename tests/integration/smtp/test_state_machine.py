"""Commands of every kind in every state of a session, in random groups and packets, against a model.

With the environment variable FUZZ_SECONDS it goes on for about as long as that says (``make fuzz``).
"""

import asyncio
import base64
import itertools
import os
import re
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.fuzz.model import (
    MAIL_CASES,
    MAX_MESSAGE_BYTES,
    MAX_RECEIVED_FIELDS,
    RCPT_CASES,
    MailCase,
    Model,
    RcptCase,
)
from tests.fuzz.world import PASSWORD, World, world
from tests.support.transcript import Transcript, connected

SECONDS = int(os.environ.get("FUZZ_SECONDS", "0"))
EXAMPLES_A_SECOND = 8

LINES = (
    b"Subject: hello",
    b"",
    b".",
    b"..",
    b".x",
    b"QUIT",
    b"BDAT 3 LAST",
    b"MAIL FROM:<a@b.example>",
    b"\xff\x00",
    b"a" * 1200,
)
BARE = (b"x\n.\r\ny", b"x\r.\r\ny", b"\n", b"\r\n.\n", b"\r")
ID = re.compile(r"id=([0-9A-Z]{20})\b")


def in_base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


RIGHT, WRONG, OTHER = (in_base64(f"\0crm\0{word}".encode()) for word in (PASSWORD, "wrong", "also wrong"))
AUTHS = (
    # What is sent, and the codes where AUTH is in its place.
    ([f"AUTH PLAIN {RIGHT}"], [235]),
    (["auth plain", RIGHT], [334, 235]),
    (["AUTH LOGIN", in_base64(b"crm"), in_base64(PASSWORD.encode())], [334, 334, 235]),
    ([f"AUTH login {in_base64(b'crm')}", in_base64(b"wrong")], [334, 535]),
    ([f"AUTH PLAIN {WRONG}"], [535]),
    (["AUTH PLAIN", OTHER], [334, 535]),
    (["AUTH PLAIN", "*"], [334, 501]),
    (["AUTH PLAIN ="], [501]),
    (["AUTH PLAIN not*base64"], [501]),
    (["AUTH LOGIN", "\x7f"], [334, 501]),
    ([f"AUTH CRAM-MD5 {RIGHT}"], [504]),
    (["AUTH"], [501]),
)
XCLIENTS = (
    # What follows XCLIENT; whether the peer is then one that may submit, is logged in, and whether it can be read.
    ("ADDR=127.0.0.9", True, False, True),
    ("addr=[UNAVAILABLE]", False, False, True),
    ("ADDR=192.0.2.7 HELO=x NAME=[UNAVAILABLE]", False, False, True),
    ("ADDR=IPv6:2001:db8::1 LOGIN=crm", False, True, True),
    ("ADDR=127.0.0.1 LOGIN=crm", True, True, True),
    ("ADDR=nowhere", False, False, False),
    ("FLY=high", False, False, False),
    ("", False, False, False),
)
OTHERS = (
    (b"NOOP", [250]),
    (b"noop whatever \xff", [250]),
    (b"VRFY alice@verified.example", [252]),
    (b"VRFY", [501]),
    (b"HELP", [250]),
    (b"HELP MAIL", [250]),
    (b"HELP \xff", [501]),
    (b"EXPN a", [502]),
    (b"QUIT now", [501]),
    (b"RSET now", [501]),
    (b"HELO", [501]),
    (b"EHLO", [501]),
    (b"", [500]),
    (b"\xff\xfe", [500]),
    (b"NOOP " + b"x" * 3000, [500]),
    (b"y" * 40_000, [500]),
)
UNKNOWN = (b"FLY", b" NOOP", b"DATA\0", b"\x1b[2J", b"GET / HTTP/1.1", b"MAILFROM:<a@b.example>")

contents = st.lists(st.sampled_from(LINES), max_size=8).map(lambda lines: b"".join(line + b"\r\n" for line in lines))
messages = st.one_of(
    contents,
    contents,
    st.tuples(contents, st.sampled_from(BARE)).map(lambda parts: b"".join(parts) + b"\r\n"),
    st.just(b"Received: by x\r\n" * MAX_RECEIVED_FIELDS),
    st.just(b"Received: by x\r\n" * (MAX_RECEIVED_FIELDS - 1)),
    st.just((b"z" * 98 + b"\r\n") * (MAX_MESSAGE_BYTES // 100)),
    st.just((b"z" * 98 + b"\r\n") * (MAX_MESSAGE_BYTES // 100) + b"\r\n"),
)


places = st.lists(st.integers(0, 100), max_size=3)
likely_mail = st.sampled_from(MAIL_CASES[:8])
likely_rcpt = st.lists(st.sampled_from(RCPT_CASES[:12]), min_size=1, max_size=4)
mostly = st.sampled_from([True, True, False])
rarely = st.sampled_from([False] * 7 + [True])
"""Whether to end a session, or most of what it may do."""


def stuffed(content: bytes) -> bytes:
    return b"".join(b"." + line if line.startswith(b".") else line for line in re.split(rb"(?<=\r\n)", content))


class Sessions(RuleBasedStateMachine):
    """One session. Commands gather, and go out together."""

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(tls=False)
        self.client: Transcript
        self.waiting = b""
        self.expected: list[int] = []
        self.has_failed = False

    @initialize(tls=st.booleans(), hello=st.sampled_from([b"EHLO app.example"] * 3 + [b"HELO app.example", b"NOOP"]))
    def connect(self, tls, hello) -> None:
        self.world.run(self.world.begin())
        self.model = Model(tls=tls)
        guard = self.world.guard
        port, context = (guard.tls_port, self.world.client_tls) if tls else (guard.port, None)
        self._connection = connected(port, context)
        self.client = self.world.run(self._connection.__aenter__())
        self.expected = [220]
        self.say(hello, [250] if hello == b"NOOP" else self.model.hello(extended=hello.startswith(b"EHLO")))

    def say(self, line: bytes | str, codes: list[int], *, behind: bytes = b"") -> None:
        octets = line if isinstance(line, bytes) else line.encode()
        self.waiting += octets + b"\r\n" + behind
        self.expected += codes

    @precondition(lambda self: not self.model.closed)
    @rule(line=st.sampled_from([b"EHLO app.example", b"ehlo [127.0.0.1]", b"EHLO \xff", b"HELO app.example"]))
    def hello(self, line) -> None:
        self.say(line, self.model.hello(extended=line.upper().startswith(b"EHLO")))

    @precondition(lambda self: not self.model.closed)
    @rule(case=st.sampled_from(MAIL_CASES))
    def mail(self, case: MailCase) -> None:
        self.say(f"MAIL {case.arg}", self.model.mail(case))

    @precondition(lambda self: not self.model.closed)
    @rule(cases=st.lists(st.sampled_from(RCPT_CASES), min_size=1, max_size=4))
    def rcpt(self, cases: list[RcptCase]) -> None:
        for case in cases:
            self.say(f"RCPT {case.arg}", self.model.rcpt(case))

    @precondition(lambda self: not self.model.closed)
    @rule(mail=likely_mail, cases=likely_rcpt, content=messages)
    def transact_by_data(self, mail, cases, content) -> None:
        """A transaction that most likely gets to its end."""
        self.begin(mail, cases)
        self.data(content)

    @precondition(lambda self: not self.model.closed)
    @rule(mail=likely_mail, cases=likely_rcpt, content=messages, cuts=places, ends=mostly)
    def transact_by_bdat(self, mail, cases, content, cuts, ends) -> None:
        self.begin(mail, cases)
        self.bdat(content, cuts, ends)

    @precondition(lambda self: not self.model.closed)
    @rule(mail=likely_mail, cases=likely_rcpt)
    def begin(self, mail: MailCase, cases: list[RcptCase]) -> None:
        self.rset()
        if self.model.extended is None:
            self.hello(b"EHLO app.example")
        self.mail(mail)
        self.rcpt(cases)

    @precondition(lambda self: not self.model.closed)
    @rule(content=messages)
    def data(self, content) -> None:
        refusal = self.model.data_refusal()
        if refusal is None:
            self.say("DATA", self.model.data(content), behind=stuffed(content) + b".\r\n")
        else:
            self.say("DATA", [refusal])

    @precondition(lambda self: not self.model.closed)
    @rule(content=messages, cuts=places, ends=st.booleans())
    def bdat(self, content, cuts, ends) -> None:
        """A message in chunks that may be cut anywhere, even within a line end; or a part of one."""
        places = sorted({0, *(cut for cut in cuts if cut < len(content)), len(content)})
        chunks = [content[start:end] for start, end in itertools.pairwise(places)] or [b""]
        for number, chunk in enumerate(chunks, start=1):
            last = ends and number == len(chunks)
            self.say(f"BDAT {len(chunk)}{' last' * last}", self.model.bdat(chunk, last=last), behind=chunk)

    @precondition(lambda self: not self.model.closed)
    @rule(arg=st.sampled_from(["", "-1", "LAST", "3 LATER", "3 LAST 3", "0x3"]), now=rarely)
    def bad_bdat(self, arg, now) -> None:
        if not now:
            return
        self.say(f"BDAT {arg}".strip(), self.model.bad_bdat())
        self.flush([])

    @precondition(lambda self: not self.model.closed)
    @rule()
    def rset(self) -> None:
        self.say("RSET", self.model.rset())

    @precondition(lambda self: not self.model.closed)
    @rule(exchange=st.sampled_from(AUTHS))
    def auth(self, exchange) -> None:
        lines, codes = exchange
        in_place = self.model.auth_out_of_place() is None
        said = lines if in_place else lines[:1]
        expected = self.model.auth(codes)
        self.say("\r\n".join(said), expected)

    @precondition(lambda self: not self.model.closed)
    @rule(case=st.sampled_from(XCLIENTS), now=rarely)
    def xclient(self, case, now) -> None:
        if not now:
            return
        arg, known_peer, login, valid = case
        self.say(f"XCLIENT {arg}", self.model.xclient(known_peer=known_peer, login=login, valid=valid))

    @precondition(lambda self: not self.model.closed)
    @rule()
    def starttls(self) -> None:
        """Nothing may follow it before its reply."""
        was_under_tls = self.model.tls
        self.say("STARTTLS", self.model.starttls())
        self.flush([])
        if not was_under_tls:
            self.world.run(self.client.writer.start_tls(self.world.client_tls, server_hostname="localhost"))

    @precondition(lambda self: not self.model.closed and not self.model.tls)
    @rule(now=rarely)
    def something_behind_starttls(self, now) -> None:
        if not now:
            return
        self.flush([])
        self.model.closed = True
        self.say("STARTTLS\r\nMAIL FROM:<a@shop.example>", [421])
        self.flush([])

    @precondition(lambda self: not self.model.closed)
    @rule(other=st.sampled_from(OTHERS))
    def other(self, other) -> None:
        self.say(*other)

    @precondition(lambda self: not self.model.closed)
    @rule(line=st.sampled_from(UNKNOWN), now=rarely)
    def unknown_command(self, line, now) -> None:
        if not now:
            return
        self.say(line, self.model.unknown_command())

    @precondition(lambda self: not self.model.closed)
    @rule(now=rarely)
    def quit(self, now) -> None:
        if not now:
            return
        self.say("QUIT", self.model.quit())

    @rule(cuts=st.lists(st.integers(0, 4000), max_size=5))
    def flush(self, cuts) -> None:
        """Send what has gathered, in packets, and compare the replies."""
        if not self.expected:
            return
        octets, self.waiting = self.waiting, b""
        expected, self.expected = self.expected, []
        try:
            self.world.run(self._converse(octets, sorted(cut for cut in cuts if cut < len(octets)), expected))
        except BaseException:
            self.has_failed = True
            raise

    async def _converse(self, octets: bytes, cuts: list[int], expected: list[int]) -> None:
        for start, end in zip([0, *cuts], [*cuts, len(octets)], strict=True):
            await self.client.send_octets(octets[start:end])
            for _ in range(4):  # the guard's turn
                await asyncio.sleep(0)
        replies = [await self.client.reply() for _ in expected]
        assert [int(reply[:3]) for reply in replies] == expected
        identified = [match[1] for reply in replies if (match := ID.search(reply))]
        unidentified = [message for message in self.model.accepted if not message.transaction_id]
        for message, transaction_id in zip(unidentified, identified, strict=True):
            message.transaction_id = transaction_id
        if self.model.closed:
            assert await self.client.at_end()

    def teardown(self) -> None:
        if not hasattr(self, "client"):
            return
        try:
            if not self.has_failed:
                self.flush([])
        finally:
            self.world.run(self._connection.__aexit__(None, None, None))
        if not self.has_failed:
            self.world.run(self.world.check(self.model.accepted))


@pytest.mark.timeout(SECONDS * 3 + 120)
def test_sessions_go_as_the_model_says(tmp_path, sqlite_url) -> None:
    profile = settings(
        max_examples=SECONDS * EXAMPLES_A_SECOND or 100,
        stateful_step_count=30,
        deadline=None,
        derandomize=not SECONDS,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    with world(tmp_path, sqlite_url) as made:
        machine = type("SessionsHere", (Sessions,), {"world": made})
        run_state_machine_as_test(machine, settings=profile)
