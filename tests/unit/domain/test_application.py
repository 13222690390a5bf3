"""Which application a connection belongs to."""

from ipaddress import ip_network

import pytest

from smtpguard.domain.application import Application, find_application
from smtpguard.domain.policy import Policy


def application(name: str, *networks: str) -> Application:
    return Application(name, tuple(ip_network(network) for network in networks), Policy())


APPLICATIONS = (
    application("everything", "10.0.0.0/8", "fd00::/8"),
    application("crm", "10.1.0.0/16", "fd00:1::/32"),
    application("billing", "10.1.2.0/24", "192.0.2.7/32"),
)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("10.9.9.9", "everything"),
        ("10.1.9.9", "crm"),
        ("10.1.2.3", "billing"),
        ("192.0.2.7", "billing"),
        ("fd00:2::1", "everything"),
        ("fd00:1::1", "crm"),
        ("::ffff:10.1.2.3", "billing"),
        ("fd00:1::1%eth0", "crm"),
    ],
)
@pytest.mark.parametrize("step", [1, -1])
def test_the_longest_network_wins(host, name, step) -> None:
    """Whatever the order they stand in."""
    found = find_application(APPLICATIONS[::step], host)

    assert found is not None
    assert name == found.name


@pytest.mark.parametrize("host", ["11.0.0.1", "192.0.2.8", "fe80::1", "::1", "::ffff:11.0.0.1", "127.0.0.1"])
def test_stranger_may_not_submit(host) -> None:
    assert find_application(APPLICATIONS, host) is None


def test_nobody_may_submit_without_applications() -> None:
    assert find_application((), "127.0.0.1") is None
