"""The exchanges of AUTH: what is asked, what is understood, and what each wrong answer is told."""

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpguard.domain.reply import (
    R501_AUTH_CANCELLED,
    R501_AUTH_UNREADABLE,
    R504_UNKNOWN_MECHANISM,
    R535_LOGIN_FAILED,
    Reply,
)
from smtpguard.smtp.commands import CommandError
from smtpguard.smtp.sasl import Credentials, exchange

MECHANISMS = ("PLAIN", "LOGIN")
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300)


def b64(text: str | bytes) -> str:
    return b64encode(text.encode() if isinstance(text, str) else text).decode()


class Peer:
    """An application that gives these answers."""

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)
        self.challenges: list[bytes] = []

    async def ask(self, challenge: bytes) -> str:
        self.challenges.append(challenge)
        return self._answers.pop(0)


async def refusal(mechanism: str, initial: str | None, *answers: str) -> Reply:
    with pytest.raises(CommandError) as raised:
        await exchange(mechanism, initial, Peer(*answers).ask)
    return raised.value.reply


# --- PLAIN (RFC 4616) -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["PLAIN", "plain", "Plain"])
async def test_plain_with_initial_response(mechanism) -> None:
    peer = Peer()

    assert await exchange(mechanism, b64("\0crm\0geheim"), peer.ask) == Credentials("crm", "geheim")
    assert peer.challenges == []


async def test_plain_without_initial_response() -> None:
    """RFC 4954 4: the challenge is empty then."""
    peer = Peer(b64("\0crm\0geheim"))

    assert await exchange("PLAIN", None, peer.ask) == Credentials("crm", "geheim")
    assert peer.challenges == [b""]


async def test_plain_for_oneself() -> None:
    assert await exchange("PLAIN", b64("crm\0crm\0geheim"), Peer().ask) == Credentials("crm", "geheim")


@pytest.mark.parametrize("authzid", ["billing", "CRM", "crm ", " ", "crm\u0301"])
async def test_plain_for_somebody_else(authzid) -> None:
    """Its password may be right; nobody may act for another."""
    assert await refusal("PLAIN", b64(f"{authzid}\0crm\0geheim")) == R535_LOGIN_FAILED


@pytest.mark.parametrize("message", ["\0\0", "\0crm\0", "\0\0geheim", "crm\0\0geheim"])
async def test_plain_with_nothing_in_it(message) -> None:
    assert await refusal("PLAIN", b64(message)) == R535_LOGIN_FAILED


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"crm",
        b"crm\0geheim",
        b"\0crm\0geheim\0",
        b"\0crm\0geh\0eim",
        b"\0\0\0\0",
        b"\0crm\0geh\xe9im",
        b"\0\xff\0x",
        b"\xff\0a\0b",
    ],
)
async def test_plain_that_is_malformed(message) -> None:
    assert await refusal("PLAIN", b64(message) or "=") == R501_AUTH_UNREADABLE
    assert await refusal("PLAIN", None, b64(message)) == R501_AUTH_UNREADABLE


# --- LOGIN ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["LOGIN", "login", "Login"])
async def test_login(mechanism) -> None:
    """The prompts are these to the letter: some applications look at them."""
    peer = Peer(b64("crm"), b64("geheim"))

    assert await exchange(mechanism, None, peer.ask) == Credentials("crm", "geheim")
    assert peer.challenges == [b"Username:", b"Password:"]


async def test_login_with_the_name_as_initial_response() -> None:
    peer = Peer(b64("geheim"))

    assert await exchange("LOGIN", b64("crm"), peer.ask) == Credentials("crm", "geheim")
    assert peer.challenges == [b"Password:"]


@pytest.mark.parametrize(
    ("initial", "answers"), [("=", (b64("geheim"),)), (None, ("", b64("geheim"))), (None, (b64("crm"), ""))]
)
async def test_login_with_nothing_in_it(initial, answers) -> None:
    assert await refusal("LOGIN", initial, *answers) == R535_LOGIN_FAILED


@pytest.mark.parametrize("octets", [b"\xff", b"geh\xe9im", b"a\0b", b"\0"])
async def test_login_that_is_malformed(octets) -> None:
    assert await refusal("LOGIN", None, b64(octets)) == R501_AUTH_UNREADABLE
    assert await refusal("LOGIN", b64(octets)) == R501_AUTH_UNREADABLE
    assert await refusal("LOGIN", None, b64("crm"), b64(octets)) == R501_AUTH_UNREADABLE


# --- Both -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "%%%",
        "YQ",
        "YQ=",
        "YQ===",
        "YQ==YQ==",
        " YQ==",
        "Y Q==",
        "YQ== ",
        "Y\tQ==",
        "Y-_=",
        "ü",
        "\ufffd",
        "**",
        "* ",
        "AGNybQBnZWhlaW0",
    ],
)
@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_answer_that_is_no_base64(mechanism, line) -> None:
    """RFC 4954 4: 501 5.5.2, at every step."""
    assert await refusal(mechanism, line) == R501_AUTH_UNREADABLE
    assert await refusal(mechanism, None, line) == R501_AUTH_UNREADABLE
    assert await refusal("LOGIN", None, b64("crm"), line) == R501_AUTH_UNREADABLE


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_equals_sign_is_empty_in_the_command_only(mechanism) -> None:
    assert await refusal(mechanism, None, "=") == R501_AUTH_UNREADABLE


async def test_cancelled_at_every_step() -> None:
    assert await refusal("PLAIN", None, "*") == R501_AUTH_CANCELLED
    assert await refusal("LOGIN", None, "*") == R501_AUTH_CANCELLED
    assert await refusal("LOGIN", None, b64("crm"), "*") == R501_AUTH_CANCELLED
    assert await refusal("LOGIN", b64("crm"), "*") == R501_AUTH_CANCELLED


@pytest.mark.parametrize(
    "mechanism", ["", "CRAM-MD5", "XOAUTH2", "PLAIN-CLIENTTOKEN", "EXTERNAL", "PLAİN", "LOGİN", "*"]
)
async def test_unknown_mechanism(mechanism) -> None:
    """Nothing is asked: the password does not cross the network for nothing."""
    assert await refusal(mechanism, None) == R504_UNKNOWN_MECHANISM
    assert await refusal(mechanism, b64("\0crm\0geheim")) == R504_UNKNOWN_MECHANISM


@given(username=WORDS, password=WORDS)
async def test_any_name_and_password_come_through(username, password) -> None:
    wanted = Credentials(username, password)

    assert wanted == await exchange("PLAIN", b64(f"\0{username}\0{password}"), Peer().ask)
    assert wanted == await exchange("LOGIN", None, Peer(b64(username), b64(password)).ask)


@given(
    st.sampled_from([*MECHANISMS, "X"]),
    st.none() | st.text() | st.binary().map(b64),
    st.lists(st.text() | st.binary().map(b64), min_size=2),
)
async def test_whatever_is_answered_ends_in_credentials_or_a_reply(mechanism, initial, answers) -> None:
    try:
        credentials = await exchange(mechanism, initial, Peer(*answers).ask)
    except CommandError as error:
        code = error.reply.code
    else:
        code = 235 if credentials.username and credentials.password else None

    assert code in {235, 501, 504, 535}


def test_password_is_not_shown() -> None:
    assert "geheim" not in repr(Credentials("crm", "geheim"))
