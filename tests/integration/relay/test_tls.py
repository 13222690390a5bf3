"""TLS towards the smarthost: what it must be, and that nothing is sent where it is not."""

import asyncio
import ssl
from typing import Any

import pytest

from smtpguard.domain.envelope import ForwardPath
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.errors import SettingsError, SmarthostLost, SmarthostUnavailable
from tests.integration.relay.deliveries import ALICE, BOB, WIRE, begin, chunks, deliver
from tests.support.certificates import make_certificates
from tests.support.eventually import eventually
from tests.support.scripted_smarthost import (
    Action,
    ScriptedSmarthost,
    Session,
    drop,
    hang,
    hold,
    raw,
    refuse,
    reply,
    sequence,
    usual,
)

Script = dict[str, Any]

both_ways = pytest.mark.parametrize("tls", ["starttls", "implicit"])


@pytest.fixture
def tls_of(certificates):
    """Give what a scripted smarthost has to know, and what the settings have to say."""

    def of(tls: str, **overrides: Any) -> tuple[Script, Script]:
        script = {"tls": certificates.server_context(), "implicit_tls": tls == "implicit"}
        return script, {"tls": tls, "ca_file": certificates.ca_file} | overrides

    return of


async def refused(relay_to, scripted: ScriptedSmarthost, settings: Script, words: str) -> None:
    """A delivery fails with these words, and the smarthost has heard of no message."""
    smarthost = relay_to(scripted, **settings)
    with pytest.raises(SmarthostUnavailable, match=words) as caught:
        await begin(smarthost).rcpt([ALICE])

    assert str(caught.value).isprintable()
    assert str(caught.value).startswith(f"smarthost {settings.get('host', '127.0.0.1')}:{scripted.port}: ")
    assert scripted.count("MAIL") == 0
    assert smarthost._pool.borrowed == 0


@both_ways
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_messages_go_through_tls(relay_to, tls_of, tls: str, version: ssl.TLSVersion) -> None:
    """Over one connection, with the words of all steps; what was offered before TLS is forgotten."""
    script, settings = tls_of(tls)
    script["tls"].maximum_version = version
    async with ScriptedSmarthost(**script, capabilities=["8BITMIME"], tls_capabilities=["PIPELINING"]) as scripted:
        smarthost = relay_to(scripted, **settings)
        await deliver(smarthost, [ALICE, BOB])
        await deliver(smarthost, [BOB])
        [connection] = scripted.connections

        assert connection.tls is not None
        assert connection.tls.version() == version.name.replace("_", ".")
        before = ["EHLO guard.test", "STARTTLS", "EHLO guard.test"] if tls == "starttls" else ["EHLO guard.test"]
        assert connection.commands[: len(before) + 1] == [*before, "MAIL FROM:<app@corp.test>"]
        assert [message.wire for message in scripted.messages] == [WIRE, WIRE]
        offers = await smarthost.offers()
        assert offers is not None
        assert not offers.eight_bit_mime


@both_ways
async def test_a_body_larger_than_every_buffer_and_then_a_slow_reader(relay_to, tls_of, tls: str) -> None:
    """The kernel has all of it when ``send_body`` returns, as without TLS."""
    script, settings = tls_of(tls)
    events = [asyncio.Event() for _ in range(3)]
    pauses = {n * 1_000_000: hold(event, usual()) for n, event in enumerate(events)}
    wire = b"0123456789abcdef" * 500_000 + b"\r\n"
    async with ScriptedSmarthost(**script, body=pauses, receive_buffer=65536) as scripted:
        transaction = begin(relay_to(scripted, **settings))
        await transaction.rcpt([ALICE])
        connection = transaction._connection
        assert connection is not None
        sending = asyncio.create_task(transaction.send_body(chunks(wire[:3_000_000], memoryview(wire)[3_000_000:])))
        for event in events:
            await eventually(lambda: connection.is_paused)
            assert not sending.done()
            assert 0 < connection._unsent() <= 140_000
            event.set()
        assert (await sending).code == 354
        assert connection._unsent() == 0
        await transaction.finish()

        assert scripted.messages[0].wire == wire


async def test_session_tickets_are_no_word_spoken_unasked(relay_to, tls_of) -> None:
    """TLS 1.3 sends them whenever it likes: they lie unread in the kernel, or come with the first reply."""
    script, settings = tls_of("implicit")
    script["tls"].num_tickets = 40
    async with ScriptedSmarthost(**script) as scripted:
        smarthost = relay_to(scripted, **settings)
        for _ in range(3):
            await deliver(smarthost)

        assert len(scripted.connections) == 1


@both_ways
@pytest.mark.parametrize(
    ("early", "outcome"),
    [(b"552 5.3.4 too big\r\n", "552 5.3.4 too big"), (b"250 2.0.0 queued\r\n", "unasked"), (b"250-que", "unasked")],
)
async def test_a_word_before_the_dot_under_tls(relay_to, tls_of, tls: str, early: bytes, outcome: str) -> None:
    script, settings = tls_of(tls)
    async with ScriptedSmarthost(**script, body={len(WIRE): raw(early)}) as scripted:
        transaction = begin(relay_to(scripted, **settings))
        await transaction.rcpt([ALICE])
        connection = transaction._connection
        assert connection is not None
        await transaction.send_body(chunks(WIRE))
        await eventually(lambda: not connection.is_clean)
        try:
            heard = str(await transaction.finish())
        except SmarthostUnavailable as error:
            heard = str(error)

        assert outcome in heard
        assert not scripted.messages


@both_ways
async def test_the_smarthost_ends_tls_after_the_dot(relay_to, tls_of, tls: str) -> None:
    script, settings = tls_of(tls)
    async with ScriptedSmarthost(**script, dot=drop()) as scripted:
        transaction = begin(relay_to(scripted, **settings))
        await transaction.rcpt([ALICE])
        await transaction.send_body(chunks(WIRE))
        with pytest.raises(SmarthostLost, match="closed the connection"):
            await transaction.finish()


@both_ways
async def test_the_last_word_before_the_end_of_tls_counts(relay_to, tls_of, tls: str) -> None:
    script, settings = tls_of(tls)
    async with ScriptedSmarthost(**script, dot=sequence(usual(), drop())) as scripted:
        assert (await deliver(relay_to(scripted, **settings))).is_positive


@both_ways
async def test_an_idle_connection_takes_its_leave_under_tls(relay_to, tls_of, tls: str) -> None:
    script, settings = tls_of(tls)
    async with ScriptedSmarthost(**script) as scripted:
        await deliver(relay_to(scripted, **settings, idle_timeout=0.02))
        await scripted.wait_until_closed()

        assert scripted.connections[0].commands[-1] == "QUIT"


@both_ways
async def test_an_authority_that_is_not_trusted(relay_to, tls_of, tls: str, tmp_path) -> None:
    script, settings = tls_of(tls, ca_file=make_certificates(tmp_path).ca_file)
    async with ScriptedSmarthost(**script) as scripted:
        await refused(relay_to, scripted, settings, "TLS: certificate verify failed: unable to get local issuer")


@both_ways
async def test_a_certificate_of_another_host(relay_to, tls_of, tls: str, tmp_path) -> None:
    other = make_certificates(tmp_path, ("mail.elsewhere.test",))
    script, settings = tls_of(tls, ca_file=other.ca_file)
    async with ScriptedSmarthost(**script | {"tls": other.server_context()}) as scripted:
        await refused(relay_to, scripted, settings, "certificate verify failed: IP address mismatch")
        await refused(relay_to, scripted, settings | {"host": "localhost"}, "verify failed: Hostname mismatch")


@both_ways
async def test_a_certificate_that_nobody_looks_at(relay_to, tls_of, tls: str, tmp_path) -> None:
    script, settings = tls_of(tls, tls_verify=False, ca_file=None)
    other = make_certificates(tmp_path, ("mail.elsewhere.test",))
    async with ScriptedSmarthost(**script | {"tls": other.server_context()}) as scripted:
        await deliver(relay_to(scripted, **settings))

        assert scripted.connections[0].tls is not None


@both_ways
async def test_tls_that_is_too_old(relay_to, tls_of, tls: str, recwarn) -> None:
    script, settings = tls_of(tls)
    script["tls"].minimum_version = ssl.TLSVersion.TLSv1
    script["tls"].maximum_version = ssl.TLSVersion.TLSv1_1
    script["tls"].set_ciphers("ALL:@SECLEVEL=0")
    recwarn.clear()  # ssl warns of such a server
    async with ScriptedSmarthost(**script) as scripted:
        await refused(relay_to, scripted, settings, "in the TLS handshake|TLS: ")


@both_ways
async def test_a_client_certificate(relay_to, tls_of, certificates, tls: str) -> None:
    script, settings = tls_of(tls)
    script["tls"] = certificates.server_context(asks_client=True)
    async with ScriptedSmarthost(**script) as scripted:
        await refused(relay_to, scripted, settings, "TLS: .*certificate required|the connection")
        await deliver(relay_to(scripted, **settings, certificate_file=certificates.client_file))

        tls_object = scripted.connections[-1].tls
        assert tls_object is not None
        assert tls_object.getpeercert()["subjectAltName"] == (("DNS", "guard.test"),)


STARTTLS_FAULTS: dict[str, tuple[Action, str]] = {
    "refused": (refuse(454, "4.7.0 no TLS now"), "it said to STARTTLS: 454 4.7.0 no TLS now"),
    "refused for good": (refuse(502, "5.5.1 what?"), "it said to STARTTLS: 502 5.5.1 what?"),
    "another 2yz": (reply(250, "ok"), "it said to STARTTLS: 250 ok"),
    "421": (refuse(421, "4.3.2 closing"), "421 4.3.2 closing"),
    "gone": (drop(), "closed the connection"),
    "plaintext behind it": (raw(b"220 go ahead\r\n250 2.0.0 injected\r\n"), "unasked: 250 2.0.0 injected"),
    "half a line behind it": (raw(b"220 go ahead\r\n250-inj"), "it spoke unasked"),
    "plaintext instead of a handshake": (sequence(raw(b"220 go ahead\r\n"), hang()), "not ready within"),
    "gone instead of a handshake": (sequence(raw(b"220 go ahead\r\n"), drop()), "the connection"),
    "hang": (hang(), "not ready within"),
}


@pytest.mark.parametrize("fault", STARTTLS_FAULTS)
async def test_starttls_goes_wrong(relay_to, tls_of, fault: str) -> None:
    action, words = STARTTLS_FAULTS[fault]
    script, settings = tls_of("starttls", connect_timeout=0.2 if "not ready" in words else 20)
    async with ScriptedSmarthost(**script, starttls=action) as scripted:
        await refused(relay_to, scripted, settings, words)

        await scripted.wait_until_closed()
        assert "EHLO" not in [line.split(" ")[0] for line in scripted.connections[0].commands[1:]]


async def test_plaintext_that_arrives_with_the_handshake(relay_to, tls_of) -> None:
    """It comes in a packet of its own, after the guard has begun TLS."""

    async def inject(session: Session) -> None:
        session.connection.say(b"220 go ahead\r\n")
        await session.read()  # the ClientHello
        session.connection.say(b"250 2.0.0 injected\r\n")
        await session.read()

    script, settings = tls_of("starttls")
    async with ScriptedSmarthost(**script, starttls=inject) as scripted:
        await refused(relay_to, scripted, settings, "TLS: .*(wrong version number|packet length)")


async def test_starttls_is_not_offered(relay_to, certificates) -> None:
    settings = {"tls": "starttls", "ca_file": certificates.ca_file}
    async with ScriptedSmarthost() as scripted:
        await refused(relay_to, scripted, settings, "it does not offer STARTTLS")


async def test_a_server_that_knows_only_helo_has_no_starttls(relay_to, tls_of) -> None:
    script, settings = tls_of("starttls")
    async with ScriptedSmarthost(**script, ehlo=refuse(502, "5.5.1 what?")) as scripted:
        await refused(relay_to, scripted, settings, "it does not offer STARTTLS")


async def test_implicit_tls_with_a_server_that_speaks_in_the_clear(relay_to, certificates) -> None:
    settings = {"tls": "implicit", "ca_file": certificates.ca_file}
    async with ScriptedSmarthost() as scripted:
        await refused(relay_to, scripted, settings, "TLS: .*version|it spoke before TLS began")


async def test_a_handshake_that_is_never_answered(relay_to, certificates) -> None:
    settings = {"tls": "implicit", "ca_file": certificates.ca_file, "connect_timeout": 0.05}
    async with ScriptedSmarthost(greeting=hang()) as scripted:
        await refused(relay_to, scripted, settings, r"not ready within 0\.05 s|no TLS handshake within")


async def test_no_tls_where_none_is_asked_for(relay_to, tls_of) -> None:
    script, _ = tls_of("starttls")
    async with ScriptedSmarthost(**script) as scripted:
        await deliver(relay_to(scripted))

        assert scripted.connections[0].tls is None


async def test_the_files_are_read_again(relay_to, tls_of, tmp_path) -> None:
    """For the connections to come; where they are wrong everything stays as it was."""
    first, second = (make_certificates(_made(tmp_path / name)) for name in ("first", "second"))
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(first.ca_file.read_bytes())
    script, settings = tls_of("implicit", ca_file=ca_file)
    async with ScriptedSmarthost(**script | {"tls": second.server_context()}) as scripted:
        await refused(relay_to, scripted, settings, "certificate verify failed")
        smarthost = relay_to(scripted, **settings)
        ca_file.write_bytes(second.ca_file.read_bytes())
        smarthost.load_tls()
        await deliver(smarthost)
        ca_file.write_bytes(b"not a certificate")
        with pytest.raises(SettingsError, match=r"smarthost\.ca_file: .*ca\.pem: "):
            smarthost.load_tls()

        await deliver(smarthost)


def _made(directory):
    directory.mkdir()
    return directory


@both_ways
async def test_many_recipients_under_tls(relay_to, tls_of, tls: str) -> None:
    script, settings = tls_of(tls)
    paths = [ForwardPath(parse_mailbox(f"user{n}@x.test")) for n in range(500)]
    async with ScriptedSmarthost(**script, receive_buffer=4096) as scripted:
        await deliver(relay_to(scripted, **settings), paths)

        assert scripted.messages[0].recipients == [str(path.recipient) for path in paths]
