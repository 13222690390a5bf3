"""Which application a connection belongs to, and what it may send as."""

from ipaddress import ip_network

import pytest

from smtpguard.domain.application import Application, find_application, find_login, ip_address_of
from smtpguard.domain.envelope import NULL_REVERSE_PATH, parse_reverse_path
from smtpguard.domain.mailbox import parse_domain
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


@pytest.mark.parametrize("host", ["", "localhost", "10.1", "10.1.2.256", "10.1.2.3:25", "/run/socket", "[10.1.2.3]"])
def test_what_is_no_address_may_not_submit(host) -> None:
    """A session whose peer is gone has none; a proxy may send anything."""
    assert ip_address_of(host) is None
    assert find_application((application("everybody", "0.0.0.0/0", "::/0"),), host) is None


def test_application_of_a_login() -> None:
    shop, crm = (Application(name, (), Policy(), username=name, password_hashes=("x",)) for name in ("shop", "crm"))
    applications = (*APPLICATIONS, shop, crm)

    assert find_login(applications, "crm") is crm
    assert find_login(applications, "CRM") is None
    assert find_login(applications, "billing") is None
    assert find_login(applications, "") is None


def test_hashes_are_not_shown() -> None:
    assert "argon2id" not in repr(Application("crm", (), Policy(), username="crm", password_hashes=("$argon2id$...",)))


# --- What it may send as --------------------------------------------------------------------------------------------


def sender(*domains: str) -> Application:
    return Application("crm", (), Policy(), reverse_path_domains=frozenset(map(parse_domain, domains)))


@pytest.mark.parametrize(
    "reverse_path",
    [
        "news@shop.example",
        "NEWS@SHOP.Example",
        '"a b"@shop.example',
        "news@bücher.example",
        "news@xn--bcher-kva.example",
        "news@XN--BCHER-KVA.example",
        "grüße@bücher.example",
        "x@[192.0.2.1]",
    ],
)
def test_reverse_path_in_an_own_domain(reverse_path) -> None:
    """Domains are the same whatever their case, as U-labels and as A-labels."""
    application = sender("shop.example", "bücher.example", "[192.0.2.1]")

    assert application.may_send_as(parse_reverse_path(reverse_path))


@pytest.mark.parametrize(
    "reverse_path",
    [
        "news@other.example",
        "news@mail.shop.example",
        "news@myshop.example",
        "news@example",
        "news@shop.example.net",
        '"news@shop.example"@other.example',
        "news%shop.example@other.example",
        "news@bucher.example",
        "x@[192.0.2.2]",
    ],
)
def test_reverse_path_in_another_domain(reverse_path) -> None:
    """A subdomain is a domain of its own."""
    application = sender("shop.example", "bücher.example", "[192.0.2.1]")

    assert not application.may_send_as(parse_reverse_path(reverse_path))


@pytest.mark.parametrize("application", [sender(), sender("shop.example")])
def test_null_reverse_path_is_everybodys(application) -> None:
    assert application.may_send_as(NULL_REVERSE_PATH)


def test_application_without_domains_may_send_as_any() -> None:
    assert sender().may_send_as(parse_reverse_path("anybody@anywhere.example"))
