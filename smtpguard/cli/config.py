"""``smtpguard config``: look at the settings before they are used."""

import os

import typer

from smtpguard.cli.common import AsJson, settings_of
from smtpguard.cli.output import print_json, say

app = typer.Typer(no_args_is_help=True, help="Look at the settings.")


@app.command()
def check(ctx: typer.Context) -> None:
    """Read the settings and say whether they are right."""
    from smtpguard.settings import find_settings_file  # noqa: PLC0415 - heavy: `--help` need not wait for it

    settings_of(ctx)
    file = find_settings_file(ctx.obj.config_file, os.environ)
    say(f"OK: {file or 'no file, defaults and environment'}")


@app.command("print")
def print_(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Print all settings in effect, with secrets masked. It is TOML that can be read again."""
    import tomli_w  # noqa: PLC0415 - not needed by any other command

    tree = settings_of(ctx).masked()
    if as_json:
        print_json(tree)
    else:
        say(tomli_w.dumps(tree).rstrip())
