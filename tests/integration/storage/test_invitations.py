"""Invitations in the store: what counts against the limits, and what is read back."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from smtpguard.domain.audit import ActKind
from smtpguard.domain.invitation import (
    CAP_PERIOD,
    PAUSE,
    SENDING,
    Answer,
    Challenge,
    Invitation,
    InvitationKind,
    InvitationRefusal,
    Language,
    token_digest,
)
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.storage import open_store
from smtpguard.storage.invitations import InvitationLimits
from tests.integration.storage.builders import NOW, SECOND, act, flag, import_row, voucher

ON_PURPOSE = InvitationLimits(max_a_day=1000, by_itself=False)
BY_ITSELF = InvitationLimits(max_a_day=1000, by_itself=True)
NEVER_SENT, WITHDRAWN, SENT = "never sent", "withdrawn", "sent"


def invitation(number: int = 1, address: str = "Anna@example.org", **values) -> Invitation:
    given = {
        "id": f"I{number:06}",
        "kind": InvitationKind.CONFIRM,
        "mailbox": parse_mailbox(address),
        "customer": "C1",
        "token_digest": token_digest(number.to_bytes(32, "big")),
        "language": Language.IT,
        "created_at": NOW,
        "created_by": "anna",
        "expires_at": NOW + timedelta(days=7),
    }
    return Invitation(**given | values)


async def create(store, made: Invitation, limits: InvitationLimits = ON_PURPOSE) -> InvitationRefusal | None:
    return await store.invitations.create(made, act(ActKind.INVITE), limits)


async def acts(store) -> int:
    return len(await store.audit_log.list(limit=0, after=None))


async def test_what_is_made_comes_back(store) -> None:
    """The address as it was written to, whatever it was first seen as."""
    await store.address_book.import_rows([import_row("ANNA@example.org")], now=NOW, by="anna")
    made = invitation(challenge=Challenge("number", "$argon2id$hash"), customer=None)

    assert await create(store, made) is None
    await store.invitations.mark_sent(made, now=NOW + SECOND)

    back = await store.invitations.find(made.token_digest)
    assert back == replace(made, sent_at=NOW + SECOND)
    assert back.mailbox.text == "Anna@example.org"
    assert await store.invitations.find(token_digest(b"")) is None


async def test_answers_come_back(store) -> None:
    made = invitation()
    await create(store, made)
    number = await store.invitations.confirm(made, voucher("C1"), act(ActKind.CONFIRM), answered_from="192.0.2.1\0")
    confirmed = await store.invitations.find(made.token_digest)
    assert await store.invitations.disown(made, flag(), act(ActKind.DISOWN, at=NOW + SECOND), answered_from="x")
    disowned = await store.invitations.find(made.token_digest)

    assert (confirmed.answer, confirmed.answered_at, confirmed.answered_from) == (Answer.YES, NOW, "192.0.2.1\ufffd")
    assert confirmed.voucher_number == number
    assert (disowned.answer, disowned.answered_at, disowned.voucher_number) == (Answer.NO, NOW + SECOND, number)


@pytest.mark.parametrize(
    ("became", "after", "refusal"),
    [
        (NEVER_SENT, SENDING - SECOND, InvitationRefusal.INVITED_BEFORE),
        (NEVER_SENT, SENDING, None),
        (WITHDRAWN, SECOND, None),
        (SENT, PAUSE - SECOND, InvitationRefusal.INVITED_BEFORE),
        (SENT, PAUSE, None),
    ],
)
async def test_what_counts_as_invited(store, became, after, refusal) -> None:
    first = invitation()
    await create(store, first)
    if became is WITHDRAWN:
        await store.invitations.withdraw(first, now=NOW)
    elif became is SENT:
        await store.invitations.mark_sent(first, now=NOW)
    second = invitation(2, "anna@EXAMPLE.org", customer="C2", created_at=NOW + after)

    assert await store.invitations.refusal(second, ON_PURPOSE) is refusal
    assert await create(store, second) is refusal


async def test_what_is_refused_leaves_nothing(store) -> None:
    await create(store, invitation())
    before = await acts(store)

    assert await create(store, invitation(2, customer="C2")) is InvitationRefusal.INVITED_BEFORE
    assert before == await acts(store)
    assert await store.invitations.find(invitation(2).token_digest) is None
    assert [each.customer for each in (await store.address_book.record("anna@example.org")).bindings] == ["C1"]


async def test_cap_counts_a_day_and_each_kind_apart(store) -> None:
    limits = InvitationLimits(max_a_day=2, by_itself=False)
    for number in range(2):
        assert await create(store, invitation(number, f"user{number}@example.org"), limits) is None
        await store.invitations.mark_sent(invitation(number), now=NOW)
    late = invitation(3, "late@example.org")
    disown = invitation(4, "user0@example.org", kind=InvitationKind.DISOWN, customer=None)

    assert await create(store, late, limits) is InvitationRefusal.CAP_REACHED
    assert await create(store, disown, limits) is None
    assert await create(store, replace(late, created_at=NOW + CAP_PERIOD), limits) is None


@pytest.mark.parametrize(
    ("others", "customer", "limits", "refusal"),
    [
        (["C1"], "C1", BY_ITSELF, None),
        (["C2"], "C1", BY_ITSELF, InvitationRefusal.SHARED),
        (["C2", "C3"], "C1", ON_PURPOSE, None),
        (["C2"], None, BY_ITSELF, None),
        (["C2", "C3"], None, BY_ITSELF, InvitationRefusal.SHARED),
        (["C2", "C3"], None, ON_PURPOSE, InvitationRefusal.SHARED),
    ],
)
async def test_shared_address(store, others, customer, limits, refusal) -> None:
    rows = [import_row("anna@example.org", customer=other) for other in others]
    await store.address_book.import_rows(rows, now=NOW, by="anna")

    assert await create(store, invitation(customer=customer), limits) is refusal


async def test_who_invites_on_purpose_puts_the_pair_on_record(store) -> None:
    await create(store, invitation())
    await create(store, invitation(2, "ben@example.org"), BY_ITSELF)
    anna, ben = [await store.address_book.record(f"{name}@example.org") for name in ("anna", "ben")]

    assert (anna.first_seen, [each.customer for each in anna.bindings]) == (NOW, ["C1"])
    assert (ben.first_seen, ben.bindings) == (None, ())


async def test_link_to_disown_goes_to_known_addresses(store) -> None:
    """On record, or met by live traffic."""
    await store.address_book.bind(["met@example.org"], customer="C1", now=NOW)
    links = [
        invitation(number, f"{name}@example.org", kind=InvitationKind.DISOWN, customer=None)
        for number, name in enumerate(("nobody", "met"))
    ]

    assert [await create(store, each, BY_ITSELF) for each in links] == [InvitationRefusal.NOT_ON_RECORD, None]


async def test_tries_are_counted_across_stores(store, store_url) -> None:
    made = invitation(challenge=Challenge("number", "hash"))
    await create(store, made)
    async with open_store(store_url) as other:
        tries = [each.invitations.take_try(made, now=NOW) for _ in range(6) for each in (store, other)]
        left = await asyncio.gather(*tries)

    assert sorted(each for each in left if each is not None) == [0, 1, 2, 3, 4]
    assert await store.invitations.take_try(made, now=NOW) is None


async def test_expired_invitation_takes_nothing(store) -> None:
    made = invitation(challenge=Challenge("number", "hash"))
    await create(store, made)
    before = await acts(store)
    late = act(ActKind.CONFIRM, at=made.expires_at)

    assert await store.invitations.take_try(made, now=made.expires_at) is None
    assert await store.invitations.confirm(made, voucher("C1"), late, answered_from="x") is None
    assert not await store.invitations.disown(made, flag(), late, answered_from="x")
    assert before == await acts(store)
    assert await store.audit_log.verify() is None


async def test_latest_yes_of_a_pair(store) -> None:
    pair = parse_mailbox("anna@EXAMPLE.org"), "C1"
    times = [NOW + number * PAUSE for number in range(1, 4)]
    made = [invitation(number, created_at=at, expires_at=at + PAUSE) for number, at in enumerate(times)]
    for each in made:
        await create(store, each)
        await store.invitations.mark_sent(each, now=each.created_at)
        answered = act(ActKind.CONFIRM, at=each.created_at)
        if each is not made[2]:
            await store.invitations.confirm(each, voucher("C1"), answered, answered_from="x")

    assert (await store.invitations.confirmed(*pair)).id == made[1].id
    assert await store.invitations.confirmed(pair[0], None) is None
    await store.invitations.disown(made[1], flag(), act(ActKind.DISOWN, at=made[1].created_at), answered_from="x")
    assert (await store.invitations.confirmed(*pair)).id == made[0].id
