"""The HTTP side of a guard. It is loaded only where there is one: what it stands on takes fifteen megabytes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from smtpguard.domain.policy import Policy
from smtpguard.settings import Endpoint
from smtpguard.sockets import Sockets

if TYPE_CHECKING:
    from smtpguard.web.office import Office
    from smtpguard.web.server import WebServer


class Web:
    """The HTTP side; without sockets there is none."""

    def __init__(self) -> None:
        self._server: WebServer | None = None
        self._office: Office | None = None

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where it listens."""
        return self._server.endpoints if self._server else ()

    def start(self, office: "Office", sockets: Sockets, *, shutdown_timeout: float) -> None:
        """Serve the API."""
        from smtpguard.web.application import application  # noqa: PLC0415 - as said above
        from smtpguard.web.server import WebServer  # noqa: PLC0415 - as above

        self._office = office
        self._server = WebServer(shutdown_timeout=shutdown_timeout)
        self._server.serve(application(office), sockets.web, office.spawn)

    def replace_policies(self, policies: Mapping[str | None, Policy]) -> None:
        """Answer by others from now on."""
        if self._office is not None:
            self._office.policies = policies

    async def close(self) -> None:
        """Answer what has been asked, and end."""
        if self._server is not None:
            await self._server.close()
