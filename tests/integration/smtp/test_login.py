"""Applications that log in: AUTH, and what each application may."""

import base64

import pytest

from smtpguard.service.password_hashes import hash_password
from tests.support.certificates import make_certificates
from tests.support.guard import guarding, verify
from tests.support.scripted_smarthost import ScriptedSmarthost
from tests.support.transcript import greeted

ALICE, STRANGER = "alice@verified.example", "xyz123@provider.example"
PASSWORD = "correct horse"
ELSEWHERE = "192.0.2.0/24"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def shop() -> dict:
    return {"name": "shop", "username": "shop", "password_hash": hash_password(PASSWORD)}


@pytest.fixture
async def smarthost():
    async with ScriptedSmarthost() as smarthost:
        yield smarthost


IN_THE_CLEAR = {"auth_without_tls": True}


async def test_application_that_logged_in_may_submit(sqlite_url, smarthost, shop, certificates) -> None:
    tls = {"certificate_file": certificates.server_file}
    async with guarding(sqlite_url, smarthost.port, tls=tls, application=[shop]) as guard:
        await verify(guard.desks, ALICE)
        async with greeted(guard.port) as client:
            await client.starttls(certificates.client_context())
            await client.ask("EHLO app.example", "*AUTH PLAIN LOGIN*")
            await client.log_in("shop", PASSWORD)
            said = await client.message(ALICE, STRANGER)
        (waiting,) = await guard.waiting()

    assert said.startswith("250 ")
    assert b" with ESMTPSA id " in smarthost.messages[0].message
    assert waiting.application == "shop"


async def test_nobody_submits_without_login(sqlite_url, smarthost, shop) -> None:
    async with (
        guarding(sqlite_url, smarthost.port, smtp=IN_THE_CLEAR, application=[shop]) as guard,
        greeted(guard.port) as client,
    ):
        await client.ask("MAIL FROM:<a@b.example>", "250 *")
        await client.ask(f"RCPT TO:<{ALICE}>", "530 5.7.0 *")
        await client.ask("RSET", "250 *")
        await client.log_in("shop", "wrong", "535 5.7.8 *")
        await client.ask("MAIL FROM:<a@b.example>", "250 *")
        await client.ask(f"RCPT TO:<{ALICE}>", "530 5.7.0 *")
        await client.ask("RSET", "250 *")
        await client.log_in("shop", PASSWORD)
        await client.log_in("shop", PASSWORD, "503 5.5.1 *")


async def test_password_is_not_taken_in_the_clear(sqlite_url, smarthost, shop, certificates) -> None:
    tls = {"certificate_file": certificates.server_file}
    async with (
        guarding(sqlite_url, smarthost.port, tls=tls, application=[shop]) as guard,
        greeted(guard.port) as client,
    ):
        await client.log_in("shop", PASSWORD, "538 5.7.11 *")
        await client.send("EHLO app.example")

        assert "AUTH" not in await client.reply()


async def test_login_counts_for_more_than_the_network(sqlite_url, smarthost, shop) -> None:
    applications = [{"name": "local", "networks": "127.0.0.0/8"}, shop]
    async with guarding(sqlite_url, smarthost.port, smtp=IN_THE_CLEAR, application=applications) as guard:
        async with greeted(guard.port) as client:
            await client.message(STRANGER)
            await client.log_in("shop", PASSWORD)
            await client.message(STRANGER)
        waiting = await guard.waiting()

    assert [message.application for message in waiting] == ["local", "shop"]


async def test_starttls_forgets_the_login(sqlite_url, smarthost, shop, certificates) -> None:
    """RFC 3207 4.2: what was learnt before TLS is discarded."""
    sections = {"smtp": IN_THE_CLEAR, "tls": {"certificate_file": certificates.server_file}, "application": [shop]}
    async with guarding(sqlite_url, smarthost.port, **sections) as guard, greeted(guard.port) as client:
        await client.log_in("shop", PASSWORD)
        await client.starttls(certificates.client_context())
        await client.ask("EHLO app.example", "250-*")
        await client.ask("MAIL FROM:<a@b.example>", "250 *")
        await client.ask(f"RCPT TO:<{ALICE}>", "530 5.7.0 *")


async def test_login_mechanism_with_its_prompts(sqlite_url, smarthost, shop) -> None:
    async with (
        guarding(sqlite_url, smarthost.port, smtp=IN_THE_CLEAR, application=[shop]) as guard,
        greeted(guard.port) as client,
    ):
        await client.ask("auth login", f"334 {base64.b64encode(b'Username:').decode()}")
        await client.ask(base64.b64encode(b"shop").decode(), f"334 {base64.b64encode(b'Password:').decode()}")
        await client.ask(base64.b64encode(PASSWORD.encode()).decode(), "235 2.7.0 *")


async def test_plain_mechanism_without_initial_response(sqlite_url, smarthost, shop) -> None:
    async with (
        guarding(sqlite_url, smarthost.port, smtp=IN_THE_CLEAR, application=[shop]) as guard,
        greeted(guard.port) as client,
    ):
        await client.ask("AUTH PLAIN", "334 ")
        await client.ask("*", "501 5.7.0 *")
        await client.ask("AUTH PLAIN", "334 ")
        await client.ask("!", "501 5.5.2 *")
        await client.ask("AUTH PLAIN", "334 ")
        await client.send("A" * 50_000)
        await client.expect("500 5.5.6 *")
        await client.ask("AUTH CRAM-MD5", "504 5.5.4 *")
        await client.ask("AUTH", "501 5.5.4 *")
        await client.ask("MAIL FROM:<a@b.example>", "250 *")


async def test_auth_within_a_transaction_is_out_of_place(sqlite_url, smarthost, shop) -> None:
    """RFC 4954 4."""
    applications = [{"name": "local", "networks": "127.0.0.0/8"}, shop]
    async with (
        guarding(sqlite_url, smarthost.port, smtp=IN_THE_CLEAR, application=applications) as guard,
        greeted(guard.port) as client,
    ):
        await client.ask("MAIL FROM:<a@b.example>", "250 *")
        await client.log_in("shop", PASSWORD, "503 5.5.1 *")


async def test_session_ends_after_too_many_failures(sqlite_url, smarthost, shop) -> None:
    smtp = {**IN_THE_CLEAR, "max_auth_failures": 2}
    async with (
        guarding(sqlite_url, smarthost.port, smtp=smtp, application=[shop]) as guard,
        greeted(guard.port) as client,
    ):
        await client.log_in("shop", "wrong", "535 5.7.8 *")
        await client.log_in("nobody", "wrong", "535 5.7.8 *")
        await client.expect("421 4.7.0 *")

        assert await client.at_end()


async def test_no_auth_where_nobody_has_a_login(sqlite_url, smarthost) -> None:
    async with guarding(sqlite_url, smarthost.port, smtp=IN_THE_CLEAR) as guard, greeted(guard.port) as client:
        await client.ask("AUTH PLAIN", "502 5.5.1 *")


async def test_reverse_paths_of_an_application(sqlite_url, smarthost) -> None:
    application = {"name": "crm", "networks": "127.0.0.0/8", "reverse_path_domains": ["crm.example"]}
    async with (
        guarding(sqlite_url, smarthost.port, application=[application]) as guard,
        greeted(guard.port) as client,
    ):
        for sender, said in [
            ("anna@CRM.example", "250 *"),
            ("", "250 *"),
            ("anna@shop.example", "550 5.7.1 *"),
            ("anna@sub.crm.example", "550 5.7.1 *"),
        ]:
            await client.ask(f"MAIL FROM:<{sender}>", said)
            await client.ask("RSET", "250 *")


async def test_message_rate_of_an_application(sqlite_url, smarthost) -> None:
    """For all its sessions together."""
    application = {"name": "crm", "networks": "127.0.0.0/8", "max_messages_per_minute": 2}
    async with guarding(sqlite_url, smarthost.port, application=[application]) as guard:
        for said in ("250 *", "250 *", "450 4.7.1 *"):
            async with greeted(guard.port) as client:
                await client.ask("MAIL FROM:<a@b.example>", said)
