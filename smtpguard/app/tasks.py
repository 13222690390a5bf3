"""The tasks of a guard: all of them belong to one TaskGroup."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from smtpguard.telemetry import Event, Logger

LAST_SECONDS = 1.0
"""For what is only being written down when the sessions have ended."""

Spawn = Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]
"""Starts a task that belongs to the guard's TaskGroup."""


@asynccontextmanager
async def task_group(logger: Logger) -> AsyncIterator[Spawn]:
    """Give a way to start tasks; at the end of the block those that remain get LAST_SECONDS, and are cancelled then."""
    started: set[asyncio.Task[Any]] = set()
    try:
        async with asyncio.TaskGroup() as group:

            def spawn(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
                task = group.create_task(_watched(work, logger))
                started.add(task)
                task.add_done_callback(started.discard)
                return task

            try:
                yield spawn
            finally:
                await _finish(started)
    except BaseExceptionGroup as group_of_one:
        # What the block itself raised is for its caller, who knows of no group.
        [error, *others] = group_of_one.exceptions
        if others:
            raise
        raise error from None


async def _watched(work: Coroutine[Any, Any, Any], logger: Logger) -> Any:
    """Carry out work that is not to raise; if it does, that ends no other."""
    try:
        return await work
    except Exception as error:  # in a TaskGroup it would cancel everybody
        with suppress(Exception):
            logger.error(Event.TRANSACTION_FAILED, exc_info=error)


async def _finish(started: set[asyncio.Task[Any]]) -> None:
    if started:
        _, late = await asyncio.wait(started, timeout=LAST_SECONDS)
        for task in late:
            task.cancel()
