"""Messages through the whole guard, small and big: what comes out of it is what went in, relayed or released.

A message of more than SPOOL_ABOVE octets behind its header lies in a file.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import dkim
import pytest

from smtpguard.domain.envelope import Body, MailParameters, RcptParameters
from smtpguard.domain.message import MAX_HEADER_OCTETS, stuff
from smtpguard.errors import ActRefused
from smtpguard.service.header import MAX_RECEIVED_FIELDS
from tests.support.eventually import eventually
from tests.support.guard import RunningGuard, guarding, verify
from tests.support.scripted_smarthost import CAPABILITIES, ScriptedSmarthost
from tests.support.transcript import Transcript, greeted

SPOOL_ABOVE = 4096
CHUNK = 65_536
ALICE, STRANGER = "alice@verified.example", "xyz123@provider.example"
HEADER = b"From: shop@shop.example\r\nX-Customer-ID: 7\r\nSubject: Invoice\r\n\r\n"
LEFT = HEADER.replace(b"X-Customer-ID: 7\r\n", b"")


@pytest.fixture
async def smarthost() -> AsyncIterator[ScriptedSmarthost]:
    async with ScriptedSmarthost(capabilities=(*CAPABILITIES, "SMTPUTF8", "DSN")) as smarthost:
        yield smarthost


@pytest.fixture
async def guard(sqlite_url, smarthost, tmp_path) -> AsyncIterator[RunningGuard]:
    spooling = {"spool_above": SPOOL_ABOVE, "spool_directory": tmp_path, "max_buffered_bytes": 4_194_304}
    async with guarding(sqlite_url, smarthost.port, smtp=spooling) as guard:
        await verify(guard.desks, ALICE, customer="7")
        await verify(guard.desks, ALICE)
        yield guard


def behind_received(message: bytes) -> bytes:
    assert message.startswith(b"Received: ")
    return message.split(b"\r\n", 3)[3]


async def send(client: Transcript, wire: bytes, *recipients: str) -> str:
    await client.envelope(*(recipients or (ALICE, STRANGER)))
    await client.ask("DATA", "354 *")
    await client.send_octets(wire + b".\r\n")
    return await client.reply()


async def release_all(guard: RunningGuard) -> None:
    for each in await guard.waiting():
        await guard.desks.quarantine.release(each.id, by="anna", why="proved")


def lines(octets: int, line: bytes) -> bytes:
    """A body of about so many octets that ends with CRLF."""
    return (line + b"\r\n") * (octets // (len(line) + 2)) + line[: octets % (len(line) + 2)] + b"\r\n"


BORDERS = (0, SPOOL_ABOVE, SPOOL_ABOVE + CHUNK, SPOOL_ABOVE + 3 * CHUNK)


@pytest.mark.parametrize("border", BORDERS)
async def test_message_is_the_same_relayed_and_released(guard, smarthost, border) -> None:
    """Dots at the beginnings of lines lie on every border in turn: of the head, of a chunk, of the file."""
    messages = [
        HEADER + lines(max(0, border + more), line) for more in range(-3, 4) for line in (b".", b"..dots", b"a")
    ]
    async with greeted(guard.port) as client:
        for message in messages:
            assert (await send(client, stuff(message))).startswith("250 ")
    waiting = await guard.waiting()
    await release_all(guard)
    sent = [behind_received(each.message) for each in smarthost.messages]
    wanted = [message.replace(HEADER, LEFT) for message in messages]

    assert wanted == sent[: len(messages)]
    assert wanted == sent[len(messages) :]
    assert [len(each.message) for each in smarthost.messages[len(messages) :]] == [each.size for each in waiting]


async def test_big_message_is_the_same_relayed_and_released(guard, smarthost) -> None:
    block = b"".join(hashlib.sha256(bytes([number])).hexdigest().encode() + b"\r\n.\r\n" for number in range(256))
    message = HEADER + block * 300  # 5 MB
    async with greeted(guard.port) as client:
        assert (await send(client, stuff(message))).startswith("250 ")
    await release_all(guard)

    assert [message.replace(HEADER, LEFT)] * 2 == [behind_received(each.message) for each in smarthost.messages]


async def test_many_messages_at_once_share_the_memory(guard, smarthost) -> None:
    """Thirty of 1 MB through a budget of 4 MiB: none is refused, none is mixed up with another."""
    messages = [HEADER + lines(1_000_000, b"message %d" % number) for number in range(30)]

    async def deliver(message: bytes) -> str:
        async with greeted(guard.port) as client:
            return await send(client, message)

    said = await asyncio.gather(*map(deliver, messages))
    await release_all(guard)

    assert [reply[:3] for reply in said] == ["250"] * 30
    wanted = sorted(message.replace(HEADER, LEFT) for message in messages)
    sent = [behind_received(each.message) for each in smarthost.messages]
    assert wanted == sorted(sent[:30])
    assert wanted == sorted(sent[30:])


# What is refused


@pytest.mark.parametrize("bare", [b"\n", b"\r"])
@pytest.mark.parametrize("at", [10, SPOOL_ABOVE, CHUNK, 3 * CHUNK])
async def test_bare_line_end_anywhere_is_refused(guard, smarthost, bare, at) -> None:
    body = bytearray(lines(4 * CHUNK, b"a" * 70))
    body[at : at + 2] = b"x" + bare
    async with greeted(guard.port) as client:
        assert (await send(client, HEADER + bytes(body))).startswith("550 5.6.0 ")

    assert (smarthost.messages, await guard.waiting()) == ([], [])


@pytest.mark.parametrize("more", range(-25, 5))
async def test_customer_header_that_is_cut_is_not_read_short(guard, smarthost, more) -> None:
    """Its continuation would make it another customer; the first part of it alone names one who is verified."""
    filler = b"X-Filler: " + b"a" * 4000 + b"\r\n"
    attack = b"X-Customer-ID: 7\r\n 8\r\n"
    header = filler * ((MAX_HEADER_OCTETS - 5000) // len(filler))
    header += b"X-Rest: " + b"b" * (MAX_HEADER_OCTETS - len(header) - 10 + more) + b"\r\n" + attack
    async with greeted(guard.port) as client:
        said = await send(client, header + b"\r\n" + lines(10_000, b"body"), ALICE)

    if said.startswith("250 "):
        assert len(header) <= MAX_HEADER_OCTETS
        assert smarthost.messages == []
        assert [each.customer for each in await guard.waiting()] == ["7 8"]
    else:
        assert said == "552 5.3.4 The message header is too big"
        assert len(header) > MAX_HEADER_OCTETS
        assert (smarthost.messages, await guard.waiting()) == ([], [])


async def test_customer_header_without_an_end_is_not_read_short(guard, smarthost) -> None:
    """No empty line, and the field goes on behind whatever the guard holds in memory."""
    folded = b"X-Customer-ID: 7\r\n" + b" \r\n" * 200_000 + b" 8\r\n"
    async with greeted(guard.port) as client:
        assert await send(client, folded, ALICE) == "552 5.3.4 The message header is too big"

    assert (smarthost.messages, await guard.waiting()) == ([], [])


@pytest.mark.parametrize(("fields", "said"), [(MAX_RECEIVED_FIELDS - 1, "250 "), (MAX_RECEIVED_FIELDS, "554 5.4.6 ")])
async def test_message_that_goes_in_circles(guard, smarthost, fields, said) -> None:
    wire = b"Received: by a; today\r\n" * fields + HEADER + b"Received: not a field\r\n"
    async with greeted(guard.port) as client:
        assert (await send(client, wire)).startswith(said)

    assert len(smarthost.messages) == len(await guard.waiting()) == (said == "250 ")


async def test_no_room_in_memory(sqlite_url, smarthost) -> None:
    """Headers of others fill it: the message is read to its end, nothing is left of it, and later it passes."""
    smtp = {"max_buffered_bytes": 1_048_576}
    async with AsyncExitStack() as stack:
        guard = await stack.enter_async_context(guarding(sqlite_url, smarthost.port, smtp=smtp))
        spool = guard.guard._server._context.acceptor.spool
        client, *others = [await stack.enter_async_context(greeted(guard.port)) for _ in range(5)]
        for each in (client, *others):
            await each.envelope(STRANGER)
            await each.ask("DATA", "354 *")
        for each in others:
            await each.send_octets(b"X-Filler: " + b"a" * 250_000)
        await eventually(lambda: spool.buffered_bytes > 1_000_000)
        await client.send_octets(HEADER + b"a" * 60_000)
        await client.ask("\r\n.", "452 4.3.1 *")
        assert await guard.waiting() == []
        for each in others:
            await each.ask("\r\n.", "250 *")
        assert (await send(client, HEADER + b"a" * 60_000 + b"\r\n", STRANGER)).startswith("250 ")
    assert spool.buffered_bytes == 0


async def test_spool_directory_is_gone(guard, smarthost, tmp_path) -> None:
    """Nothing is lost and nothing is left; small messages pass, and big ones when it is back."""
    directory = tmp_path / "gone"
    smtp = {"spool_above": SPOOL_ABOVE, "spool_directory": directory}
    async with guarding(guard.settings.store.url, smarthost.port, smtp=smtp) as broken, greeted(broken.port) as client:
        assert (await send(client, HEADER + lines(CHUNK * 3, b"a"))).startswith("452 4.3.1 ")
        assert (await send(client, HEADER + b"a\r\n")).startswith("250 ")
        directory.mkdir()
        assert (await send(client, HEADER + lines(CHUNK * 3, b"a"))).startswith("250 ")

    assert len(smarthost.messages) == len(await guard.waiting()) == 2


# The header


async def test_headers_of_the_guard_are_taken_out(guard, smarthost) -> None:
    wire = b"x-smtpguard-purpose: forged\r\n and folded\r\n" + HEADER + b"X-Smtpguard-Purpose: body\r\n"
    async with greeted(guard.port) as client:
        await send(client, wire)
    await release_all(guard)

    wanted = LEFT + b"X-Smtpguard-Purpose: body\r\n"
    assert [wanted] * 2 == [behind_received(each.message) for each in smarthost.messages]


def make_key() -> tuple[bytes, bytes]:
    """An RSA key, and the record that its owner publishes."""
    import base64

    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)


@pytest.mark.parametrize("canonical", [b"simple", b"relaxed"])
@pytest.mark.parametrize("octets", [100, 500_000])
async def test_dkim_signature_verifies_behind_the_guard(guard, smarthost, octets, canonical) -> None:
    """Relayed and released; the application signs what it asks to be delivered, without the customer header."""
    private, record = make_key()
    message = (
        b"From: Shop <shop@shop.example>\r\nSubject:  Invoice\r\n  of May\r\nMessage-ID: <1@shop.example>\r\n\r\n"
        + lines(octets, b".line  with  white  space ")
        + b"..\r\n\r\n\r\n"
    )
    signature = dkim.sign(message, b"s1", b"shop.example", private, canonicalize=(canonical, canonical))
    async with greeted(guard.port) as client:
        assert (await send(client, stuff(b"X-Customer-ID: 7\r\n" + signature + message))).startswith("250 ")
    await release_all(guard)
    relayed, released = (each.message for each in smarthost.messages)

    for each in (relayed, released):
        assert dkim.verify(each, dnsfunc=lambda *_, **__: record)
        assert not dkim.verify(each.replace(b"white", b"black"), dnsfunc=lambda *_, **__: record)


# The parameters


async def test_parameters_are_relayed_kept_and_released(guard, smarthost) -> None:
    async with greeted(guard.port) as client:
        await client.ask("MAIL FROM:<a@shop.example> BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ+2B1", "250 *")
        await client.ask(f"RCPT TO:<{ALICE}> NOTIFY=NEVER", "250 *")
        await client.ask(f"RCPT TO:<{STRANGER}> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Xyz+2B@provider.example", "250 *")
        await client.ask("DATA", "354 *")
        await client.send_octets(HEADER + b".\r\n")
        await client.expect("250 *")
    (waiting,) = await guard.waiting()
    await release_all(guard)

    assert waiting.parameters == MailParameters(Body.EIGHT_BIT_MIME, smtputf8=True, ret="HDRS", envid="QQ+2B1")
    assert waiting.rcpt_parameters == RcptParameters("SUCCESS,DELAY", "rfc822;Xyz+2B@provider.example")
    commands = [line for each in smarthost.connections for line in each.commands if line[:4] in {"MAIL", "RCPT"}]
    sent = [command for command in commands if "SIZE=" not in command or command.startswith("MAIL")]
    assert [each for each in sent if each.startswith("RCPT")] == [
        f"RCPT TO:<{ALICE}> NOTIFY=NEVER",
        f"RCPT TO:<{STRANGER}> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Xyz+2B@provider.example",
    ]
    for mail in [each for each in sent if each.startswith("MAIL")]:
        assert {"BODY=8BITMIME", "SMTPUTF8", "RET=HDRS", "ENVID=QQ+2B1"} <= set(mail.split())


@pytest.mark.parametrize(
    ("parameter", "lacking", "reply"),
    [("SMTPUTF8", "SMTPUTF8", "550 5.6.7"), ("BODY=8BITMIME", "8BITMIME", "554 5.6.3")],
)
async def test_release_to_a_smarthost_that_has_come_to_lack_an_extension(
    guard, smarthost, parameter, lacking, reply
) -> None:
    """The operator hears why, nothing is sent, and the message waits on."""
    async with greeted(guard.port) as client:
        await client.ask(f"MAIL FROM:<a@shop.example> {parameter}", "250 *")
        await client.ask(f"RCPT TO:<{STRANGER}>", "250 *")
        await client.ask("DATA", "354 *")
        await client.send_octets(HEADER + b".\r\n")
        await client.expect("250 *")
    (waiting,) = await guard.waiting()
    smarthost.capabilities = tuple(each for each in smarthost.capabilities if each != lacking)

    with pytest.raises(ActRefused, match=f"^{waiting.id}: the smarthost refused it: {reply} "):
        await guard.desks.quarantine.release(waiting.id, by="anna", why="proved")

    assert smarthost.messages == []
    assert [waiting] == await guard.waiting()
