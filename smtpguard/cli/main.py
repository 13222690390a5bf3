"""The command ``smtpguard``: its global options and its nouns."""

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

import smtpguard
from smtpguard.cli import address, audit, config, db, ledger, quarantine, token
from smtpguard.cli.common import ConfigFile, ErrorsAsExitCodes, Invocation
from smtpguard.cli.demo.command import demo
from smtpguard.cli.output import say
from smtpguard.cli.readyz import readyz
from smtpguard.cli.serve import serve

app = typer.Typer(
    cls=ErrorsAsExitCodes,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo)
app.command()(serve)
app.command()(readyz)
app.add_typer(config.app, name="config")
app.add_typer(db.app, name="db")
app.add_typer(address.app, name="address")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(ledger.app, name="ledger")
app.add_typer(audit.app, name="audit")
app.add_typer(token.app, name="token")


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without a letter of some subject is no failure
    app(prog_name="smtpguard")


def _show_version(wanted: bool) -> None:
    if wanted:
        say(f"smtpguard {smtpguard.__version__}")
        raise typer.Exit


@app.callback()
def globals_(
    ctx: typer.Context,
    config_file: ConfigFile = None,
    version: Annotated[
        bool, typer.Option("--version", help="Say which version this is.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """An outbound-mail guard: relays to verified recipients only, quarantines the rest."""
    del version
    ctx.obj = Invocation(config_file)
