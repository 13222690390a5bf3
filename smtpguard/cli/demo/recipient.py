"""A recipient of the demo: reads an invitation, opens its page and presses a button, with an ordinary HTTP client."""

import asyncio
import re
from dataclasses import dataclass
from email import message_from_bytes
from email.policy import default
from html import unescape
from urllib.parse import urlencode
from urllib.request import OpenerDirector, ProxyHandler, build_opener

from smtpguard.domain.invitation import Answer
from smtpguard.web.recipients.application import HASTY

TIMEOUT_SECONDS = 30.0
_LINK = re.compile(r"http://\S+/c/([\w-]+)")
_SHOWN_AT = re.compile(r'name="shown_at" value="([^"]+)"')


@dataclass(frozen=True)
class ReadInvitation:
    """What an invitation says to who reads it."""

    sender: str
    subject: str
    link: str
    token: str


def read_invitation(message: bytes) -> ReadInvitation:
    """Read an invitation. Raises ValueError where there is no link in it."""
    parsed = message_from_bytes(message, policy=default)
    part = parsed.get_body(("plain",))
    match = _LINK.search(part.get_content() if part else "")
    if match is None:
        raise ValueError("there is no link in the invitation")
    return ReadInvitation(str(parsed["From"]), str(parsed["Subject"]), match[0], match[1])


async def press(link: str, answer: Answer) -> None:
    """Open a page, read it for as long as a person would, and press a button. Raises OSError, ValueError."""
    browser = build_opener(ProxyHandler({}))
    page = await asyncio.to_thread(_ask, browser, link)
    match = _SHOWN_AT.search(page)
    if match is None:
        raise ValueError("there is nothing to press on the page")
    await asyncio.sleep(HASTY.total_seconds())
    form = urlencode({"shown_at": unescape(match[1]), "answer": answer.value})
    await asyncio.to_thread(_ask, browser, link, form.encode("ascii"))


def _ask(browser: OpenerDirector, link: str, form: bytes | None = None) -> str:
    with browser.open(link, form, timeout=TIMEOUT_SECONDS) as page:
        text: str = page.read().decode("utf-8")
    return text
