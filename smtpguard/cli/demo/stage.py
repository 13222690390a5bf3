"""The stage: a mail server, the guard in front of it, and an operator's desks, all on loopback.

Nothing of the user's own settings counts here, neither a file nor the environment: a demo writes to no real store.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from smtpguard.app import Desks, open_desks, running_guard
from smtpguard.cli.demo.cast import INVITER, SHOP
from smtpguard.cli.demo.mail_server import LOOPBACK, MailServer, running_mail_server
from smtpguard.settings import (
    Endpoint,
    PolicySettings,
    Settings,
    SmarthostSettings,
    SmtpSettings,
    StoreSettings,
    VerificationSettings,
    WebSettings,
)
from smtpguard.sockets import Sockets, listen
from smtpguard.telemetry import configure_logging


@dataclass(frozen=True)
class Stage:
    """All that is there; ``port`` is where the guard listens."""

    directory: Path
    settings: Settings
    mail_server: MailServer
    desks: Desks
    port: int

    @property
    def log_file(self) -> Path:
        """Where the guard logs to."""
        return _log_file(self.directory)


@asynccontextmanager
async def built_stage(directory: Path, policy: PolicySettings) -> AsyncIterator[Stage]:
    """Bring everything up for as long as the block; whatever is written goes into the directory."""
    with _log_file(directory).open("w", encoding="utf-8", buffering=1) as log:
        configure_logging(format_="json", level="info", stream=log)
        async with running_mail_server() as mail_server:
            settings, sockets = _listening(_settings(directory, mail_server.port, policy))
            async with running_guard(settings, sockets=sockets) as guard, open_desks(settings) as desks:
                yield Stage(directory, settings, mail_server, desks, guard.endpoints[0].port)


def _settings(directory: Path, smarthost_port: int, policy: PolicySettings) -> Settings:
    return Settings(
        smtp=SmtpSettings(listen=(Endpoint(LOOPBACK, 0),), hostname="guard.shop.example", shutdown_timeout=5),
        smarthost=SmarthostSettings(host=LOOPBACK, port=smarthost_port),
        store=StoreSettings(url=f"sqlite:///{directory / 'demo.db'}"),
        policy=policy,
        verification=VerificationSettings(organisation=SHOP, sender=INVITER),
        web=WebSettings(listen=(), public_listen=(Endpoint(LOOPBACK, 0),), public_url=f"http://{LOOPBACK}"),
    )


def _listening(settings: Settings) -> tuple[Settings, Sockets]:
    """Listen; the links of invitations name the port that the system has chosen for the pages."""
    sockets = listen(settings)
    web = settings.web.model_copy(update={"public_url": f"http://{sockets.pages[0].endpoint}"})
    return settings.model_copy(update={"web": web}), sockets


def _log_file(directory: Path) -> Path:
    return directory / "guard.log"
