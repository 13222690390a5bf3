"""The ids of transactions and quarantined messages."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from smtpguard.domain.ids import RANDOM_OCTETS, first_id_after, quarantined_id, transaction_id

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
LOWEST, HIGHEST = bytes(RANDOM_OCTETS), b"\xff" * RANDOM_OCTETS
TIMES = st.datetimes(
    min_value=datetime(1970, 1, 2),  # noqa: DTZ001 - hypothesis wants it naive
    max_value=datetime(2500, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
RANDOM = st.binary(min_size=RANDOM_OCTETS, max_size=RANDOM_OCTETS)


def test_known_ids() -> None:
    assert transaction_id(datetime(1970, 1, 1, tzinfo=UTC), LOWEST) == "0" * 20
    assert transaction_id(NOW, HIGHEST) == "01KQSDR2G07ZZZZZZZZZ"
    assert transaction_id(NOW + timedelta(microseconds=999_999), b"abcdef") == "01KQSDR3F731C9HP8SB6"
    assert transaction_id(datetime(2243, 1, 1, microsecond=1000, tzinfo=UTC), LOWEST)[:10] == "07TQBX7901"
    assert quarantined_id("0" * 20, 1) == "0" * 20 + "-1"


@given(at=TIMES, random=RANDOM, later_random=RANDOM)
def test_ids_sort_by_time(at, random, later_random) -> None:
    earlier, later = transaction_id(at, random), transaction_id(at + timedelta(milliseconds=1), later_random)

    assert earlier < later
    assert len(earlier) == len(later) == 20
    assert set(earlier) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ")


@given(one=RANDOM, other=RANDOM)
def test_ids_of_one_millisecond_differ_by_their_random_octets(one, other) -> None:
    assert (one == other) == (transaction_id(NOW, one) == transaction_id(NOW, other))


@given(at=TIMES)
def test_id_after_a_time_stands_between_it_and_the_next_millisecond(at) -> None:
    next_id = transaction_id(at + timedelta(milliseconds=1), LOWEST)

    assert quarantined_id(transaction_id(at, HIGHEST), 9) < first_id_after(at) <= next_id
