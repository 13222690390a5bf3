"""What is fuzzed: each target takes any octets, and asserts what must hold of the code that reads them.

They know of no fuzzer: ``python -m tests.fuzz`` drives them, and a test of the suite replays their seeds.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from smtpguard.domain.envelope import NULL_REVERSE_PATH
from smtpguard.domain.mailbox import Mailbox, ascii_lower, parse_domain, parse_mailbox, split_path
from smtpguard.domain.message import (
    MAX_HEADER_OCTETS,
    DotRewriter,
    HeaderTooBigError,
    WireScan,
    read_header,
    stuff,
    unstuff,
)
from smtpguard.domain.reply import Reply
from smtpguard.errors import MailboxSyntaxError
from smtpguard.relay.parser import PeerReply, ReplyParser, ReplySyntaxError
from smtpguard.smtp.commands import CommandError, decode_xtext, parse_bdat, parse_mail, parse_rcpt
from smtpguard.smtp.data import ChunkedIntake, ConnectionEndedError, read_chunk, read_data
from smtpguard.smtp.extensions import Extensions
from smtpguard.smtp.input import Input
from smtpguard.smtp.sasl import exchange
from smtpguard.smtp.xclient import UNKNOWN_PEER, parse_xclient
from smtpguard.spool import Spool, WireMessage
from tests.unit.domain.reference import fields_line_by_line

Target = Callable[[bytes], Coroutine[Any, Any, None] | None]
"""Some want an event loop."""

OFFERED = Extensions(size=10_000, eight_bit_mime=True, smtputf8=True, dsn=True)
SIZE_LIMIT = 2000
SPOOL_ABOVE = 300


def command_text(octets: bytes) -> str:
    """Decode as aiosmtpd does with what follows a verb."""
    return octets.decode("utf-8", "surrogateescape")


# Addresses


def mailbox(octets: bytes) -> None:
    """What is checked is what is mailed, and can be sent on; the lookup key is stable, and so is the domain in it."""
    text = command_text(octets)
    try:
        parsed = parse_mailbox(text)
    except MailboxSyntaxError as error:
        _check_words(error)
        return
    _check_mailbox(parsed, text)
    folded = parse_mailbox(text.translate({upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}))
    assert folded == parsed
    assert folded.domain == parsed.domain


def _check_mailbox(parsed: Mailbox, text: str) -> None:
    assert parsed.text == str(parsed) == text
    assert not set(text) & set("\r\n\0<>") or text.startswith('"')
    assert len(text.encode("utf-8")) <= 254
    again = parse_mailbox(parsed.lookup_key)
    assert (again.lookup_key, again.domain) == (parsed.lookup_key, parsed.domain)
    assert split_path(f"<{text}> X=Y") == (text, "X=Y")
    if parsed.domain:
        assert parsed.domain == ascii_lower(parsed.domain)
        assert parsed.domain.isascii()
        assert parse_domain(parsed.domain) == parsed.domain
        assert parsed.lookup_key.endswith(f"@{parsed.domain}")
        assert parse_domain(text[text.rindex("@") + 1 :]) == parsed.domain
    else:
        assert parsed.lookup_key == "postmaster"


# Commands and their parameters


def mail(octets: bytes) -> None:
    """What MAIL is read as can be said again, and is read as the same."""
    arg = command_text(octets).strip()
    try:
        path, parameters, size = parse_mail(arg, offered=OFFERED, extended=True)
    except CommandError as error:
        _check_refusal(error)
        return
    words = [f"FROM:<{path}>"]
    words += [f"BODY={parameters.body.value}"] if parameters.body else []
    words += ["SMTPUTF8"] if parameters.smtputf8 else []
    words += [f"SIZE={size}"] if size is not None else []
    words += [f"RET={parameters.ret}"] if parameters.ret else []
    words += [f"ENVID={parameters.envid}"] if parameters.envid else []
    line = " ".join(words)
    assert _is_one_line(line)
    assert parameters.smtputf8 or line.isascii()
    assert parse_mail(line, offered=OFFERED, extended=True) == (path, parameters, size)
    assert size is None or 0 <= size <= OFFERED.size
    if isinstance(path, Mailbox):
        assert path.domain
        _check_mailbox(path, path.text)
    else:
        assert path is NULL_REVERSE_PATH


def rcpt(octets: bytes) -> None:
    """What RCPT is read as can be said again; without SMTPUTF8 nothing gets through that is not ASCII."""
    arg = command_text(octets).strip()
    read = [_rcpt(arg, smtputf8=smtputf8) for smtputf8 in (False, True)]
    plain, international = read
    assert plain is None or plain == international
    if plain is not None:
        assert plain.isascii()
    if international is not None:
        assert _is_one_line(international)
        assert _rcpt(international, smtputf8=True) == international


def _rcpt(arg: str, *, smtputf8: bool) -> str | None:
    try:
        recipient, parameters = parse_rcpt(arg, offered=OFFERED, extended=True, smtputf8=smtputf8)
    except CommandError as error:
        _check_refusal(error)
        return None
    _check_mailbox(recipient, recipient.text)
    words = [f"TO:<{recipient}>"]
    words += [f"NOTIFY={parameters.notify}"] if parameters.notify else []
    words += [f"ORCPT={parameters.orcpt}"] if parameters.orcpt else []
    return " ".join(words)


def parameters(octets: bytes) -> None:
    """BDAT, XCLIENT and xtext: read, or refused; nothing that cannot be printed comes out of xtext."""
    text = command_text(octets).strip()
    with contextlib.suppress(CommandError):
        size, last = parse_bdat(text)
        assert 0 <= size < 10**20
        assert parse_bdat(f"{size}{' LAST' * last}") == (size, last)
    with contextlib.suppress(CommandError):
        decoded = decode_xtext(text)
        assert decoded.isascii()
        assert decoded.isprintable()
        assert decode_xtext("".join(f"+{ord(character):02X}" for character in decoded)) == decoded
    with contextlib.suppress(CommandError):
        said = parse_xclient(text)
        assert said.login is None or said.login.isprintable()
        if said.address not in {None, UNKNOWN_PEER}:
            assert parse_xclient(f"ADDR={said.address}").address == said.address


async def sasl(octets: bytes) -> None:
    """An exchange ends in a name and a password, neither empty, or in a refusal; it asks twice at most."""
    mechanism, initial, *answers = [*octets.decode("ascii", "replace").split("\n"), "", ""]
    asked: list[bytes] = []

    async def ask(challenge: bytes) -> str:
        asked.append(challenge)
        return answers[len(asked) - 1] if len(asked) <= len(answers) else "*"

    try:
        credentials = await exchange(mechanism, initial or None, ask)
    except CommandError as error:
        _check_refusal(error)
    else:
        assert credentials.username
        assert credentials.password
        assert "\0" not in credentials.username + credentials.password
        (credentials.username + credentials.password).encode("utf-8")
        assert (
            credentials.password not in repr(credentials)
            or credentials.password in credentials.username + "Credentials(username=')"
        )
    assert len(asked) <= 2


def _check_refusal(error: CommandError) -> None:
    assert isinstance(error.reply, Reply)
    assert 500 <= error.reply.code < 600


def _is_one_line(text: str) -> bool:
    return not set(text) & {"\r", "\n", "\0"}


# What the smarthost says


def replies(octets: bytes) -> None:
    """The replies are the same however the octets are cut, and what is passed on is one clean line."""
    cut, stream = octets[:1], octets[1:]
    whole, error = _fed([stream])
    step = 1 + (cut[0] % 7 if cut else 0)
    assert _fed([stream[start : start + step] for start in range(0, len(stream), step)]) == (whole, error)
    for reply in whole:
        said = str(reply.cleaned)
        assert said.isascii()
        assert said.isprintable()
        assert len(said) <= 510
        assert 200 <= reply.code < 600
        assert said.startswith(str(reply.code))


def _fed(pieces: list[bytes]) -> tuple[list[PeerReply], bool]:
    parser, got = ReplyParser(), []
    try:
        for piece in pieces:
            got += parser.feed(piece)
    except ReplySyntaxError as error:
        _check_words(error)
        return got, True
    return got, False


def _check_words(error: Exception) -> None:
    """An error is one line that can be printed, whatever the octets were."""
    assert str(error).isprintable()
    assert str(error)


# Messages


def header(octets: bytes) -> None:
    """The fields of each name are those that are found line by line, and the header section ends where they end.

    Cut anywhere, either the same header is read or none: never a field short, never one fewer.
    """
    fields = list(fields_line_by_line(octets))
    read = read_header(octets)
    assert len(read) == (fields[-1][2] if fields else 0) <= MAX_HEADER_OCTETS
    for name in {name for name, _, _ in fields}:
        spans = [(start, end) for each, start, end in fields if each == name]
        assert read.spans(name) == spans
        assert read.values(name) == [_value(octets[start:end]) for start, end in spans]
    for cut in {len(octets) // 3, len(octets) // 2, max(0, len(octets) - 1), *(end for _, _, end in fields)}:
        with contextlib.suppress(HeaderTooBigError):
            assert len(read_header(octets[:cut], is_cut=True)) == len(read)


def _value(field: bytes) -> bytes:
    return field.partition(b":")[2].replace(b"\r\n", b"").strip(b" \t")


async def data(octets: bytes) -> None:
    """DATA ends at the first final dot and nowhere else, however it comes; what follows stays with the reader."""
    cut, stream = octets[:1], octets[1:]
    step = 1 + (cut[0] if cut else 0) + len(stream) // 50  # however big, some fifty pieces
    end = (b"\r\n" + stream).find(b"\r\n.\r\n")
    spool = _spool()
    reader = Input(asyncio.get_running_loop())
    message = spool.message()
    reading = asyncio.get_running_loop().create_task(
        read_data(reader, message, limit=SIZE_LIMIT, on_progress=lambda _: None)
    )
    for start in range(0, len(stream), step):
        reader.feed_data(stream[start : start + step])
        await asyncio.sleep(0)
    reader.feed_eof()
    try:
        refusal = await reading
    except ConnectionEndedError:
        assert end < 0
    else:
        assert end >= 0
        assert reader.pending == stream[end + 3 :]
        await _check_message(message, stream[:end], refusal)
    message.close()
    assert spool.buffered_bytes == 0


async def _check_message(message: WireMessage, wire: bytes, refusal: Reply | None) -> None:
    assert (refusal is not None) == (len(wire) > SIZE_LIMIT)
    if refusal is not None:
        return
    pieces = list(message.pieces())
    assert b"".join(pieces) == wire
    assert b"".join([bytes(chunk) async for chunk in message.chunks()]) == wire
    assert message.has_bare_line_end == _has_bare_line_end(wire)
    if not message.has_bare_line_end:
        assert message.size == len(unstuff(wire))


async def chunks(octets: bytes) -> None:
    """A message by BDAT is, whatever its chunks, what the stuffed message is by DATA; unstuffed it is itself again."""
    cut, content = octets[:1], octets[1:]
    step = 1 + (cut[0] if cut else 0) + len(content) // 50
    pieces = [content[start : start + step] for start in range(0, len(content), step)] or [b""]
    await _check_chunks(content, pieces)
    for stuffs in (True, False):
        whole, parts = DotRewriter(stuffs=stuffs), DotRewriter(stuffs=stuffs)
        assert whole.rewrite(content) == b"".join(map(parts.rewrite, pieces))
    scan = WireScan()
    for piece in pieces:
        scan.feed(piece)
    assert scan.has_bare_line_end == _has_bare_line_end(content)


async def _check_chunks(content: bytes, pieces: list[bytes]) -> None:
    ended = content if content.endswith(b"\r\n") or not content else content + b"\r\n"
    assert unstuff(stuff(ended)) == ended
    spool = _spool()
    message = spool.message()
    intake = ChunkedIntake(message, limit=SIZE_LIMIT)
    reader = Input(asyncio.get_running_loop())
    reader.feed_data(content + b"NOOP\r\n")
    for number, piece in enumerate(pieces, start=1):
        refusal = await read_chunk(reader, len(piece), intake, last=number == len(pieces), on_progress=lambda _: None)
    reader.feed_eof()
    assert reader.pending == b"NOOP\r\n"
    await _check_message(message, stuff(ended), refusal)
    message.close()
    assert spool.buffered_bytes == 0


def _spool() -> Spool:
    return Spool(max_buffered_bytes=1_000_000, spool_above=SPOOL_ABOVE, directory=None)


def _has_bare_line_end(wire: bytes) -> bool:
    rest = wire.replace(b"\r\n", b"")
    return b"\r" in rest or b"\n" in rest


TARGETS: dict[str, Target] = {
    target.__name__: target for target in (mailbox, mail, rcpt, parameters, sasl, replies, header, data, chunks)
}
