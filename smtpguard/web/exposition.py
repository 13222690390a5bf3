"""The numbers as Prometheus reads them."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from smtpguard.domain.quarantined import Backlog
from smtpguard.service.metrics import BOUNDS, Numbers

CONTENT_TYPE = CONTENT_TYPE_LATEST.partition("; charset")[0]  # Litestar says that itself

_COUNTERS = {
    "recipients": ("Recipients by what was decided and carried out.", ("application", "verdict", "reason")),
    "transactions": ("Transactions by how they ended.", ("application", "outcome")),
    "smarthost_errors": ("What the smarthost did not take, or why it could not be asked.", ("kind",)),
    "invitations": ("Invitations, and answers to them, by what became of them.", ("outcome",)),
    "confirmed_mail_released": ("Messages that went out because their recipient said Yes.", ()),
    "quarantine_expired": ("Messages that nobody decided about in time.", ()),
    "sessions_opened": ("SMTP sessions since the start.", ()),
    "log_events": ("Lines of the log by event.", ("event",)),
}


def exposition(numbers: Numbers, backlog: Backlog | None, now: datetime) -> bytes:
    """Write all numbers down; ``backlog`` is None where the store does not tell."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families([*_of_process(numbers), *_of_store(backlog, now)]))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _of_process(numbers: Numbers) -> Iterator[Metric]:
    for name, (text, labels) in _COUNTERS.items():
        counter = CounterMetricFamily(f"smtpguard_{name}", text, labels=labels)
        for values, number in sorted(numbers[name].items()):
            counter.add_metric(values, number)
        yield counter
    yield GaugeMetricFamily("smtpguard_sessions", "SMTP sessions that are open.", numbers["sessions"][()])
    buckets, total = [], 0.0
    for bound in (*map(str, BOUNDS), "+Inf"):
        total += numbers["transaction_took"][bound,]
        buckets.append((bound, total))
    yield HistogramMetricFamily(
        "smtpguard_transaction_seconds",
        "From MAIL to the end of a transaction.",
        buckets=buckets,
        sum_value=numbers["transaction_seconds"][()],
    )


def _of_store(backlog: Backlog | None, now: datetime) -> Iterator[Metric]:
    yield GaugeMetricFamily("smtpguard_store_up", "Whether the store answers.", backlog is not None)
    if backlog is None:
        return
    messages = GaugeMetricFamily("smtpguard_quarantine_messages", "Open messages by state.", labels=("state",))
    for state, number in sorted(backlog.numbers.items(), key=lambda item: item[0].value):
        messages.add_metric((state.value,), number)
    yield messages
    yield GaugeMetricFamily(
        "smtpguard_quarantine_expiring", "Messages that wait and expire soon: within a week, or less.", backlog.expiring
    )
    age = max(0.0, (now - backlog.oldest).total_seconds()) if backlog.oldest else 0.0
    yield GaugeMetricFamily("smtpguard_quarantine_oldest_seconds", "Age of the oldest message that waits.", age)
