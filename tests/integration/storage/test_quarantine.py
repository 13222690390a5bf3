"""The quarantine: kept byte for byte, moved once, and no content longer than it may be needed."""

import asyncio
import hashlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, func, select, update

from smtpguard.domain.audit import ActKind
from smtpguard.domain.decision import Reason
from smtpguard.domain.envelope import NULL_REVERSE_PATH, Body, MailParameters, RcptParameters
from smtpguard.domain.ids import transaction_id
from smtpguard.domain.mailbox import Mailbox, parse_mailbox
from smtpguard.domain.message import HeaderSummary
from smtpguard.domain.quarantined import OPEN_STATES, Backlog, MessageContent, QuarantineState
from smtpguard.errors import ActRefused, NotFound, StoreError
from smtpguard.storage import long_work, open_store
from smtpguard.storage.tables import message_contents, quarantined_messages
from tests.integration.storage.builders import CONTENT, NOW, SECOND, SUMMARY, act, connected, messages, somebody_waits
from tests.support.eventually import eventually

QUARANTINED, MAYBE_SENT = QuarantineState.QUARANTINED, QuarantineState.MAYBE_SENT
RELEASED, DISCARDED = QuarantineState.RELEASED, QuarantineState.DISCARDED


def contents(url: str) -> list[str]:
    with connected(url) as connection:
        return list(connection.execute(select(message_contents.c.transaction_id)).scalars())


async def keep(store, *recipients: str, **values) -> list[str]:
    kept = messages(*recipients, **values)
    await store.quarantine.keep(kept, SUMMARY, [CONTENT.message])
    return [message.id for message in kept]


async def move(
    store, message_id: str, to: QuarantineState, *, expected: QuarantineState = QUARANTINED, **values
) -> None:
    await store.quarantine.move(message_id, expected=expected, to=to, act=act(subject=message_id, **values))


async def listed(store, *states: QuarantineState) -> list[str]:
    found = await store.quarantine.list(limit=0, after=None, states=states or tuple(QuarantineState))
    return [message.id for message in found]


async def test_what_is_kept_comes_back(store) -> None:
    [message] = messages(
        '"Anna B"@EXAMPLE.org',
        reverse_path=parse_mailbox("Bounces+1@Shop.example"),
        parameters=MailParameters(body=Body.EIGHT_BIT_MIME, smtputf8=True, ret="HDRS", envid="QQ+2B314159"),
        rcpt_parameters=RcptParameters(notify="SUCCESS,FAILURE", orcpt="rfc822;Anna+2Bx@example.org"),
        customer=None,
        reason=Reason.FLAGGED,
        subject="Bill \u20ac 5 \U0001f600",
        size=3_000_000_000,
    )

    await store.quarantine.keep([message], SUMMARY, [CONTENT.message])

    back = await store.quarantine.get(message.id)
    assert message == back
    assert ('"Anna B"@EXAMPLE.org', "example.org") == (back.recipient.text, back.recipient.domain)
    assert isinstance(back.reverse_path, Mailbox)
    assert "Bounces+1@Shop.example" == back.reverse_path.text
    assert CONTENT == await store.quarantine.content(message.id)


async def test_null_reverse_path(store) -> None:
    [message_id] = await keep(store, reverse_path=NULL_REVERSE_PATH)

    assert NULL_REVERSE_PATH is (await store.quarantine.get(message_id)).reverse_path


@pytest.mark.parametrize("address", ["Postmaster", '"a@b"@x.example', "a@[IPv6:::1]", "a@b\u00fccher.example"])
async def test_recipient_of_any_form(store, address) -> None:
    [message_id] = await keep(store, address)

    back = (await store.quarantine.get(message_id)).recipient
    wanted = parse_mailbox(address)
    assert (wanted.text, wanted.lookup_key, wanted.domain) == (back.text, back.lookup_key, back.domain)


async def test_odd_characters_keep_no_message_out(store) -> None:
    """Neither engine can keep a lone surrogate as text, and PostgreSQL no NUL: what is only shown gets U+FFFD."""
    odd = "a\0b\udc80c\U0001f600"
    [message] = messages(subject=odd)

    await store.quarantine.keep([message], HeaderSummary(odd, odd, odd, odd), [b"\0", b"\xff"])

    shown = "a\ufffdb\ufffdc\U0001f600"
    assert shown == (await store.quarantine.get(message.id)).subject
    assert MessageContent(b"\0\xff", shown, shown, shown, shown) == await store.quarantine.content(message.id)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(
        st.binary(max_size=5000) | st.binary(min_size=1, max_size=20).map(lambda part: part * 5000), max_size=3
    )
)
async def test_content_is_kept_byte_for_byte(store, pieces) -> None:
    kept = messages()

    await store.quarantine.keep(kept, SUMMARY, pieces)

    assert b"".join(pieces) == (await store.quarantine.content(kept[0].id)).message


async def test_big_content(store) -> None:
    octets = b"".join(hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(300_000))
    kept = messages()

    await store.quarantine.keep(kept, SUMMARY, [octets])

    assert octets == (await store.quarantine.content(kept[0].id)).message


async def test_content_is_shared_by_its_transaction(store, store_url) -> None:
    ids = await keep(store, "a@x.example", "b@x.example", "c@x.example")

    assert 1 == len(contents(store_url))
    assert all([CONTENT == await store.quarantine.content(message_id) for message_id in ids])


async def test_messages_of_two_transactions_are_not_kept(store) -> None:
    with pytest.raises(ValueError, match="too many"):
        await store.quarantine.keep([*messages(), *messages()], SUMMARY, [CONTENT.message])

    assert [] == await listed(store)


async def test_nothing_to_keep_is_a_mistake(store, store_url) -> None:
    with pytest.raises(ValueError, match="not enough"):
        await store.quarantine.keep([], SUMMARY, [CONTENT.message])

    assert [] == contents(store_url)


@pytest.mark.parametrize("column", ["digest", "content", "size"])
async def test_content_that_was_tampered_with_is_not_given_out(store, store_url, column) -> None:
    [message_id] = await keep(store)
    tampered = {"digest": "0" * 64, "content": b"not zstd", "size": 2}[column]
    with connected(store_url) as connection:
        connection.execute(update(message_contents).values({column: tampered}))

    if column == "size":  # only a hint
        assert CONTENT == await store.quarantine.content(message_id)
        return
    with pytest.raises(StoreError, match=r"^the content of transaction T\d+ (does not match|cannot be read)"):
        await store.quarantine.content(message_id)


async def test_content_of_another_transaction_is_not_given_out(store, store_url) -> None:
    """Contents that have changed places are caught by their digests."""
    [one], [other] = await keep(store), messages()
    await store.quarantine.keep([other], SUMMARY, [b"other"])
    with connected(store_url) as connection:
        swapped = select(message_contents.c.content).where(message_contents.c.transaction_id == other.transaction_id)
        octets = connection.execute(swapped).scalar_one()
        connection.execute(update(message_contents).values(content=octets))

    with pytest.raises(StoreError, match="does not match its digest"):
        await store.quarantine.content(one)


async def test_missing_content_of_an_open_message(store, store_url) -> None:
    [message_id] = await keep(store)
    with connected(store_url) as connection:
        connection.execute(message_contents.delete())

    with pytest.raises(StoreError, match=f"^the content of message {message_id} is missing, though it is quarantined$"):
        await store.quarantine.content(message_id)


async def test_content_of_a_decided_message_is_gone(store) -> None:
    [message_id] = await keep(store)
    await move(store, message_id, DISCARDED)

    gone = f"^the content of message {message_id} is gone: it is discarded, by anna at 2026-05-04 12:00:00 UTC$"
    with pytest.raises(ActRefused, match=gone):
        await store.quarantine.content(message_id)


@pytest.mark.parametrize("question", ["get", "content", "move"])
async def test_no_such_message(store, question) -> None:
    asked = {
        "get": lambda: store.quarantine.get("nowhere"),
        "content": lambda: store.quarantine.content("nowhere"),
        "move": lambda: move(store, "nowhere", RELEASED),
    }

    with pytest.raises(NotFound, match=r"^there is no quarantined message nowhere$"):
        await asked[question]()

    assert [] == await store.audit_log.list(limit=0, after=None)


async def test_list_in_pages(store, monkeypatch) -> None:
    """Oldest first, in the order of the ids, however they are cut into pages."""
    monkeypatch.setattr(long_work, "PAGE_ROWS", 3)
    ids = [(await keep(store, transaction_id=f"{letter}{number}"))[0] for letter in "bAa" for number in (2, 10, 1)]

    for size in (1, 2, 3, 4, 8, 9, 10, 0):
        found: list[str] = []
        while page := await store.quarantine.list(limit=size, after=found[-1] if found else None, states=OPEN_STATES):
            assert len(page) <= (size or len(ids))
            found += [message.id for message in page]

        assert sorted(ids) == found


async def test_list_by_state(store) -> None:
    by_state = {state: (await keep(store))[0] for state in QuarantineState}
    for state, message_id in by_state.items():
        if state is not QUARANTINED:
            await move(store, message_id, state)

    for state, message_id in by_state.items():
        assert [message_id] == await listed(store, state)
    assert [by_state[QUARANTINED], by_state[MAYBE_SENT]] == await listed(store, *OPEN_STATES)
    assert [] == await store.quarantine.list(limit=0, after=None, states=[])


# move


@pytest.mark.parametrize("to", [RELEASED, DISCARDED])
async def test_closing_says_who_when_and_why(store, to) -> None:
    [message_id] = await keep(store)

    await move(store, message_id, to, at=NOW + SECOND, why="asked for")

    back = await store.quarantine.get(message_id)
    assert (to, NOW + SECOND, "anna", "asked for") == (
        back.state,
        back.decided_at,
        back.decided_by,
        back.decided_why,
    )
    [recorded] = await store.audit_log.list(limit=0, after=None)
    assert act(subject=message_id, at=NOW + SECOND, why="asked for") == recorded.act


async def test_release_that_failed_goes_back(store) -> None:
    [message_id] = await keep(store)
    before = await store.quarantine.get(message_id)

    await move(store, message_id, MAYBE_SENT)
    await move(store, message_id, QUARANTINED, expected=MAYBE_SENT)

    assert before == await store.quarantine.get(message_id)
    assert CONTENT == await store.quarantine.content(message_id)
    assert 2 == len(await store.audit_log.list(limit=0, after=None))


@pytest.mark.parametrize("state", [MAYBE_SENT, RELEASED, DISCARDED])
async def test_state_is_another_one(store, state) -> None:
    """Nothing is done and nothing recorded; the message says what has become of it."""
    [message_id] = await keep(store)
    await move(store, message_id, state)
    by = "" if state is MAYBE_SENT else ", by anna at 2026-05-04 12:00:00 UTC"

    with pytest.raises(ActRefused, match=f"^message {message_id} is {state.value}{by}, not quarantined$"):
        await move(store, message_id, DISCARDED, at=NOW + SECOND)

    assert state is (await store.quarantine.get(message_id)).state
    assert 1 == len(await store.audit_log.list(limit=0, after=None))


async def test_content_goes_with_the_last_open_message(store, store_url) -> None:
    first, second, third = await keep(store, "a@x.example", "b@x.example", "c@x.example")

    await move(store, first, RELEASED)
    await move(store, second, MAYBE_SENT)
    await move(store, third, DISCARDED)
    assert CONTENT == await store.quarantine.content(second)

    await move(store, second, RELEASED, expected=MAYBE_SENT)
    assert [] == contents(store_url)
    assert 3 == len(await listed(store))


async def test_one_of_two_nodes_wins(store, store_url) -> None:
    """Two processes release and discard the same message at once: exactly one does, and one act is recorded."""
    ids = [(await keep(store))[0] for _ in range(10)]
    async with open_store(store_url) as another:
        for message_id in ids:
            outcomes = await asyncio.gather(
                move(store, message_id, RELEASED), move(another, message_id, DISCARDED), return_exceptions=True
            )

            [refused] = [outcome for outcome in outcomes if outcome is not None]
            assert isinstance(refused, ActRefused)
            won = RELEASED if outcomes[0] is None else DISCARDED
            assert won is (await store.quarantine.get(message_id)).state

    assert 10 == len(await store.audit_log.list(limit=0, after=None))
    assert await store.audit_log.verify() is None


async def test_two_nodes_close_the_last_two_messages(store, store_url) -> None:
    """Neither sees the other's message closed yet; the content must go all the same."""
    async with open_store(store_url) as another:
        for _ in range(10):
            one, other = await keep(store, "a@x.example", "b@x.example")

            await asyncio.gather(move(store, one, RELEASED), move(another, other, RELEASED))

    assert [] == contents(store_url)


# take back


async def test_take_back(store, store_url) -> None:
    """As if nothing had been kept; other transactions stay."""
    await keep(store, "a@x.example", "b@x.example", transaction_id="T")
    [other] = await keep(store)

    assert 2 == await store.quarantine.take_back("T")

    assert [other] == await listed(store)
    assert 1 == len(contents(store_url))
    assert 0 == await store.quarantine.take_back("T")


async def test_take_back_leaves_what_an_operator_has_touched(store, store_url) -> None:
    released, maybe_sent, waiting = await keep(store, "a@x.example", "b@x.example", "c@x.example", transaction_id="T")
    await move(store, released, RELEASED)
    await move(store, maybe_sent, MAYBE_SENT)

    assert 1 == await store.quarantine.take_back("T")

    assert [released, maybe_sent] == await listed(store)
    assert CONTENT == await store.quarantine.content(maybe_sent)
    with pytest.raises(NotFound):
        await store.quarantine.get(waiting)


async def test_take_back_leaves_no_content_behind(store, store_url) -> None:
    """Where the messages that stay are closed, nobody needs the content any more."""
    released, _ = await keep(store, "a@x.example", "b@x.example", transaction_id="T")
    await move(store, released, RELEASED)

    await store.quarantine.take_back("T")

    assert [released] == await listed(store)
    assert [] == contents(store_url)


async def test_take_back_races_a_release(store, store_url) -> None:
    """Either the row is gone and the release finds nothing, or it was released and stays; never both, never a ghost."""
    async with open_store(store_url) as another:
        for number in range(10):
            [message_id] = await keep(store, transaction_id=f"R{number}")

            taken, released = await asyncio.gather(
                store.quarantine.take_back(f"R{number}"), move(another, message_id, MAYBE_SENT), return_exceptions=True
            )

            assert (taken == 1) == isinstance(released, NotFound | ActRefused)
            assert (taken == 0) == (await listed(store, MAYBE_SENT) == [message_id])
            if taken == 0:
                await move(store, message_id, RELEASED, expected=MAYBE_SENT)


async def test_take_back_and_the_close_of_the_other_message(postgres_url) -> None:
    """Neither sees what the other has not committed: who comes second must wait, or the content stays for ever."""
    async with open_store(postgres_url) as store:
        closed, taken = await keep(store, "a@x.example", "b@x.example", transaction_id="T")
        with connected(postgres_url) as another:  # what take_back does first
            another.execute(select(message_contents.c.transaction_id).with_for_update())
            another.execute(delete(quarantined_messages).where(quarantined_messages.c.id == taken))
            closing = asyncio.ensure_future(move(store, closed, RELEASED))
            await eventually(lambda: closing.done() or asyncio.to_thread(somebody_waits, postgres_url))

        await closing

    assert [] == contents(postgres_url)


async def test_kinds_of_acts_are_kept(store) -> None:
    [message_id] = await keep(store)

    await store.quarantine.move(message_id, expected=QUARANTINED, to=DISCARDED, act=act(ActKind.DISCARD, message_id))

    assert [ActKind.DISCARD] == [one.act.kind for one in await store.audit_log.list(limit=0, after=None)]


async def test_listing_is_found_by_index(store_url) -> None:
    """The quarantine grows without end; the page of those that wait must not cost more for it."""
    query = (
        select(func.count())
        .select_from(quarantined_messages)
        .where(quarantined_messages.c.state.in_(["quarantined"]), quarantined_messages.c.id > "x")
    )
    with connected(store_url) as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            explain = "EXPLAIN "
        else:
            explain = "EXPLAIN QUERY PLAN "
        compiled = query.compile(connection, compile_kwargs={"literal_binds": True})
        plan = connection.exec_driver_sql(explain + str(compiled).replace("%", "%%")).all()

    assert "ix_quarantined_messages_state" in str(plan)


async def test_backlog(store) -> None:
    """What is open, and when the oldest that waits came; none is not an error."""
    assert await store.quarantine.backlog(expiring_until=NOW) == Backlog({QUARANTINED: 0, MAYBE_SENT: 0}, None, 0)
    [first] = await keep(store, "a@b.example", transaction_id=transaction_id(NOW, b"random"), received_at=NOW)
    await keep(
        store,
        "a@b.example",
        "c@d.example",
        transaction_id=transaction_id(NOW + SECOND, b"random"),
        received_at=NOW + SECOND,
    )
    assert await store.quarantine.backlog(expiring_until=None) == Backlog({QUARANTINED: 3, MAYBE_SENT: 0}, NOW, 0)

    await move(store, first, MAYBE_SENT)
    assert await store.quarantine.backlog(expiring_until=NOW) == Backlog(
        {QUARANTINED: 2, MAYBE_SENT: 1}, NOW + SECOND, 0
    )
    await move(store, first, RELEASED, expected=MAYBE_SENT)
    assert await store.quarantine.backlog(expiring_until=NOW + SECOND) == Backlog(
        {QUARANTINED: 2, MAYBE_SENT: 0}, NOW + SECOND, 2
    )
