"""Logins: who is right, who is slowed, and that nothing waits for a hash but the one who asked."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager

import argon2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpguard.domain.application import Application, opaque_string
from smtpguard.domain.policy import Policy
from smtpguard.service import logins as module
from smtpguard.service.logins import (
    MAX_STRANGERS,
    MAX_VERIFYING,
    MAX_WRONG_PER_LOGIN,
    MAX_WRONG_PER_NETWORK,
    MAX_WRONG_PER_USERNAME,
    REMEMBERED_SECONDS,
    WINDOW_SECONDS,
    WORKERS,
    Logins,
    LoginsBusy,
)
from smtpguard.service.password_hashes import hash_password

QUICK = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
HOME, ELSEWHERE = "192.0.2.1", "198.51.100.1"


def application(name: str, *passwords: str, hasher: argon2.PasswordHasher = QUICK) -> Application:
    hashes = tuple(hasher.hash(password) for password in passwords)
    return Application(name, (), Policy(), username=name if hashes else "", password_hashes=hashes)


CRM, BILLING, PRINTER = application("crm", "geheim"), application("billing", "old", "new"), application("printer")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def logins(clock) -> AsyncIterator[Logins]:
    logins = Logins([CRM, BILLING, PRINTER], clock)
    yield logins
    logins.close()


@contextmanager
def busy_threads(logins: Logins):
    """Keep all threads busy for as long as the block."""
    release, taken = threading.Event(), threading.Barrier(WORKERS + 1)

    def work() -> None:
        taken.wait(30)
        release.wait(30)

    for _ in range(WORKERS):
        logins._pool.submit(work)
    taken.wait(30)
    try:
        yield
    finally:
        release.set()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0)


async def guess_wrong(logins: Logins, count: int, *, username: str = "crm", network: str = ELSEWHERE) -> None:
    for number in range(count):
        assert await logins.check(username, f"guess {number}", network=network) is None


async def is_busy(logins: Logins, username: str = "crm", password: str = "geheim", *, network: str = HOME) -> bool:
    try:
        await logins.check(username, password, network=network)
    except LoginsBusy:
        return True
    return False


# --- Who is right ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("username", "password", "wanted"),
    [("crm", "geheim", CRM), ("billing", "old", BILLING), ("billing", "new", BILLING)],
)
async def test_right_login(logins, username, password, wanted) -> None:
    """While a password is being changed both will do."""
    assert await logins.check(username, password, network=HOME) is wanted
    assert await logins.check(username, password, network=HOME) is wanted


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("crm", "Geheim"),
        ("crm", "geheim "),
        ("crm", "new"),
        ("crm", ""),
        ("CRM", "geheim"),
        ("crm ", "geheim"),
        ("", "geheim"),
        ("", ""),
        ("printer", ""),
        ("nobody", "geheim"),
        ("c", "rmgeheim"),
    ],
)
async def test_wrong_login(logins, username, password) -> None:
    assert await logins.check("crm", "geheim", network=HOME) is CRM

    assert await logins.check(username, password, network=HOME) is None
    assert await logins.check(username, password, network=HOME) is None


async def test_hash_is_no_password(logins) -> None:
    """Whoever reads the settings cannot log in with what stands there."""
    assert await logins.check("crm", CRM.password_hashes[0], network=HOME) is None


async def test_nobody_logs_in_where_no_application_does(clock) -> None:
    logins = Logins([PRINTER], clock)

    assert await logins.check("printer", "", network=HOME) is None
    assert await logins.check("", "", network=HOME) is None
    logins.close()


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("Geheim 1", "Geheim 1"),
        ("cafe\u0301", "caf\u00e9"),
        ("a\u00a0b\u3000c", "a b c"),
        ("\u212b", "\u00e5".upper()),
        ("\uff41", "\uff41"),
        ("\ufb01", "\ufb01"),
        ("\u00df", "\u00df"),
    ],
)
def test_prepared_form(text, prepared) -> None:
    """RFC 8265 4.2: NFC and plain spaces; no change of case or width, and nothing folded into something else."""
    assert opaque_string(text) == prepared
    assert opaque_string(prepared) == prepared


async def test_same_name_and_password_from_another_keyboard(clock) -> None:
    cafe = Application("shop", (), Policy(), username="caf\u00e9", password_hashes=(hash_password("l\u00e4 \u00e9"),))
    logins = Logins([cafe], clock)

    assert await logins.check("cafe\u0301", "la\u0308\u00a0e\u0301", network=HOME) is cafe
    logins.close()


# --- What an unknown name costs -------------------------------------------------------------------------------------


async def cpu_seconds(logins: Logins, username: str) -> float:
    before = time.process_time()
    assert await logins.check(username, "wrong", network=HOME) is None
    return time.process_time() - before


async def test_unknown_name_costs_what_a_known_one_costs(clock) -> None:
    hasher = argon2.PasswordHasher(time_cost=2, memory_cost=16_384, parallelism=1)
    logins = Logins([application("crm", "a", "b", hasher=hasher)], clock)

    known, unknown = await cpu_seconds(logins, "crm"), await cpu_seconds(logins, "nobody")

    assert 0.5 < unknown / known < 2
    logins.close()


async def test_right_hash_saves_no_time(clock) -> None:
    """The hashes behind the one that fits are tried too."""
    hasher = argon2.PasswordHasher(time_cost=2, memory_cost=16_384, parallelism=1)
    logins = Logins([application("crm", "a", "b", "c", hasher=hasher)], clock)
    wrong = await cpu_seconds(logins, "crm")
    before = time.process_time()
    await logins.check("crm", "a", network=HOME)

    assert (time.process_time() - before) / wrong > 0.5
    logins.close()


def test_unknown_names_cost_what_some_known_one_does(clock) -> None:
    """Where applications have hashes of several costs each unknown name is always like the same one of them."""
    costly = argon2.PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)
    known = [application("crm", "a"), application("billing", "a", "b", hasher=costly)]
    logins = Logins(known, clock)

    def costs(hashes: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(repr(argon2.extract_parameters(hash_)) for hash_ in hashes)

    names = [logins._digest(f"nobody {number}") for number in range(64)]
    unknown = [costs(logins._decoys_for(name)) for name in names]

    assert set(unknown) == {costs(each.password_hashes) for each in known}
    assert unknown == [costs(logins._decoys_for(name)) for name in names]
    logins.close()


# --- Threads --------------------------------------------------------------------------------------------------------


async def test_loop_goes_on_while_a_password_is_hashed(clock) -> None:
    hasher = argon2.PasswordHasher(time_cost=4, memory_cost=32_768, parallelism=1)
    logins = Logins([application("crm", "geheim", hasher=hasher)], clock)
    check = asyncio.create_task(logins.check("crm", "geheim", network=HOME))
    turns = 0
    while not check.done():
        await asyncio.sleep(0)
        turns += 1

    assert turns > 50
    assert (await check) is not None
    logins.close()


async def test_login_of_many_sessions_is_verified_once(logins) -> None:
    """An application that connects many times at once, after a restart of the guard, is no crowd."""
    with busy_threads(logins):
        checks = [asyncio.create_task(logins.check("crm", "geheim", network=HOME)) for _ in range(500)]
        await until(lambda: len(logins._verifying) == 1)

    assert await asyncio.gather(*checks) == [CRM] * 500


async def crowd(logins: Logins, count: int) -> list[asyncio.Task[Application | None]]:
    """So many logins that wait for a thread, each with a name and a network of its own."""
    checks = [asyncio.create_task(logins.check(f"name {n}", "x", network=f"net {n}")) for n in range(count)]
    await until(lambda: len(logins._verifying) == count)
    return checks


async def test_too_many_at_once(logins) -> None:
    with busy_threads(logins):
        checks = await crowd(logins, MAX_STRANGERS)

        with pytest.raises(LoginsBusy, match="too many logins at once"):
            await logins.check("crm", "geheim", network=HOME)

    assert await asyncio.gather(*checks) == [None] * MAX_STRANGERS
    assert await logins.check("crm", "geheim", network=HOME) is CRM


async def test_crowd_of_strangers_leaves_room_for_those_who_are_known(logins, clock) -> None:
    await logins.check("crm", "geheim", network=HOME)
    clock.now += REMEMBERED_SECONDS + 1

    with busy_threads(logins):
        checks = await crowd(logins, MAX_STRANGERS)
        check = asyncio.create_task(logins.check("crm", "geheim", network=HOME))
        await until(lambda: len(logins._verifying) == MAX_STRANGERS + 1)

    assert await check is CRM
    await asyncio.gather(*checks)


async def test_room_for_those_who_are_known_has_an_end_too(logins) -> None:
    for number in range(MAX_VERIFYING + 1):
        logins._trust((f"net {number}", logins._digest(f"name {number}")))

    with busy_threads(logins):
        checks = await crowd(logins, MAX_VERIFYING)
        assert await is_busy(logins, f"name {MAX_VERIFYING}", network=f"net {MAX_VERIFYING}")

    assert await asyncio.gather(*checks) == [None] * MAX_VERIFYING


async def test_remembered_login_waits_for_no_thread(logins) -> None:
    await logins.check("crm", "geheim", network=HOME)

    with busy_threads(logins):
        assert await logins.check("crm", "geheim", network=HOME) is CRM
        assert await logins.check("crm", "geheim", network=ELSEWHERE) is CRM


async def test_client_gone_while_its_password_is_hashed(logins) -> None:
    """Nothing is left behind, and what came out is not wasted."""
    with busy_threads(logins):
        check = asyncio.create_task(logins.check("crm", "geheim", network=HOME))
        other = asyncio.create_task(logins.check("crm", "geheim", network=HOME))
        await until(lambda: bool(logins._verifying))
        check.cancel()
        with pytest.raises(asyncio.CancelledError):
            await check

    assert await other is CRM
    assert logins._verifying == {}
    with busy_threads(logins):
        assert await logins.check("crm", "geheim", network=HOME) is CRM


async def test_wrong_guess_counts_though_its_client_is_gone(logins) -> None:
    for number in range(MAX_WRONG_PER_LOGIN):
        check = asyncio.create_task(logins.check("crm", f"guess {number}", network=ELSEWHERE))
        await until(lambda: bool(logins._verifying))
        check.cancel()
        await until(lambda: not logins._verifying)

    assert await is_busy(logins, network=ELSEWHERE)


async def test_hash_that_cannot_be_verified(clock) -> None:
    """The application hears that it may try again; it was no wrong guess."""
    broken = QUICK.hash("geheim").replace("m=8,t=1,p=1", "m=8,t=1,p=2")  # RFC 9106 3.1: at least 8 KiB a lane
    logins = Logins([Application("crm", (), Policy(), username="crm", password_hashes=(broken,))], clock)

    for _ in range(2 * MAX_WRONG_PER_LOGIN):
        with pytest.raises(LoginsBusy, match="a password hash cannot be verified: Memory cost is too small"):
            await logins.check("crm", "geheim", network=HOME)
    logins.close()


# --- The end --------------------------------------------------------------------------------------------------------


async def test_close_sends_those_away_who_wait(logins) -> None:
    with busy_threads(logins):
        check = asyncio.create_task(logins.check("crm", "geheim", network=HOME))
        await until(lambda: bool(logins._verifying))
        logins.close()

        with pytest.raises(LoginsBusy, match="the settings have been read again, or the guard ends"):
            await check


async def test_closed_logins_let_nobody_in(logins) -> None:
    """Also whom they remember: an application may have been taken out of the settings."""
    await logins.check("crm", "geheim", network=HOME)
    logins.close()

    assert await is_busy(logins, "crm", "geheim")
    assert await is_busy(logins, "billing", "new")
    logins.close()


async def test_threads_end(clock) -> None:
    before = set(threading.enumerate())
    logins = Logins([CRM], clock)
    await logins.check("crm", "geheim", network=HOME)
    threads = set(threading.enumerate()) - before
    logins.close()

    assert threads
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_loop_that_ends_before_a_thread_does(clock, caplog) -> None:
    logins = Logins([CRM], clock)

    async def begin() -> None:
        check = asyncio.create_task(logins.check("crm", "geheim", network=HOME))
        await until(lambda: bool(logins._verifying))
        check.cancel()

    block = threading.Event()
    for _ in range(WORKERS):
        logins._pool.submit(block.wait, 30)
    asyncio.run(begin())
    (verification,) = logins._verifying.values()
    block.set()

    assert verification.job.result(30) is CRM
    logins.close()
    logins._pool.shutdown(wait=True)
    assert caplog.records == []


# --- What is remembered ---------------------------------------------------------------------------------------------


async def test_login_in_use_stays_remembered(logins, clock) -> None:
    await logins.check("crm", "geheim", network=HOME)

    with busy_threads(logins):
        for _ in range(5):
            clock.now += REMEMBERED_SECONDS - 1
            assert await logins.check("crm", "geheim", network=HOME) is CRM


async def test_login_out_of_use_is_forgotten(logins, clock) -> None:
    await logins.check("crm", "geheim", network=HOME)
    clock.now += REMEMBERED_SECONDS + 1

    with busy_threads(logins):
        check = asyncio.create_task(logins.check("crm", "geheim", network=HOME))
        await until(lambda: bool(logins._verifying))

    assert await check is CRM


async def test_nothing_is_kept_in_the_clear(logins) -> None:
    await logins.check("crm", "geheim", network=HOME)
    await logins.check("crm", "wrong-guess", network=HOME)

    kept = repr((logins._remembered, logins._failures._since, logins._trusted))
    assert "geheim" not in kept
    assert "wrong-guess" not in kept


# --- Wrong guesses --------------------------------------------------------------------------------------------------


async def test_guessing_is_slowed(logins, clock) -> None:
    """Also the right password is not looked at then, or it could be told from the wrong ones."""
    await guess_wrong(logins, MAX_WRONG_PER_LOGIN)

    assert await is_busy(logins, network=ELSEWHERE)
    assert await is_busy(logins, password="another guess", network=ELSEWHERE)
    clock.now += WINDOW_SECONDS + 1
    assert await logins.check("crm", "geheim", network=ELSEWHERE) is CRM


async def test_guesses_made_at_once_do_not_outrun_the_limit(logins) -> None:
    with busy_threads(logins):
        checks = [
            asyncio.create_task(logins.check("crm", f"guess {number}", network=ELSEWHERE))
            for number in range(MAX_WRONG_PER_LOGIN)
        ]
        await until(lambda: len(logins._verifying) == MAX_WRONG_PER_LOGIN)

        assert await is_busy(logins, network=ELSEWHERE)
    assert await asyncio.gather(*checks) == [None] * MAX_WRONG_PER_LOGIN


async def test_old_password_over_and_over_is_one_guess(logins) -> None:
    """An application that was not told of a new password slows nobody down, and costs nothing."""
    assert await logins.check("crm", "old", network=HOME) is None

    with busy_threads(logins):
        for _ in range(1000):
            assert await logins.check("crm", "old", network=HOME) is None
    assert await logins.check("crm", "geheim", network=HOME) is CRM


async def test_old_password_is_looked_at_again_later(logins, clock) -> None:
    await logins.check("crm", "old", network=HOME)
    clock.now += WINDOW_SECONDS + 1

    with busy_threads(logins):
        check = asyncio.create_task(logins.check("crm", "old", network=HOME))
        await until(lambda: bool(logins._verifying))
    assert await check is None


async def test_guesser_slows_no_other_network(logins) -> None:
    await guess_wrong(logins, MAX_WRONG_PER_LOGIN)

    assert await logins.check("crm", "geheim", network=HOME) is CRM


async def test_guesser_slows_no_other_name_on_its_network(logins) -> None:
    await guess_wrong(logins, MAX_WRONG_PER_LOGIN, network=HOME)

    assert await logins.check("billing", "new", network=HOME) is BILLING


async def test_guessing_many_names_is_slowed(logins) -> None:
    for number in range(MAX_WRONG_PER_NETWORK):
        await guess_wrong(logins, 1, username=f"name {number}")

    assert await is_busy(logins, network=ELSEWHERE)
    assert await logins.check("crm", "geheim", network=HOME) is CRM


async def guess_from_everywhere(logins: Logins, username: str = "crm") -> None:
    for number in range(MAX_WRONG_PER_USERNAME):
        await guess_wrong(logins, 1, username=username, network=f"2001:db8:0:{number}::/64")


async def test_guessing_from_many_networks_is_slowed(logins, clock) -> None:
    await guess_from_everywhere(logins)

    assert await is_busy(logins, network=HOME)
    assert await logins.check("billing", "new", network=HOME) is BILLING
    clock.now += WINDOW_SECONDS + 1
    assert await logins.check("crm", "geheim", network=HOME) is CRM


async def test_botnet_does_not_lock_an_application_out(logins, clock) -> None:
    """From where it has logged in before only what went wrong there counts, long after its login was forgotten."""
    await logins.check("crm", "geheim", network=HOME)
    clock.now += REMEMBERED_SECONDS + 1
    await guess_from_everywhere(logins)

    assert await is_busy(logins, network=ELSEWHERE)
    assert await logins.check("crm", "geheim", network=HOME) is CRM


async def test_neighbour_who_guesses_does_not_lock_an_application_out(logins, clock) -> None:
    await logins.check("crm", "geheim", network=HOME)
    clock.now += REMEMBERED_SECONDS + 1
    for number in range(MAX_WRONG_PER_NETWORK):
        await guess_wrong(logins, 1, username=f"name {number}", network=HOME)

    assert await is_busy(logins, "billing", "new", network=HOME)
    assert await logins.check("crm", "geheim", network=HOME) is CRM


async def test_remembered_login_is_never_slowed(logins) -> None:
    await logins.check("crm", "geheim", network=HOME)
    await guess_wrong(logins, MAX_WRONG_PER_LOGIN, network=HOME)

    assert await is_busy(logins, password="another guess", network=HOME)
    assert await logins.check("crm", "geheim", network=HOME) is CRM


async def test_network_that_is_known_is_slowed_all_the_same(logins) -> None:
    """To have logged in once is no licence to guess."""
    await logins.check("billing", "old", network=HOME)
    await guess_wrong(logins, MAX_WRONG_PER_LOGIN, username="billing", network=HOME)

    assert await is_busy(logins, "billing", "new", network=HOME)


async def test_right_login_wipes_nothing_out(logins) -> None:
    """Or whoever has one login could guess another without end."""
    for number in range(MAX_WRONG_PER_NETWORK):
        await guess_wrong(logins, 1, username=f"name {number}", network=HOME)
        if number % 7 == 0:
            assert await logins.check("crm", "geheim", network=HOME) is CRM

    assert await is_busy(logins, "billing", "new", network=HOME)


@pytest.mark.parametrize("username", ["crm", "nobody"])
async def test_unknown_name_is_slowed_like_a_known_one(logins, username) -> None:
    await guess_from_everywhere(logins, username)

    assert await is_busy(logins, username, "x", network=HOME)


async def test_right_passwords_are_no_guesses(logins, clock) -> None:
    for _ in range(3 * MAX_WRONG_PER_LOGIN):
        clock.now += REMEMBERED_SECONDS + 1
        assert await logins.check("crm", "geheim", network=HOME) is CRM

    assert logins._failures._since == {}
    assert logins._failures._counts == Counter()


async def test_memory_for_wrong_guesses_is_bounded(logins, monkeypatch) -> None:
    """The oldest go, and no longer count."""
    monkeypatch.setattr(module, "MAX_FAILURES", MAX_WRONG_PER_LOGIN)
    await guess_wrong(logins, MAX_WRONG_PER_LOGIN)
    assert await is_busy(logins, network=ELSEWHERE)
    await guess_wrong(logins, 1, username="nobody", network=HOME)

    assert len(logins._failures._since) == MAX_WRONG_PER_LOGIN
    assert await logins.check("crm", "geheim", network=ELSEWHERE) is CRM


async def test_memory_for_known_networks_is_bounded(logins, monkeypatch) -> None:
    """The one used longest ago goes."""
    monkeypatch.setattr(module, "MAX_TRUSTED", 2)
    for network in (HOME, ELSEWHERE, HOME, "192.0.2.3"):
        await logins.check("crm", "geheim", network=network)

    assert [network for network, _ in logins._trusted] == [HOME, "192.0.2.3"]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.binary(max_size=1), st.integers(0, 20)), max_size=60),
    st.integers(0, 70),
)
def test_failures_are_counted_as_they_are(attempts, before) -> None:
    """Whatever was added, removed and forgotten: each kind is counted exactly."""
    failures = module._Failures()
    failures.remove(module._Attempt("a", b"", b""))  # was forgotten before it came out right
    model: dict[module._Attempt, float] = {}
    for now, (network, username, guess) in enumerate(attempts):
        attempt = module._Attempt(network, username, bytes([guess]))
        if attempt in failures:
            failures.remove(attempt)
            del model[attempt]
        else:
            failures.add(attempt, now)
            model[attempt] = now
    failures.forget(before)

    left = [attempt for attempt, since in model.items() if since >= before]
    assert list(failures._since) == left
    assert failures._counts == Counter(kind for attempt in left for kind in module._kinds(attempt))
