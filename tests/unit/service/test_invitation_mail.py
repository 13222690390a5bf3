"""The message of an invitation: every language, every odd organisation, every mailbox."""

import re
from datetime import UTC, datetime
from email import message_from_bytes, policy

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jinja2 import Environment, meta

from smtpguard.domain.invitation import Invitation, InvitationKind, Language
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.errors import SettingsError
from smtpguard.service.invitation_mail import TEMPLATES, InvitationMail
from smtpguard.settings import VerificationSettings

NOW = datetime(2026, 12, 1, 10, 15, tzinfo=UTC)
ENDS = datetime(2026, 12, 8, 10, 15, tzinfo=UTC)
LINK = "https://check.shop.example/c/" + "A" * 43


def mail(organisation: str = "Shop AG", **values) -> InvitationMail:
    return InvitationMail(VerificationSettings(organisation=organisation, sender="invitations@shop.example", **values))


def invitation(
    address: str = "anna@example.com",
    *,
    language: Language = Language.DE,
    kind: InvitationKind = InvitationKind.CONFIRM,
) -> Invitation:
    return Invitation("01", kind, parse_mailbox(address), "K-4711", "00", language, NOW, "ben", ENDS)


def written(writer: InvitationMail, invitation: Invitation):
    post = writer.write(invitation, LINK, now=NOW)
    return post, message_from_bytes(post.message, policy=policy.default)


MAIL = mail()


@pytest.mark.parametrize("kind", InvitationKind)
def test_every_language_says_the_same(kind) -> None:
    """The same files with the same variables in each, so that none forgets the link or the end."""
    prefix = {InvitationKind.CONFIRM: "invitation", InvitationKind.DISOWN: "disown"}[kind]
    wanted = {
        "subject": {"organisation"},
        "txt": {"organisation", "link", "ends"},
        "html": {"organisation", "link", "ends"},
    }
    for language in Language:
        for part, variables in wanted.items():
            source = (TEMPLATES / f"{prefix}.{language.value}.{part}").read_text(encoding="utf-8")
            assert meta.find_undeclared_variables(Environment().parse(source)) == variables


def test_no_template_is_left_over() -> None:
    names = {f"{kind}.{language.value}.{part}" for kind in ("invitation", "disown") for language in Language
             for part in ("subject", "txt", "html")}  # fmt: skip

    assert {path.name for path in TEMPLATES.iterdir()} == names


@pytest.mark.parametrize("language", Language)
@pytest.mark.parametrize("kind", InvitationKind)
def test_message_reads_well(kind, language) -> None:
    _, message = written(MAIL, invitation(kind=kind, language=language))
    text = message.get_body(("plain",)).get_content().replace("\r\n", "\n")
    html = message.get_body(("html",)).get_content()

    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    assert f"\n\n{LINK}\n\n" in text
    assert f'<a href="{LINK}">{LINK}</a>' in html
    assert ("2026-12-08" if language is Language.EN else "08.12.2026") in text
    assert all(len(line) <= 78 for line in text.splitlines())
    assert "ß" not in text
    assert re.sub(r"<[^>]+>", "", html.partition("<body>")[2]).split() == text.split()
    assert not re.search(r"<(script|img|style|link)|src=|url\(", html)


@pytest.mark.parametrize(
    "organisation",
    [
        '"Quoted" \\ AG',
        "<b>Bold</b> & {{ 7 * 7 }}",
        "Größe, Söhne; <x@evil.example>",
        "株式会社",
        "a" * 100,
    ],
)
def test_odd_organisation(organisation) -> None:
    post, message = written(mail(organisation), invitation())
    [sender] = message["From"].addresses

    assert sender.addr_spec == "invitations@shop.example"
    assert message["Subject"] == f"{organisation}: Gehört diese E-Mail-Adresse Ihnen?"
    assert organisation in message.get_body(("plain",)).get_content()
    assert "<b>" not in message.get_body(("html",)).get_content()
    assert post.message.isascii()
    assert message.defects == []


@given(
    organisation=st.text(max_size=100).filter(lambda text: text.isprintable() and text.strip() and "=?" not in text),
    address=st.sampled_from(["a@x.example", '"a b"@x.example', '"a@b,c"@x.example', "a@[IPv6:::1]", "ä@ö.example"])
    | st.from_regex(r"[a-z!#$%&'*+/=^_`{|}~-]{1,60}@[a-z]{1,60}\.[a-z]{2,60}\.[a-z]{2,60}", fullmatch=True).filter(
        lambda text: "=?" not in text
    ),
)
@example(organisation="Shop", address=f"a@{'b' * 35}.{'c' * 38}")
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=20)
def test_nothing_gets_into_the_header(organisation, address) -> None:
    post, message = written(mail(organisation), invitation(address))
    head = post.message.split(b"\r\n\r\n")[0].decode()

    assert b"\n" not in post.message.replace(b"\r\n", b"")
    assert [name for name, _ in message.items()] == [
        "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "X-Auto-Response-Suppress", "MIME-Version",
        "Content-Type",
    ]  # fmt: skip
    assert f"\r\nTo: {address}\r\n" in head.replace("\r\n ", " ")  # a long one has a line of its own
    assert str(post.envelope.forward_path.recipient) == address
    assert post.envelope.parameters.smtputf8 is not address.isascii()


def test_own_template_wins_and_the_others_stay(tmp_path) -> None:
    (tmp_path / "invitation.de.subject").write_text("{{ organisation }}\nfragt\n")
    own = mail(templates=tmp_path)

    assert written(own, invitation())[1]["Subject"] == "Shop AG fragt"
    assert written(own, invitation(language=Language.FR))[1]["Subject"].startswith("Shop AG : cette")


def test_directory_that_is_none(tmp_path) -> None:
    with pytest.raises(SettingsError, match="is no directory"):
        mail(templates=tmp_path / "nowhere")
