"""SMTPUTF8, DSN, SIZE and 8BITMIME: offered and passed on as far as the smarthost can take them."""

import pytest

from smtpguard.domain.envelope import MailParameters, RcptParameters
from tests.support.guard import guarding, verify
from tests.support.scripted_smarthost import ScriptedSmarthost, refuse
from tests.support.transcript import greeted

ALICE, BJORN = "alice@verified.example", "björn@verified.example"
STRANGER, STRANGER_UTF8 = "xyz123@provider.example", "fremdé@provider.example"
ALL = ("PIPELINING", "SIZE 50000", "8BITMIME", "SMTPUTF8", "DSN")


@pytest.fixture
async def smarthost():
    async with ScriptedSmarthost(capabilities=ALL) as smarthost:
        yield smarthost


@pytest.fixture
async def guard(sqlite_url, smarthost):
    async with guarding(sqlite_url, smarthost.port) as guard:
        await verify(guard.desks, ALICE, BJORN)
        yield guard


async def offered(guard) -> set[str]:
    async with greeted(guard.port) as client:
        said = await client.ask("EHLO app.example", "250-*")
    return {line[4:] for line in said.split("\n")[1:]}


async def test_offer_is_that_of_the_smarthost(guard) -> None:
    lines = await offered(guard)

    assert {"8BITMIME", "SMTPUTF8", "DSN", f"SIZE {50_000 - 1024}"} <= lines


async def test_smarthost_that_offers_nothing(sqlite_url) -> None:
    async with ScriptedSmarthost(capabilities=()) as smarthost, guarding(sqlite_url, smarthost.port) as guard:
        lines = await offered(guard)
        async with greeted(guard.port) as client:
            await client.ask("MAIL FROM:<a@b.example> SMTPUTF8", "550 5.6.7 *")
            await client.ask("MAIL FROM:<a@b.example> RET=HDRS", "555 5.5.4 *")
            await client.ask("MAIL FROM:<a@b.example> BODY=8BITMIME", "555 5.5.4 *")

    assert lines == {"PIPELINING", "SIZE 36700160", "CHUNKING", "ENHANCEDSTATUSCODES", "HELP"}


async def test_smarthost_that_nobody_has_reached_is_no_reason_to_give_up(sqlite_url) -> None:
    """What is offered is everything; the mail hears 451, and comes again."""
    async with (
        ScriptedSmarthost(greeting=refuse(554, "no")) as smarthost,
        guarding(sqlite_url, smarthost.port) as guard,
    ):
        await verify(guard.desks, BJORN)
        lines = await offered(guard)
        async with greeted(guard.port) as client:
            await client.ask(f"MAIL FROM:<{BJORN}> SMTPUTF8", "250 *")
            await client.ask(f"RCPT TO:<{BJORN}>", "451 4.4.1 *")

    assert {"8BITMIME", "SMTPUTF8", "DSN"} <= lines


async def test_non_ascii_addresses_are_mailed_as_given(guard, smarthost) -> None:
    async with greeted(guard.port) as client:
        await client.ask(f"MAIL FROM:<{BJORN}> SMTPUTF8 BODY=8BITMIME", "250 *")
        await client.ask(f"RCPT TO:<{BJORN}>", "250 *")
        await client.ask(f"RCPT TO:<{STRANGER_UTF8}>", "250 *")
        await client.ask("DATA", "354 *")
        await client.send_octets("Subject: für dich\r\n\r\nhallo\r\n.\r\n".encode())
        await client.expect("250 *")
    message = smarthost.messages[0]
    (waiting,) = await guard.waiting()

    assert (message.reverse_path, message.recipients) == (BJORN, [BJORN])
    assert {"SMTPUTF8", "BODY=8BITMIME"} <= set(message.parameters)
    assert b" with UTF8SMTP id " in message.message
    assert waiting.recipient.text == STRANGER_UTF8
    assert waiting.parameters.smtputf8


async def test_non_ascii_addresses_want_to_be_announced(guard) -> None:
    async with greeted(guard.port) as client:
        await client.ask(f"MAIL FROM:<{BJORN}>", "553 5.6.7 *")
        await client.ask("MAIL FROM:<a@b.example>", "250 *")
        await client.ask(f"RCPT TO:<{BJORN}>", "553 5.6.7 *")
        await client.ask("RSET", "250 *")
        await client.ask("MAIL FROM:<a@b.example> SMTPUTF8", "250 *")
        await client.send_octets(b"RCPT TO:<bj\xf6rn@verified.example>\r\n")  # Latin-1
        await client.expect("553 5.1.3 *")


async def test_non_ascii_address_in_another_normal_form_is_another_address(guard) -> None:
    """NFD: looks the same, and is not the one that was verified."""
    async with greeted(guard.port) as client:
        await client.ask("MAIL FROM:<a@b.example> SMTPUTF8", "250 *")
        await client.ask("RCPT TO:<bjo\u0308rn@verified.example>", "250 *")
        await client.ask("DATA", "354 *")
        await client.ask(".", "250 *")

    assert await guard.waiting_for() == ["bjo\u0308rn@verified.example"]


async def test_delivery_status_parameters_are_passed_on_exactly(guard, smarthost) -> None:
    async with greeted(guard.port) as client:
        await client.ask("MAIL FROM:<a@b.example> RET=hdrs ENVID=QQ+2B314", "250 *")
        await client.ask(f"RCPT TO:<{ALICE}> NOTIFY=success,Failure ORCPT=rfc822;Alice+2Btag@old.example", "250 *")
        await client.ask("DATA", "354 *")
        await client.ask(".", "250 *")
    commands = smarthost.connections[-1].commands

    assert any("RET=hdrs" in command and "ENVID=QQ+2B314" in command for command in commands)
    assert f"RCPT TO:<{ALICE}> NOTIFY=success,Failure ORCPT=rfc822;Alice+2Btag@old.example" in commands


async def test_delivery_status_parameters_are_kept_and_used_at_release(guard, smarthost) -> None:
    async with greeted(guard.port) as client:
        await client.ask("MAIL FROM:<a@b.example> RET=FULL ENVID=abc SMTPUTF8", "250 *")
        await client.ask(f"RCPT TO:<{STRANGER}> NOTIFY=NEVER", "250 *")
        await client.ask(f"RCPT TO:<{STRANGER_UTF8}> ORCPT=utf-8;fremd\\x{{E9}}@x", "250 *")
        await client.ask("DATA", "354 *")
        await client.ask(".", "250 *")
    first, second = await guard.waiting()
    await guard.desks.quarantine.release(first.id, by="test", why="test", despite_flag=False)

    assert first.parameters == MailParameters(smtputf8=True, ret="FULL", envid="abc")
    assert first.rcpt_parameters == RcptParameters(notify="NEVER")
    assert second.rcpt_parameters == RcptParameters(orcpt="utf-8;fremd\\x{E9}@x")
    assert {"RET=FULL", "ENVID=abc", "SMTPUTF8"} <= set(smarthost.messages[0].parameters)
    assert smarthost.count("RCPT") == 1
    assert any(command.endswith("NOTIFY=NEVER") for c in smarthost.connections for command in c.commands)


async def test_size_of_the_smarthost_is_the_limit(guard) -> None:
    async with greeted(guard.port) as client:
        await client.ask("MAIL FROM:<a@b.example> SIZE=49500", "552 5.3.4 *")
        await client.envelope(ALICE)
        await client.ask("DATA", "354 *")
        await client.send_octets(b"x" * 49_500 + b"\r\n.\r\n")
        await client.expect("552 5.3.4 *")


async def test_what_the_smarthost_offers_is_kept_fresh(sqlite_url, smarthost) -> None:
    """Each new connection to it tells what it offers now."""
    async with guarding(sqlite_url, smarthost.port, smarthost={"idle_timeout": 0.05}) as guard:
        await verify(guard.desks, ALICE)
        assert "SMTPUTF8" in await offered(guard)
        smarthost.capabilities = ("PIPELINING",)
        await smarthost.wait_until_closed()
        async with greeted(guard.port) as client:
            await client.message(ALICE)

        assert "SMTPUTF8" not in await offered(guard)


async def test_smarthost_that_cannot_any_more(sqlite_url, smarthost) -> None:
    """It offered SMTPUTF8 at EHLO, and does not at RCPT."""
    async with guarding(sqlite_url, smarthost.port, smarthost={"idle_timeout": 0.05}) as guard:
        await verify(guard.desks, BJORN)
        async with greeted(guard.port) as client:
            smarthost.capabilities = ("PIPELINING",)
            await smarthost.wait_until_closed()
            await client.ask("MAIL FROM:<a@b.example> SMTPUTF8", "250 *")
            await client.ask(f"RCPT TO:<{BJORN}>", "550 5.6.7 *")

    assert smarthost.count("MAIL") == 0


@pytest.mark.parametrize("parameter", ["AUTH=<>", "AUTH=anna@b.example", "auth=e+3Dmc2"])
async def test_auth_parameter_is_taken_and_not_passed_on(guard, smarthost, parameter) -> None:
    async with greeted(guard.port) as client:
        await client.ask(f"MAIL FROM:<a@b.example> {parameter}", "250 *")
        await client.ask(f"RCPT TO:<{ALICE}>", "250 *")
        await client.ask("DATA", "354 *")
        await client.ask(".", "250 *")

    assert not any("AUTH" in parameter.upper() for parameter in smarthost.messages[0].parameters)


async def test_keywords_in_any_case(guard, smarthost) -> None:
    async with greeted(guard.port) as client:
        await client.ask("ehlo app.example", "250-*")
        await client.ask("mail from:<a@b.example> body=8bitmime size=100 Smtputf8", "250 *")
        await client.ask(f"rcpt to:<{ALICE}> notify=never", "250 *")
        await client.ask("data", "354 *")
        await client.ask(".", "250 *")
        await client.ask("mail from:<a@b.example>", "250 *")
        await client.ask(f"rcpt to:<{ALICE}>", "250 *")
        await client.send_octets(b"bdat 3 last\r\na\r\n")
        await client.expect("250 *")
        await client.ask("quit", "221 *")

    assert len(smarthost.messages) == 2
