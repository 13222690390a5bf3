"""One row of an import: what another system knows of an address."""

from datetime import datetime
from typing import NamedTuple

from smtpguard.domain.mailbox import Mailbox
from smtpguard.domain.standing import Standing


class ImportRow(NamedTuple):
    """An address that another system holds for verified, unverified or flagged, with the customer it belongs to.

    ``verified_at`` None: it is not known when; ``source`` says where a verification comes from, ``reason`` why an
    address is flagged.
    """

    mailbox: Mailbox
    standing: Standing
    customer: str | None
    verified_at: datetime | None
    source: str
    reason: str
