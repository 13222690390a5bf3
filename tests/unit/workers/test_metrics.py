"""The numbers of several workers, added up through files beside each other."""

import json

from smtpguard.workers import metrics
from smtpguard.workers.metrics import SharedMetrics


def begun(directory, number: int, *, is_open: int, opened: int) -> SharedMetrics:
    worker = SharedMetrics(directory, number)
    worker._sessions = lambda: (is_open, opened)
    metrics._write(worker._file, worker.numbers())
    return worker


async def test_numbers_of_all(tmp_path) -> None:
    first = begun(tmp_path, 1, is_open=2, opened=10)
    begun(tmp_path, 2, is_open=3, opened=20)

    numbers = await first.of_all()

    assert (numbers["sessions"][()], numbers["sessions_opened"][()]) == (5, 30)


async def test_worker_that_comes_after_another_goes_on(tmp_path) -> None:
    """But for what was only there while it lived."""
    begun(tmp_path, 1, is_open=2, opened=10)

    after = begun(tmp_path, 1, is_open=1, opened=1)

    numbers = await after.of_all()
    assert (numbers["sessions"][()], numbers["sessions_opened"][()]) == (1, 11)


async def test_own_numbers_are_those_of_now(tmp_path) -> None:
    """What its own file says is not counted twice."""
    worker = begun(tmp_path, 1, is_open=1, opened=1)
    worker._sessions = lambda: (2, 5)

    assert (await worker.of_all())["sessions_opened"][()] == 5


async def test_file_that_cannot_be_written(tmp_path) -> None:
    """Costs nothing but the numbers of that second."""
    worker = SharedMetrics(tmp_path / "gone", 1)

    worker.begin(lambda: (1, 1))
    worker.end()

    assert (await worker.of_all())["sessions"][()] == 1


async def test_file_is_whole_at_any_time(tmp_path) -> None:
    begun(tmp_path, 1, is_open=1, opened=1)

    assert [path.name for path in tmp_path.iterdir()] == ["1.json"]
    assert json.loads((tmp_path / "1.json").read_text())["sessions"] == [[[], 1]]
