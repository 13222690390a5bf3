"""Many transactions at once against a smarthost that fails at random, some of them cancelled at random."""

import asyncio
import random
from dataclasses import dataclass, field

import pytest

from smtpguard.domain.envelope import ForwardPath
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.errors import SmarthostLost, SmarthostUnavailable
from smtpguard.relay.smarthost import Smarthost
from tests.integration.relay.deliveries import NO_PIPELINING, begin, chunks
from tests.support.eventually import eventually
from tests.support.scripted_smarthost import (
    CAPABILITIES,
    Action,
    ScriptedSmarthost,
    Session,
    drop,
    hang,
    raw,
    refuse,
    reset,
    sequence,
    stall,
    usual,
)

MESSAGES = 300
AT_ONCE = 12
FAULTS: list[Action] = [
    drop(),
    reset(),
    hang(),
    stall(),
    refuse(421, "4.3.2 closing"),
    refuse(451, "4.3.0 not now"),
    refuse(550, "5.7.1 no"),
    raw(b"nonsense\r\n"),
    raw(b"250-half"),
    sequence(usual(), drop()),
    sequence(usual(), raw(b"250 2.0.0 stray\r\n")),
    sequence(raw(b"250 2.0.0 stray\r\n"), usual()),
]
SETTINGS = {
    "max_connections": 5,
    "connect_timeout": 0.5,
    "command_timeout": 0.2,
    "data_timeout": 0.2,
    "block_timeout": 0.2,
    "reply_timeout": 0.2,
    "idle_timeout": 0.05,
}


@dataclass
class Outcomes:
    delivered: dict[int, list[str]] = field(default_factory=dict)
    """The recipients that were accepted, by message."""
    lost: set[int] = field(default_factory=set)
    not_sent: set[int] = field(default_factory=set)


def sometimes(chance: float, dice: random.Random) -> Action:
    async def act(session: Session) -> None:
        action = dice.choice(FAULTS) if dice.random() < chance else usual()
        await action(session)

    return act


async def send(smarthost: Smarthost, n: int, *, dice: random.Random, outcomes: Outcomes) -> None:
    """Send message n to three recipients of its own; note how it ended."""
    recipients = [ForwardPath(parse_mailbox(f"{name}-{n}@x.test")) for name in "abc"]
    transaction = begin(smarthost)
    ended = outcomes.not_sent
    try:
        replies = await transaction.rcpt(recipients)
        accepted = [str(path.recipient) for path, reply in zip(recipients, replies, strict=True) if reply.is_positive]
        if not accepted or dice.random() < 0.05:
            return
        if dice.random() < 0.2:  # slow enough to be lent
            await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=0.003)
        go_ahead = await transaction.send_body(chunks(b"%d\r\n" % n + b"x" * 998 * dice.choice([0, 1, 1000]) + b"\r\n"))
        if go_ahead.code != 354 or dice.random() < 0.05:
            return
        ended = outcomes.lost  # cancelled from here on: nobody knows
        if (await transaction.finish()).is_positive:
            outcomes.delivered[n] = accepted
    except SmarthostLost:
        outcomes.lost.add(n)
    except SmarthostUnavailable:
        outcomes.not_sent.add(n)
    except asyncio.CancelledError:
        ended.add(n)
        raise
    finally:
        await transaction.abort()


@pytest.mark.parametrize("capabilities", [CAPABILITIES, NO_PIPELINING], ids=["pipelined", "step-by-step"])
@pytest.mark.parametrize(("seed", "tls"), [(1, "none"), (2, "none"), (3, "starttls"), (4, "implicit")])
async def test_a_storm_of_faults(relay_to, monkeypatch, certificates, capabilities, seed: int, tls: str) -> None:
    """What is said to be delivered is, to exactly those recipients; what is said not to be sent is not."""
    monkeypatch.setattr("smtpguard.relay.transaction.HOLD_SECONDS", 0.001)
    secure = {} if tls == "none" else {"tls": certificates.server_context(), "implicit_tls": tls == "implicit"}
    trust = {} if tls == "none" else {"tls": tls, "ca_file": certificates.ca_file}
    dice = random.Random(seed)
    outcomes = Outcomes()
    steps = {
        step: sometimes(0.02, dice) for step in ("greeting", "ehlo", "mail", "rcpt", "data", "dot", "rset", "quit")
    }
    async with ScriptedSmarthost(
        capabilities=capabilities, body={1: sometimes(0.02, dice)}, **steps, **secure
    ) as scripted:
        smarthost = relay_to(scripted, **SETTINGS, **trust)
        numbers = iter(range(MESSAGES))

        async def loop() -> None:
            for n in numbers:
                task = asyncio.create_task(send(smarthost, n, dice=dice, outcomes=outcomes))
                timeout = dice.uniform(0, 0.01) if dice.random() < 0.1 else None
                await asyncio.wait({task}, timeout=timeout)
                task.cancel()
                await asyncio.wait({task})
                assert task.cancelled() or task.exception() is None

        await asyncio.gather(*(loop() for _ in range(AT_ONCE)))
        await eventually(lambda: smarthost._pool.borrowed == 0)

        came = {int(message.wire.split(b"\r\n")[0]): message for message in scripted.messages}
        assert len(came) == len(scripted.messages)
        for n, accepted in outcomes.delivered.items():
            assert came[n].recipients == accepted
            assert came[n].wire.endswith(b"\r\n")
        assert not outcomes.not_sent & came.keys()
        assert outcomes.delivered
        assert outcomes.not_sent
