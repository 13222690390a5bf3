"""One message to its one recipient, through the smarthost, at the word of the guard itself."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from smtpguard.domain.envelope import ForwardPath, MailParameters, ReversePath
from smtpguard.domain.message import DotRewriter
from smtpguard.domain.reply import Reply
from smtpguard.errors import SmarthostUnavailable, SmtpguardError
from smtpguard.relay.smarthost import Smarthost, SmarthostTransaction
from smtpguard.spool import CHUNK_OCTETS


@dataclass(frozen=True, slots=True)
class Envelope:
    """Where a message comes from and goes to, and how."""

    reverse_path: ReversePath
    parameters: MailParameters
    forward_path: ForwardPath


async def send(
    smarthost: Smarthost, envelope: Envelope, message: bytes, *, before_dot: Callable[[], Awaitable[None]]
) -> Reply:
    """Send a message (CRLF lines, not dot-stuffed) and return the smarthost's reply, which may be a refusal.

    ``before_dot`` is awaited at the last moment at which nothing can have been delivered; what it raises goes up.
    Raises SmarthostUnavailable: nothing was sent; SmarthostLost: it may have been.
    """
    transaction = smarthost.begin(envelope.reverse_path, envelope.parameters, size=len(message))
    try:
        reply = await _send_up_to_the_dot(transaction, envelope.forward_path, message)
        if reply.code == 354:
            await before_dot()
            reply = await transaction.finish()
    finally:
        await transaction.abort()
    return reply


async def _send_up_to_the_dot(transaction: SmarthostTransaction, path: ForwardPath, message: bytes) -> Reply:
    """Return 354, or a refusal. Raises SmarthostUnavailable, whatever went wrong: nothing was sent."""
    try:
        (reply,) = await transaction.rcpt([path])
        if reply.is_positive:
            async with aclosing(_wire(message)) as chunks:
                reply = await transaction.send_body(chunks)
    except SmtpguardError:
        raise
    except Exception as error:
        raise SmarthostUnavailable(f"the message could not be sent: {type(error).__name__}: {error}") from error
    return reply


async def _wire(message: bytes) -> AsyncGenerator[bytes, None]:
    """Give the wire form of a message piece by piece."""
    stuffing = DotRewriter(stuffs=True)
    for start in range(0, len(message), CHUNK_OCTETS):
        yield stuffing.rewrite(message[start : start + CHUNK_OCTETS])
