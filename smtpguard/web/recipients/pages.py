"""The pages as HTML: which there are, and what stands on each, in four languages.

Nothing on a page comes from elsewhere, and nothing runs in it; its style stands in it and is known by its digest.
"""

import tomllib
from base64 import b64encode
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from smtpguard.domain.invitation import Language

_HERE = Path(__file__).parent
_STYLE = (_HERE / "style.css").read_text(encoding="utf-8")
_TEXTS: dict[Language, dict[str, str]] = {
    language: tomllib.loads((_HERE / "texts" / f"{language.value}.toml").read_text(encoding="utf-8"))
    for language in Language
}

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src 'sha256-{b64encode(sha256(_STYLE.encode()).digest()).decode()}'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)


class Pages:
    """The pages of an organisation. ``public_url`` is where recipients reach them."""

    def __init__(self, organisation: str, public_url: str) -> None:
        self._organisation = organisation
        self._stop_url = f"{public_url}/stop"
        self._templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined, auto_reload=False
        )

    def question(
        self,
        language: Language,
        *,
        shown_at: datetime,
        challenge_label: str | None,
        problem: str = "",
        tries_left: int = 0,
    ) -> bytes:
        """Ask whether the mailbox is the reader's; ``problem`` names the text that says what was wrong."""
        return self._page(
            language,
            "question_title",
            ("question",),
            template="question",
            problem=self._text(language, problem, label=challenge_label, tries=tries_left),
            shown_at=shown_at.isoformat(),
            challenge_label=challenge_label,
            consequence=self._text(language, "question_no"),
        )

    def only_no(self, language: Language, *, shown_at: datetime, problem: str = "") -> bytes:
        """Leave a No to a link whose challenge was answered wrongly too often."""
        sentences = ("challenge_used_up", "question_no")
        return self._no(language, "question_title", sentences, button="no", shown_at=shown_at, problem=problem)

    def confirmed(self, language: Language, *, shown_at: datetime) -> bytes:
        """Say that the mailbox is confirmed, and take a No all the same."""
        sentences = ("confirmed", "confirmed_undo")
        return self._no(language, "confirmed_title", sentences, button="no", shown_at=shown_at)

    def disown(self, language: Language, *, shown_at: datetime, problem: str = "") -> bytes:
        """Offer to stop what is sent to the mailbox."""
        return self._no(
            language, "disown_title", ("disown",), button="disown_button", shown_at=shown_at, problem=problem
        )

    def disowned(self, language: Language) -> bytes:
        """Say that nothing more is sent."""
        return self._page(language, "disowned_title", ("disowned", "disowned_mistake"))

    def gone(self, language: Language) -> bytes:
        """Say what is said of every link that does nothing: a used one, an expired one, one that never was."""
        return self._page(language, "gone_title", ("gone",), template="gone", stop_url=self._stop_url)

    def stop(self, language: Language, *, problem: str = "") -> bytes:
        """Ask somebody without an invitation for the address."""
        return self._page(
            language,
            "stop_title",
            ("stop",),
            template="stop",
            problem=self._text(language, problem),
            languages=[(each.value, texts["language_name"]) for each, texts in _TEXTS.items()],
        )

    def sent(self, language: Language) -> bytes:
        """Say that a link may be on its way."""
        return self._page(language, "sent_title", ("sent",))

    def busy(self, language: Language) -> bytes:
        """Say that there were too many tries."""
        return self._page(language, "busy_title", ("busy",))

    def failed(self, language: Language) -> bytes:
        """Say that nothing can be done now."""
        return self._page(language, "failed_title", ("failed",))

    def _no(
        self,
        language: Language,
        title: str,
        sentences: tuple[str, ...],
        *,
        button: str,
        shown_at: datetime,
        problem: str = "",
    ) -> bytes:
        return self._page(
            language,
            title,
            sentences,
            template="no",
            problem=self._text(language, problem),
            button=self._text(language, button),
            shown_at=shown_at.isoformat(),
        )

    def _page(
        self,
        language: Language,
        title: str,
        sentences: tuple[str, ...],
        *,
        template: str = "page",
        problem: str = "",
        **values: object,
    ) -> bytes:
        page = self._templates.get_template(f"{template}.html").render(
            language=language.value,
            organisation=self._organisation,
            style=Markup(_STYLE),  # noqa: S704 - our own, and it must be what its digest says
            text=_TEXTS[language],
            title=self._text(language, title),
            sentences=[self._text(language, sentence) for sentence in sentences],
            problem=problem,
            **values,
        )
        return page.encode("utf-8")

    def _text(self, language: Language, name: str, **values: object) -> str:
        """Return a text by its name, nothing for no name."""
        return _TEXTS[language][name] % {"organisation": self._organisation, **values} if name else ""
