"""What the service manager is told, over a real socket."""

import socket

import pytest

from smtpguard.systemd import ServiceManager


@pytest.fixture
def channel(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(10)
        yield listener


def heard(channel) -> str:
    return channel.recv(4096).decode()


def test_state_is_told(channel) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": channel.getsockname()}, pid=1)

    manager.ready("Listening")
    manager.reloading()
    manager.alive()
    manager.stopping()

    assert heard(channel) == "READY=1\nSTATUS=Listening"
    assert heard(channel).startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert heard(channel) == "WATCHDOG=1"
    assert heard(channel).startswith("STOPPING=1\n")


def test_abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("")  # Linux chooses an abstract name
        listener.settimeout(10)
        name = listener.getsockname()[1:].decode()

        ServiceManager({"NOTIFY_SOCKET": f"@{name}"}, pid=1).alive()

        assert listener.recv(100) == b"WATCHDOG=1"


def test_nobody_there_is_no_error(tmp_path) -> None:
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}, pid=1).alive()
    ServiceManager({}, pid=1).alive()


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({"WATCHDOG_USEC": "10000000"}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "7"}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_how_often_it_wants_to_hear(environment, seconds) -> None:
    assert ServiceManager({"NOTIFY_SOCKET": "/x", **environment}, pid=7).watchdog_seconds == seconds
