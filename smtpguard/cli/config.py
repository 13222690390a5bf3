"""``smtpguard config``: look at the settings before they are used, and make what goes into them."""

import os
import sys
from getpass import getpass

import typer

from smtpguard.cli.common import AsJson, fail, settings_of
from smtpguard.cli.output import print_json, say

app = typer.Typer(no_args_is_help=True, help="Look at the settings, and make a password hash for them.")


@app.command()
def check(ctx: typer.Context) -> None:
    """Read the settings, with the certificates, keys and templates that they name, and say whether they are right."""
    from smtpguard.relay.tls import client_context  # noqa: PLC0415 - heavy: `--help` need not wait for it
    from smtpguard.service.invitation_mail import InvitationMail  # noqa: PLC0415 - as above
    from smtpguard.settings import find_settings_file  # noqa: PLC0415 - as above
    from smtpguard.smtp.tls import load_certificate  # noqa: PLC0415 - as above

    settings = settings_of(ctx)
    load_certificate(settings.tls)
    client_context(settings.smarthost)
    if not settings.lacking_for_invitations:
        InvitationMail(settings.verification)
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


@app.command("hash-password")
def hash_password() -> None:
    """Hash the password of an application, for `password_hash`.

    It is asked for twice; where standard input is no terminal, its first line is the password.
    """
    from smtpguard.domain.application import opaque_string  # noqa: PLC0415 - as above
    from smtpguard.service import password_hashes  # noqa: PLC0415 - heavy: `--help` need not wait for it

    password = opaque_string(_ask_twice() if sys.stdin and sys.stdin.isatty() else _first_line())
    if not password:
        fail("the password is empty")
    if not password.isprintable():
        fail("the password has characters that cannot be printed")
    say(password_hashes.hash_password(password))


def _ask_twice() -> str:
    password = getpass("Password: ")
    if getpass("The same again: ") != password:
        fail("the two are not the same")
    return password


def _first_line() -> str:
    try:
        line = sys.stdin.buffer.readline().decode("utf-8") if sys.stdin else ""
    except UnicodeDecodeError:
        fail("the password is not UTF-8")
    return line.removesuffix("\n").removesuffix("\r")
