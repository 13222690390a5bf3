"""A line in front of a channel to PostgreSQL: requests that have arrived together are one exchange.

It is ``line.Line`` on the event loop: the same promises without a thread. What arrives in one turn of the loop, or
while an exchange is under way, goes together; nobody waits for company. One timer watches over all who wait.
"""

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from itertools import chain
from typing import Generic, Protocol, TypeVar

from smtpguard.errors import StoreUnavailable
from smtpguard.storage.driver_errors import MAX_DEADLOCKS, as_store_error, is_deadlock
from smtpguard.storage.line import MAX_TOGETHER, LineFailed, Place, copies, hand_out
from smtpguard.storage.postgres_channel import Channel, Outcome, Rows
from smtpguard.storage.postgres_statements import Command

Request = TypeVar("Request")
Answer = TypeVar("Answer")
Asked_contra = TypeVar("Asked_contra", contravariant=True)
Answered_co = TypeVar("Answered_co", covariant=True)


class Conversation(Protocol[Asked_contra, Answered_co]):
    """How requests are put to the server, and its rows read."""

    def commands(self, requests: Sequence[Asked_contra]) -> Sequence[Command]:
        """Return what is said for these requests, as one transaction."""

    def answers(self, requests: Sequence[Asked_contra], rows: Sequence[Rows]) -> Sequence[Answered_co]:
        """Read one answer a request out of the rows of each command."""


class _TimedPlace(Place[Request, Answer]):
    """A place with an end to the waiting."""

    __slots__ = ("until",)

    def __init__(self, request: Request, answer: asyncio.Future[Answer], until: float) -> None:
        super().__init__(request, answer)
        self.until = until


class PostgresLine(Generic[Request, Answer]):
    """The line and its channel. Who has waited for so many seconds hears StoreUnavailable, with ``too_late``."""

    def __init__(
        self, channel: Channel, conversation: Conversation[Request, Answer], *, seconds: float, too_late: str
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._channel = channel
        self._conversation = conversation
        self._seconds = seconds
        self._too_late = too_late
        self._waiting: deque[_TimedPlace[Request, Answer]] = deque()
        self._alone: deque[_TimedPlace[Request, Answer]] = deque()
        """Who was served together in vain, to be served alone."""
        self._served: Sequence[_TimedPlace[Request, Answer]] = ()
        self._answer_by = math.inf
        self._deadlocks = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._at_rest = asyncio.Event()
        self._at_rest.set()

    def ask(self, request: Request) -> asyncio.Future[Answer]:
        """Return what becomes the answer, or raises what serving raised."""
        if self._is_closed:
            raise StoreUnavailable("the store is closed")
        place = _TimedPlace(request, self._loop.create_future(), self._loop.time() + self._seconds)
        self._waiting.append(place)
        if self._at_rest.is_set():
            self._at_rest.clear()
            self._loop.call_soon(self._go_on)
        if self._alarm is None:
            self._alarm = self._loop.call_later(self._channel.answer_seconds, self._watch)
        return place.answer

    async def close(self) -> None:
        """Take no more requests, serve those that wait, and disconnect."""
        self._is_closed = True
        await self._at_rest.wait()
        if self._alarm is not None:
            self._alarm.cancel()
        self._channel.disconnect()

    def _go_on(self) -> None:
        self._served, self._deadlocks = self._next(), 0
        self._begin()

    def _next(self) -> Sequence[_TimedPlace[Request, Answer]]:
        """Take who is to be served now, out of those who still wait."""
        while self._alone:
            place = self._alone.popleft()
            if not place.is_abandoned:
                return [place]
        places: list[_TimedPlace[Request, Answer]] = []
        while self._waiting and len(places) < MAX_TOGETHER:
            place = self._waiting.popleft()
            if not place.is_abandoned:
                places.append(place)
        return places

    def _begin(self) -> None:
        if not self._served:
            self._at_rest.set()
        elif self._channel.is_connected():
            self._serve()
        else:
            self._channel.connect(self._connected)

    def _connected(self, failure: LineFailed | None) -> None:
        self._served = [place for place in self._served if not place.is_abandoned]
        if failure is not None:
            self._refuse(failure)
        elif self._served:
            self._serve()
        else:
            self._go_on()

    def _serve(self) -> None:
        try:
            commands = self._conversation.commands([place.request for place in self._served])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
            self._refuse(error)
            return
        self._answer_by = self._loop.time() + self._channel.answer_seconds
        self._channel.exchange(commands, self._ended)

    def _ended(self, outcome: Outcome) -> None:
        self._answer_by = math.inf
        if isinstance(outcome, Exception):
            self._failed(outcome)
            return
        try:
            hand_out(self._served, self._conversation.answers([place.request for place in self._served], outcome))
        except Exception as error:  # noqa: BLE001 - as above
            self._refuse(error)
        else:
            self._go_on()

    def _failed(self, error: Exception) -> None:
        """Find out what an error of the driver means; a deadlock means that nothing was done, and to do it again."""
        if is_deadlock(error) and self._deadlocks < MAX_DEADLOCKS:
            self._deadlocks += 1
            self._loop.call_soon(self._begin)
            return
        problem = error if isinstance(error, LineFailed) else as_store_error(error)
        if problem is None:
            self._channel.disconnect()  # the mistake may be the connection's: its statements are gone, say
        elif problem is not error:
            problem.__cause__ = error
        self._refuse(problem or error)

    def _refuse(self, error: Exception) -> None:
        """Let who was served hear it, or be served alone."""
        if isinstance(error, LineFailed):
            places = [*self._served, *self._alone]
            self._alone.clear()
            hand_out(places, copies(error, len(places)))
        elif len(self._served) == 1:
            hand_out(self._served, [error])
        else:
            self._alone.extend(self._served)
        self._loop.call_soon(self._go_on)

    def _watch(self) -> None:
        """End the waiting of those who have waited long enough, and that for the server."""
        now = self._loop.time()
        if self._answer_by <= now:
            self._channel.give_up()
        ends = [now + self._channel.answer_seconds, self._answer_by]
        for place in chain(self._served, self._alone, self._waiting):
            if place.is_abandoned:
                continue
            if place.until <= now:
                place.answer.set_exception(StoreUnavailable(self._too_late))
            else:
                ends.append(place.until)
        self._alarm = None if self._at_rest.is_set() else self._loop.call_at(min(ends), self._watch)
