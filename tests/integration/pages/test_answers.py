"""The pages of a link: what is asked, what the answers do, and what does nothing."""

import asyncio

import pytest

from smtpguard.domain.standing import Standing
from tests.support.invitations import ORGANISATION
from tests.support.recipient import ANNA

GONE = "This link does nothing any more"
WRONG = "This is not what is on record"


async def test_yes_verifies(recipient) -> None:
    link = await recipient.invited()
    page = await recipient.opened(link)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "Is this e-mail address yours?" in page.text
    assert await recipient.standing() is Standing.UNVERIFIED

    thanks = await recipient.pressed(link, "yes", page)

    assert (thanks.status_code, "Thank you" in thanks.text) == (200, True)
    assert await recipient.standing() is Standing.VERIFIED
    [voucher] = (await recipient.guard.desks.addresses.show(ANNA)).vouchers
    assert "127.0.0.1" in voucher.evidence


async def test_no_flags(recipient) -> None:
    done = await recipient.pressed(await recipient.invited(), "no")

    assert (done.status_code, "no longer sends e-mail" in done.text) == (200, True)
    record = await recipient.guard.desks.addresses.show(ANNA)
    assert record.flag is not None
    assert record.flag.reason == "disowned"


async def test_no_after_yes_ends_as_not_verified(recipient) -> None:
    link = await recipient.invited()
    thanks = await recipient.pressed(link, "yes")
    assert "Was that a mistake?" in thanks.text

    done = await recipient.pressed(link, "no", thanks)

    assert "no longer sends e-mail" in done.text
    assert await recipient.standing() is Standing.FLAGGED


async def test_yes_after_no_does_nothing(recipient) -> None:
    link = await recipient.invited()
    page = await recipient.opened(link)
    await recipient.pressed(link, "no", page)

    late = await recipient.pressed(link, "yes", page)

    assert (late.status_code, GONE in late.text) == (404, True)
    assert await recipient.standing() is Standing.FLAGGED


async def test_both_buttons_at_once_end_as_not_verified(recipient) -> None:
    link = await recipient.invited()
    page = await recipient.opened(link)

    await asyncio.gather(*(recipient.pressed(link, answer, page) for answer in ("yes", "no", "yes", "no")))

    assert await recipient.standing() is Standing.FLAGGED


async def test_looking_changes_nothing(recipient) -> None:
    link = await recipient.invited()

    for method in ("GET", "HEAD", "GET", "HEAD"):
        assert (await recipient.http.request(method, f"{link}?answer=yes&utm=1")).status_code == 200

    assert await recipient.standing() is Standing.UNVERIFIED
    assert "Thank you" in (await recipient.pressed(link, "yes")).text


@pytest.mark.parametrize("answer", ["yes", "no"])
async def test_program_that_submits_what_it_fetches_decides_nothing(recipient, answer) -> None:
    link = await recipient.invited()
    page = await recipient.http.get(link)

    again = await recipient.pressed(link, answer, page)

    assert "it may have been a program" in again.text
    assert await recipient.standing() is Standing.UNVERIFIED
    recipient.clock.ahead *= 0
    assert "Thank you" in (await recipient.pressed(link, "yes")).text


@pytest.mark.parametrize(
    "form",
    [
        {"shown_at": ""},
        {"answer": ""},
        {"answer": "YES"},
        {"answer": "maybe"},
        {"answer": "yes"},
        {"answer": "yes", "shown_at": ""},
        {"answer": "yes", "shown_at": "yesterday"},
        {"answer": "yes", "shown_at": "2020-01-01T00:00:00"},
        {"answer": "yes", "shown_at": "9999-12-31T23:59:59+00:00"},
        {"answer": "no", "shown_at": "0001-01-01T00:00:00+14:00x"},
    ],
    ids=str,
)
async def test_form_that_nobody_pressed_decides_nothing(recipient, form) -> None:
    link = await recipient.invited()

    page = await recipient.http.post(link, data=form)

    assert (page.status_code, "Is this e-mail address yours?" in page.text) == (200, True)
    assert await recipient.standing() is Standing.UNVERIFIED


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"content-type": "application/json"}, b'{"answer":"yes"}', 415),
        ({"content-type": "multipart/form-data; boundary=x"}, b"--x--", 415),
        ({}, b"answer=yes", 415),
        ({"content-type": "application/x-www-form-urlencoded"}, b"a=1&" * 50, 400),
        ({"content-type": "application/x-www-form-urlencoded"}, b"a" * 5000, 413),
        ({"content-type": "application/x-www-form-urlencoded"}, b"answer=%ff%00\xff&\xf0", 200),
    ],
    ids=range(6),
)
async def test_body_of_the_wrong_shape(recipient, headers, body, status) -> None:
    link = await recipient.invited()

    page = await recipient.http.post(link, content=body, headers=headers)

    assert page.status_code == status
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "Traceback" not in page.text
    assert await recipient.standing() is Standing.UNVERIFIED


async def test_links_that_do_nothing_look_alike(recipient) -> None:
    """Used, expired, guessed, cut, lengthened, of other letters: one page, and no sign of an invitation."""
    used = await recipient.invited(language=None)
    page = await recipient.opened(used)
    await recipient.pressed(used, "no", page)
    token = used.removeprefix("/c/")
    links = [
        used,
        f"/c/{'A' * 43}",
        f"/c/{token[:-1]}",
        f"/c/{token}A",
        f"/c/{token.swapcase()}",
        "/c/%00",
        "/d/é",
        "/x",
    ]

    pages = [await recipient.http.get(link) for link in links]
    answers = [await recipient.pressed(link, "yes", page) for link in links[:-1]]

    assert {each.status_code for each in pages + answers} == {404}
    assert len({each.text for each in pages + answers}) == 1
    assert GONE in pages[0].text
    assert len({tuple(sorted(set(each.headers) - {"date"})) for each in pages}) == 1


async def test_language_of_an_invitation_does_not_show_once_it_is_used(recipient) -> None:
    from smtpguard.domain.invitation import Language

    link = await recipient.invited(language=Language.FR)
    page = await recipient.opened(link)
    assert '<html lang="fr">' in page.text
    await recipient.pressed(link, "no", page)

    late = await recipient.http.get(link, headers={"accept-language": "it-CH, de;q=0.5"})

    assert '<html lang="it">' in late.text


# A challenge


CHALLENGE = ("Customer number", "K 4711")


async def test_challenge_is_answered(recipient) -> None:
    link = await recipient.invited(challenge=CHALLENGE)
    page = await recipient.opened(link)
    assert "Customer number" in page.text
    assert "4711" not in page.text

    missing = await recipient.pressed(link, "yes", page, challenge_answer=" ")
    wrong = await recipient.pressed(link, "yes", page, challenge_answer="K 4712")

    assert "please fill in: Customer number" in missing.text
    assert WRONG in wrong.text
    assert "Tries left: 4" in wrong.text
    assert await recipient.standing() is Standing.UNVERIFIED
    assert "Thank you" in (await recipient.pressed(link, "yes", page, challenge_answer="k  4711")).text


async def test_challenge_has_five_tries_also_at_once(recipient) -> None:
    link = await recipient.invited(challenge=CHALLENGE)
    page = await recipient.opened(link)

    guesses = [recipient.pressed(link, "yes", page, challenge_answer=f"K {number}") for number in range(8)]
    said = [(await guess).text for guess in guesses]

    assert sum(WRONG in text for text in said) == 4
    last = await recipient.pressed(link, "yes", page, challenge_answer="K 4711")
    assert "Thank you" not in last.text
    assert await recipient.standing() is Standing.UNVERIFIED
    left = await recipient.opened(link)
    assert "A Yes is no longer possible" in left.text
    assert 'value="yes"' not in left.text
    assert "no longer sends e-mail" in (await recipient.pressed(link, "no", left)).text


async def test_no_needs_no_challenge(recipient) -> None:
    link = await recipient.invited(challenge=CHALLENGE)

    assert "no longer sends e-mail" in (await recipient.pressed(link, "no")).text


async def test_hostile_words_are_text(sqlite_url, smarthost, monkeypatch) -> None:
    from tests.support.recipient import receiving

    label = '<script>alert(1)</script>" onfocus=x %(organisation)s {{ 7*7 }}'
    async with receiving(sqlite_url, smarthost, monkeypatch) as recipient:
        link = await recipient.invited(challenge=(label, "x"))
        page = await recipient.opened(link)
        wrong = await recipient.pressed(link, "yes", page, challenge_answer="</input><script>")
        empty = await recipient.pressed(link, "yes", page)

    for shown in (page.text, wrong.text, empty.text):
        assert "<script" not in shown
        assert "&lt;script&gt;alert(1)&lt;/script&gt;&#34; onfocus=x %(organisation)s {{ 7*7 }}" in shown
        assert ORGANISATION.replace("&", "&amp;") in shown
