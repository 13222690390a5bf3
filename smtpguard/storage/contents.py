"""The content of quarantined messages: compressed, and checked against its digest when it is read back.

Compressing takes its time with a big message; it belongs in a thread.
"""

import hashlib
from typing import Any

import zstandard
from sqlalchemy import Row

from smtpguard.domain.quarantined import MessageContent
from smtpguard.errors import StoreError


def pack(transaction_id: str, content: MessageContent) -> dict[str, Any]:
    """Make the row of a content."""
    return {
        "transaction_id": transaction_id,
        "content": zstandard.compress(content.message),
        "digest": hashlib.sha256(content.message).hexdigest(),
        "size": len(content.message),
        "subject": content.subject,
        "sender": content.sender,
        "date": content.date,
        "message_id": content.message_id,
    }


def unpack(row: Row[Any]) -> MessageContent:
    """Read a row back; raises StoreError where it is not what was put in."""
    try:
        message = zstandard.decompress(row.content, max_output_size=row.size)
    except zstandard.ZstdError as error:
        raise StoreError(f"the content of transaction {row.transaction_id} cannot be read back: {error}") from error
    if hashlib.sha256(message).hexdigest() != row.digest:
        raise StoreError(f"the content of transaction {row.transaction_id} does not match its digest")
    return MessageContent(
        message=message, subject=row.subject, sender=row.sender, date=row.date, message_id=row.message_id
    )
