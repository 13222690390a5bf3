"""SIGHUP: applications, policy and certificates are replaced, and nobody's session ends for it."""

import ssl

import pytest

from smtpguard.errors import SettingsError
from smtpguard.service.password_hashes import hash_password
from tests.support.certificates import make_certificates
from tests.support.guard import guarding, make_settings
from tests.support.scripted_smarthost import ScriptedSmarthost
from tests.support.transcript import connected, greeted

STRANGER = "xyz123@provider.example"
LOCAL = {"name": "local", "networks": "127.0.0.0/8"}


@pytest.fixture
async def smarthost():
    async with ScriptedSmarthost() as smarthost:
        yield smarthost


async def reload(guard, **sections) -> tuple[str, ...]:
    settings = make_settings(guard.settings.store.url, guard.settings.smarthost.port, **sections)
    return await guard.guard.reload(settings)


async def test_open_session_is_under_the_new_policy_from_its_next_message(sqlite_url, smarthost) -> None:
    async with guarding(sqlite_url, smarthost.port) as guard, greeted(guard.port) as client:
        await client.ask("MAIL FROM:<a@b.example>", "250 *")
        assert await reload(guard, policy={"unverified": "reject"}) == ()
        await client.ask(f"RCPT TO:<{STRANGER}>", "250 *")  # this one began under the old policy
        await client.ask("RSET", "250 *")
        await client.ask("MAIL FROM:<a@b.example>", "250 *")
        await client.ask(f"RCPT TO:<{STRANGER}>", "550 5.7.1 *")


async def test_application_that_was_taken_out_may_submit_no_more(sqlite_url, smarthost) -> None:
    async with guarding(sqlite_url, smarthost.port, application=[LOCAL]) as guard, greeted(guard.port) as client:
        await client.message(STRANGER)
        await reload(guard, application=[{"name": "crm", "networks": "10.0.0.0/8"}])
        await client.ask("MAIL FROM:<a@b.example>", "250 *")
        await client.ask(f"RCPT TO:<{STRANGER}>", "554 5.7.1 *")


async def test_password_that_was_changed(sqlite_url, smarthost) -> None:
    smtp = {"auth_without_tls": True}
    old, new = ({"name": "shop", "username": "shop", "password_hash": hash_password(word)} for word in ("old", "new"))
    async with guarding(sqlite_url, smarthost.port, smtp=smtp, application=[old]) as guard:
        async with greeted(guard.port) as client:
            await client.log_in("shop", "old")
            await reload(guard, smtp=smtp, application=[new])
            await client.message(STRANGER)  # it proved who it is, and still is somebody
        async with greeted(guard.port) as client:
            await client.log_in("shop", "old", "535 *")
            await client.log_in("shop", "new")


async def test_certificate_is_replaced(sqlite_url, smarthost, tmp_path) -> None:
    (tmp_path / "new").mkdir()
    old, new = make_certificates(tmp_path), make_certificates(tmp_path / "new")
    sections = {"smtp": {"tls_listen": "127.0.0.1:0"}, "tls": {"certificate_file": old.server_file}}
    async with guarding(sqlite_url, smarthost.port, **sections) as guard:
        async with connected(guard.tls_port, old.client_context()) as client:
            await client.hello()
            old.server_file.write_bytes(new.server_file.read_bytes())
            assert await reload(guard, **sections) == ()
            await client.message(STRANGER)  # the session goes on
        async with connected(guard.tls_port, new.client_context()) as client:
            await client.hello()
        with pytest.raises(ssl.SSLError):
            async with connected(guard.tls_port, old.client_context()):
                pass


async def test_broken_certificate_changes_nothing(sqlite_url, smarthost, tmp_path) -> None:
    certificates = make_certificates(tmp_path)
    tls = {"certificate_file": certificates.server_file}
    async with guarding(sqlite_url, smarthost.port, tls=tls) as guard:
        certificates.server_file.write_text("broken")
        with pytest.raises(SettingsError, match=r"tls\.certificate_file"):
            await reload(guard, tls=tls, policy={"unverified": "reject"})
        async with greeted(guard.port) as client:
            await client.starttls(certificates.client_context())
            await client.ask("EHLO app.example", "250-*")
            await client.message(STRANGER)


async def test_what_wants_a_restart_is_named(sqlite_url, smarthost) -> None:
    async with guarding(sqlite_url, smarthost.port) as guard:
        want_restart = await reload(guard, smtp={"max_recipients": 5}, log={"level": "debug"})

    assert want_restart == ("smtp", "log")
