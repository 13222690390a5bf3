"""``smtpguard serve`` as a process, ``db`` and ``config``: they start, or say in one line why not."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import smtpguard as package
from tests.support.command_line import CommandLine, Ended
from tests.support.process import SMTPGUARD, clean_environment, free_port, guard_process, run
from tests.support.transcript import greeted


@pytest.fixture
def smtpguard(request) -> CommandLine:
    return CommandLine(request.getfixturevalue(getattr(request, "param", "sqlite_url")))


def one_line(err: str) -> str:
    assert err.startswith("smtpguard: ")
    assert err.count("\n") == 1
    return err.removeprefix("smtpguard: ").removesuffix("\n")


async def begun(smtpguard: CommandLine, *command: str, **environment: str) -> Ended:
    """Run a command that is not to get far: ``serve`` as a process, which it wants for itself."""
    run_it = smtpguard.process if command[0] == "serve" else smtpguard
    return await run_it(*command, **environment)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_serve_until_a_signal(sqlite_url, tmp_path, number):
    async with guard_process(sqlite_url, free_port(), tmp_path) as guard:
        (started,) = guard.events("guard-started")
        async with greeted(guard.port) as client:
            await client.ask("NOOP", "250 *")
        assert await guard.end(number) == 0

        assert started["listen"] == [f"127.0.0.1:{guard.port}"]
        (off,) = guard.events("invitations-off")
        assert off["not_set"] == ["verification.organisation", "verification.sender", "web.public_url"]
        assert len(guard.events("guard-stopped")) == 1


async def test_settings_named_behind_the_command(smtpguard, tmp_path):
    file = tmp_path / "guard.toml"
    file.write_text('[smtp]\nlisten = "not an endpoint"\n')
    ended = await smtpguard.process("serve", "-c", str(file))

    assert ended.code == 1
    assert one_line(ended.err).startswith(f"{file}: smtp.listen.0: ")


@pytest.mark.parametrize("workers", [1, 2])
async def test_template_that_does_not_work_is_one_line(smtpguard, tmp_path, workers):
    (tmp_path / "invitation.en.html").write_text("{{ customer }}")
    environment = {
        "SMTPGUARD_SMTP__LISTEN": "127.0.0.1:0",
        "SMTPGUARD_SMTP__WORKERS": str(workers),
        "SMTPGUARD_VERIFICATION__TEMPLATES": str(tmp_path),
        "SMTPGUARD_VERIFICATION__ORGANISATION": "Shop",
        "SMTPGUARD_VERIFICATION__SENDER": "shop@shop.example",
        "SMTPGUARD_WEB__PUBLIC_URL": "https://check.shop.example",
    }
    ended = await smtpguard.process("serve", **environment)

    assert ended.code == 1
    assert one_line(ended.err).startswith("verification.templates: ")
    assert ended.err.endswith("invitation.en.html: 'customer' is undefined\n")


async def test_port_that_is_taken_is_one_line(smtpguard):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = await smtpguard.process("serve", SMTPGUARD_SMTP__LISTEN=endpoint)

    assert ended.code == 1
    assert one_line(ended.err).startswith(f"smtp.listen: {endpoint}: ")


@pytest.mark.parametrize(
    "command", [["serve"], ["address", "list"], ["db", "current"], ["db", "upgrade"]], ids=" ".join
)
@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_store_that_cannot_be_reached_is_one_line(tmp_path, command, engine):
    url = (
        f"sqlite:///{tmp_path}/none/guard.db"
        if engine == "sqlite"
        else f"postgresql://x:pa55word@127.0.0.1:{free_port()}/x"
    )
    ended = await begun(CommandLine(url), *command, SMTPGUARD_SMTP__LISTEN="127.0.0.1:0")

    assert ended.code == 1
    assert "pa55word" not in one_line(ended.err)


@pytest.mark.parametrize(
    "command", [["serve"], ["quarantine", "list"], ["config", "check"], ["db", "current"]], ids=" ".join
)
async def test_wrong_setting_is_one_line(smtpguard, command):
    ended = await begun(smtpguard, *command, SMTPGUARD_SMTP__MAX_RECIPIENTS="none")

    assert (ended.code, ended.out) == (1, "")
    assert one_line(ended.err).startswith("environment variable SMTPGUARD_SMTP__MAX_RECIPIENTS: smtp.max_recipients: ")


async def test_upgrade_of_an_empty_store(tmp_path):
    smtpguard = CommandLine(f"sqlite:///{tmp_path}/guard.db")
    before = await smtpguard("db", "current")
    listed = await smtpguard("address", "list")
    upgraded = await smtpguard("db", "upgrade")
    again = await smtpguard("db", "upgrade")
    after = await smtpguard("db", "current")

    assert before.code == 1
    assert before.out.startswith("store    none\nversion  ")
    assert one_line(before.err) == "the store is not of this version: run `smtpguard db upgrade`"
    assert listed.code == 1
    assert "smtpguard db upgrade" in one_line(listed.err)
    head = after.out.split()[-1]
    assert (upgraded.code, upgraded.out, upgraded.err) == (0, f"upgraded from an empty store to {head}\n", "")
    assert (again.code, again.out, again.err) == (0, f"{head}: nothing to do\n", "")
    assert (after.code, after.out, after.err) == (0, f"store    {head}\nversion  {head}\n", "")


async def test_console_script_is_the_same():
    script = Path(sys.executable).with_name("smtpguard")

    assert (await run(script, "--version"))[:2] == (0, f"smtpguard {package.__version__}\n")
    assert (await run(script, "nonsense"))[0] == (await run(*SMTPGUARD, "nonsense"))[0] == 2


def test_help_is_quick():
    """It imports neither the store nor the SMTP side."""
    began = time.monotonic()
    loaded = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "smtpguard", "--help"],
        env=clean_environment(), capture_output=True, text=True, check=True,
    ).stderr  # fmt: skip

    assert [
        name for name in ("sqlalchemy", "aiosmtpd", "pydantic", "uvloop", "psycopg", "rich") if f" {name}\n" in loaded
    ] == []
    assert time.monotonic() - began < 5  # a machine that does other things, too


async def test_print_as_json_is_one_object(smtpguard):
    printed = await smtpguard("config", "print", "--json")

    assert json.loads(printed.out)["smtp"]["hostname"] == "guard.example"
