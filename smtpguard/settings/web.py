"""The section about HTTP."""

from typing import Annotated

from pydantic import field_validator

from smtpguard.settings.kinds import Endpoint, HttpUrl, Listen, Many, Network
from smtpguard.settings.section import Section


class WebSettings(Section):
    """[web]: the HTTP API, health and metrics, and the recipients' pages."""

    listen: Annotated[tuple[Listen, ...], Many] = (Endpoint("127.0.0.1", 8025),)
    """Of the API, health and metrics: plain HTTP; empty: there is none."""
    public_listen: Annotated[tuple[Listen, ...], Many] = ()
    """Of the recipients' pages: as above."""
    public_url: HttpUrl = ""
    """Where recipients reach their pages, without a slash at the end."""
    proxies: Annotated[tuple[Network, ...], Many] = ()
    """Whose word counts for where a request comes from (``X-Forwarded-For``)."""

    @field_validator("listen", "public_listen", mode="before")
    @classmethod
    def _none_is_off(cls, value: object) -> object:
        return () if value in ("", [""]) else value
