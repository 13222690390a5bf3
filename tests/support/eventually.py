"""Wait for something that another task or process brings about, and never longer than needed."""

import asyncio
from collections.abc import Awaitable, Callable


async def eventually(condition: Callable[[], bool | Awaitable[bool]], *, within: float = 20.0) -> None:
    """Return as soon as the condition holds; fail if it does not within so many seconds."""
    async with asyncio.timeout(within):
        while True:
            held = condition()
            if await held if isinstance(held, Awaitable) else held:
                return
            await asyncio.sleep(0.005)
