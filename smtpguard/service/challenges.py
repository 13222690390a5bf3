"""Answers to challenges: hashed and compared off the event loop, with a bounded line in front of the threads."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from smtpguard.domain.invitation import comparable_answer
from smtpguard.errors import Busy
from smtpguard.service.password_hashes import fits, hash_password, new_decoy

WORKERS = 2
MAX_AT_ONCE = 64
"""Answers that are being looked at or wait for it: a second or two of work for the threads."""

T = TypeVar("T")


class Challenges:
    """Hashes and compares. To be used in one event loop, and closed."""

    def __init__(self) -> None:
        self._decoy = new_decoy()
        self._taken = 0
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="smtpguard-challenge")

    @contextmanager
    def place(self) -> Iterator[None]:
        """Have a place in the line, so that a try is taken only where it will be looked at; raises Busy."""
        if self._taken >= MAX_AT_ONCE:
            raise Busy("too many answers are being looked at")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    async def hashed(self, answer: str) -> str:
        """Return the hash that an answer is compared with later."""
        return await self._in_thread(lambda: hash_password(comparable_answer(answer)))

    async def fits(self, answer_hash: str | None, answer: str) -> bool:
        """Whether an answer is the right one; where there is no hash it takes as long, and is not."""
        return await self._in_thread(lambda: fits(answer_hash or self._decoy, comparable_answer(answer)))

    def close(self) -> None:
        """Take no more; the threads end with what they are doing."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
