"""AUTH towards the smarthost."""

import pytest

from smtpguard.errors import SmarthostUnavailable
from tests.integration.relay.deliveries import ALICE, begin, deliver
from tests.support.scripted_smarthost import Action, ScriptedSmarthost, drop, hang, raw, refuse

PASSWORD = "pässword 1"
PLAIN = "AGd1YXJkAHDDpHNzd29yZCAx"
LOGIN = {"username": "guard", "password": PASSWORD, "auth_without_tls": True}


@pytest.mark.parametrize(
    ("offer", "expected"),
    [
        (["AUTH PLAIN LOGIN"], [f"AUTH PLAIN {PLAIN}"]),
        (["auth login plain cram-md5"], [f"AUTH PLAIN {PLAIN}"]),
        (["AUTH=LOGIN PLAIN"], [f"AUTH PLAIN {PLAIN}"]),
        (["AUTH CRAM-MD5", "AUTH=Plain"], [f"AUTH PLAIN {PLAIN}"]),
        (["AUTH LOGIN"], ["AUTH LOGIN"]),
        (["AUTH XOAUTH2", "AUTH=LOGIN"], ["AUTH LOGIN"]),
    ],
)
async def test_the_guard_logs_in(relay_to, offer: list[str], expected: list[str]) -> None:
    """Once a connection, before its first MAIL."""
    async with ScriptedSmarthost(capabilities=offer) as scripted:
        smarthost = relay_to(scripted, **LOGIN)
        await deliver(smarthost)
        await deliver(smarthost)
        [connection] = scripted.connections

        assert connection.commands[1:3] == [*expected, "MAIL FROM:<app@corp.test>"]
        assert connection.logins == [(expected[0].split(" ")[1], "guard", PASSWORD)]


async def test_a_long_password_goes_without_initial_response(relay_to) -> None:
    """RFC 4954 4: the command is not longer than 512 octets."""
    async with ScriptedSmarthost(capabilities=["AUTH PLAIN"]) as scripted:
        await deliver(relay_to(scripted, **LOGIN | {"password": "x" * 365}))
        await deliver(relay_to(scripted, **LOGIN | {"password": "x" * 370}))

        assert len(scripted.connections[0].commands[1]) == 510 - 3
        assert scripted.connections[1].commands[1] == "AUTH PLAIN"
        assert [each.logins for each in scripted.connections] == [
            [("PLAIN", "guard", "x" * 365)],
            [("PLAIN", "guard", "x" * 370)],
        ]


async def test_login_under_tls(relay_to, certificates) -> None:
    """The password goes out after STARTTLS only, for what is offered there."""
    async with ScriptedSmarthost(
        capabilities=["AUTH LOGIN"], tls=certificates.server_context(), tls_capabilities=["AUTH PLAIN"]
    ) as scripted:
        settings = {"tls": "starttls", "ca_file": certificates.ca_file, "username": "guard", "password": PASSWORD}
        await deliver(relay_to(scripted, **settings))

        assert [line.split(" ")[0] for line in scripted.connections[0].commands[:5]] == (
            ["EHLO", "STARTTLS", "EHLO", "AUTH", "MAIL"]
        )
        assert scripted.connections[0].logins == [("PLAIN", "guard", PASSWORD)]


FAULTS: dict[str, tuple[Action, str]] = {
    "refused": (refuse(535, "5.7.8 bad credentials"), "to the login as 'guard': 535 5.7.8 bad credentials"),
    "refused for now": (refuse(454, "4.7.0 later"), "to the login as 'guard': 454 4.7.0 later"),
    "421": (refuse(421, "4.7.0 closing"), "421 4.7.0 closing"),
    "another 2yz": (refuse(250, "ok"), "to the login as 'guard': 250 ok"),
    "another challenge": (refuse(334, "more?"), "to the login as 'guard': 334 more"),
    "nonsense": (raw(b"what\r\n"), "not an SMTP reply"),
    "gone": (drop(), "closed the connection"),
    "hang": (hang(), "not ready within|no reply within"),
}


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_the_login_fails(relay_to, mechanism: str, fault: str) -> None:
    """The application is not to blame: it hears 451 and tries again."""
    action, words = FAULTS[fault]
    timeout = {"connect_timeout": 0.1} if fault == "hang" else {}
    async with ScriptedSmarthost(capabilities=[f"AUTH {mechanism}"], auth=action) as scripted:
        smarthost = relay_to(scripted, **LOGIN, **timeout)
        with pytest.raises(SmarthostUnavailable, match=words):
            await begin(smarthost).rcpt([ALICE])

        await scripted.wait_until_closed()
        assert scripted.count("MAIL") == 0
        assert smarthost._pool.borrowed == 0


@pytest.mark.parametrize("offer", [["PIPELINING"], ["AUTH CRAM-MD5"], ["AUTH"], []])
async def test_no_mechanism_that_the_guard_knows(relay_to, offer: list[str]) -> None:
    async with ScriptedSmarthost(capabilities=offer) as scripted:
        with pytest.raises(SmarthostUnavailable, match="it offers neither AUTH PLAIN nor AUTH LOGIN"):
            await begin(relay_to(scripted, **LOGIN)).rcpt([ALICE])

        assert scripted.count("MAIL") == 0


@pytest.mark.parametrize("secret", [PASSWORD, "cMOkc3N3b3JkIDE=", PLAIN])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("before", ["535 5.7.8 ", "421 4.7.0 ", ""])
async def test_a_smarthost_that_repeats_the_password(relay_to, mechanism: str, secret: str, before: str) -> None:
    action = raw(f"{before}{secret} is wrong\r\n".encode())
    async with ScriptedSmarthost(capabilities=[f"AUTH {mechanism}"], auth=action) as scripted:
        with pytest.raises(SmarthostUnavailable, match="the login as 'guard', and repeated") as caught:
            await begin(relay_to(scripted, **LOGIN)).rcpt([ALICE])

        assert secret not in str(caught.value)


async def test_no_login_without_a_name(relay_to) -> None:
    async with ScriptedSmarthost(capabilities=["AUTH PLAIN"]) as scripted:
        await deliver(relay_to(scripted))

        assert scripted.count("AUTH") == 0
