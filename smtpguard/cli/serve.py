"""``smtpguard serve``: the guard."""

import typer

from smtpguard.cli.common import ConfigFile, Invocation, settings_of


def serve(ctx: typer.Context, config_file: ConfigFile = None) -> None:
    """Run the guard. It ends at SIGTERM or SIGINT; SIGHUP reads applications, policy and certificates again."""
    import uvloop  # noqa: PLC0415 - heavy: `--help` need not wait for it

    from smtpguard.app import serve as serve_guard  # noqa: PLC0415 - as above
    from smtpguard.memory import give_back_what_is_freed  # noqa: PLC0415 - as above
    from smtpguard.telemetry import configure_logging  # noqa: PLC0415 - as above

    if config_file is not None:  # a unit file reads better with the option behind the command
        ctx.obj = Invocation(config_file)
    settings = settings_of(ctx)
    give_back_what_is_freed()
    configure_logging(format_=settings.log.format, level=settings.log.level)
    uvloop.run(serve_guard(settings, lambda: settings_of(ctx)))
