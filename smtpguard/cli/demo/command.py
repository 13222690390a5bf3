"""The command ``smtpguard demo``."""

import asyncio
from typing import Annotated

import typer

from smtpguard.cli.common import INTERRUPTED, fail

MAX_FAILURES = 3

Once = Annotated[bool, typer.Option("--once", help="End after the show; exit code 1 where a promise was broken.")]


def demo(once: Once = False) -> None:
    """Play the case of 2019 in small. All on loopback, with nothing to set up and nothing left behind."""
    from smtpguard.cli.demo.play import run_demo  # noqa: PLC0415 - heavy: `--help` need not wait for it
    from smtpguard.cli.demo.show import Screen  # noqa: PLC0415 - as above

    try:
        failures = asyncio.run(run_demo(Screen(), stay=not once))
    except asyncio.CancelledError:  # SIGTERM or SIGHUP
        raise typer.Exit(INTERRUPTED) from None
    if failures:
        others = [f"and {len(failures) - MAX_FAILURES} more"] if len(failures) > MAX_FAILURES else []
        fail(f"the demo failed: {'; '.join(failures[:MAX_FAILURES] + others)}")
