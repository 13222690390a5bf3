"""``smtpguard demo``: it shows what it says, leaves nothing behind, and notices a guard that does not guard."""

import asyncio
import os
import re
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import pytest

from smtpguard.cli.demo.play import run_demo
from smtpguard.cli.demo.show import Screen
from smtpguard.settings import PolicySettings
from tests.support.eventually import eventually
from tests.support.process import SMTPGUARD, clean_environment, run
from tests.support.transcript import Transcript


async def test_once(tmp_path):
    """Also where the environment speaks of somebody's real store and mail server."""
    environment = {
        "TMPDIR": str(tmp_path),
        "SMTPGUARD_STORE__URL": "postgresql://real.example/guard",
        "SMTPGUARD_CONFIG": "/nonexistent",
    }
    code, out, err = await run(*SMTPGUARD, "demo", "--once", env=environment)

    assert (code, err) == (0, "")
    assert "24 invoices to 25 recipients" in out
    assert re.search(r"^ +10  delivered to the customer it is about$", out, re.MULTILINE)
    assert re.search(r"^ +15  in quarantine$", out, re.MULTILINE)
    assert re.search(r"^ +0  delivered to a stranger$", out, re.MULTILINE)
    assert "14 invoices about 14 customers would now be in the mailboxes of 5 strangers" in " ".join(out.split())
    for reason in ("flagged", "not-verified", "shared-address", "not-verified-for-customer", "unknown"):
        assert re.search(rf" {reason} *$", out, re.MULTILINE), reason
    assert re.search(
        r"^  Subject: The Shop: is this e-mail address yours\?\n  http://127\.0\.0\.1:\d+/c/\S{43}$", out, re.MULTILINE
    )
    assert "Nils Nord has his invoice: what waited for him went out by itself" in out
    assert out.index("Nils Nord has his invoice") < out.index("OK Nothing reached a stranger")
    assert len(out.splitlines()) <= 60
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"unverified": "relay"}, "Xenia got a letter about Karin Lund"),
        ({"mode": "observe"}, "Noel got a letter about Otto Paulsen"),
        ({"unverified": "reject"}, "letter 11 was not accepted: 550"),
        ({"trusted_domains": ("provider.example",)}, "Tess got a letter about Vera Weiss"),
    ],
    ids=str,
)
async def test_guard_that_does_not_guard_is_noticed(tmp_path, monkeypatch, policy, said):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    failed = await run_demo(Screen(), stay=False, policy=PolicySettings(**policy))

    assert said in "\n".join(failed)
    assert list(tmp_path.iterdir()) == []


class Demo:
    """A demo that stays up."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.out = ""

    async def read_until(self, pattern: str) -> None:
        async with asyncio.timeout(60):
            while not re.search(pattern, self.out, re.DOTALL):
                chunk = await self.process.stdout.read(4096)
                assert chunk, self.out
                self.out += chunk.decode()

    @property
    def commands(self) -> list[str]:
        """What it invites to paste."""
        invitation = self.out.partition("second terminal")[2]
        return [line.strip() for line in invitation.splitlines() if line.startswith("  ")]

    @property
    def link(self) -> str:
        """The page that it invites to open."""
        return re.search(r"press Yes \(or No\).*\n  (http\S+)\n", self.out)[1]

    async def press(self, answer: str) -> None:
        """Press a button of that page; the page was made long ago."""
        form = urlencode({"shown_at": "2026-01-01T00:00:00+00:00", "answer": answer}).encode()
        browser = build_opener(ProxyHandler({}))
        await asyncio.to_thread(lambda: browser.open(self.link, form, timeout=30).close())

    async def paste(self, *starts: str) -> str:
        """Paste the settings and the commands that begin so into a shell; return what they print."""
        chosen = [line for line in self.commands if any(start in line for start in ("export ", *starts))]
        assert len(chosen) == 1 + len(starts)
        code, out, err = await run("/bin/sh", "-ec", "\n".join(chosen))
        assert code == 0, (chosen, err)
        return out


@asynccontextmanager
async def staying_demo(directory) -> AsyncIterator[Demo]:
    process = await asyncio.create_subprocess_exec(
        *SMTPGUARD, "demo", env=clean_environment({"TMPDIR": str(directory), "PYTHONUNBUFFERED": "1"}),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        demo = Demo(process)
        await demo.read_until(r"The log of the guard: \S+\n")
        yield demo
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def test_commands_it_shows_can_be_pasted(tmp_path):
    async with staying_demo(tmp_path) as demo:
        listed = await demo.paste(" quarantine list")
        shown = await demo.paste(" quarantine show", " address show")
        released = await demo.paste(" quarantine release")
        await demo.read_until("The mail server delivered a message to ")
        log = re.search(r"The log of the guard: (\S+)", demo.out)[1]
        assert '"event":"transaction-ended"' in Path(log).read_text(encoding="utf-8")
        demo.process.send_signal(signal.SIGINT)
        _, err = await demo.process.communicate()

    assert listed.count("shared-address") == 3
    assert "Subject" in shown
    assert "Standing" in shown
    assert ": released: 250 2.0.0" in released
    assert (demo.process.returncode, err) == (0, b"")
    assert list(tmp_path.iterdir()) == []


async def test_what_is_pressed_on_the_page_counts(tmp_path):
    """Yes lets the invoice go; a No after all still counts."""
    async with staying_demo(tmp_path) as demo:
        await demo.press("yes")
        await demo.read_until(r"\nYes was pressed: [^\n]*\n.*delivered a message to nils\.nord@mail\.example\n")
        await demo.press("no")
        await demo.read_until(r"\nNo was pressed: nils\.nord@mail\.example is flagged")


@pytest.mark.peers
async def test_curl_line_it_shows_can_be_pasted(tmp_path):
    from tests.support.peers import need

    need("curl", "curl")
    async with staying_demo(tmp_path) as demo:
        before = (await demo.paste(" quarantine list")).splitlines()
        await demo.paste("curl ")
        after = (await demo.paste(" quarantine list")).splitlines()

    assert len(after) == len(before) + 1
    assert "one more" in after[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_other_ends_leave_nothing_behind(tmp_path, number):
    async with staying_demo(tmp_path) as demo:
        demo.process.send_signal(number)
        _, err = await demo.process.communicate()

    assert (demo.process.returncode, err) == (0, b"")
    assert list(tmp_path.iterdir()) == []


async def test_mail_server_speaks_smtp():
    """As somebody types it: sequence, syntax, dots."""
    from smtpguard.cli.demo.mail_server import Delivery, running_mail_server

    async with running_mail_server() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        client = Transcript(reader, writer)
        await client.expect("220 *")
        await client.ask("helo x", "250 *")
        await client.ask("EHLO x", "250-*PIPELINING*")
        await client.ask("RCPT TO:<a@x.example>", "503 *")
        await client.ask("DATA", "503 *")
        await client.ask("VRFY a", "502 *")
        await client.ask("MAIL FROM:a@x.example", "501 *")
        await client.ask("MAIL FROM:<> BODY=8BITMIME", "250 *")
        await client.ask("MAIL FROM:<>", "503 *")
        await client.ask("RCPT TO:<>", "501 *")
        await client.ask("RCPT a@x.example", "501 *")
        await client.ask("NOOP", "250 *")
        await client.ask("RSET", "250 *")
        await client.send("MAIL FROM:<s@x.example>", "RCPT TO:<A@X.example>", "RCPT TO:<b@x.example>", "DATA")
        await client.expect("250 *", "250 *", "250 *", "354 *")
        await client.send("Message-ID: <1@x.example>", "", "..", ".", "MAIL FROM:<>")
        await client.expect("250 *", "250 *")
        await client.ask("QUIT", "221 *")
        assert await client.at_end()
        client.close()

        message = b"Message-ID: <1@x.example>\r\n\r\n.\r\n"
        assert server.deliveries == [
            Delivery("a@x.example", "<1@x.example>", message),
            Delivery("b@x.example", "<1@x.example>", message),
        ]


async def test_mail_server_ends_with_a_client_still_there():
    from smtpguard.cli.demo.mail_server import running_mail_server

    async with running_mail_server() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await reader.readline()

    await eventually(lambda: reader.at_eof() or reader.exception() is not None)
    writer.close()
