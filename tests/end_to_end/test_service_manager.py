"""The installed command under a service manager: told when it is ready, reads its settings again, ends in order."""

import os
import signal
import socket
from contextlib import contextmanager

import pytest

from tests.support.certificates import make_certificates
from tests.support.eventually import eventually
from tests.support.process import guard_process
from tests.support.scripted_smarthost import ScriptedSmarthost
from tests.support.transcript import greeted

STRANGER = "xyz123@provider.example"
LOCAL = '[[application]]\nname = "local"\nnetworks = "127.0.0.0/8"\n'


@contextmanager
def service_manager(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(path))
        channel.settimeout(30)
        yield channel


def heard(channel: socket.socket, state: str) -> str:
    """The next message about this state; others are passed over."""
    while True:
        message = channel.recv(4096).decode()
        if message.startswith(state):
            return message


@pytest.fixture
async def smarthost():
    async with ScriptedSmarthost() as smarthost:
        yield smarthost


async def test_life_of_a_service(sqlite_url, smarthost, tmp_path) -> None:
    certificates = make_certificates(tmp_path)
    file = tmp_path / "guard.toml"
    tls = f'[tls]\ncertificate_file = "{certificates.server_file}"\n'
    file.write_text(tls + LOCAL)
    with service_manager(tmp_path / "notify") as manager:
        extra = {
            "SMTPGUARD_CONFIG": str(file),
            "NOTIFY_SOCKET": manager.getsockname(),
            "WATCHDOG_USEC": "200000",
        }
        async with guard_process(sqlite_url, smarthost.port, tmp_path, **extra) as guard:
            assert f"Listening on 127.0.0.1:{guard.port}" in heard(manager, "READY=1")
            heard(manager, "WATCHDOG=1")
            async with greeted(guard.port) as client:
                await client.message(STRANGER)

                file.write_text(f'{tls}[policy]\nunverified = "reject"\n' + LOCAL)
                os.kill(guard.process.pid, signal.SIGHUP)
                heard(manager, "RELOADING=1\nMONOTONIC_USEC=")
                heard(manager, "READY=1")
                await client.ask("MAIL FROM:<a@b.example>", "250 *")
                await client.ask(f"RCPT TO:<{STRANGER}>", "550 5.7.1 *")

                file.write_text("[policy\n")
                os.kill(guard.process.pid, signal.SIGHUP)
                await eventually(lambda: guard.events("reload-failed"))
                await client.ask("NOOP", "250 *")

            os.kill(guard.process.pid, signal.SIGTERM)
            heard(manager, "STOPPING=1")
            assert await guard.process.wait() == 0

    (failed,) = guard.events("reload-failed")
    assert "is not TOML" in failed["error"]
    assert len(guard.events("settings-reloaded")) == 1
    assert len(guard.events("guard-stopped")) == 1


async def test_sigterm_answers_new_mail_and_ends(sqlite_url, smarthost, tmp_path) -> None:
    async with guard_process(sqlite_url, smarthost.port, tmp_path) as guard, greeted(guard.port) as client:
        await client.ask("MAIL FROM:<a@b.example>", "250 *")
        os.kill(guard.process.pid, signal.SIGTERM)
        await client.expect("421 4.3.2 *")
        assert await client.at_end()
        assert await guard.process.wait() == 0
