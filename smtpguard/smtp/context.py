"""What all sessions share."""

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from smtpguard.domain.application import Application
from smtpguard.domain.reply import R220_READY, Reply
from smtpguard.service.accept import Acceptor
from smtpguard.service.logins import Logins
from smtpguard.service.rates import Rates
from smtpguard.settings import SmtpSettings
from smtpguard.smtp.sessions import Sessions
from smtpguard.telemetry import Logger

if TYPE_CHECKING:
    from smtpguard.smtp.connection import Connection


@dataclass(frozen=True, eq=False)
class Admission:
    """Who may submit, and what they are shown; replaced as a whole when the settings are read again."""

    applications: tuple[Application, ...]
    logins: Logins
    certificate: ssl.SSLContext | None
    tls_required: bool

    @cached_property
    def has_logins(self) -> bool:
        """Whether anybody could log in."""
        return any(application.username for application in self.applications)


@dataclass
class SessionContext:
    """What all sessions share. ``spawn`` starts a task that outlives the session."""

    settings: SmtpSettings
    acceptor: Acceptor
    admission: Admission
    rates: Rates
    sessions: "Sessions[Connection]"
    spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]
    logger: Logger

    @cached_property
    def greeting(self) -> Reply:
        """The first that an application hears."""
        return R220_READY.with_text(f"{self.settings.hostname} {R220_READY.text}")
