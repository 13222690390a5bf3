"""The API as an operator runs it: the installed command, tokens, workers, two nodes on one store."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest

from smtpguard.app import open_desks
from smtpguard.domain.api_token import Scope
from smtpguard.domain.quarantined import OPEN_STATES
from tests.end_to_end.test_workers import only, pids, two_workers
from tests.integration.web.test_metrics import scraped
from tests.support.api import client_of, problem
from tests.support.command_line import CommandLine
from tests.support.eventually import eventually
from tests.support.guard import make_settings
from tests.support.process import GuardProcess, guard_process, run
from tests.support.scripted_smarthost import ScriptedSmarthost
from tests.support.transcript import greeted

ANNA = "anna@customer.example"
STRANGER = "xyz123@provider.example"
WEB = {"SMTPGUARD_WEB__LISTEN": "127.0.0.1:0"}


@pytest.fixture
async def smarthost() -> AsyncIterator[ScriptedSmarthost]:
    async with ScriptedSmarthost() as smarthost:
        yield smarthost


def web_port(guard: GuardProcess) -> int:
    return int(guard.events("guard-started")[-1]["web"][0].rpartition(":")[2])


async def new_token(guard: GuardProcess, name: str, *scopes: str) -> dict[str, str]:
    """Create a token by the command; return the header that it goes into."""
    code, out, err = await guard.command("token", "create", name, *(f"--scope={scope}" for scope in scopes))
    assert code == 0, err
    return {"Authorization": f"Bearer {out.strip()}"}


@asynccontextmanager
async def running(guard: GuardProcess, *command: str) -> AsyncIterator[None]:
    await guard.start(*command)
    try:
        yield
    finally:
        code = await guard.end()
    assert code == 0


async def test_serve_only_web(sqlite_url, tmp_path) -> None:
    """With a token of the command; readyz says when it is there, and when it is not."""
    command = CommandLine(sqlite_url)
    guard = GuardProcess(command.environment | WEB, tmp_path / "guard.log")
    async with running(guard, "serve", "--only", "web"):
        headers = await new_token(guard, "crm", "addresses:write", "addresses:read")
        async with client_of(web_port(guard)) as http:
            flag = {"address": STRANGER, "reason": "a stranger"}
            said = await http.post("/api/v1/addresses/flag", json=flag, headers=headers)
            assert said.json()["standing"] == "flagged"
            assert problem(await http.get("/api/v1/quarantine", headers=headers)) == (403, "insufficient-scope")
            ready = await command.process("readyz", "--url", f"http://127.0.0.1:{web_port(guard)}/readyz")
            assert (ready.code, ready.out) == (0, "ready\n")
    [started] = guard.events("guard-started")
    assert started["listen"] == []
    assert "@" not in json.dumps(guard.events("request-ended"))
    assert "sg_" not in guard.log.read_text()


async def test_numbers_of_two_workers(sqlite_url, smarthost, tmp_path) -> None:
    """Whichever is asked tells of both, also after one has died."""
    async with two_workers(sqlite_url, smarthost.port, tmp_path, **WEB) as guard:
        for number in (1, 2):
            with only(guard, number):
                async with greeted(guard.port) as client:
                    assert (await client.message(STRANGER)).startswith("250 ")

        async def tells_of_both(number: int) -> bool:
            with only(guard, number):
                async with client_of(web_port(guard)) as http:
                    numbers = await scraped(http)
            return numbers.get(("recipients_total", "default", "unknown", "quarantine")) == 2

        for number in (1, 2):
            await eventually(partial(tells_of_both, number))
        os.kill(pids(guard)[1], signal.SIGKILL)
        await eventually(lambda: len(guard.events("worker-started")) == 3)
        await eventually(partial(tells_of_both, 1))


async def test_flag_set_through_one_node_holds_in_the_other(postgres_url, smarthost, tmp_path) -> None:
    """From the next RCPT, and at the end of data of a transaction under way."""
    async with AsyncExitStack() as stack:
        nodes = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            node = guard_process(postgres_url, smarthost.port, tmp_path / name, **WEB)
            nodes.append(await stack.enter_async_context(node))
        one, two = nodes
        desks = await stack.enter_async_context(open_desks(make_settings(postgres_url, smarthost.port)))
        token = await desks.tokens.create("crm", [Scope.ADDRESSES_WRITE], os.urandom(32), by="test")
        headers = {"Authorization": f"Bearer {token}"}
        http = await stack.enter_async_context(client_of(web_port(one)))
        await stack.enter_async_context(asyncio.timeout(60))
        verify = {"address": ANNA, "reason": "letter"}
        assert (await http.post("/api/v1/addresses/verify", json=verify, headers=headers)).status_code == 200
        client = await stack.enter_async_context(greeted(two.port))
        assert (await client.message(ANNA)).startswith("250 ")
        await client.envelope(ANNA)

        flag = {"address": ANNA, "reason": "a stranger"}
        assert (await http.post("/api/v1/addresses/flag", json=flag, headers=headers)).status_code == 200

        await client.ask("DATA", "354 *")
        await client.send("Subject: x", "", "x", ".")
        await client.expect("250 *")
        assert (await client.message(ANNA)).startswith("250 ")
        kept = await desks.quarantine.list(limit=0, states=OPEN_STATES)
        assert [each.reason.value for each in kept] == ["flagged", "flagged"]
        assert len(smarthost.messages) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--only", "web"], "smtpguard: web.listen and web.public_listen are empty: there is nothing to serve\n"),
        (["--only", "all"], "Usage: "),
    ],
)
async def test_part_that_cannot_be_served(sqlite_url, arguments, says) -> None:
    ended = await CommandLine(sqlite_url).process("serve", *arguments)

    assert ended.code == (1 if "web" in arguments else 2)
    assert ended.err.startswith(says)


WEB_LIBRARIES = ["h11", "litestar", "msgspec", "prometheus_client", "uvicorn"]


@pytest.mark.parametrize(("listen", "loaded"), [("", []), ("127.0.0.1:0", WEB_LIBRARIES)])
async def test_what_is_not_needed_for_the_web_is_not_loaded(sqlite_url, listen, loaded) -> None:
    """Nothing where there is none, nor by a command; and never Litestar's plugins, with a pydantic that nobody uses."""
    program = (
        "import sys, asyncio\n"
        "from smtpguard.app import running_guard\n"
        "from smtpguard.settings import Settings\n"
        "import smtpguard.cli.main\n"
        "settings = Settings(\n"
        f"    smtp={{'listen': '127.0.0.1:0'}}, web={{'listen': {listen!r}}}, store={{'url': {sqlite_url!r}}}\n"
        ")\n"
        "async def main():\n"
        "    async with running_guard(settings): pass\n"
        "asyncio.run(main())\n"
        f"print(sorted({{*{WEB_LIBRARIES}, 'litestar.plugins.pydantic', 'pydantic.v1'}} & set(sys.modules)))\n"
    )
    code, out, err = await run(sys.executable, "-c", program)
    assert (code, out.splitlines()[-1:]) == (0, [str(loaded)]), err
