"""What the sink says of a message is what was sent, however it is cut into packets."""

import asyncio
import random

import pytest

from tests.soak.messages import CUSTOMER_FIELD, compose, identify, stuffed
from tests.soak.sink import Body

RECEIVED = b"Received: from app.example ([127.0.0.1])\r\n\tby guard.example (smtpguard) with ESMTP id X;\r\n\tMon\r\n"


@pytest.mark.parametrize("size", [100, 5_000, 300_000])
@pytest.mark.parametrize("customer", [True, False])
@pytest.mark.parametrize("seed", range(3))
async def test_read_back_through_the_wire(size, customer, seed) -> None:
    composed = compose("a-1", seed, size=size, customer=customer)
    assert (composed.sent.count(CUSTOMER_FIELD) == 1) == customer
    arriving = RECEIVED + composed.sent.replace(CUSTOMER_FIELD, b"")
    identity, behind = await Body(in_pieces(stuffed(arriving) + b".\r\nQUIT\r\n", random.Random(seed))).read()

    assert (identity.message, identity.attempt, identity.digest) == ("a-1", seed, composed.digest)
    assert identify(arriving) == identity
    assert b"QUIT\r\n".startswith(behind)


def in_pieces(octets: bytes, dice: random.Random) -> asyncio.StreamReader:
    """A stream that gives a few octets at a time where lines end, and many elsewhere."""

    class Pieces(asyncio.StreamReader):
        async def read(self, n: int = -1) -> bytes:
            return await super().read(dice.choice((1, 2, 3, 4, 5, 7, 5000)))

    stream = Pieces()
    stream.feed_data(octets)
    stream.feed_eof()
    return stream


def test_any_change_shows() -> None:
    composed = compose("a-1", 1, size=5000, customer=False)
    for changed in (composed.sent[:-7], composed.sent.replace(b"END", b"EMD"), composed.sent + b"\r\n"):
        assert identify(changed).digest != composed.digest


def test_attempts_differ() -> None:
    assert len({compose("a-1", number, size=100, customer=False).digest for number in range(5)}) == 5
