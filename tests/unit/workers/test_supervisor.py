"""When a worker is started again."""

import pytest

from smtpguard.workers.supervisor import pause_after


@pytest.mark.parametrize(
    ("young_deaths", "seconds"),
    [(0, 0), (1, 0), (2, 0.5), (3, 1), (4, 2), (5, 4), (6, 8), (7, 16), (8, 30), (9, 30), (3000, 30)],
)
def test_pause_grows_with_each_young_death(young_deaths, seconds) -> None:
    """Up to a bound, however long a worker has been dying: a night without a store is a thousand times."""
    assert pause_after(young_deaths) == seconds
