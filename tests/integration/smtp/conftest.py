"""What tests of the whole guard in one process share."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest


@pytest.fixture
async def nothing_outlives() -> AsyncIterator[None]:
    """When the test is over no task is left, and nothing that the event loop calls has failed."""
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    yield
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert failures == []
