"""What requests work with: the operators' desks, and who may ask for them."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from smtpguard.domain.policy import Policy
from smtpguard.service.address_desk import AddressDesk
from smtpguard.service.invitation_desk import InvitationDesk
from smtpguard.service.metrics import Numbers
from smtpguard.service.quarantine_desk import QuarantineDesk
from smtpguard.service.token_desk import TokenDesk
from smtpguard.storage import Store
from smtpguard.telemetry import Logger


@dataclass
class Office:
    """The desks of a running guard. ``spawn`` starts a task that outlives the request."""

    store: Store
    addresses: AddressDesk
    invitations: InvitationDesk
    quarantine: QuarantineDesk
    tokens: TokenDesk
    policies: Mapping[str | None, Policy]
    """By application; None: the general one. Replaced as a whole when the settings are read again."""
    retention: timedelta | None
    """After which a message that waits expires; None: never."""
    numbers: Callable[[], Coroutine[Any, Any, Numbers]]
    """Those of all processes of this guard."""
    clock: Callable[[], datetime]
    spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]] = field(repr=False)
    logger: Logger = field(repr=False)
    big_body: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    """Held by whoever brings a big one: of these one at a time is in memory."""
