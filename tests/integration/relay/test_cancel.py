"""A cancelled call, wherever it waits, leaves no connection that could pair replies with the wrong commands."""

import asyncio
from collections.abc import Awaitable, Coroutine, Generator
from functools import partial
from itertools import count
from typing import Any

import pytest

from tests.integration.relay.deliveries import ALICE, BOB, CAROL, NO_PIPELINING, begin, chunks, deliver
from tests.support.eventually import eventually
from tests.support.scripted_smarthost import CAPABILITIES, ScriptedSmarthost, drop, in_turn, refuse

BODY = b"x" * 998 + b"\r\n"


class CancelledAt(Awaitable[None]):
    """Runs a coroutine and cancels the task at the n-th time that it waits."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], n: int) -> None:
        self._coroutine = coroutine
        self._left = n

    def __await__(self) -> Generator[Any, Any, None]:
        resume = partial(self._coroutine.send, None)
        while True:
            try:
                awaited = resume()
            except StopIteration:
                return
            self._left -= 1
            if self._left == 0:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            try:
                yield awaited
                resume = partial(self._coroutine.send, None)
            except BaseException as error:
                resume = partial(self._coroutine.throw, error)


async def cancelled_at(n: int, coroutine: Coroutine[Any, Any, None]) -> bool:
    """Return whether it waited that often."""

    async def run() -> None:
        await CancelledAt(coroutine, n)

    (done,), _ = await asyncio.wait({asyncio.create_task(run())})
    if not done.cancelled():
        done.result()
    return done.cancelled()


@pytest.mark.parametrize("way", ["fresh", "reused", "stale", "MAIL refused", "lent", "TLS"])
@pytest.mark.parametrize("capabilities", [CAPABILITIES, NO_PIPELINING], ids=["pipelined", "step-by-step"])
async def test_cancelled_wherever_it_waits(relay_to, monkeypatch, certificates, capabilities, way: str) -> None:
    waits = 0
    tls = certificates.server_context() if way == "TLS" else None
    settings = {"tls": "starttls", "ca_file": certificates.ca_file} if tls else {}
    if way == "lent":
        monkeypatch.setattr("smtpguard.relay.transaction.HOLD_SECONDS", 0.0)
    for n in count(1):
        async with ScriptedSmarthost(capabilities=capabilities, tls=tls) as scripted:
            smarthost = relay_to(scripted, max_connections=1, **settings)
            if way != "fresh":
                await deliver(smarthost, [CAROL])
            if way == "stale":
                scripted.mail = in_turn(drop())
            if way == "MAIL refused":
                scripted.mail = in_turn(refuse(550, "5.7.1 no"))
            transaction = begin(smarthost)

            async def pause(pool=smarthost._pool) -> None:
                if way == "lent":
                    await eventually(lambda: pool.borrowed == 0)

            async def send(transaction=transaction, pause=pause) -> None:
                try:
                    await transaction.rcpt([ALICE, BOB])
                    await pause()
                    if way != "MAIL refused":
                        await transaction.rcpt([CAROL])
                        await pause()
                        await transaction.restart([ALICE])
                        await pause()
                        await transaction.send_body(chunks(BODY * 1000))
                        await transaction.finish()
                finally:
                    await transaction.abort()

            cancelled = await cancelled_at(n, send())
            if not cancelled:
                break
            waits += 1
            await eventually(lambda pool=smarthost._pool: pool.borrowed == 0)
            if way != "lent":  # in a pause nothing was under way
                assert smarthost._pool.idle == 0
                await scripted.wait_until_closed()

            scripted.mail = scripted.rset = None
            scripted.rcpt = {"alice@x.test": refuse(550, "5.1.1 no")}
            following = begin(smarthost)
            replies = await following.rcpt([ALICE, BOB])
            await following.abort()
            assert [reply.code for reply in replies] == [550, 250]
    assert waits >= (1 if way == "MAIL refused" else 6)
