"""``smtpguard readyz``: whether a guard that runs is ready, for the health check of a container."""

from typing import Annotated

import typer

from smtpguard.cli.common import fail, settings_of
from smtpguard.cli.output import say

SECONDS = 6.0
"""A little more than the guard gives its store."""


def readyz(
    ctx: typer.Context,
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL", help="Where to ask, instead of at `web.listen`.")
    ] = None,
) -> None:
    """Ask the guard that runs whether its store is reachable. Exit code 1: it is not, or nobody answers."""
    from http.client import HTTPException  # noqa: PLC0415 - heavy: `--help` need not wait for it
    from urllib.error import HTTPError  # noqa: PLC0415 - as above
    from urllib.request import ProxyHandler, build_opener  # noqa: PLC0415 - as above

    url = url or _own_url(ctx)
    if not url.startswith(("http://", "https://")):
        raise typer.BadParameter("it begins with neither http:// nor https://")
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=SECONDS):
            say("ready")
    except HTTPError as error:
        with error:
            fail(f"{url} answered {error.code}")
    except (HTTPException, OSError, ValueError) as error:
        fail(f"{url}: {getattr(error, 'reason', error) or 'no answer'}")


def _own_url(ctx: typer.Context) -> str:
    """Where a guard with these settings is asked from the same machine."""
    listen = settings_of(ctx).web.listen
    if not listen:
        fail("web.listen is empty: there is nobody to ask")
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen[0].host, listen[0].host)  # noqa: S104 - asked, not bound
    return f"http://{listen[0]._replace(host=host)}/readyz"
