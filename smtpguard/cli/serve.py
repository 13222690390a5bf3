"""``smtpguard serve``: the guard."""

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from smtpguard.cli.common import ConfigFile, Invocation, settings_of

if TYPE_CHECKING:
    from smtpguard.settings import Settings
    from smtpguard.sockets import Part


class Only(Enum):
    """The one part that is to run."""

    SMTP = "smtp"
    WEB = "web"


def serve(
    ctx: typer.Context,
    config_file: ConfigFile = None,
    only: Annotated[
        Only | None, typer.Option("--only", metavar="PART", help="Only this part of it: smtp, or web.")
    ] = None,
) -> None:
    """Run the guard. It ends at SIGTERM or SIGINT; SIGHUP reads applications, policy and certificates again."""
    if config_file is not None:  # a unit file reads better with the option behind the command
        ctx.obj = Invocation(config_file)
    settings = settings_of(ctx)
    run = _run_alone if settings.smtp.workers == 1 else _run_workers
    run(settings, lambda: settings_of(ctx), only.value if only else None)


def _run_alone(settings: "Settings", load: Callable[[], "Settings"], only: "Part | None") -> None:
    import uvloop  # noqa: PLC0415 - heavy: `--help` need not wait for it

    from smtpguard.app import running_guard  # noqa: PLC0415 - as above
    from smtpguard.memory import give_back_what_is_freed  # noqa: PLC0415 - as above
    from smtpguard.serving import serve as serve_guard  # noqa: PLC0415 - as above
    from smtpguard.sockets import listen  # noqa: PLC0415 - as above
    from smtpguard.telemetry import configure_logging  # noqa: PLC0415 - as above

    give_back_what_is_freed()
    configure_logging(format_=settings.log.format, level=settings.log.level)
    uvloop.run(serve_guard(settings, load, running_guard(settings, sockets=listen(settings, only))))


def _run_workers(settings: "Settings", load: Callable[[], "Settings"], only: "Part | None") -> None:
    from smtpguard.workers.supervisor import run  # noqa: PLC0415 - heavy: `--help` need not wait for it

    run(settings, load, only)
