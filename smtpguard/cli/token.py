"""``smtpguard token``: who may use the API."""

import secrets
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smtpguard.cli.common import AsJson, By, Reason, at_desks
from smtpguard.cli.listing import DEFAULT_LIMIT, Form, Limit, show_listing
from smtpguard.cli.output import Cells, iso, note, say, utc
from smtpguard.domain.api_token import TOKEN_OCTETS, ApiToken, Scope, is_token_name

if TYPE_CHECKING:
    from smtpguard.app import Desks

SCOPES = ", ".join(scope.value for scope in Scope)

app = typer.Typer(no_args_is_help=True, help="Create and revoke the tokens of the API.")


def _token_name(text: str) -> str:
    if not is_token_name(text):
        raise typer.BadParameter("it wants 1 to 64 letters, digits, dots, dashes and underscores")
    return text


Name = Annotated[str, typer.Argument(metavar="NAME", callback=_token_name)]


@app.command()
def create(
    ctx: typer.Context,
    name: Name,
    *,
    by: By,
    scope: Annotated[
        list[Scope], typer.Option("--scope", metavar="SCOPE", help=f"What it may do: {SCOPES}. Repeatable.")
    ],
) -> None:
    """Create a token, and print it: it is never shown again."""
    random = secrets.token_bytes(TOKEN_OCTETS)
    say(at_desks(ctx, lambda desks: desks.tokens.create(name, scope, random, by=by)))
    note(f"This is the only time that token {name} is shown.")


@app.command()
def revoke(ctx: typer.Context, name: Name, *, by: By, reason: Reason) -> None:
    """Let a token do nothing any more. It holds at once; the name stays taken."""
    at_desks(ctx, lambda desks: desks.tokens.revoke(name, by=by, why=reason))
    say(f"{name}: revoked")


@app.command("list")
def list_(
    ctx: typer.Context,
    limit: Limit = DEFAULT_LIMIT,
    after: Annotated[str | None, typer.Option("--after", metavar="NAME", help="Begin behind this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """List tokens, revoked ones included."""

    async def work(desks: "Desks") -> None:
        async def fetch(rows: int, key: str | None) -> list[ApiToken]:
            return await desks.tokens.list(limit=rows, after=key)

        await show_listing(FORM, fetch, limit=limit, after=after, as_json=as_json)

    at_desks(ctx, work)


def token_fields(token: ApiToken) -> dict[str, Any]:
    """Return what programs are told of a token."""
    return {
        "name": token.name,
        "scopes": _scopes(token),
        "created_at": iso(token.created_at),
        "created_by": token.created_by,
        "last_used": token.last_used.isoformat() if token.last_used else None,
        "revoked_at": iso(token.revoked_at),
    }


def _scopes(token: ApiToken) -> list[str]:
    return sorted(scope.value for scope in token.scopes)


def _cells(token: ApiToken) -> Cells:
    used = token.last_used.isoformat() if token.last_used else ""
    revoked = f"revoked {utc(token.revoked_at)}" if token.revoked_at else ""
    return (token.name, " ".join(_scopes(token))), (utc(token.created_at), token.created_by), (used, revoked)


FORM: Form[ApiToken, str] = Form(
    heads=(("Name", "Scopes"), ("Created (UTC)", "By"), ("Last used", "Revoked (UTC)")),
    cells=_cells,
    fields=token_fields,
    key=lambda token: token.name,
)
