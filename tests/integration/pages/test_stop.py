"""The page for somebody without an invitation, who gets a stranger's mail."""

import pytest

from smtpguard.domain.standing import Standing
from tests.support.eventually import eventually
from tests.support.guard import put_on_record, verify

SENT = "Please look into your mailbox"


async def test_stranger_disowns_an_address(recipient) -> None:
    await verify(recipient.guard.desks, "anna@example.com")
    link = await recipient.sent_a_link(" Anna@example.com ")
    page = await recipient.opened(link)
    assert "Stop e-mail to this mailbox?" in page.text
    assert 'value="yes"' not in page.text
    assert await recipient.standing() is Standing.VERIFIED

    done = await recipient.pressed(link, "no", page)

    assert "no longer sends e-mail" in done.text
    assert await recipient.standing() is Standing.FLAGGED
    assert (await recipient.pressed(link, "no", page)).status_code == 404


async def test_link_to_disown_confirms_nothing(recipient) -> None:
    await put_on_record(recipient.guard.desks, ["anna@example.com"])
    link = await recipient.sent_a_link("anna@example.com")

    late = await recipient.pressed(link, "yes")

    assert late.status_code == 404
    assert await recipient.standing() is Standing.UNVERIFIED


async def test_answer_is_the_same_whatever_the_address(recipient) -> None:
    await put_on_record(recipient.guard.desks, ["anna@example.com"])
    addresses = ("anna@example.com", "anna@example.com", "nobody@example.com", "x!y%z@example.com", "Postmaster")

    answers = [await recipient.http.post("/stop", data={"address": address}) for address in addresses]

    assert {each.status_code for each in answers} == {200}
    assert len({each.text for each in answers}) == 1
    assert SENT in answers[0].text
    await eventually(lambda: len(recipient.smarthost.messages) == 1)


@pytest.mark.parametrize(
    "address", ["", "anna", "anna@", "a b@example.com", "a@b\r\nBcc: c@d", "x" * 400 + "@b.c", "<script>"]
)
async def test_no_address(recipient, address) -> None:
    again = await recipient.http.post("/stop", data={"address": address})

    assert (again.status_code, "This is not an e-mail address" in again.text) == (422, True)
    assert 'aria-invalid="true"' in again.text
    assert "script" not in again.text
    assert recipient.smarthost.messages == []


@pytest.mark.parametrize(
    ("asked", "header", "language"),
    [
        ("de", "fr", "de"),
        ("", "fr-CH, de;q=0.9", "fr"),
        ("", "it;q=0.1, de;q=0.9", "de"),
        ("", "de;q=0, rm", "en"),
        ("xx", "de", "en"),
        ("", "", "en"),
        ("", "*;q=x,,;;de" + ",fr" * 1000, "fr"),
    ],
)
async def test_language(recipient, asked, header, language) -> None:
    page = await recipient.http.get("/stop", params={"lang": asked}, headers={"accept-language": header})

    assert f'<html lang="{language}">' in page.text
    assert f'hreflang="{language}"' not in page.text


async def test_link_comes_in_the_language_of_the_page(recipient) -> None:
    await put_on_record(recipient.guard.desks, ["anna@example.com"])
    await recipient.http.post("/stop?lang=it", data={"address": "anna@example.com"})
    await eventually(lambda: len(recipient.smarthost.messages) == 1)

    from tests.support.invitations import text_of

    assert text_of(recipient.smarthost.messages[0]).startswith("Buongiorno")
