"""Who may ask for what: every operation, with every kind of token that does not hold."""

import asyncio

from litestar import Litestar

from smtpguard.domain.api_token import Scope
from smtpguard.web import access
from smtpguard.web.application import OPERATIONS, PREFIX, application
from smtpguard.web.office import Office
from tests.support.api import new_token, problem

OPEN = {"/livez", "/readyz", "/metrics", f"{PREFIX}/openapi.json"}
"""What wants no token: it holds no address."""


def name_of(operation) -> str:
    return f"{operation.method} {operation.path}"


def path_of(operation) -> str:
    return operation.path.replace("{message_id:str}", "01ABC-1")


async def ask(api, operation, authorization: str | None):
    headers = {} if authorization is None else {"Authorization": authorization}
    return await api.http.request(
        operation.method, PREFIX + path_of(operation), json={} if operation.body else None, headers=headers
    )


def test_every_route_is_an_operation_or_open(monkeypatch, tmp_path) -> None:
    """So that a new one cannot be forgotten by the tests below."""
    made = []
    init = Litestar.__init__
    monkeypatch.setattr(
        Litestar, "__init__", lambda app, *given, **named: (init(app, *given, **named), made.append(app))[0]
    )

    async def build() -> None:
        application(Office(*[None] * 11))

    asyncio.run(build())
    routes = {(method, route.path_format) for route in made[0].routes for method in route.methods - {"OPTIONS"}}

    operations = {(each.method, PREFIX + each.path.replace(":str", "")) for each in OPERATIONS}
    assert routes == operations | {("GET", path) for path in OPEN}


async def test_tokens_that_do_not_hold(api) -> None:
    """None, none of ours, another kind, a cut, a longer and a revoked one: 401; without the scope: 403."""
    revoked = await new_token(api.guard, "gone")
    await api.guard.desks.tokens.revoke("gone", by="test", why="test")
    scoped = {
        scope: await new_token(api.guard, f"all-but-{scope.name}", [each for each in Scope if each is not scope])
        for scope in Scope
    }
    wrong = [None, "", f"Basic {api.token}", "Bearer", "Bearer sg_", f"Bearer {api.token[:-1]}", f"Bearer {revoked}"]
    wrong += [f"Bearer {api.token}x", f"Bearer sg_{'A' * 43}", f"Bearer {api.token}, Bearer {api.token}"]
    for number, operation in enumerate(OPERATIONS):
        for authorization in [wrong[number % len(wrong)], f"Bearer {revoked}"]:
            response = await ask(api, operation, authorization)
            assert problem(response) == (401, "no-token"), name_of(operation)
            assert response.headers["www-authenticate"].startswith("Bearer ")
        response = await ask(api, operation, f"Bearer {scoped[operation.scope]}")
        assert problem(response) == (403, "insufficient-scope"), name_of(operation)
        assert f'scope="{operation.scope.value}"' in response.headers["www-authenticate"]
        assert (await ask(api, operation, f"bearer {api.token}")).status_code not in {401, 403}


async def test_each_wrong_token(api) -> None:
    for authorization in [
        "",
        f"Basic {api.token}",
        "Bearer",
        "Bearer sg_",
        f"Bearer {api.token[:-1]}",
        f"Bearer {api.token}x",
    ]:
        response = await api.http.get("/api/v1/addresses", headers={"Authorization": authorization})
        assert problem(response) == (401, "no-token")


async def test_revoked_token_does_nothing_at_once(api) -> None:
    await api.done("GET", "/addresses")
    await api.guard.desks.tokens.revoke("crm", by="test", why="test")

    assert await api.refused("GET", "/addresses") == (401, "no-token")


async def test_too_many_wrong_tokens(api) -> None:
    """They hear 429 after a while; one that holds is let in all the same."""
    said = [problem(await api.http.get("/api/v1/addresses")) for _ in range(access.MAX_FAILURES + 2)]

    assert said == [(401, "no-token")] * access.MAX_FAILURES + [(429, "too-many-failures")] * 2
    await api.done("GET", "/addresses")


async def test_what_wants_no_token(api) -> None:
    for path in OPEN:
        assert (await api.http.get(path)).status_code == 200
