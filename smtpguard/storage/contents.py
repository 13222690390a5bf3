"""The content of quarantined messages: compressed, and checked against its digest when it is read back.

Both take their time with a big message and may read its file; they belong in a thread then.
"""

import hashlib
from collections.abc import Iterable
from io import BytesIO
from typing import Any

import zstandard
from sqlalchemy import Row

from smtpguard.domain.message import HeaderSummary
from smtpguard.domain.quarantined import MessageContent
from smtpguard.errors import StoreError


def pack(
    transaction_id: str, summary: HeaderSummary, pieces: Iterable[bytes], compressor: zstandard.ZstdCompressor
) -> dict[str, Any]:
    """Make the row of a message that comes in pieces; only its compressed form is ever in memory as a whole."""
    compressing = compressor.compressobj()
    digest, size, packed = hashlib.sha256(), 0, BytesIO()
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
        packed.write(compressing.compress(piece))
    packed.write(compressing.flush())
    return {
        "transaction_id": transaction_id,
        "content": packed.getvalue(),
        "digest": digest.hexdigest(),
        "size": size,
        "subject": summary.subject,
        "sender": summary.sender,
        "date": summary.date,
        "message_id": summary.message_id,
    }


def unpack(row: Row[Any]) -> MessageContent:
    """Read a row back; raises StoreError where it is not what was put in."""
    try:
        message = zstandard.ZstdDecompressor().decompressobj().decompress(row.content)
    except zstandard.ZstdError as error:
        raise StoreError(f"the content of transaction {row.transaction_id} cannot be read back: {error}") from error
    if hashlib.sha256(message).hexdigest() != row.digest:
        raise StoreError(f"the content of transaction {row.transaction_id} does not match its digest")
    return MessageContent(
        message=message, subject=row.subject, sender=row.sender, date=row.date, message_id=row.message_id
    )
