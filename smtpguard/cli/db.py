"""``smtpguard db``: the schema of the store."""

import typer

from smtpguard.cli.common import fail, settings_of
from smtpguard.cli.output import say

app = typer.Typer(no_args_is_help=True, help="Look after the tables of the store.")


@app.command("upgrade")
def upgrade_(ctx: typer.Context) -> None:
    """Bring the tables of the store to this version. It does no harm to do it again."""
    from smtpguard.storage import current_revision, head_revision, upgrade  # noqa: PLC0415 - heavy, for `--help`

    url = settings_of(ctx).store.url
    before = current_revision(url)
    upgrade(url)
    head = head_revision()
    say(f"{head}: nothing to do" if before == head else f"upgraded from {before or 'an empty store'} to {head}")


@app.command("current")
def current_(ctx: typer.Context) -> None:
    """Say which schema the store has. Exit code 1 where this version wants another."""
    from smtpguard.storage import current_revision, head_revision  # noqa: PLC0415 - heavy, for `--help`

    current, head = current_revision(settings_of(ctx).store.url), head_revision()
    say(f"store    {current or 'none'}\nversion  {head}")
    if current != head:
        fail("the store is not of this version: run `smtpguard db upgrade`")
