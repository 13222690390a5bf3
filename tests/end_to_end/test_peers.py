"""The installed command between real programs: Postfix, smtp-source, smtp-sink, swaks, curl, and Python's own client."""

import asyncio
import smtplib
from email.message import EmailMessage

import pytest

from tests.support.eventually import eventually
from tests.support.peers import need, postfix, smtp_sink
from tests.support.process import guard_process, run

pytestmark = pytest.mark.peers

ALICE, BOB, REFUSED = "alice@verified.example", "bob@verified.example", "refused@verified.example"
STRANGER = "xyz123@provider.example"
CSV = f"address,standing\n{ALICE},verified\n{BOB},verified\n{REFUSED},verified\n".encode()


async def fill(guard) -> None:
    code, _, err = await guard.command("address", "import", "-", stdin=CSV)
    assert code == 0, err


async def test_smtp_source_to_smtp_sink(store_url, tmp_path) -> None:
    """Verified recipients arrive, the others are in quarantine, and a mixed message is split."""
    source = need("smtp-source", "postfix")
    async with smtp_sink(tmp_path) as sink, guard_process(store_url, sink.port, tmp_path) as guard:
        await fill(guard)
        common = ["-m", "20", "-s", "5", "-f", "crm@shop.example"]
        for recipient in (ALICE, STRANGER):
            code, _, err = await run(source, *common, "-t", recipient, f"127.0.0.1:{guard.port}")
            assert code == 0, err
        code, _, err = await run(
            source, "-m", "5", "-r", "2", "-N", "-t", "mixed@provider.example", f"127.0.0.1:{guard.port}"
        )
        assert code == 0, err
        quarantined = await guard.quarantine()

        assert sink.recipients() == [ALICE] * 20
        assert len(quarantined) == 30
        assert {message["state"] for message in quarantined} == {"quarantined"}


async def test_swaks_mixed_message(store_url, tmp_path) -> None:
    swaks = need("swaks", "swaks")
    async with smtp_sink(tmp_path) as sink, guard_process(store_url, sink.port, tmp_path) as guard:
        await fill(guard)
        code, out, err = await run(
            swaks, "--server", f"127.0.0.1:{guard.port}", "--from", "crm@shop.example",
            "--to", f"{ALICE},{STRANGER},{BOB}", "--header", "Subject: Invoice", "--body", "hello",
        )  # fmt: skip
        (message,) = await guard.quarantine()

        assert code == 0, out + err
        assert sink.recipients() == [ALICE, BOB]
        assert (message["recipient"], message["subject"]) == (STRANGER, "Invoice")


async def test_curl(store_url, tmp_path) -> None:
    curl = need("curl", "curl")
    body = b"Subject: Invoice\r\n\r\n.hidden dot\r\nhello\r\n"
    async with smtp_sink(tmp_path) as sink, guard_process(store_url, sink.port, tmp_path) as guard:
        await fill(guard)
        (tmp_path / "message").write_bytes(body)
        code, _, err = await run(
            curl, "--silent", "--show-error", "--url", f"smtp://127.0.0.1:{guard.port}", "--mail-from", "a@shop.example",
            "--mail-rcpt", ALICE, "--mail-rcpt", STRANGER, "--upload-file", tmp_path / "message",
        )  # fmt: skip
        (message,) = await guard.quarantine()
        _, content, _ = await guard.command("quarantine", "show", message["id"], "--content")

        assert code == 0, err
        assert sink.recipients() == [ALICE]
        assert content.endswith(body.decode().replace("\r\n", "\r\n"))


def send(port: int, message: EmailMessage) -> dict:
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        return client.send_message(message)


async def test_postfix_as_smarthost(store_url, tmp_path) -> None:
    """Its refusal of one recipient is heard by the application; a release goes through it, too."""
    message = EmailMessage()
    message["From"], message["To"] = "crm@shop.example", f"{ALICE}, {REFUSED}, {STRANGER}"
    message["Subject"] = "Rechnung für März"
    message.set_content("Grüße\n")
    async with (
        smtp_sink(tmp_path) as sink,
        postfix(sink.port) as smarthost_port,
        guard_process(store_url, smarthost_port, tmp_path) as guard,
    ):
        await fill(guard)
        refused = await asyncio.to_thread(send, guard.port, message)
        (waiting,) = await guard.quarantine()
        await eventually(lambda: sink.recipients() == [ALICE])
        code, out, err = await guard.command("quarantine", "release", waiting["id"], "--reason", "proved by letter")
        await eventually(lambda: sink.recipients() == [ALICE, STRANGER])

        assert list(refused) == [REFUSED]
        assert refused[REFUSED][0] == 550
        assert b"5.1.1" in refused[REFUSED][1]
        assert waiting["subject"] == "Rechnung für März"
        assert code == 0, out + err
        assert await guard.quarantine() == []


async def test_postfix_as_application(store_url, tmp_path) -> None:
    """A Postfix that has the guard for its relayhost."""
    async with smtp_sink(tmp_path) as sink, guard_process(store_url, sink.port, tmp_path) as guard:
        await fill(guard)
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = "crm@shop.example", f"{ALICE}, {STRANGER}", "x"
        message.set_content("hello\n")
        async with postfix(guard.port) as application_port:
            assert await asyncio.to_thread(send, application_port, message) == {}
            await eventually(lambda: sink.recipients() == [ALICE])

            async def is_quarantined() -> bool:
                return [each["recipient"] for each in await guard.quarantine()] == [STRANGER]

            await eventually(is_quarantined)
