"""The message of an invitation: text and HTML, in the recipient's language, out of templates.

It says who asks, where the answer is given and until when; it holds no word about a customer. A template of the
organisation's own wins over the one of the same name that comes with smtpguard.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from pathlib import Path
from typing import Literal

from jinja2 import (
    ChoiceLoader,
    Environment,
    FileSystemLoader,
    StrictUndefined,
    Template,
    TemplateError,
    select_autoescape,
)

from smtpguard.domain.envelope import ForwardPath, MailParameters
from smtpguard.domain.invitation import Invitation, InvitationKind, Language
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.errors import SettingsError
from smtpguard.service.sending import Envelope
from smtpguard.settings import VerificationSettings

Part = Literal["subject", "txt", "html"]

TEMPLATES = Path(__file__).parents[1] / "templates"
PARTS: tuple[Part, ...] = ("subject", "txt", "html")
_NAMES = {InvitationKind.CONFIRM: "invitation", InvitationKind.DISOWN: "disown"}
_TIMES = {
    Language.DE: "%d.%m.%Y, %H:%M UTC",
    Language.FR: "%d.%m.%Y, %H:%M UTC",
    Language.IT: "%d.%m.%Y, %H:%M UTC",
    Language.EN: "%Y-%m-%d, %H:%M UTC",
}
_SAMPLE_LINK = "https://guard.example/c/0123456789"
_SAMPLE_END = datetime(2030, 1, 31, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Post:
    """A message, ready to be sent."""

    envelope: Envelope
    message: bytes


class InvitationMail:
    """Makes the messages. Raises SettingsError where a template cannot be used."""

    def __init__(self, settings: VerificationSettings) -> None:
        self._settings = settings
        self._sender = parse_mailbox(settings.sender)
        self._templates = dict(_templates(settings.templates))
        for (_, language, part), template in self._templates.items():
            text = _tried(template, self._values(language, _SAMPLE_LINK, _SAMPLE_END))
            if part != "subject" and _SAMPLE_LINK not in text:
                raise SettingsError(f"verification.templates: {template.filename}: it does not hold the link")

    def write(self, invitation: Invitation, link: str, *, now: datetime) -> Post:
        """Write the message of an invitation."""
        is_ascii = invitation.mailbox.text.isascii()
        # A message that no standard wants to have the null reverse-path has one of its own (RFC 5321 4.5.5): this one
        # answers nothing (RFC 3834 3.3 is about what does), and that it bounced is worth knowing.
        envelope = Envelope(self._sender, MailParameters(smtputf8=not is_ascii), ForwardPath(invitation.mailbox))
        text, html = self._rendered(invitation, "txt", link), self._rendered(invitation, "html", link)
        message = EmailMessage(policy=SMTP if is_ascii else SMTPUTF8)
        message["From"] = Address(self._settings.organisation, addr_spec=self._sender.text)
        message["To"] = invitation.mailbox.text
        message["Subject"] = " ".join(self._rendered(invitation, "subject", link).split())
        message["Date"] = now
        message["Message-ID"] = f"<invitation-{invitation.id}@{self._sender.domain}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834 5
        message["X-Auto-Response-Suppress"] = "All"
        message.set_content(text, charset="utf-8", cte="quoted-printable")
        message.add_alternative(html, subtype="html", charset="utf-8", cte="quoted-printable")
        return Post(envelope, message.as_bytes())

    def _rendered(self, invitation: Invitation, part: Part, link: str) -> str:
        template = self._templates[invitation.kind, invitation.language, part]
        return template.render(self._values(invitation.language, link, invitation.expires_at))

    def _values(self, language: Language, link: str, ends: datetime) -> dict[str, str]:
        return {
            "organisation": self._settings.organisation,
            "link": link,
            "ends": ends.astimezone(UTC).strftime(_TIMES[language]),
        }


def _templates(directory: Path | None) -> Iterator[tuple[tuple[InvitationKind, Language, Part], Template]]:
    if directory is not None and not directory.is_dir():
        raise SettingsError(f"verification.templates: {directory} is no directory")
    own = [FileSystemLoader(directory)] if directory else []
    environment = Environment(
        loader=ChoiceLoader([*own, FileSystemLoader(TEMPLATES)]),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        auto_reload=False,
    )
    for kind, prefix in _NAMES.items():
        for language in Language:
            for part in PARTS:
                name = f"{prefix}.{language.value}.{part}"
                try:
                    yield (kind, language, part), environment.get_template(name)
                except (TemplateError, OSError, ValueError) as error:
                    raise SettingsError(f"verification.templates: {name}: {error}") from error


def _tried(template: Template, values: dict[str, str]) -> str:
    try:
        return template.render(values)
    except Exception as error:  # what a template of somebody's own does is not known
        raise SettingsError(f"verification.templates: {template.filename}: {error}") from error
