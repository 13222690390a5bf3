"""The recipients' pages in a real browser: by keyboard alone, at a phone's width, in light and dark, looked at by axe."""

from collections.abc import AsyncIterator

import pytest

from smtpguard.domain.invitation import Language
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.domain.standing import Standing
from tests.support.browser import browsing, on_a_phone, problems_of
from tests.support.eventually import eventually
from tests.support.guard import put_on_record
from tests.support.invitations import token_of
from tests.support.recipient import READING, Recipient, receiving
from tests.support.scripted_smarthost import ScriptedSmarthost

pytestmark = pytest.mark.peers


@pytest.fixture
async def browser() -> AsyncIterator:
    async with browsing() as browser:
        yield browser


@pytest.fixture
async def recipient(sqlite_url, monkeypatch) -> AsyncIterator[Recipient]:
    async with ScriptedSmarthost() as smarthost, receiving(sqlite_url, smarthost, monkeypatch) as recipient:
        yield recipient


async def looked_at(page, complaints, title: str) -> None:
    """A page is the one that was expected, and nobody is kept out of it."""
    assert await page.locator("h1").inner_text() == title
    assert await problems_of(page) == []
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    assert await page.evaluate("getComputedStyle(document.querySelector('h1')).marginTop") != "0px"  # its style holds
    assert complaints == []


async def test_question_is_answered_by_keyboard(browser, recipient) -> None:
    link = recipient.url(await recipient.invited(challenge=("Customer number", "4711")))
    async with on_a_phone(browser) as (page, complaints):
        await page.goto(link)
        await looked_at(page, complaints, "Is this e-mail address yours?")
        sizes = [await button.bounding_box() for button in await page.get_by_role("button").all()]
        assert [(size["width"], size["height"]) for size in sizes] == [(sizes[0]["width"], sizes[0]["height"])] * 2
        recipient.clock.ahead += READING

        await page.keyboard.press("Tab")
        await page.keyboard.type("4712")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await page.get_by_role("alert").wait_for()
        await looked_at(page, complaints, "Is this e-mail address yours?")
        assert "Tries left: 4" in await page.get_by_role("alert").inner_text()
        assert (await page.title()).startswith("Problem: ")
        recipient.clock.ahead += READING

        await page.keyboard.press("Tab")
        await page.keyboard.type("4711")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Space")
        await page.get_by_text("Thank you").first.wait_for()
        await looked_at(page, complaints, "Thank you")
        assert await recipient.standing() is Standing.VERIFIED

        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await page.get_by_text("no longer sends").wait_for()
        await looked_at(page, complaints, "Thank you")
        assert await recipient.standing() is Standing.FLAGGED

        await page.goto(link)
        complaints.clear()  # of the 404
        await looked_at(page, complaints, "This link does nothing any more")


async def test_enter_in_the_field_is_the_first_button(browser, recipient) -> None:
    """As in every form; a wrong answer then costs a try and nothing else."""
    link = recipient.url(await recipient.invited(challenge=("Customer number", "4711")))
    async with on_a_phone(browser) as (page, _):
        await page.goto(link)
        recipient.clock.ahead += READING
        await page.get_by_label("Customer number").fill("4711")
        await page.keyboard.press("Enter")
        await page.get_by_text("Thank you").first.wait_for()

    assert await recipient.standing() is Standing.VERIFIED


async def test_stranger_stops_it_in_the_dark(browser, recipient) -> None:
    await put_on_record(recipient.guard.desks, ["anna@example.com"])
    async with on_a_phone(browser, color_scheme="dark", locale="de-CH") as (page, complaints):
        await page.goto(recipient.url("/stop"))
        await looked_at(page, complaints, "Erhalten Sie E-Mails, die nicht für Sie bestimmt sind?")
        await page.get_by_role("link", name="English").click()
        await page.get_by_label("Your e-mail address").fill("anna@")
        await page.keyboard.press("Enter")
        await page.get_by_role("alert").wait_for()
        complaints.clear()  # of the 422
        await looked_at(page, complaints, "Do you get e-mail that is not meant for you?")
        await page.get_by_label("Your e-mail address").fill("anna@example.com")
        await page.keyboard.press("Enter")
        await page.get_by_text("Please look into").wait_for()
        await looked_at(page, complaints, "Please look into your mailbox")
        await eventually(lambda: len(recipient.smarthost.messages) == 1)

        await page.goto(recipient.url(f"/d/{token_of(recipient.smarthost.messages[0])}"))
        recipient.clock.ahead += READING
        await looked_at(page, complaints, "Stop e-mail to this mailbox?")
        await page.get_by_role("button", name="Stop it").click()
        await page.get_by_text("no longer sends").wait_for()

    assert await recipient.standing() is Standing.FLAGGED


async def test_words_fit_in_every_language(browser, recipient) -> None:
    async with on_a_phone(browser) as (page, complaints):
        for language in Language:
            mailbox = parse_mailbox(f"{language.value}@example.com")
            link = await recipient.invited(mailbox=mailbox, language=language, challenge=("Kundennummer", "4711"))
            await page.goto(recipient.url(link))
            await looked_at(page, complaints, await page.locator("h1").inner_text())
            assert await page.get_attribute("html", "lang") == language.value


async def test_bad_page_would_be_noticed(browser) -> None:
    async with on_a_phone(browser) as (page, complaints):
        await page.set_content("<h1>x</h1><input><img src='http://127.0.0.1:9/'><p style='color:#999'>grey</p>")
        problems = " ".join(await problems_of(page))

    assert all(problem in problems for problem in ("label", "image-alt", "color-contrast", "html-has-lang"))
    assert complaints
