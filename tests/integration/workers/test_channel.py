"""The channel between supervisor and worker."""

import asyncio
import socket

import pytest

from smtpguard.settings import Settings
from smtpguard.workers.channel import Answer, Begin, Channel, Ping, Reload


@pytest.fixture
async def ends():
    ours, theirs = socket.socketpair()
    one, other = await Channel.over(ours), await Channel.over(theirs)
    yield one, other
    one.close()
    other.close()


async def test_what_is_said_comes_whole_and_in_order(ends) -> None:
    """Also where it is more than a buffer holds: the settings may be long."""
    one, other = ends
    networks = [f"10.{number // 256}.{number % 256}.1/32" for number in range(3000)]
    settings = Settings(application=[{"name": "crm", "networks": networks}])
    said = [
        Begin(settings, ((7, False), (8, True)), (11,), (12,), 9, 10, "/tmp/metrics"),
        Ping(),
        Reload(settings),
        Answer("no"),
    ]

    async def speak() -> None:
        for message in said:
            await one.send(message)

    speaking = asyncio.create_task(speak())
    heard = [await other.receive() for _ in said]
    await speaking

    assert heard == said


async def test_end_of_the_channel_is_none(ends) -> None:
    one, other = ends
    await one.send(Answer())
    one.close()

    assert [await other.receive(), await other.receive(), await other.receive()] == [Answer(), None, None]


async def test_end_in_the_middle_is_none() -> None:
    ours, theirs = socket.socketpair()
    channel = await Channel.over(theirs)
    with ours:
        ours.sendall(b"\0\0\1\0half a message")

    assert await channel.receive() is None
    channel.close()


async def test_nobody_there_is_no_error(ends) -> None:
    one, other = ends
    other.close()
    for _ in range(3):
        await one.send(Ping())

    assert await one.receive() is None
