"""Every test of the relay runs on asyncio's own event loop and on uvloop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import uvloop

from smtpguard.relay.smarthost import Smarthost
from tests.support.certificates import Certificates, make_certificates
from tests.support.eventually import eventually
from tests.support.scripted_smarthost import ScriptedSmarthost

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
LOOP_FACTORIES: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

Open = Callable[..., Smarthost]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, LoopFactory]:
    del config, item
    return LOOP_FACTORIES


@pytest.fixture(params=LOOP_FACTORIES)
def loop_factory(request: pytest.FixtureRequest) -> LoopFactory:
    """For tests that run a loop of their own."""
    return LOOP_FACTORIES[request.param]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory) -> Certificates:
    """An authority that the tests trust, with a server's and a client's certificate."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def relay_to() -> AsyncIterator[Open]:
    """Open the client side towards a scripted smarthost.

    Whatever a test does, no place stays taken, and nothing that the event loop calls fails.
    """
    opened: list[Smarthost] = []
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))

    def open_(scripted: ScriptedSmarthost, **settings: Any) -> Smarthost:
        opened.append(Smarthost(scripted.settings(**settings), hostname="guard.test"))
        return opened[-1]

    yield open_
    for smarthost in opened:
        await smarthost.close()
        await eventually(lambda pool=smarthost._pool: pool.borrowed == 0)
        assert smarthost._pool.idle == 0
    assert not failures
