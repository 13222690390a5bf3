"""Errands: a few at a time, a bounded line, and one of those that are the same."""

import asyncio

from smtpguard.service.errands import Errands


class Work:
    """Errands that wait for a word, and what was done."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.begun: list[str] = []
        self.tasks: list[asyncio.Task] = []

    def spawn(self, work) -> asyncio.Task:
        self.tasks.append(asyncio.create_task(work))
        return self.tasks[-1]

    def errand(self, name: str):
        async def run() -> None:
            self.begun.append(name)
            await self.go_on.wait()

        return run


async def test_few_at_a_time_and_a_bounded_line() -> None:
    work = Work()
    errands = Errands(work.spawn, at_once=2, max_waiting=3)
    begun = []
    for name in "abcdef":
        begun.append(errands.begin(name, work.errand(name)))
        await asyncio.sleep(0)

    assert begun == [True] * 5 + [False]
    assert work.begun == ["a", "b"]
    work.go_on.set()
    await asyncio.gather(*work.tasks)
    assert work.begun == list("abcde")
    assert errands.begin("f", work.errand("f"))
    await asyncio.gather(*work.tasks)
    assert work.begun == list("abcdef")


async def test_one_of_those_that_are_the_same() -> None:
    work = Work()
    errands = Errands(work.spawn, at_once=1, max_waiting=1)

    assert [errands.begin("a", work.errand(name)) for name in "abc"] == [True] * 3
    work.go_on.set()
    await asyncio.gather(*work.tasks)
    assert work.begun == ["a"]


async def test_closed_ones_begin_no_more() -> None:
    work = Work()
    errands = Errands(work.spawn, at_once=1, max_waiting=10)
    for name in "ab":
        errands.begin(name, work.errand(name))
    await asyncio.sleep(0)
    errands.close()
    work.go_on.set()
    await asyncio.gather(*work.tasks)

    assert work.begun == ["a"]
    assert not errands.begin("c", work.errand("c"))
