"""A guard with its API, in front of a smarthost, on a store of the test's own."""

from collections.abc import AsyncIterator

import pytest

from tests.support.api import Api, asking
from tests.support.scripted_smarthost import ScriptedSmarthost


@pytest.fixture
async def smarthost() -> AsyncIterator[ScriptedSmarthost]:
    async with ScriptedSmarthost() as smarthost:
        yield smarthost


@pytest.fixture
async def api(sqlite_url, smarthost) -> AsyncIterator[Api]:
    async with asking(sqlite_url, smarthost.port) as api:
        yield api
