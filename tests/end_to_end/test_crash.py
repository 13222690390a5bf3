"""Kill the guard at random moments under load: nothing that got 250 is missing, nothing unverified arrived."""

import asyncio
import itertools
import random
import signal
import zlib
from dataclasses import dataclass, field

import pytest

from tests.support.process import GuardProcess, free_port, guard_process
from tests.support.scripted_smarthost import ScriptedSmarthost
from tests.support.transcript import Transcript, connected

APPLICATIONS = 8
MESSAGES = 20
"""For each application; more, until the guard has been killed often enough."""
KILLS = 5
VERIFIED = [f"user{number}@verified.example" for number in range(20)]
CSV = "address,standing\n" + "".join(f"{address},verified\n" for address in VERIFIED)


@dataclass
class History:
    """What the applications were told: for each message its recipients, and how often it was tried."""

    acknowledged: dict[str, list[str]] = field(default_factory=dict)
    unanswered: dict[str, int] = field(default_factory=dict)


def body_of(message_id: str) -> bytes:
    """A body that cannot be mistaken for that of another message, nor be cut unnoticed."""
    text = f"{message_id}\r\n".encode() * (1 + zlib.crc32(message_id.encode()) % 300)
    return b"Subject: crash\r\nMessage-ID: <%s>\r\n\r\n%sEND\r\n" % (message_id.encode(), text)


async def attempt(client: Transcript, message_id: str, recipients: list[str], history: History) -> bool:
    """Try once; an attempt whose end of data went out and was not answered may have come through."""
    await client.ask("MAIL FROM:<crm@shop.example>", "250 *")
    for recipient in recipients:
        await client.ask(f"RCPT TO:<{recipient}>", "250 *")
    await client.ask("DATA", "354 *")
    history.unanswered[message_id] = history.unanswered.get(message_id, 0) + 1
    await client.send_octets(body_of(message_id) + b".\r\n")
    said = await client.reply()
    if said.startswith("250 "):
        history.unanswered[message_id] -= 1
        history.acknowledged[message_id] = recipients
        return True
    return False


async def application(name: int, port: int, history: History, enough: asyncio.Event, dice: random.Random) -> None:
    """Send unique messages, each again and again until it is acknowledged, as a spool would."""
    for number in itertools.count():
        if number >= MESSAGES and enough.is_set():
            return
        message_id = f"{name}-{number}@crash.example"
        recipients = dice.sample(VERIFIED, dice.randint(0, 2))
        recipients += [f"stranger{name}-{number}-{each}@provider.example" for each in range(dice.randint(0, 2))]
        recipients = recipients or [VERIFIED[0]]
        while message_id not in history.acknowledged:
            try:
                async with connected(port) as client:
                    await client.hello()
                    await attempt(client, message_id, recipients, history)
            except (OSError, asyncio.IncompleteReadError, AssertionError):
                await asyncio.sleep(0.05)  # an application's own pause before it tries again


async def kill_again_and_again(guard: GuardProcess, enough: asyncio.Event, dice: random.Random, number: int) -> None:
    """Kill the guard at moments that nobody foresees, and start it again."""
    for _ in range(KILLS):
        await asyncio.sleep(dice.uniform(0.05, 0.5))
        await guard.end(number)
        await guard.start()
    enough.set()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
async def test_nothing_is_lost_and_nobody_bypassed(store_url, tmp_path, number) -> None:
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    history = History()
    enough = asyncio.Event()
    port = free_port()
    listen = {"SMTPGUARD_SMTP__LISTEN": f"127.0.0.1:{port}"}
    async with ScriptedSmarthost() as smarthost, guard_process(store_url, smarthost.port, tmp_path, **listen) as guard:
        code, _, err = await guard.command("address", "import", "-", stdin=CSV.encode())
        assert code == 0, err
        async with asyncio.timeout(100), asyncio.TaskGroup() as group:
            group.create_task(kill_again_and_again(guard, enough, dice, number))
            for name in range(APPLICATIONS):
                group.create_task(application(name, port, history, enough, dice))
        quarantined = [(each["recipient"], await content_of(guard, each["id"])) for each in await sample(guard, dice)]
        waiting = await guard.quarantine()

    assert len(history.acknowledged) >= APPLICATIONS * MESSAGES
    check_nobody_bypassed(smarthost, seed)
    check_nothing_lost(smarthost, waiting, history, seed)
    for recipient, content in quarantined:
        message_id = content.partition("Message-ID: <")[2].partition(">")[0]
        assert content.endswith(body_of(message_id).decode()), (seed, recipient)


async def sample(guard: GuardProcess, dice: random.Random) -> list[dict]:
    waiting = await guard.quarantine()
    return dice.sample(waiting, 3)


async def content_of(guard: GuardProcess, message_id: str) -> str:
    code, out, err = await guard.command("quarantine", "show", message_id, "--content")
    assert code == 0, err
    return out


def check_nobody_bypassed(smarthost: ScriptedSmarthost, seed: int) -> None:
    strangers = [who for message in smarthost.transactions for who in message.offered if who not in VERIFIED]
    assert strangers == [], seed


def check_nothing_lost(smarthost: ScriptedSmarthost, waiting: list[dict], history: History, seed: int) -> None:
    """Each acknowledged recipient's message is there; more than once only after an attempt without an answer."""
    delivered: dict[tuple[str, str], int] = {}
    for message in smarthost.messages:
        message_id = message.message.partition(b"Message-ID: <")[2].partition(b">")[0].decode()
        assert message.message.endswith(body_of(message_id)), seed
        for recipient in message.recipients:
            delivered[message_id, recipient] = delivered.get((message_id, recipient), 0) + 1
    kept: dict[str, int] = {}
    for each in waiting:
        kept[each["recipient"]] = kept.get(each["recipient"], 0) + 1
    for message_id, recipients in history.acknowledged.items():
        for recipient in recipients:
            count = delivered.get((message_id, recipient), 0) if recipient in VERIFIED else kept.get(recipient, 0)
            assert 1 <= count <= 1 + history.unanswered.get(message_id, 0), (seed, message_id, recipient, count)
