"""Logins: does this name and this password belong to an application?

A password is hashed with argon2id, which takes tens of milliseconds and of MiB on purpose. So that this holds up
neither the event loop nor the guard, it is done in a few threads of its own, with a bounded line in front of them;
the same login, asked for by many sessions at once, is verified once, and one that was right is remembered for a while.

Wrong guesses are counted: for a name from a network, for a network and for a name. Where there were too many of late
the next one is not looked at. Nobody locks an application out by this: its password is remembered, and from a network
where it has logged in before only the wrong guesses from there count against its name, and half of the line is kept
for it. The same wrong password over and over is one guess, so that an application with an old password slows nobody
down.

An unknown name costs what a known one costs: it is verified against a hash that no password has.
"""

import asyncio
import hmac
import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent import futures
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

from argon2.exceptions import VerificationError

from smtpguard.domain.application import Application, opaque_string
from smtpguard.service.password_hashes import decoy, fits

WORKERS = 2
"""Threads that hash: each takes a processor and, by default, 19 MiB while it does."""
MAX_VERIFYING = 128
"""Logins that are being verified or wait for it: two or three seconds of work for the threads."""
MAX_STRANGERS = 64
"""How many of these there may be when one comes that has not logged in from there before."""
REMEMBERED_SECONDS = 600.0
"""How long a right login is remembered after it was last used."""
WINDOW_SECONDS = 300.0
"""How long a wrong guess counts."""
MAX_WRONG_PER_LOGIN = 10
"""For one name, from one network."""
MAX_WRONG_PER_NETWORK = 50
MAX_WRONG_PER_USERNAME = 100
MAX_FAILURES = 16_384
"""Wrong guesses that are remembered at a time, about 10 MiB; beyond that the oldest one is forgotten."""
MAX_TRUSTED = 4096
"""Networks, each with a name, of which it is remembered that the name has logged in from there."""

_CLOSED = "the settings have been read again, or the guard ends"


class LoginsBusy(Exception):
    """It cannot be said now whether a login is right; the message, for an operator, says why."""


class _Attempt(NamedTuple):
    """Who tries what. Name and password only as digests under a key of this process."""

    network: str
    username: bytes
    guess: bytes

    @property
    def login(self) -> tuple[str, bytes]:
        return self.network, self.username


class _Failures:
    """The wrong guesses of the last WINDOW_SECONDS, and how many there are of each kind."""

    def __init__(self) -> None:
        self._since: dict[_Attempt, float] = {}  # the oldest first
        self._counts: Counter[str | bytes | tuple[str, bytes]] = Counter()

    def __contains__(self, attempt: _Attempt) -> bool:
        return attempt in self._since

    def add(self, attempt: _Attempt, now: float) -> None:
        self._since[attempt] = now
        self._counts.update(_kinds(attempt))
        if len(self._since) > MAX_FAILURES:
            self.remove(next(iter(self._since)))

    def remove(self, attempt: _Attempt) -> None:
        if self._since.pop(attempt, None) is None:
            return
        for kind in _kinds(attempt):
            self._counts[kind] -= 1
            if not self._counts[kind]:
                del self._counts[kind]

    def forget(self, before: float) -> None:
        """Remove those that are older."""
        old = list(takewhile(lambda attempt: self._since[attempt] < before, self._since))
        for attempt in old:
            self.remove(attempt)

    def are_many(self, attempt: _Attempt, *, trusted: bool) -> bool:
        """Whether this name, from this network, has to wait."""
        return self._counts[attempt.login] >= MAX_WRONG_PER_LOGIN or (
            not trusted
            and (
                self._counts[attempt.network] >= MAX_WRONG_PER_NETWORK
                or self._counts[attempt.username] >= MAX_WRONG_PER_USERNAME
            )
        )


def _kinds(attempt: _Attempt) -> tuple[str | bytes | tuple[str, bytes], ...]:
    return attempt.login, attempt.network, attempt.username


@dataclass(frozen=True, slots=True)
class _Verification:
    """A password on its way through the threads; ``settled`` comes after the outcome has been taken note of."""

    job: futures.Future[Application | None]
    settled: asyncio.Event


@dataclass(slots=True)
class _Remembered:
    application: Application
    used: float


class Logins:
    """Checks logins against these applications. To be used in one event loop, and closed.

    ``clock`` gives seconds that never go back. When the settings are read again a new one is made: nothing that was
    remembered under the old ones counts under the new.
    """

    def __init__(self, applications: Iterable[Application], clock: Callable[[], float]) -> None:
        self._clock = clock
        self._applications = {opaque_string(each.username): each for each in applications if each.username}
        self._decoys = [
            tuple(decoy(hash_) for hash_ in application.password_hashes) for application in self._applications.values()
        ]
        self._key = secrets.token_bytes(32)
        self._remembered: dict[bytes, _Remembered] = {}  # at most one a password hash
        self._verifying: dict[bytes, _Verification] = {}
        self._failures = _Failures()
        self._trusted: dict[tuple[str, bytes], None] = {}  # the one used longest ago first
        self._pool = futures.ThreadPoolExecutor(WORKERS, thread_name_prefix="login")
        self._is_closed = False

    async def check(self, username: str, password: str, *, network: str) -> Application | None:
        """Return the application that logs in so, None if none does. ``network``: what the session is counted under.

        Raises LoginsBusy: the password was not looked at. May be cancelled at any time.
        """
        username, password = opaque_string(username), opaque_string(password)
        if self._is_closed:
            raise LoginsBusy(_CLOSED)
        attempt = _Attempt(network, self._digest(username), self._digest(username, password))
        application = self._recall(attempt.guess) or await self._verified(attempt, username, password)
        if application is not None:
            self._trust(attempt.login)
        return application

    def close(self) -> None:
        """Take no more: whoever waits for a thread hears LoginsBusy. The threads end with what they are doing."""
        self._is_closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _digest(self, *texts: str) -> bytes:
        message = b"".join(b"%d:%b" % (len(octets), octets) for octets in (text.encode("utf-8") for text in texts))
        return hmac.digest(self._key, message, "sha256")

    # What was right

    def _recall(self, guess: bytes) -> Application | None:
        remembered = self._remembered.get(guess)
        now = self._clock()
        if remembered is None:
            return None
        if remembered.used + REMEMBERED_SECONDS < now:
            del self._remembered[guess]
            return None
        remembered.used = now
        return remembered.application

    def _trust(self, login: tuple[str, bytes]) -> None:
        self._trusted.pop(login, None)
        self._trusted[login] = None
        if len(self._trusted) > MAX_TRUSTED:
            del self._trusted[next(iter(self._trusted))]

    # Verifying

    async def _verified(self, attempt: _Attempt, username: str, password: str) -> Application | None:
        verification = self._verifying.get(attempt.guess)
        if verification is None:
            self._failures.forget(self._clock() - WINDOW_SECONDS)
            if attempt in self._failures:
                return None
            verification = self._begin(attempt, username, password)
        await verification.settled.wait()
        try:
            return verification.job.result()
        except futures.CancelledError:
            raise LoginsBusy(_CLOSED) from None
        except (VerificationError, MemoryError) as error:
            raise LoginsBusy(f"a password hash cannot be verified: {error}") from error

    def _begin(self, attempt: _Attempt, username: str, password: str) -> _Verification:
        """Have a password verified. Until that is done it counts as wrong, or many at once would outrun the limits."""
        trusted = attempt.login in self._trusted
        if self._failures.are_many(attempt, trusted=trusted):
            raise LoginsBusy("too many wrong passwords of late")
        if len(self._verifying) >= (MAX_VERIFYING if trusted else MAX_STRANGERS):
            raise LoginsBusy("too many logins at once")
        application = self._applications.get(username)
        hashes = application.password_hashes if application else self._decoys_for(attempt.username)
        job = self._pool.submit(_verify, application, hashes, password)
        verification = self._verifying[attempt.guess] = _Verification(job, asyncio.Event())
        self._failures.add(attempt, self._clock())
        loop = asyncio.get_running_loop()
        job.add_done_callback(lambda _: _call_back(loop, lambda: self._settle(attempt, verification)))
        return verification

    def _decoys_for(self, username: bytes) -> tuple[str, ...]:
        """Let an unknown name cost what one of the known ones does, always the same one."""
        return self._decoys[int.from_bytes(username) % len(self._decoys)] if self._decoys else ()

    def _settle(self, attempt: _Attempt, verification: _Verification) -> None:
        """Take note of the outcome, whether or not anybody still waits for it."""
        del self._verifying[attempt.guess]
        job = verification.job
        if job.cancelled() or job.exception() is not None:
            self._failures.remove(attempt)  # it was not a guess: nothing was learnt
        elif application := job.result():
            self._failures.remove(attempt)
            self._remembered[attempt.guess] = _Remembered(application, self._clock())
        verification.settled.set()


def _verify(application: Application | None, hashes: tuple[str, ...], password: str) -> Application | None:
    """Try all hashes, also behind one that fits, so that the time says nothing. In a thread."""
    fit = [fits(hash_, password) for hash_ in hashes]
    return application if any(fit) else None


def _call_back(loop: asyncio.AbstractEventLoop, settle: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
        loop.call_soon_threadsafe(settle)
