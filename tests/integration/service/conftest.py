"""A guard's services between a real store and a smarthost that follows a script."""

from collections.abc import AsyncIterator

import pytest

from smtpguard.app import Desks, open_desks
from tests.support.guard import make_settings
from tests.support.scripted_smarthost import ScriptedSmarthost


@pytest.fixture
async def smarthost() -> AsyncIterator[ScriptedSmarthost]:
    async with ScriptedSmarthost() as smarthost:
        yield smarthost


@pytest.fixture
async def desks(store_url, smarthost) -> AsyncIterator[Desks]:
    limits = {"command_timeout": 0.5, "connect_timeout": 0.5, "data_timeout": 0.5, "reply_timeout": 0.5}
    async with open_desks(make_settings(store_url, smarthost.port, smarthost=limits)) as desks:
        yield desks
