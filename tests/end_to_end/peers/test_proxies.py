"""The installed guard behind something that takes the connection for it: the application is known all the same."""

import asyncio
import json
import smtplib

import pytest

from tests.support.peers import need
from tests.support.peers.guarded import Guarded, guarded
from tests.support.peers.haproxy import haproxy
from tests.support.peers.submission import MESSAGE, SENDER
from tests.support.process import run
from tests.support.scripted_smarthost import ScriptedSmarthost
from tests.support.transcript import connected, greeted

pytestmark = pytest.mark.peers

SHOP, BILLING, NOBODY = "127.0.0.2", "127.0.0.3", "127.0.0.4"
APPLICATIONS = json.dumps([
    {"name": "shop", "networks": [f"{SHOP}/32"]},
    {"name": "billing", "networks": [f"{BILLING}/32"]},
])  # fmt: skip
STRANGER = "xyz123@provider.example"


def send_from(address: str, port: int) -> dict[str, tuple[int, bytes]]:
    """Send a message out of one of this machine's addresses."""
    with smtplib.SMTP("127.0.0.1", port, timeout=30, source_address=(address, 0)) as client:
        return client.sendmail(SENDER, [STRANGER], MESSAGE)


async def applications(guard: Guarded) -> list[str]:
    return sorted(message.application for message in await guard.waiting())


@pytest.mark.parametrize("send", ["send-proxy", "send-proxy-v2"])
async def test_haproxy(send, sqlite_url, tmp_path) -> None:
    settings = {"SMTP__PROXY_NETWORKS": "127.0.0.1/32", "APPLICATION": APPLICATIONS}
    async with ScriptedSmarthost() as smarthost, guarded(sqlite_url, smarthost.port, tmp_path, **settings) as guard:
        async with haproxy(guard.port, tmp_path, send=send) as port:
            for address in (SHOP, BILLING):
                assert await asyncio.to_thread(send_from, address, port) == {}
            with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
                await asyncio.to_thread(send_from, NOBODY, port)
            known = await applications(guard)
            received = [(await guard.content(message)).partition(b";")[0] for message in await guard.waiting()]

    assert known == ["billing", "shop"]
    assert refused.value.recipients[STRANGER][0] == 554
    assert [
        address for address in (SHOP, BILLING) if not any(f"[{address}]".encode() in each for each in received)
    ] == []


async def test_proxy_header_from_somebody_else(sqlite_url, tmp_path) -> None:
    """Only a named proxy may say who the application is."""
    settings = {"SMTP__PROXY_NETWORKS": f"{NOBODY}/32", "APPLICATION": APPLICATIONS}
    async with ScriptedSmarthost() as smarthost, guarded(sqlite_url, smarthost.port, tmp_path, **settings) as guard:
        async with haproxy(guard.port, tmp_path, send="send-proxy") as port:
            with pytest.raises(smtplib.SMTPException):
                await asyncio.to_thread(send_from, SHOP, port)
            known = await applications(guard)

    assert known == []


async def test_named_proxy_without_a_header(sqlite_url, tmp_path) -> None:
    """A named proxy that does not say who the application is gets nowhere, whoever its own address is."""
    settings = {"SMTP__PROXY_NETWORKS": "127.0.0.1/32"}
    async with ScriptedSmarthost() as smarthost, guarded(sqlite_url, smarthost.port, tmp_path, **settings) as guard:
        async with connected(guard.port) as client:
            await client.send("EHLO app.example")
            ended = await client.at_end()

    assert ended


async def swaks(guard: Guarded, *options: str) -> tuple[int, str]:
    code, out, err = await run(
        need("swaks", "swaks"), "--server", f"127.0.0.1:{guard.port}", "--from", SENDER, "--to", STRANGER, *options
    )
    return code, out + err


async def test_xclient(sqlite_url, tmp_path) -> None:
    """A mail server before the guard says with XCLIENT who the application is."""
    settings = {"SMTP__XCLIENT_NETWORKS": "127.0.0.1/32", "APPLICATION": APPLICATIONS}
    async with ScriptedSmarthost() as smarthost, guarded(sqlite_url, smarthost.port, tmp_path, **settings) as guard:
        code, out = await swaks(guard, "--xclient-addr", SHOP, "--xclient-helo", "shop.example")
        refused_code, refused_out = await swaks(guard, "--xclient-addr", NOBODY)
        [waiting] = await guard.waiting()
        received = (await guard.content(waiting)).partition(b";")[0]

    assert code == 0, out
    assert waiting.application == "shop"
    assert f"[{SHOP}]".encode() in received
    assert refused_code != 0
    assert "<** 554 5.7.1 " in refused_out


async def test_xclient_from_somebody_else(sqlite_url, tmp_path) -> None:
    """It is not offered, and refused."""
    settings = {"SMTP__XCLIENT_NETWORKS": f"{NOBODY}/32", "APPLICATION": APPLICATIONS}
    async with ScriptedSmarthost() as smarthost, guarded(sqlite_url, smarthost.port, tmp_path, **settings) as guard:
        code, out = await swaks(guard, "--xclient-addr", SHOP)
        async with greeted(guard.port) as client:
            await client.ask(f"XCLIENT ADDR={SHOP}", "5* 5.*")
        known = await applications(guard)

    assert code != 0
    assert "Host did not advertise XCLIENT" in out
    assert known == []
