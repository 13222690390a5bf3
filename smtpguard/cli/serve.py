"""``smtpguard serve``: the guard."""

import typer

from smtpguard.cli.common import settings_of


def serve(ctx: typer.Context) -> None:
    """Run the guard. It ends at SIGTERM or SIGINT; the log goes to standard output."""
    import uvloop  # noqa: PLC0415 - heavy: `--help` need not wait for it

    from smtpguard.app import serve as serve_guard  # noqa: PLC0415 - as above
    from smtpguard.telemetry import configure_logging  # noqa: PLC0415 - as above

    settings = settings_of(ctx)
    configure_logging(format_=settings.log.format, level=settings.log.level)
    uvloop.run(serve_guard(settings))
