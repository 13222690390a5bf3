"""A transaction through the whole guard: real aiosmtpd, real stores, a smarthost that follows a script.

The first half is the seven steps, the second the failure table of docs/design.md.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from smtpguard.domain.decision import Reason, Verdict
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.domain.quarantined import QuarantineState
from smtpguard.smtp.session import GuardSMTP
from tests.support.eventually import eventually
from tests.support.faults import locked
from tests.support.guard import RunningGuard, guarding, put_on_record, verify
from tests.support.scripted_smarthost import ScriptedSmarthost, Session, drop, hang, hold, raw, refuse, reset
from tests.support.transcript import greeted

ALICE, BOB = "alice@verified.example", "Bob.B@verified.example"
UNVERIFIED, UNKNOWN = "xyz123@provider.example", "mallory@unknown.example"
WIRE = b"From: shop@shop.example\r\nSubject: Invoice\r\nMessage-ID: <1@shop.example>\r\n\r\n..hello\r\n"


@pytest.fixture
async def smarthost() -> AsyncIterator[ScriptedSmarthost]:
    async with ScriptedSmarthost() as smarthost:
        yield smarthost


@pytest.fixture
async def guard(store_url, smarthost) -> AsyncIterator[RunningGuard]:
    async with guarding(store_url, smarthost.port, smarthost={"command_timeout": 0.3, "reply_timeout": 0.3}) as guard:
        await verify(guard.desks, ALICE, BOB)
        await put_on_record(guard.desks, [UNVERIFIED])
        yield guard


def without_received(message: bytes) -> bytes:
    """Take the guard's own trace field off, after a look at it."""
    lines = message.split(b"\r\n", 3)
    assert lines[0] == b"Received: from app.example ([127.0.0.1])"
    assert lines[1].startswith(b"\tby guard.example (smtpguard) with ESMTP id ")
    return lines[3]


# The steps


async def test_extensions_are_offered(guard) -> None:
    async with greeted(guard.port) as client:
        said = await client.ask("EHLO app.example", "250-guard.example*")

    assert said.split("\n") == [
        "250-guard.example",
        "250-PIPELINING",
        "250-SIZE 36700160",
        "250-CHUNKING",
        "250-ENHANCEDSTATUSCODES",
        "250-HELP",
        "250 8BITMIME",
    ]


async def test_verified_recipient_is_relayed_byte_for_byte(guard, smarthost) -> None:
    async with greeted(guard.port) as client:
        said = await client.message(ALICE, wire=WIRE)

    message = smarthost.messages[0]
    assert said.startswith("250 2.0.0 OK id=")
    assert said.endswith("queued as 1")
    assert message.recipients == [ALICE]
    assert message.reverse_path == "billing@shop.example"
    assert WIRE.replace(b"..hello", b".hello") == without_received(message.message)
    assert await guard.waiting() == []


async def test_unverified_recipient_is_quarantined(guard, smarthost) -> None:
    async with greeted(guard.port) as client:
        said = await client.message(UNVERIFIED, UNKNOWN, wire=WIRE)
    first, second = await guard.waiting()

    assert said.startswith("250 2.0.0 OK id=")
    assert smarthost.count("MAIL") == 0
    assert (first.recipient.text, first.reason) == (UNVERIFIED, Reason.NOT_VERIFIED)
    assert (second.recipient.text, second.reason) == (UNKNOWN, Reason.UNKNOWN)
    assert (first.subject, first.application, str(first.reverse_path)) == ("Invoice", "default", "billing@shop.example")
    content = await guard.desks.store.quarantine.content(first.id)
    assert WIRE.replace(b"..hello", b".hello") == without_received(content.message)
    assert first.size == len(content.message)


async def test_mixed_message_is_split(guard, smarthost) -> None:
    async with greeted(guard.port) as client:
        await client.message(ALICE, UNVERIFIED, BOB, UNKNOWN, wire=WIRE)

    assert [message.recipients for message in smarthost.messages] == [[ALICE, BOB]]
    assert sorted([UNVERIFIED, UNKNOWN]) == await guard.waiting_for()


async def test_address_is_mailed_as_it_was_given(guard, smarthost) -> None:
    async with greeted(guard.port) as client:
        await client.message("bOB.b@VERIFIED.example")

    assert smarthost.messages[0].recipients == ["bOB.b@VERIFIED.example"]


async def test_bounce_passes(guard, smarthost) -> None:
    """The null reverse-path, and in quarantine, too."""
    async with greeted(guard.port) as client:
        await client.envelope(ALICE, UNVERIFIED, sender="")
        await client.ask("DATA", "354 *")
        await client.send("Subject: bounce", ".")
        await client.expect("250 *")
    (message,) = await guard.waiting()

    assert smarthost.messages[0].reverse_path == ""
    assert str(message.reverse_path) == ""


async def test_pipelined_session_is_answered_in_order(guard, smarthost) -> None:
    async with greeted(guard.port) as client:
        one = [
            "MAIL FROM:<a@app.example>",
            f"RCPT TO:<{ALICE}>",
            f"RCPT TO:<{UNKNOWN}>",
            "DATA",
            "Subject: x",
            "",
            "y",
            ".",
        ]
        await client.send(*one, *one, "QUIT")
        replies = ["250 2.1.0 *", "250 2.1.5 *", "250 2.1.5 *", "354 *", "250 2.0.0 *"]
        await client.expect(*replies, *replies, "221 2.0.0 *")
        assert await client.at_end()

    assert len(smarthost.messages) == 2
    assert len(await guard.waiting()) == 2


async def test_whole_session_in_one_packet_and_half_closed(guard, smarthost) -> None:
    """Scripts do this: everything that stands before QUIT is answered."""
    async with greeted(guard.port) as client:
        await client.send("MAIL FROM:<a@app.example>", f"RCPT TO:<{ALICE}>", "DATA", "Subject: x", "", "y", ".", "QUIT")
        client.writer.write_eof()
        await client.expect("250 *", "250 *", "354 *", "250 2.0.0 *", "221 *")

    assert len(smarthost.messages) == 1


async def test_parameters_are_passed_on_and_kept(guard, smarthost) -> None:
    async with greeted(guard.port) as client:
        await client.ask("MAIL FROM:<a@app.example> BODY=8BITMIME SIZE=100", "250 *")
        await client.ask(f"RCPT TO:<{ALICE}>", "250 *")
        await client.ask(f"RCPT TO:<{UNKNOWN}>", "250 *")
        await client.ask("DATA", "354 *")
        await client.send("Subject: x", ".")
        await client.expect("250 *")
    (waiting,) = await guard.waiting()
    await guard.desks.quarantine.release(waiting.id, by="anna", why="test")

    assert smarthost.messages[0].parameters == ("BODY=8BITMIME", "SIZE=1124")
    assert smarthost.messages[1].parameters == ("BODY=8BITMIME", f"SIZE={waiting.size}")


async def test_customer_header_is_read_and_taken_out(guard, smarthost) -> None:
    await verify(guard.desks, "carol@verified.example", customer="7")
    async with greeted(guard.port) as client:
        await client.message("carol@verified.example", wire=b"X-Customer-ID: 7\r\nSubject: a\r\n\r\n")
        await client.message("carol@verified.example", wire=b"X-Customer-ID: 8\r\nSubject: b\r\n\r\n")
        await client.message("carol@verified.example", wire=b"Subject: c\r\n\r\n")
    waiting = await guard.waiting()

    assert without_received(smarthost.messages[0].message) == b"Subject: a\r\n\r\n"
    assert len(smarthost.messages) == 1
    assert [message.reason for message in waiting] == [Reason.NOT_VERIFIED_FOR_CUSTOMER] * 2
    assert [message.customer for message in waiting] == ["8", None]
    content = await guard.desks.store.quarantine.content(waiting[0].id)
    assert b"Customer" not in content.message


async def test_address_wide_voucher_counts_for_one_customer_only(guard, smarthost) -> None:
    """The case of 2019: one made-up address in the records of several customers."""
    async with greeted(guard.port) as client:
        for customer in ("7", "7", "8", "7"):
            await client.message(ALICE, wire=b"X-Customer-ID: %s\r\n\r\n" % customer.encode())
    waiting = await guard.waiting()

    assert len(smarthost.messages) == 2
    assert [(message.customer, message.reason) for message in waiting] == [
        ("8", Reason.SHARED_ADDRESS),
        ("7", Reason.SHARED_ADDRESS),
    ]


async def test_first_messages_of_two_customers_at_once(guard, smarthost) -> None:
    """Both are judged before either is done; not both may pass."""
    async with greeted(guard.port) as one, greeted(guard.port) as other:
        said = await asyncio.gather(
            one.message(ALICE, wire=b"X-Customer-ID: 1\r\n\r\n"), other.message(ALICE, wire=b"X-Customer-ID: 2\r\n\r\n")
        )

    assert all(reply.startswith("250 ") for reply in said)
    assert len(smarthost.messages) <= 1
    assert len(smarthost.messages) + len(await guard.waiting()) == 2


async def test_unclear_customer_is_quarantined(guard, smarthost) -> None:
    async with greeted(guard.port) as client:
        await client.message(ALICE, wire=b"X-Customer-ID: 1\r\nX-Customer-ID: 2\r\n\r\n")

    assert [message.reason for message in await guard.waiting()] == [Reason.CUSTOMER_UNCLEAR]
    assert smarthost.messages == []


async def test_flag_set_between_rcpt_and_end_of_data_counts(guard, smarthost) -> None:
    """The smarthost's transaction begins again for those that remain."""
    async with greeted(guard.port) as client:
        await client.envelope(ALICE, BOB)
        await guard.desks.addresses.flag(parse_mailbox(ALICE), by="anna", reason="complaint")
        await client.ask("DATA", "354 *")
        await client.send("Subject: x", ".")
        await client.expect("250 2.0.0 *")

    assert [message.recipients for message in smarthost.messages] == [[BOB]]
    assert await guard.waiting_for() == [ALICE]
    assert [message.reason for message in await guard.waiting()] == [Reason.FLAGGED]


async def test_flag_on_the_only_recipient_between_rcpt_and_end_of_data(guard, smarthost) -> None:
    async with greeted(guard.port) as client:
        await client.envelope(ALICE)
        await guard.desks.addresses.flag(parse_mailbox(ALICE), by="anna", reason="complaint")
        await client.ask("DATA", "354 *")
        await client.send("Subject: x", ".")
        await client.expect("250 2.0.0 *")

    assert smarthost.messages == []
    assert await guard.waiting_for() == [ALICE]


async def test_remaining_recipient_is_refused_when_the_transaction_begins_again(guard, smarthost) -> None:
    async with greeted(guard.port) as client:
        await client.envelope(ALICE, BOB)
        await guard.desks.addresses.flag(parse_mailbox(ALICE), by="anna", reason="complaint")
        smarthost.rcpt = {BOB: refuse(550, "5.1.1 gone")}
        await client.ask("DATA", "354 *")
        await client.send("Subject: x", ".")
        await client.expect("451 4.3.0 *")

    assert smarthost.messages == []
    assert await guard.waiting() == []


async def test_verified_after_rcpt_stays_quarantined(guard, smarthost) -> None:
    """The smarthost was not asked about it."""
    async with greeted(guard.port) as client:
        await client.envelope(UNVERIFIED)
        await verify(guard.desks, UNVERIFIED)
        await client.ask("DATA", "354 *")
        await client.send("Subject: x", ".")
        await client.expect("250 2.0.0 *")

    assert await guard.waiting_for() == [UNVERIFIED]


@pytest.mark.parametrize(
    ("policy", "recipient", "said"),
    [
        ({"unverified": "reject"}, UNVERIFIED, "550 5.7.1 *not verified*"),
        ({"unverified": "reject"}, UNKNOWN, "550 5.7.1 *not verified*"),
        ({"flagged": "reject"}, "flagged@verified.example", "550 5.7.1 *stopped*"),
        ({"unverified": "relay"}, UNKNOWN, "250 2.1.5 recipient ok"),
        ({"trusted_domains": ["unknown.example"]}, UNKNOWN, "250 2.1.5 recipient ok"),
        ({"mode": "observe"}, "flagged@verified.example", "250 2.1.5 recipient ok"),
    ],
)
async def test_policy_at_rcpt(sqlite_url, smarthost, policy, recipient, said) -> None:
    async with guarding(sqlite_url, smarthost.port, policy=policy) as guard:
        await put_on_record(guard.desks, [UNVERIFIED])
        await guard.desks.addresses.flag(parse_mailbox("flagged@verified.example"), by="anna", reason="test")
        async with greeted(guard.port) as client:
            await client.ask("MAIL FROM:<a@app.example>", "250 *")
            await client.ask(f"RCPT TO:<{recipient}>", said)


async def test_ledger_says_what_was_done(guard, smarthost) -> None:
    smarthost.rcpt = {BOB: refuse(550, "5.1.1 no such user")}
    async with greeted(guard.port) as client:
        await client.ask("MAIL FROM:<a@app.example>", "250 *")
        await client.ask(f"RCPT TO:<{ALICE}>", "250 *")
        await client.ask(f"RCPT TO:<{BOB}>", "550 5.1.1 no such user")
        await client.ask(f"RCPT TO:<{UNKNOWN}>", "250 *")
        await client.ask("DATA", "354 *")
        await client.send("Message-ID: <1@shop.example>", "X-Customer-ID: 7", ".")
        await client.expect("250 *")
    rows = await guard.desks.store.ledger.list(limit=0, after=None)
    entries = {row.entry.decision.recipient.text: row.entry for row in rows}

    assert entries[ALICE].decision.verdict is Verdict.RELAY
    assert entries[ALICE].smarthost_reply == "250 2.0.0 queued as 1"
    assert entries[BOB].smarthost_reply == "550 5.1.1 no such user"
    assert entries[UNKNOWN].decision.verdict is Verdict.QUARANTINE
    assert {entry.message_id for entry in entries.values()} == {"<1@shop.example>"}
    assert {entry.customer for entry in entries.values()} == {"7"}


# The failure table


async def nothing_left(guard: RunningGuard) -> bool:
    return await guard.desks.quarantine.list(limit=0, states=set(QuarantineState)) == []


async def test_no_relay_right(sqlite_url, smarthost) -> None:
    applications = [{"name": "elsewhere", "networks": ["192.0.2.0/24"]}]
    async with guarding(sqlite_url, smarthost.port, application=applications) as guard:
        await verify(guard.desks, ALICE)
        async with greeted(guard.port) as client:
            await client.ask("MAIL FROM:<a@app.example>", "250 *")
            await client.ask(f"RCPT TO:<{ALICE}>", "554 5.7.1 *")
            await client.ask(f"RCPT TO:<{UNKNOWN}>", "554 5.7.1 *")
            await client.ask("DATA", "503 5.5.1 *")


@pytest.mark.parametrize("recipients", [[ALICE], [UNKNOWN], [ALICE, UNKNOWN]])
async def test_smarthost_refuses_the_message(guard, smarthost, recipients) -> None:
    smarthost.dot = refuse(554, "5.7.1 I think this is spam")
    async with greeted(guard.port) as client:
        said = await client.message(*recipients)

    if ALICE in recipients:
        assert said == "554 5.7.1 I think this is spam"
        assert await nothing_left(guard)
    else:
        assert said.startswith("250 ")


@pytest.mark.parametrize(
    ("step", "action", "said"),
    [
        ("greeting", refuse(554, "no"), "451 4.4.1 *"),
        ("greeting", hang(), "451 4.4.1 *"),
        ("greeting", drop(), "451 4.4.1 *"),
        ("ehlo", refuse(421, "4.3.2 closing"), "451 4.4.1 *"),
        ("mail", refuse(452, "4.3.1 full"), "452 4.3.1 full"),
        ("mail", refuse(550, "5.7.1 not you"), "550 5.7.1 not you"),
        ("mail", refuse(421, "4.3.2 closing"), "451 4.4.1 *"),
        ("mail", drop(), "451 4.4.1 *"),
        ("mail", hang(), "451 4.4.1 *"),
        ("rcpt", refuse(450, "4.2.1 grey"), "450 4.2.1 grey"),
        ("rcpt", refuse(550, "no enhanced code \u20ac"), "550 no enhanced code ?"),
        ("rcpt", refuse(421, "4.3.2 closing"), "451 4.4.1 *"),
        ("rcpt", reset(), "451 4.4.1 *"),
        ("rcpt", raw(b"nonsense\r\n"), "451 4.4.1 *"),
        ("rcpt", hang(), "451 4.4.1 *"),
    ],
)
async def test_smarthost_fails_before_data(sqlite_url, smarthost, step, action, said) -> None:
    setattr(smarthost, step, action)
    limits = {"command_timeout": 0.3, "connect_timeout": 0.3}
    async with guarding(sqlite_url, smarthost.port, smarthost=limits) as guard:
        await verify(guard.desks, ALICE)
        async with greeted(guard.port) as client:
            await client.ask("MAIL FROM:<a@app.example>", "250 *")
            await client.ask(f"RCPT TO:<{ALICE}>", said)
            await client.ask("DATA", "554 5.5.1 *")
            setattr(smarthost, step, None)
            await client.ask("RSET", "250 *")
            assert (await client.message(ALICE)).startswith("250 ")


@pytest.mark.parametrize(
    ("step", "action", "said"),
    [
        ("data", refuse(451, "4.3.0 later"), "451 4.3.0 later"),
        ("data", refuse(554, "5.7.1 no"), "554 5.7.1 no"),
        ("data", drop(), "451 4.4.1 *"),
        ("data", hang(), "451 4.4.1 *"),
        ("dot", refuse(452, "4.3.1 full"), "452 4.3.1 full"),
        ("dot", refuse(421, "4.3.2 closing"), "451 4.4.1 *"),
        ("dot", drop(), "451 4.4.2 *"),
        ("dot", reset(), "451 4.4.2 *"),
        ("dot", hang(), "451 4.4.2 *"),
        ("dot", raw(b"nonsense\r\n"), "451 4.4.2 *"),
    ],
)
async def test_smarthost_fails_after_rcpt(sqlite_url, smarthost, step, action, said) -> None:
    """Nothing is left in quarantine either; the same session can go on."""
    limits = {"command_timeout": 0.3, "data_timeout": 0.3, "reply_timeout": 0.3}
    async with guarding(sqlite_url, smarthost.port, smarthost=limits) as guard:
        await verify(guard.desks, ALICE)
        async with greeted(guard.port) as client:
            setattr(smarthost, step, action)
            await client.envelope(ALICE, UNKNOWN)
            await client.ask("DATA", "354 *")
            await client.send("Subject: x", "", "0123456789" * 10, ".")
            await client.expect(said)
            assert await nothing_left(guard)
            setattr(smarthost, step, None)
            assert (await client.message(ALICE, UNKNOWN)).startswith("250 ")
        assert await guard.waiting_for() == [UNKNOWN]


@pytest.mark.parametrize("action", [drop(), raw(b"250 2.0.0 early\r\n")], ids=["drop", "early"])
async def test_smarthost_fails_before_dot(sqlite_url, smarthost, action) -> None:
    """While the quarantine waits for the store: the body has left, the dot has not."""
    acted = asyncio.Event()

    async def act(session: Session) -> None:
        acted.set()
        await action(session)

    smarthost.body = {5: act}
    async with guarding(sqlite_url, smarthost.port) as guard:
        await verify(guard.desks, ALICE)
        async with greeted(guard.port) as client:
            await client.envelope(ALICE, UNKNOWN)
            await client.ask("DATA", "354 *")
            with locked(sqlite_url):
                await client.send("Subject: x", "", "0123456789" * 10, ".")
                await acted.wait()
            await client.expect("451 4.4.1 *")
        assert await nothing_left(guard)


async def test_smarthost_down_does_not_stop_the_quarantine(sqlite_url) -> None:
    async with ScriptedSmarthost() as gone:
        port = gone.port
    async with guarding(sqlite_url, port) as guard:
        await verify(guard.desks, ALICE)
        async with greeted(guard.port) as client:
            await client.ask("MAIL FROM:<a@app.example>", "250 *")
            await client.ask(f"RCPT TO:<{ALICE}>", "451 4.4.1 *")
            await client.ask(f"RCPT TO:<{UNKNOWN}>", "250 *")
            await client.ask("DATA", "354 *")
            await client.send("Subject: x", ".")
            await client.expect("250 *")
        assert await guard.waiting_for() == [UNKNOWN]


async def test_smarthost_lost_after_one_recipient_was_accepted(guard, smarthost) -> None:
    """Who was accepted before cannot be delivered to any more: the application tries again with all."""
    smarthost.rcpt = {BOB: drop()}
    async with greeted(guard.port) as client:
        await client.ask("MAIL FROM:<a@app.example>", "250 *")
        await client.ask(f"RCPT TO:<{ALICE}>", "250 *")
        await client.ask(f"RCPT TO:<{BOB}>", "451 4.4.1 *")
        await client.ask("DATA", "354 *")
        await client.send("Subject: x", ".")
        await client.expect("451 4.4.1 *")

    assert smarthost.messages == []
    assert await nothing_left(guard)


async def test_quarantine_is_on_disk_before_the_dot_goes_out(guard, smarthost) -> None:
    """While the smarthost keeps its reply back, the row is there already."""
    answered = asyncio.Event()
    smarthost.dot = hold(answered)
    async with greeted(guard.port) as client:
        await client.envelope(ALICE, UNKNOWN)
        await client.ask("DATA", "354 *")
        await client.send("Subject: x", ".")
        await smarthost.wait_for_message()
        assert await guard.waiting_for() == [UNKNOWN]
        answered.set()
        await client.expect("250 *")


@pytest.fixture
def sessions(monkeypatch) -> list[GuardSMTP]:
    """The sessions that were begun."""
    seen: list[GuardSMTP] = []
    made = GuardSMTP.connection_made

    def connection_made(self, transport) -> None:
        seen.append(self)
        made(self, transport)

    monkeypatch.setattr(GuardSMTP, "connection_made", connection_made)
    return seen


@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_client_gone_before_the_dot(sessions, guard, smarthost, leave) -> None:
    """Nothing is left, and the smarthost's connection is dropped without a dot."""
    answered = asyncio.Event()
    smarthost.data = hold(answered)
    async with greeted(guard.port) as client:
        await client.envelope(ALICE, UNKNOWN)
        await client.ask("DATA", "354 *")
        await client.send("Subject: x", ".")
        await smarthost.wait_for_command("DATA")
        getattr(client, leave)()
        await eventually(lambda: sessions[0].transport is None)
        answered.set()
        await eventually(lambda: smarthost.connections[0].closed)

    assert smarthost.messages == []
    assert await nothing_left(guard)


@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_client_gone_after_the_dot(sessions, guard, smarthost, leave) -> None:
    """What has begun is completed."""
    answered = asyncio.Event()
    smarthost.dot = hold(answered)
    async with greeted(guard.port) as client:
        await client.envelope(ALICE, UNKNOWN)
        await client.ask("DATA", "354 *")
        await client.send("Subject: x", ".")
        await smarthost.wait_for_message()
        getattr(client, leave)()
        await eventually(lambda: sessions[0].transport is None)
        answered.set()

        async def in_the_ledger() -> bool:
            return len(await guard.desks.store.ledger.list(limit=0, after=None)) == 2

        await eventually(in_the_ledger)

    assert smarthost.messages[0].code == 250
    assert await guard.waiting_for() == [UNKNOWN]
