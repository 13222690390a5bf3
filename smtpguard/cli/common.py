"""What the commands share: settings, the operator's desks, who acts, and how an expected error becomes an exit code.

Exit codes: 0 done, 1 refused or failed, 2 usage, 130 interrupted. An expected error is one line on standard error.
"""

import asyncio
import os
import pwd
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Never, TypeVar

import typer
from typer.core import TyperGroup

from smtpguard.cli.output import complain
from smtpguard.domain.mailbox import Mailbox, parse_mailbox
from smtpguard.domain.standing import MAX_CUSTOMER_CHARACTERS, is_customer_reference
from smtpguard.errors import MailboxSyntaxError, SmtpguardError

if TYPE_CHECKING:
    from smtpguard.app import Desks
    from smtpguard.settings import Settings

INTERRUPTED = 130

T = TypeVar("T")


@dataclass(frozen=True)
class Invocation:
    """What was said before the noun."""

    config_file: Path | None


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "-c",
        "--config",
        metavar="FILE",
        help="The settings, instead of $SMTPGUARD_CONFIG, config/smtpguard.toml or /etc/smtpguard/smtpguard.toml.",
    ),
]


class ErrorsAsExitCodes(TyperGroup):
    """The root of the commands: an expected error is one line and an exit code; a traceback is a bug."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with _expected_errors():
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()  # so that a reader who has gone is noticed here


def fail(message: str) -> Never:
    """End with exit code 1 and this line."""
    complain(message)
    raise typer.Exit(1)


def settings_of(ctx: typer.Context) -> "Settings":
    """Read the settings that this invocation means. Raises SettingsError."""
    from smtpguard.settings import load_settings  # noqa: PLC0415 - heavy: `--help` need not wait for it

    return load_settings(ctx.obj.config_file)


def at_desks(ctx: typer.Context, work: Callable[["Desks"], Coroutine[Any, Any, T]]) -> T:
    """Open the operator's desks, do the work there, and return what it gives."""
    from smtpguard.app import open_desks  # noqa: PLC0415 - heavy: `--help` need not wait for it
    from smtpguard.telemetry import silent_logger  # noqa: PLC0415 - as above

    settings = settings_of(ctx)

    async def run() -> T:
        async with open_desks(settings, logger=silent_logger()) as desks:
            return await work(desks)

    return asyncio.run(run())


def mailbox_of(text: str) -> Mailbox:
    """Parse an address; raise MailboxSyntaxError that shows it."""
    try:
        return parse_mailbox(text)
    except MailboxSyntaxError as error:
        raise MailboxSyntaxError(f"{text!r}: {error}") from error


def words(text: str | None) -> str | None:
    """Check an option that goes into the audit log: it is one line that says something."""
    if text is None:
        return None
    if not text.strip() or not text.isprintable():
        raise typer.BadParameter("it wants one line of printable text")
    return text.strip()


def customer_reference(text: str | None) -> str | None:
    """Check an option that names a customer."""
    if text is not None and not is_customer_reference(text):
        raise typer.BadParameter(f"it wants printable ASCII words, at most {MAX_CUSTOMER_CHARACTERS} characters")
    return text


def _operator() -> str:
    from smtpguard.settings import OPERATOR_VARIABLE  # noqa: PLC0415 - heavy: `--help` need not wait for it

    return os.environ.get(OPERATOR_VARIABLE) or _system_user()


def _system_user() -> str:
    """Name the user of this process: $USER can be anything, and in a container a uid may have no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid-{os.getuid()}"


By = Annotated[
    str,
    typer.Option(
        "--by",
        metavar="NAME",
        default_factory=_operator,
        callback=words,
        show_default=False,
        help="Who acts; else $SMTPGUARD_OPERATOR, else your user name.",
    ),
]
Reason = Annotated[str, typer.Option("--reason", metavar="WHY", callback=words, help="Why, for the audit log.")]
Address = Annotated[str, typer.Argument(metavar="ADDRESS")]
Customer = Annotated[
    str | None,
    typer.Option(
        "--customer", metavar="C", callback=customer_reference, help="For this customer, instead of for anybody."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def _expected_errors() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except OSError as error:  # a reader who has gone, a full disk under standard output
        _abandon_stdout()
        if isinstance(error, BrokenPipeError):
            raise typer.Exit(1) from None
        fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error))
    except SmtpguardError as error:
        fail(str(error))


def _abandon_stdout() -> None:
    """Let what could not be written be written nowhere, so that Python does not try again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
