"""``smtpguard serve`` with several workers: one guard, whatever happens to one of its processes."""

import asyncio
import json
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from smtpguard.app import open_desks
from smtpguard.domain.quarantined import OPEN_STATES
from tests.support.command_line import CommandLine
from tests.support.eventually import eventually
from tests.support.guard import make_settings, verify
from tests.support.process import GuardProcess, answers, free_port, guard_process
from tests.support.scripted_smarthost import ScriptedSmarthost, hold
from tests.support.transcript import Transcript, connected, greeted

CLIENTS = 8
MESSAGES_OF_ONE = 6
RECIPIENTS = 20
"""Of each kind in a message: the line in the log is longer than what a pipe or a disk takes at once."""
VERIFIED = [f"v{number}@customer.example" for number in range(RECIPIENTS)]
LOCAL = '[[application]]\nname = "local"\nnetworks = "127.0.0.0/8"\n'
STRANGER = "xyz123@provider.example"


@pytest.fixture
async def smarthost() -> AsyncIterator[ScriptedSmarthost]:
    async with ScriptedSmarthost() as smarthost:
        yield smarthost


def two_workers(url: str, port: int, directory: Path, **extra: str) -> AbstractAsyncContextManager[GuardProcess]:
    return guard_process(url, port, directory, SMTPGUARD_SMTP__WORKERS="2", **extra)


def pids(guard: GuardProcess) -> dict[int, int]:
    """The process of each worker, as the log has it."""
    return {line["worker"]: line["pid"] for line in guard.events("worker-started")}


def has_ended(pid: int) -> bool:
    """Whether a process has ended; nobody may have asked how."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextmanager
def only(guard: GuardProcess, number: int) -> Iterator[None]:
    """Have one worker take the connections: the others stand still."""
    others = [pid for each, pid in pids(guard).items() if each != number]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in others:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


async def addresses_are_verified(url: str, *addresses: str) -> None:
    async with open_desks(make_settings(url, free_port())) as desks:
        await verify(desks, *addresses)


def strangers(client: int, message: int) -> list[str]:
    return [f"s{client}-{message}-{number}@provider.example" for number in range(RECIPIENTS)]


async def submit(port: int, client: int) -> None:
    """Half of the recipients of each message are verified, the others are strangers; each has its own session."""
    for message in range(MESSAGES_OF_ONE):
        async with greeted(port) as session:
            wire = f"Subject: {client}-{message}\r\n\r\n{client}-{message}\r\n".encode()
            said = await session.message(*VERIFIED, *strangers(client, message), wire=wire)
            assert said.startswith("250 ")


async def test_two_serve_as_one(sqlite_url, smarthost, tmp_path) -> None:
    """Each message is relayed to whom it may be and kept for the others, once; and each line of the log is whole."""
    await addresses_are_verified(sqlite_url, *VERIFIED)
    async with two_workers(sqlite_url, smarthost.port, tmp_path) as guard:
        for number in (1, 2):
            with only(guard, number):
                async with greeted(guard.port) as session:
                    await session.ask("MAIL FROM:<a@b.example>", "250 *")
                    await session.ask(f"RCPT TO:<{STRANGER}>", "250 *")
        await asyncio.gather(*(submit(guard.port, client) for client in range(CLIENTS)))
        assert await guard.end() == 0

    sent = [(client, message) for client in range(CLIENTS) for message in range(MESSAGES_OF_ONE)]
    relayed = Counter(each.message.rpartition(b"\r\n\r\n")[2].decode().strip() for each in smarthost.messages)
    assert relayed == Counter(f"{client}-{message}" for client, message in sent)
    assert all(each.recipients == VERIFIED for each in smarthost.messages)
    async with open_desks(make_settings(sqlite_url, free_port())) as desks:
        kept = await desks.quarantine.list(limit=0, states=OPEN_STATES)
        ledger = await desks.store.ledger.list(limit=0, after=None, recipient=None)
    assert Counter(each.recipient.text for each in kept) == Counter(
        stranger for each in sent for stranger in strangers(*each)
    )
    assert Counter(row.entry.decision.verdict.value for row in ledger) == dict.fromkeys(
        ["relay", "quarantine"], len(sent) * RECIPIENTS
    )
    lines = [json.loads(line) for line in guard.log.read_text().splitlines()]
    ended = [line for line in lines if line["event"] == "transaction-ended"]
    assert len({line["transaction"] for line in ended}) == len(sent) + 2
    assert {line["worker"] for line in ended} == {1, 2}


async def test_workers_end_with_their_supervisor(sqlite_url, smarthost, tmp_path) -> None:
    """Nobody is left behind who listens, and a message past its end of data is finished even so."""
    dot = asyncio.Event()
    smarthost.dot = hold(dot)
    await addresses_are_verified(sqlite_url, *VERIFIED)
    async with two_workers(sqlite_url, smarthost.port, tmp_path) as guard, greeted(guard.port) as client:
        sending = asyncio.create_task(client.message(VERIFIED[0]))
        await smarthost.wait_for_message()
        os.kill(guard.process.pid, signal.SIGKILL)
        await eventually(lambda: not_listening(guard.port))
        dot.set()

        assert (await sending).startswith("250 ")
        await client.expect("421 4.3.2 *")
        await eventually(lambda: all(map(has_ended, pids(guard).values())))


async def not_listening(port: int) -> bool:
    return not await answers(port)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_end_at_a_signal(sqlite_url, smarthost, tmp_path, number) -> None:
    """Also where all processes get it, as from a Ctrl-C: what is past its end of data is finished first."""
    dot = asyncio.Event()
    smarthost.dot = hold(dot)
    await addresses_are_verified(sqlite_url, *VERIFIED)
    async with two_workers(sqlite_url, smarthost.port, tmp_path) as guard, greeted(guard.port) as client:
        sending = asyncio.create_task(client.message(VERIFIED[0]))
        await smarthost.wait_for_message()
        os.killpg(guard.process.pid, number)
        await eventually(lambda: not_listening(guard.port))
        assert guard.events("guard-stopped") == []
        dot.set()

        assert (await sending).startswith("250 ")
        await client.expect("421 4.3.2 *")
        assert await guard.process.wait() == 0

    assert all(map(has_ended, pids(guard).values()))
    assert len(guard.events("guard-stopped")) == 1
    assert guard.events("worker-died") == []
    assert [line["worker"] for line in guard.events("transaction-ended")] in ([1], [2])


@asynccontextmanager
async def service_manager(path: Path) -> AsyncIterator[dict[str, str]]:
    """A service manager that asks for a sign of life; what it says is put into the environment."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(path))
        yield {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "3000000"}


async def test_one_that_dies_or_hangs_is_replaced(sqlite_url, smarthost, tmp_path) -> None:
    """The other goes on meanwhile; who comes instead serves by the settings that SIGHUP brought, not by wrong ones."""
    file = tmp_path / "guard.toml"
    file.write_text(LOCAL)
    async with (
        service_manager(tmp_path / "notify") as environment,
        two_workers(sqlite_url, smarthost.port, tmp_path, SMTPGUARD_CONFIG=str(file), **environment) as guard,
    ):
        await reload(guard, file, "settings-reloaded", f'[policy]\nunverified = "reject"\n{LOCAL}')
        await reload(guard, file, "reload-failed", "[policy\n")
        for number, mark in ((1, signal.SIGKILL), (2, signal.SIGSTOP)):
            pid = pids(guard)[number]
            os.kill(pid, mark)
            async with greeted(guard.port) as client:
                await is_rejected(client)
            await eventually(lambda number=number, pid=pid: pids(guard)[number] != pid)
        for number in (1, 2):
            with only(guard, number):
                async with greeted(guard.port) as client:
                    await is_rejected(client)
        assert await guard.end() == 0

    died = [(line["worker"], line["how"]) for line in guard.events("worker-died")]
    assert died[0] == (1, "killed by SIGKILL")
    assert (2, "it did not respond") in died


async def is_rejected(client: Transcript) -> None:
    await client.ask("MAIL FROM:<a@b.example>", "250 *")
    await client.ask(f"RCPT TO:<{STRANGER}>", "550 5.7.1 *")


async def reload(guard: GuardProcess, file: Path, event: str, text: str) -> None:
    file.write_text(text)
    os.kill(guard.process.pid, signal.SIGHUP)
    await eventually(lambda: guard.events(event) != [])


async def test_limits_are_those_of_the_whole(sqlite_url, smarthost, tmp_path) -> None:
    """A rate is counted over all workers; of the sessions each has its share."""
    application = json.dumps([{"name": "crm", "networks": ["127.0.0.0/8"], "max_messages_per_minute": 2}])
    limits = {"SMTPGUARD_APPLICATION": application, "SMTPGUARD_SMTP__MAX_SESSIONS": "2"}
    async with two_workers(sqlite_url, smarthost.port, tmp_path, **limits) as guard, AsyncExitStack() as sessions:
        clients = []
        for number in (1, 2):
            with only(guard, number):
                clients.append(await sessions.enter_async_context(greeted(guard.port)))
        for client in clients:
            assert (await client.message(STRANGER)).startswith("250 ")
        for client in clients:
            await client.ask("MAIL FROM:<a@b.example>", "450 4.7.1 *")
        for _ in range(6):
            async with connected(guard.port) as one_too_many:
                await one_too_many.expect("421 4.7.0 *")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"SMTPGUARD_TLS__CERTIFICATE_FILE": "{directory}/broken.pem"}, "tls.certificate_file: "),
        ({"SMTPGUARD_STORE__URL": "sqlite:///{directory}/none/guard.db"}, "{directory}/none/guard.db cannot be "),
    ],
    ids=["certificate", "store"],
)
async def test_what_cannot_begin_says_so_in_one_line(tmp_path, wrong, says) -> None:
    """Whether the supervisor finds it or a worker."""
    (tmp_path / "broken.pem").write_text("no certificate\n")
    wrong = {name: value.format(directory=tmp_path) for name, value in wrong.items()}
    environment = {"SMTPGUARD_SMTP__WORKERS": "2", "SMTPGUARD_SMTP__LISTEN": "127.0.0.1:0", **wrong}
    ended = await CommandLine(f"sqlite:///{tmp_path}/guard.db").process("serve", **environment)

    assert (ended.code, ended.out, ended.err.count("\n")) == (1, "", 1)
    assert ended.err.startswith(f"smtpguard: {says.format(directory=tmp_path)}")
