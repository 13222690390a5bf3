"""A client of the API, and the guard that it asks."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from smtpguard.domain.api_token import Scope
from tests.support.guard import RunningGuard, guarding

ON_LOOPBACK = {"listen": "127.0.0.1:0"}


@dataclass(frozen=True)
class Api:
    """The API of a running guard. Requests carry a token with every scope."""

    guard: RunningGuard
    http: httpx.AsyncClient
    token: str

    async def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """Ask; an underscore in the name of a header is a dash."""
        given = {"Authorization": f"Bearer {self.token}"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return await self.http.request(method, f"/api/v1{path}", json=body, headers=given)

    async def done(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Ask for what is done, and return the answer."""
        response = await self(method, path, body, **headers)
        assert response.status_code == 200, response.text
        return response.json()

    async def refused(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        """Ask for what is refused, and return status and code."""
        return problem(await self(method, path, body, **headers))


def problem(response: httpx.Response) -> tuple[int, str]:
    """Status and code of an answer that is a problem as it should be."""
    assert response.headers["content-type"] == "application/problem+json"
    said = response.json()
    assert said["status"] == response.status_code
    assert "Traceback" not in response.text
    return response.status_code, said["code"]


async def new_token(guard: RunningGuard, name: str, scopes: Sequence[Scope] = tuple(Scope)) -> str:
    return await guard.desks.tokens.create(name, scopes, os.urandom(32), by="test")


def client_of(port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20)


@asynccontextmanager
async def asking(store_url: str, smarthost_port: int, **sections: Any) -> AsyncIterator[Api]:
    """Run a guard with its API for as long as the block."""
    web = ON_LOOPBACK | sections.pop("web", {})
    async with (
        guarding(store_url, smarthost_port, web=web, **sections) as guard,
        client_of(guard.guard.web_endpoints[0].port) as http,
    ):
        yield Api(guard, http, await new_token(guard, "crm"))
