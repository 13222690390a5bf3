"""A thread with a line in front of it: requests that have arrived together are served together.

The thread begins as soon as it is idle; nobody waits for company. Where serving together fails, each request is served
alone, so that a bad one fails alone. Every request gets an answer, and one that nobody waits for any more is not begun.
"""

import asyncio
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any, Generic, TypeVar

from smtpguard.errors import StoreUnavailable

MAX_TOGETHER = 100

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class LineFailed(StoreUnavailable):
    """The store failed, whoever asked: to serve the others alone would fail as well."""


class Place(Generic[Request, Answer]):
    """One request in the line, and where its answer goes."""

    __slots__ = ("answer", "request")

    def __init__(self, request: Request, answer: asyncio.Future[Answer]) -> None:
        self.request = request
        self.answer = answer

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.answer.done()


class Line(Generic[Request, Answer]):
    """The line and its thread. ``serve`` runs in the thread and gives one answer a request, or raises."""

    def __init__(self, name: str, serve: Callable[[Sequence[Request]], Sequence[Answer]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._serve = serve
        self._waiting: SimpleQueue[Place[Request, Answer] | None] = SimpleQueue()
        self._is_closed = False
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def ask(self, request: Request, *, seconds: float) -> Answer:
        """Return the answer, or raise what serving raised; TimeoutError after so many seconds."""
        if self._is_closed:
            raise StoreUnavailable("the store is closed")
        place: Place[Request, Answer] = Place(request, self._loop.create_future())
        self._waiting.put(place)
        timer = self._loop.call_later(seconds, _give_up, place)
        try:
            return await place.answer
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Take no more requests, serve those that wait, and end the thread."""
        if not self._is_closed:
            self._is_closed = True
            self._waiting.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while places := self._take():
            wanted = [place for place in places if not place.is_abandoned]
            answers = self._answers(wanted) if wanted else []
            self._loop.call_soon_threadsafe(hand_out, wanted, answers)

    def _take(self) -> list[Place[Request, Answer]]:
        """Wait for the first in line and take with it who has come meanwhile; nobody: the line is closed."""
        places: list[Place[Request, Answer]] = []
        while not places or (len(places) < MAX_TOGETHER and not self._waiting.empty()):
            place = self._waiting.get()
            if place is None:
                if places:
                    self._waiting.put(None)  # to be found again, once these are served
                break
            places.append(place)
        return places

    def _answers(self, places: Sequence[Place[Request, Answer]]) -> list[Answer | Exception]:
        try:
            return list(self._serve([place.request for place in places]))
        except LineFailed as failure:
            return copies(failure, len(places))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
            return [error] if len(places) == 1 else self._one_by_one(places)

    def _one_by_one(self, places: Sequence[Place[Request, Answer]]) -> list[Answer | Exception]:
        answers: list[Answer | Exception] = []
        for place in places:
            if place.is_abandoned:
                answers.append(LineFailed("nobody waits for it"))
                continue
            answers += self._answers([place])
            if isinstance(failure := answers[-1], LineFailed):
                return answers + copies(failure, len(places) - len(answers))
        return answers


def copies(failure: LineFailed, number: int) -> list[Answer | Exception]:
    """Return one exception for each who asked: one that is raised in several tasks muddles their tracebacks."""
    return [_copy(failure) for _ in range(number)]


def _copy(failure: LineFailed) -> LineFailed:
    copy = type(failure)(*failure.args)
    copy.__cause__ = failure.__cause__
    return copy


def _give_up(place: Place[Any, Any]) -> None:
    if not place.answer.done():
        place.answer.set_exception(TimeoutError())


def hand_out(places: Sequence[Place[Request, Answer]], answers: Sequence[Answer | Exception]) -> None:
    """Give each who still waits the answer, or raise it."""
    for place, answer in zip(places, answers, strict=True):
        if place.answer.done():
            continue
        if isinstance(answer, Exception):
            place.answer.set_exception(answer)
        else:
            place.answer.set_result(answer)
