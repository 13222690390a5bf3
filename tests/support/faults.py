"""The fault table: what a smarthost can do wrong, and what comes of it.

Each fault is met by one transaction for ALICE and BOB, who are verified, and STRANGER, who is not. ``Expected`` says
what the application hears and what is left behind. The same table is run in process and against the installed command.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any
from weakref import WeakSet

from structlog.testing import capture_logs

from smtpguard.app import Desks
from smtpguard.domain.quarantined import QuarantineState
from tests.support.eventually import eventually
from tests.support.guard import guarding, verify
from tests.support.scripted_smarthost import (
    Action,
    ClientGone,
    ScriptedSmarthost,
    Session,
    Transaction,
    drop,
    hang,
    raw,
    refuse,
    reply,
    reset,
    sequence,
    stall,
    usual,
)
from tests.support.transcript import Transcript, greeted

ALICE, BOB, STRANGER = "alice@verified.example", "bob@verified.example", "xyz123@provider.example"
WIRE = b"Subject: hello\r\n\r\n" + b"0123456789\r\n" * 20
BIG_WIRE = b"Subject: big\r\n\r\n" + (b"0123456789" * 99 + b"\r\n") * 12_000
"""More than what the buffers of two sockets take."""

TAKEN = "250 2.1.5 recipient ok"
QUEUED = "250 2.0.0 queued as *"
DOWN = "451 4.4.1 The mail server cannot be reached now, try again later"
LOST = "451 4.4.2 The mail server did not confirm the message, try again later"


@dataclass(frozen=True)
class Expected:
    """What the application hears, and what is left; replies are patterns (shell style).

    ``ledger`` is what it says of each recipient that it names: the smarthost's reply, "" for one in quarantine.
    """

    alice: str
    bob: str
    end: str
    outcome: str
    arrived: tuple[str, ...] = ()
    """Whom a message is for whose final dot the smarthost got."""
    quarantined: tuple[str, ...] = ()
    ledger: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """One fault: a script for the smarthost. ``slow``: the guard finds out by a time-out."""

    name: str
    script: Mapping[str, Any]
    expected: Expected
    slow: bool = False
    reused: bool = False
    """It comes on a connection that has carried a message before."""
    deaf: bool = False
    """The smarthost reads no more, and so sees no end either."""
    wire: bytes = WIRE
    recipients: tuple[str, ...] = (ALICE, BOB, STRANGER)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Bench:
    """A guard to run faults against; ``log`` gives its transaction-ended lines so far."""

    port: int
    store_url: str
    desks: Desks
    log: Callable[[], Sequence[Mapping[str, Any]]]


@asynccontextmanager
async def benched(store_url: str, smarthost_port: int, **sections: Any) -> AsyncIterator[Bench]:
    """A guard in this process, which logs no error."""
    with capture_logs() as lines:
        async with guarding(store_url, smarthost_port, **sections) as guard:
            await verify(guard.desks, ALICE, BOB)
            yield Bench(guard.port, store_url, guard.desks, lambda: ended(lines))
    assert [line for line in lines if line["log_level"] == "error"] == []


def ended(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [line for line in lines if line["event"] == "transaction-ended"]


# What comes of it


def delivered(*, rcpt: str = TAKEN, said: str = QUEUED) -> Expected:
    """All is well."""
    end = f"250 2.0.0 OK id=*; {said.partition(' 2.0.0 ')[2] or said[4:]}"
    ledger = {ALICE: said, BOB: said, STRANGER: ""}
    return Expected(rcpt, rcpt, end, "accepted", (ALICE, BOB), (STRANGER,), ledger)


def at_rcpt(said: str) -> Expected:
    """Whom the smarthost does not take is refused at once; the stranger's message is kept all the same."""
    ledger = {ALICE: said, BOB: said, STRANGER: ""}
    return Expected(said, said, "250 2.0.0 OK id=*", "accepted", (), (STRANGER,), ledger)


def refused_at_end(said: str, *, heard: str = "", arrived: tuple[str, ...] = ()) -> Expected:
    """The smarthost's own answer to the message; nothing is kept."""
    outcome = "deferred" if said.startswith("4") else "refused"
    return Expected(TAKEN, TAKEN, heard or said, outcome, arrived, (), {ALICE: said, BOB: said})


UNAVAILABLE_AT_RCPT = at_rcpt(DOWN)
UNAVAILABLE_AT_END = Expected(TAKEN, TAKEN, DOWN, "deferred")
MAYBE_DELIVERED = Expected(
    TAKEN, TAKEN, LOST, "maybe-delivered", (ALICE, BOB), (),
    {ALICE: "lost after the final dot", BOB: "lost after the final dot"},
)  # fmt: skip


# What a smarthost does wrong


def followed_by(octets: bytes) -> Action:
    """Say what is usual, and in the same packet something that nobody asked for."""

    async def act(session: Session) -> None:
        assert session.default is not None
        session.code, lines = session.default
        first, *others = reversed(lines)
        said = [f"{session.code} {first}\r\n", *(f"{session.code}-{line}\r\n" for line in others)]
        session.connection.say("".join(reversed(said)).encode() + octets)

    return act


def too_late(octets: bytes) -> Action:
    """Answer when the guard waits no more."""

    async def act(session: Session) -> None:
        try:
            await hang()(session)
        except ClientGone:
            session.connection.say(octets)
            raise

    return act


def once(action: Action) -> Action:
    """Do it the first time that a smarthost comes to it, and what is usual afterwards."""
    met: WeakSet[ScriptedSmarthost] = WeakSet()

    async def act(session: Session) -> None:
        again = session.smarthost in met
        met.add(session.smarthost)
        await (usual() if again else action)(session)

    return act


def in_body(action: Action) -> dict[str, Any]:
    """A script for the middle of a body: of a big one, or the guard may have sent all before the smarthost has read."""
    return {"body": {5: action}}


CLOSING = refuse(421, "4.3.2 closing")
BREAKAGES: dict[str, Action] = {
    "gone (close)": drop(),
    "gone (RST)": reset(),
    "421": CLOSING,
    "421 and gone": sequence(CLOSING, drop()),
    "garbage": raw(b"\x00\xff garbage\r\n"),
    "overlong": raw(b"250 " + b"x" * 3000 + b"\r\n"),
    "too many lines": raw(b"250-x\r\n" * 200 + b"250 x\r\n"),
    "half a reply": sequence(raw(b"250-2.0.0 half\r\n250 2.0"), drop()),
    "two codes": raw(b"250-x\r\n550 y\r\n"),
}
BEFORE_RCPT_IS_ANSWERED = ("greeting", "ehlo", "mail", "rcpt")
STEPS = (*BEFORE_RCPT_IS_ANSWERED, "data", "dot")


def _after(step: str, name: str) -> Expected:
    """What comes of a breakage at a step."""
    if step in BEFORE_RCPT_IS_ANSWERED:
        return UNAVAILABLE_AT_RCPT
    if step == "data":
        return UNAVAILABLE_AT_END
    if name.startswith("421"):  # an answer, though a late one: it does not have the message
        return refused_at_end("421 4.3.2 closing", heard=DOWN, arrived=(ALICE, BOB))
    return MAYBE_DELIVERED


def _breakages() -> list[Fault]:
    at_steps = [
        Fault(f"{name} at {step}", {step: action}, _after(step, name))
        for step in STEPS
        for name, action in BREAKAGES.items()
    ]
    in_bodies = [
        Fault(f"{name} in the body", in_body(action), UNAVAILABLE_AT_END, wire=BIG_WIRE)
        for name, action in BREAKAGES.items()
    ]
    return at_steps + in_bodies


def _slow() -> list[Fault]:
    hanging = [Fault(f"hanging at {step}", {step: hang()}, _after(step, ""), slow=True) for step in STEPS]
    return [
        *hanging,
        Fault("hanging in the body", in_body(stall()), UNAVAILABLE_AT_END, slow=True, deaf=True, wire=BIG_WIRE),
        Fault("late at rcpt", {"rcpt": too_late(b"250 2.1.5 late\r\n")}, UNAVAILABLE_AT_RCPT, slow=True),
        Fault("late at data", {"data": too_late(b"354 late\r\n")}, UNAVAILABLE_AT_END, slow=True),
        Fault("late at dot", {"dot": too_late(b"250 2.0.0 late\r\n")}, MAYBE_DELIVERED, slow=True),
    ]


def _refusals() -> list[Fault]:
    said = "550 5.7.1 no mail from you ?"
    no = reply(550, "5.7.1 no mail", "5.7.1 from you \u20ac\x07")
    later = refuse(451, "4.3.0 try again")
    return [
        Fault("5yz at greeting", {"greeting": refuse(554, "5.7.1 no")}, UNAVAILABLE_AT_RCPT),
        Fault("4yz at greeting", {"greeting": refuse(450, "4.7.1 no")}, UNAVAILABLE_AT_RCPT),
        Fault("5yz at ehlo", {"ehlo": refuse(502, "5.5.1 no EHLO here")}, delivered()),
        Fault("5yz at ehlo and helo", {"ehlo": refuse(502, "no"), "helo": refuse(550, "no")}, UNAVAILABLE_AT_RCPT),
        Fault("4yz at ehlo", {"ehlo": refuse(450, "4.7.1 no")}, UNAVAILABLE_AT_RCPT),
        *(Fault(f"5yz at {step}", {step: no}, at_rcpt(said)) for step in ("mail", "rcpt")),
        *(Fault(f"4yz at {step}", {step: later}, at_rcpt("451 4.3.0 try again")) for step in ("mail", "rcpt")),
        Fault("5yz at data", {"data": no}, refused_at_end(said)),
        Fault("4yz at data", {"data": later}, refused_at_end("451 4.3.0 try again")),
        Fault("5yz at dot", {"dot": no}, refused_at_end(said, arrived=(ALICE, BOB))),
        Fault("4yz at dot", {"dot": later}, refused_at_end("451 4.3.0 try again", arrived=(ALICE, BOB))),
        Fault("without text at dot", {"dot": raw(b"554\r\n")}, refused_at_end("554", arrived=(ALICE, BOB))),
    ]


def _unasked() -> list[Fault]:
    early = b"250 2.0.0 early\r\n"
    return [
        Fault("250 behind greeting", {"greeting": followed_by(early)}, UNAVAILABLE_AT_RCPT),
        Fault("250 behind ehlo", {"ehlo": followed_by(early)}, UNAVAILABLE_AT_RCPT),
        Fault("250 behind rcpt", {"rcpt": followed_by(early)}, UNAVAILABLE_AT_RCPT),
        Fault("354 behind rcpt", {"rcpt": followed_by(b"354 early\r\n")}, UNAVAILABLE_AT_RCPT),
        Fault("250 behind data", {"data": followed_by(early)}, UNAVAILABLE_AT_END),
        Fault("250 in the body", in_body(raw(early)), UNAVAILABLE_AT_END, wire=BIG_WIRE),
        Fault("354 in the body", in_body(raw(b"354 again\r\n")), UNAVAILABLE_AT_END, wire=BIG_WIRE),
        Fault("half a reply behind data", {"data": followed_by(b"250 2.0")}, UNAVAILABLE_AT_END),
        Fault("250 behind dot", {"dot": followed_by(early)}, delivered()),
        Fault("gone behind dot", {"dot": sequence(usual(), drop())}, delivered()),
        Fault("250 at data", {"data": reply(250, "2.0.0 ok")}, UNAVAILABLE_AT_END),
        Fault("354 at rcpt", {"rcpt": reply(354, "go ahead")}, UNAVAILABLE_AT_RCPT),
        Fault("354 at dot", {"dot": reply(354, "go ahead")}, MAYBE_DELIVERED),
    ]


def _early_refusals() -> list[Fault]:
    """RFC 5321 has the refusal behind the dot, but a server that will not read so much says it sooner."""
    no, said = refuse(552, "5.3.4 too much"), "552 5.3.4 too much"
    return [
        Fault("5yz in the body", in_body(no), refused_at_end(said), wire=BIG_WIRE),
        Fault("5yz in the body and hanging", in_body(sequence(no, hang())), refused_at_end(said), wire=BIG_WIRE),
        Fault("5yz in a small body and gone", in_body(sequence(no, drop())), refused_at_end(said)),
    ]


def _gone_between_rcpt_and_data() -> list[Fault]:
    """Nothing was sent: the message goes over another connection."""
    renewed = [
        Fault(f"{name} behind rcpt once", {"rcpt": {BOB: once(sequence(usual(), BREAKAGES[name]))}}, delivered())
        for name in ("gone (close)", "gone (RST)", "421 and gone")
    ]
    always = Fault("gone behind rcpt always", {"rcpt": {BOB: sequence(usual(), drop())}}, UNAVAILABLE_AT_END)
    return [*renewed, always]


def _odd_but_right() -> list[Fault]:
    many = reply(250, "2.0.0 one", "2.0.0 two \u20ac", "2.0.0 three")
    joined = "250 2.0.0 one two ? three"
    return [
        Fault("multi-line greeting", {"greeting": reply(220, "one", "two \u00fc", "three")}, delivered()),
        Fault("multi-line at mail", {"mail": many}, delivered()),
        Fault("multi-line at rcpt", {"rcpt": many}, delivered(rcpt=joined)),
        Fault("multi-line at data", {"data": reply(354, "go", "ahead")}, delivered()),
        Fault("multi-line at dot", {"dot": many}, delivered(said=joined)),
        Fault("251 at rcpt", {"rcpt": reply(251, "2.1.5 will forward")}, delivered(rcpt="251 2.1.5 will forward")),
        Fault("252 at rcpt", {"rcpt": reply(252, "2.1.5 will try")}, delivered(rcpt="252 2.1.5 will try")),
        Fault("251 at dot", {"dot": reply(251, "2.0.0 forwarded")}, delivered(said="251 2.0.0 forwarded")),
        Fault("without text at rcpt", {"rcpt": reply(250)}, delivered(rcpt="250")),
    ]


def _one_of_many() -> list[Fault]:
    gone = "550 5.1.1 no such user"
    without_bob = Expected(
        TAKEN, gone, "250 2.0.0 OK id=*; queued as *", "accepted", (ALICE,), (STRANGER,),
        {ALICE: QUEUED, BOB: gone, STRANGER: ""},
    )  # fmt: skip
    without_alice = Expected(
        gone, TAKEN, "250 2.0.0 OK id=*; queued as *", "accepted", (BOB,), (STRANGER,),
        {ALICE: gone, BOB: QUEUED, STRANGER: ""},
    )  # fmt: skip
    # Who was taken before went with the connection: the application tries again with all.
    gone_with_it = Expected(TAKEN, DOWN, DOWN, "deferred", ledger={BOB: DOWN})
    return [
        Fault("gone at one of many", {"rcpt": {BOB: drop()}}, gone_with_it),
        Fault("one of many refused", {"rcpt": {BOB: refuse(550, "5.1.1 no such user")}}, without_bob),
        Fault("the first of many refused", {"rcpt": {ALICE: refuse(550, "5.1.1 no such user")}}, without_alice),
    ]


def _on_a_reused_connection() -> list[Fault]:
    """It may have died while it lay idle; the message then goes over another one."""
    renewed = [
        Fault(f"{name} at {step} once", {step: once(BREAKAGES[name])}, delivered(), reused=True)
        for step in ("rset", "mail", "rcpt")
        for name in ("gone (close)", "gone (RST)", "421")
    ]
    return [
        *renewed,
        Fault("5yz at rset", {"rset": refuse(550, "5.0.0 no")}, delivered(), reused=True),
        Fault("garbage at rset", {"rset": BREAKAGES["garbage"]}, UNAVAILABLE_AT_RCPT, reused=True),
        Fault(
            "250 behind rset",
            {"rset": followed_by(b"250 early\r\n"), "mail": hang()},
            UNAVAILABLE_AT_RCPT,
            reused=True,
            slow=True,
        ),
        Fault("hanging at rset", {"rset": hang()}, UNAVAILABLE_AT_RCPT, reused=True, slow=True),
        Fault("gone at mail always", {"mail": drop()}, UNAVAILABLE_AT_RCPT, reused=True),
    ]


FAULTS = [
    *_breakages(),
    *_slow(),
    *_refusals(),
    *_unasked(),
    *_early_refusals(),
    *_gone_between_rcpt_and_data(),
    *_odd_but_right(),
    *_one_of_many(),
    *_on_a_reused_connection(),
]


BEFORE_THE_DOT_GOES_OUT: dict[str, tuple[Action, Expected]] = {
    "gone (close)": (drop(), UNAVAILABLE_AT_END),
    "gone (RST)": (reset(), UNAVAILABLE_AT_END),
    "421": (CLOSING, UNAVAILABLE_AT_END),
    "250": (raw(b"250 2.0.0 queued\r\n"), UNAVAILABLE_AT_END),
    "half a reply": (raw(b"250 2.0"), UNAVAILABLE_AT_END),
    "garbage": (raw(b"\x00\xff\r\n"), UNAVAILABLE_AT_END),
    "5yz": (refuse(552, "5.3.4 too much"), refused_at_end("552 5.3.4 too much")),
}
"""Faults when the smarthost has the whole body and the guard writes to its quarantine."""


AT_THE_END = [fault for fault in FAULTS if fault.expected.alice == TAKEN and not fault.slow]
"""Faults that come when the application has sent its message."""


# Running them

SendMessage = Callable[[Transcript, bytes], Awaitable[None]]


async def meet(fault: Fault, bench: Bench, smarthost: ScriptedSmarthost, *, send: SendMessage | None = None) -> None:
    """Let a transaction meet the fault, compare what comes of it, and see that the guard can be used as before.

    ``send`` sends the message, by DATA if it is None.
    """
    if fault.reused:
        await send_good_message(bench, smarthost)
    if "rset" in fault.script:
        await give_a_transaction_up(bench)
    before, logged = len(smarthost.messages), len(bench.log())
    for step, action in fault.script.items():
        setattr(smarthost, step, action)
    async with greeted(bench.port) as client:
        await _converse(client, fault, send or by_data)
        await client.ask("NOOP", "250 *")
    for step in fault.script:
        setattr(smarthost, step, {} if step == "body" else None)
    await assert_left(fault.expected, bench, smarthost.messages[before:], logged=logged)
    assert all(message.wire.endswith(fault.wire) for message in smarthost.messages[before:])
    await send_good_message(bench, smarthost)
    if not fault.deaf:
        await smarthost.wait_for(lambda: len(smarthost.open_connections) <= 1, "the broken connections to be closed")


async def meet_before_the_dot(action: Action, expected: Expected, bench: Bench, smarthost: ScriptedSmarthost) -> None:
    """The same for a fault between the last octet of the body and the final dot.

    Another process's lock on the store holds the guard up where it commits its quarantine.
    """
    await send_good_message(bench, smarthost)
    logged = len(bench.log())
    whole = len(smarthost.messages[0].wire)
    done = asyncio.Event()

    async def act(session: Session) -> None:
        done.set()
        await action(session)

    smarthost.body = {whole: act}
    async with greeted(bench.port) as client:
        await client.envelope(ALICE, BOB, STRANGER)
        await client.ask("DATA", "354 *")
        with locked(bench.store_url):
            await client.send_octets(WIRE + b".\r\n")
            await done.wait()
        await client.expect(expected.end)
    smarthost.body = {}
    await assert_left(expected, bench, smarthost.messages[1:], logged=logged)
    await send_good_message(bench, smarthost)


async def meet_nobody(bench: Bench) -> None:
    """Let a transaction meet a smarthost that is down."""
    logged = len(bench.log())
    async with greeted(bench.port) as client:
        await _converse(client, Fault("down", {}, UNAVAILABLE_AT_RCPT), by_data)
    await assert_left(UNAVAILABLE_AT_RCPT, bench, [], logged=logged)


@contextmanager
def locked(store_url: str) -> Iterator[None]:
    """Hold the write lock of a SQLite store, as another process."""
    with closing(sqlite3.connect(store_url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


async def by_data(client: Transcript, wire: bytes) -> None:
    """Send a message as RFC 5321 has it."""
    await client.ask("DATA", "354 *")
    await client.send_octets(wire + b".\r\n")


async def by_bdat(client: Transcript, wire: bytes) -> None:
    """Send a message without dots in two chunks (RFC 3030)."""
    first, last = wire[:7], wire[7:]
    await client.send_octets(b"BDAT %d\r\n" % len(first) + first)
    await client.expect("250 *")
    await client.send_octets(b"BDAT %d LAST\r\n" % len(last) + last)


async def _converse(client: Transcript, fault: Fault, send: SendMessage) -> None:
    expected = fault.expected
    await client.ask("MAIL FROM:<billing@shop.example>", "250 *")
    said = {ALICE: expected.alice, BOB: expected.bob, STRANGER: "250 2.1.5 *"}
    for recipient in fault.recipients:
        await client.ask(f"RCPT TO:<{recipient}>", said[recipient])
    await send(client, fault.wire)
    await client.expect(expected.end)


async def assert_left(expected: Expected, bench: Bench, arrived: Sequence[Transaction], *, logged: int) -> None:
    """Smarthost, log, quarantine and ledger have what is expected of the last transaction, and nothing else of it.

    ``logged`` transactions were logged before it.
    """
    await eventually(lambda: len(bench.log()) > logged)
    assert [tuple(message.recipients) for message in arrived] == ([expected.arrived] if expected.arrived else [])
    line = bench.log()[-1]
    assert line["outcome"] == expected.outcome
    states = frozenset(QuarantineState)
    kept = [each for each in await bench.desks.quarantine.list(limit=0, states=states) if of(line, each)]
    assert tuple(message.recipient.text for message in kept) == expected.quarantined
    rows = await bench.desks.store.ledger.list(limit=0, after=None)
    said = {row.entry.decision.recipient.text: row.entry.smarthost_reply for row in rows if of(line, row.entry)}
    assert said.keys() == expected.ledger.keys()
    assert [(who, said[who]) for who, pattern in expected.ledger.items() if not fnmatchcase(said[who], pattern)] == []


def of(line: Mapping[str, Any], record: Any) -> bool:
    """Whether a record is of the transaction that a line of the log tells of."""
    return bool(record.transaction_id == line["transaction"])


async def give_a_transaction_up(bench: Bench) -> None:
    """Leave a connection to the smarthost behind on which the next transaction begins with RSET."""
    logged = len(bench.log())
    async with greeted(bench.port) as client:
        await client.envelope(ALICE)
        await client.ask("RSET", "250 *")
    await eventually(lambda: len(bench.log()) > logged)


async def send_good_message(bench: Bench, smarthost: ScriptedSmarthost) -> None:
    """A message of a new session is relayed and kept."""
    before, logged = len(smarthost.messages), len(bench.log())
    async with greeted(bench.port) as client:
        assert (await client.message(ALICE, STRANGER)).startswith("250 2.0.0 ")
    assert [message.recipients for message in smarthost.messages[before:]] == [[ALICE]]
    await eventually(lambda: len(bench.log()) > logged)
    assert bench.log()[-1]["outcome"] == "accepted"
