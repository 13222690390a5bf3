"""The HTTP side of a guard. It is loaded only where there is one: what it stands on takes twelve megabytes."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from smtpguard.app.sources import clock
from smtpguard.app.tasks import Spawn
from smtpguard.domain.policy import Policy
from smtpguard.service.invitation_desk import InvitationDesk
from smtpguard.settings import Settings
from smtpguard.sockets import ListeningSocket
from smtpguard.telemetry import Logger

if TYPE_CHECKING:
    from smtpguard.web.office import Office
    from smtpguard.web.server import WebServer


class Web:
    """The HTTP side; as long as nothing of it is served there is none."""

    def __init__(self, settings: Settings, spawn: Spawn) -> None:
        self._settings = settings
        self._spawn = spawn
        self._running: WebServer | None = None
        self._office: Office | None = None

    def serve_api(self, office: "Office", sockets: tuple[ListeningSocket, ...]) -> None:
        """Serve the API, health and metrics."""
        from smtpguard.web.application import application  # noqa: PLC0415 - as said above

        self._office = office
        self._server.serve(application(office), sockets, self._spawn)

    def serve_pages(self, desk: InvitationDesk, sockets: tuple[ListeningSocket, ...], logger: Logger) -> None:
        """Serve the recipients' pages."""
        from smtpguard.web.limits import PeerLimit  # noqa: PLC0415 - as said above
        from smtpguard.web.recipients.application import MAX_REQUESTS, Reception, application  # noqa: PLC0415 - as above
        from smtpguard.web.recipients.pages import Pages  # noqa: PLC0415 - as above

        verification = self._settings.verification
        reception = Reception(
            desk,
            Pages(verification.organisation, self._settings.web.public_url),
            verification.language,
            PeerLimit(asyncio.get_running_loop().time, limit=MAX_REQUESTS),
            clock,
        )
        is_https = self._settings.web.public_url.startswith("https:")
        self._server.serve(application(reception, logger, is_https=is_https), sockets, self._spawn)

    def replace_policies(self, policies: Mapping[str | None, Policy]) -> None:
        """Answer by others from now on."""
        if self._office is not None:
            self._office.policies = policies

    async def close(self) -> None:
        """Answer what has been asked, and end."""
        if self._running is not None:
            await self._running.close()

    @property
    def _server(self) -> "WebServer":
        from smtpguard.web.server import WebServer  # noqa: PLC0415 - as said above

        if self._running is None:
            self._running = WebServer(
                shutdown_timeout=self._settings.smtp.shutdown_timeout,
                proxies=tuple(map(str, self._settings.web.proxies)),
            )
        return self._running
