"""Invitations: tokens, what a link takes when, and how an answer to a challenge is compared."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpguard.domain.invitation import (
    MAX_CHALLENGE_CHARACTERS,
    TOKEN_OCTETS,
    Answer,
    Challenge,
    Invitation,
    InvitationKind,
    InvitationState,
    Language,
    comparable_answer,
    parse_token,
    token_digest,
    token_text,
)
from smtpguard.domain.mailbox import parse_mailbox

NOW = datetime(2026, 5, 4, tzinfo=UTC)
LATER = NOW + timedelta(days=7)
OPEN = Invitation(
    id="01",
    kind=InvitationKind.CONFIRM,
    mailbox=parse_mailbox("anna@example.com"),
    customer="7",
    token_digest="00",
    language=Language.DE,
    created_at=NOW,
    created_by="anna",
    expires_at=LATER,
)
WITH_CHALLENGE = replace(OPEN, challenge=Challenge("number", "hash"))
TOKENS = st.binary(min_size=TOKEN_OCTETS, max_size=TOKEN_OCTETS)


@given(octets=TOKENS)
def test_token_comes_back(octets) -> None:
    text = token_text(octets)

    assert len(text) == 43
    assert parse_token(text) == octets


@given(text=st.text(max_size=50) | TOKENS.map(token_text).map(lambda text: text[:-1] + "B"))
def test_token_has_one_form(text) -> None:
    octets = parse_token(text)

    assert octets is None or token_text(octets) == text


@pytest.mark.parametrize(
    "text",
    ["", "A" * 42, "A" * 44, "A" * 43 + "\n", "A" * 42 + "=", "A" * 42 + "+", "A" * 42 + "B", "é" * 43, "０" * 43],
)
def test_what_is_no_token(text) -> None:
    assert parse_token("A" * 43) == bytes(32)
    assert parse_token(text) is None


def test_token_of_another_length_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="32 octets"):
        token_text(bytes(31))


def test_digest_is_that_of_the_octets() -> None:
    assert token_digest(bytes(32)) == hashlib.sha256(bytes(32)).hexdigest()


@pytest.mark.parametrize(
    ("invitation", "at", "state", "takes"),
    [
        (OPEN, NOW, InvitationState.OPEN, {Answer.YES, Answer.NO}),
        (OPEN, LATER, InvitationState.EXPIRED, set()),
        (replace(OPEN, answer=Answer.YES), NOW, InvitationState.ANSWERED, {Answer.NO}),
        (replace(OPEN, answer=Answer.YES), LATER, InvitationState.EXPIRED, set()),
        (replace(OPEN, answer=Answer.NO), NOW, InvitationState.ANSWERED, set()),
        (WITH_CHALLENGE, NOW, InvitationState.OPEN, {Answer.YES, Answer.NO}),
        (replace(WITH_CHALLENGE, tries_left=0), NOW, InvitationState.TRIES_USED_UP, {Answer.NO}),
        (replace(WITH_CHALLENGE, tries_left=0, answer=Answer.YES), NOW, InvitationState.ANSWERED, {Answer.NO}),
        (replace(OPEN, kind=InvitationKind.DISOWN), NOW, InvitationState.OPEN, {Answer.NO}),
    ],
)
def test_what_a_link_takes(invitation, at, state, takes) -> None:
    assert invitation.state(at) is state
    assert {answer for answer in Answer if invitation.takes(answer, at)} == takes


def test_secrets_are_not_shown() -> None:
    shown = repr(replace(WITH_CHALLENGE, token_digest="digest", challenge=Challenge("number", "the hash")))

    assert "digest'" not in shown
    assert "the hash" not in shown


@pytest.mark.parametrize(
    ("one", "other"),
    [("4711", " 4711 "), ("4711", "４７１１"), ("Müller", "MU\u0308LLER"), ("a  b", "A\tb"), ("weiß", "WEISS")],
)
def test_answers_that_are_the_same(one, other) -> None:
    assert comparable_answer(one) == comparable_answer(other)


@pytest.mark.parametrize(("one", "other"), [("4711", "4712"), ("a b", "ab"), ("", "0"), ("é", "e")])
def test_answers_that_differ(one, other) -> None:
    assert comparable_answer(one) != comparable_answer(other)


def test_answer_of_a_megabyte_is_cut() -> None:
    assert len(comparable_answer("x" * 1_000_000)) == MAX_CHALLENGE_CHARACTERS
