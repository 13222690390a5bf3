"""A guard with its recipients' pages, and somebody who looks at them with a plain HTTP client."""

from collections.abc import AsyncIterator

import pytest

from tests.support.recipient import Recipient, receiving
from tests.support.scripted_smarthost import ScriptedSmarthost


@pytest.fixture
async def smarthost() -> AsyncIterator[ScriptedSmarthost]:
    async with ScriptedSmarthost() as smarthost:
        yield smarthost


@pytest.fixture
async def recipient(sqlite_url, smarthost, monkeypatch) -> AsyncIterator[Recipient]:
    async with receiving(sqlite_url, smarthost, monkeypatch) as recipient:
        yield recipient
