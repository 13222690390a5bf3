"""What holds for every page: headers, limits, the log, and a store that is away."""

import pytest
from structlog.testing import capture_logs

from smtpguard.errors import StoreUnavailable
from smtpguard.storage.invitations import Invitations
from smtpguard.web.recipients import application
from tests.support.invitations import PUBLIC_URL
from tests.support.recipient import receiving

ELSEWHERE = ("http://", "https://", "<script", "javascript:", "src=", "@import", "url(")


async def test_headers_of_every_page(recipient) -> None:
    link = await recipient.invited()
    pages = [
        await recipient.http.get(link),
        await recipient.http.post(link, data={"answer": "x"}),
        await recipient.http.get("/stop"),
        await recipient.http.get("/nothing"),
        await recipient.http.put("/stop"),
    ]

    assert [page.status_code for page in pages] == [200, 200, 200, 404, 405]
    for page in pages:
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert policy.endswith("form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
        assert "unsafe" not in policy
        assert page.headers["referrer-policy"] == "no-referrer"
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["x-robots-tag"] == "noindex"
        assert page.headers["strict-transport-security"]
        assert "set-cookie" not in page.headers
        assert "server" not in page.headers
        body = page.text.partition("<body>")[2]
        text = page.text.replace(PUBLIC_URL, "")
        assert not [word for word in ELSEWHERE if word in text]
        assert "style=" not in body


async def test_pages_hold_no_address(recipient) -> None:
    link = await recipient.invited()

    page = await recipient.opened(link)
    done = await recipient.pressed(link, "yes", page)

    assert "anna" not in (page.text + done.text).lower()
    assert "@" not in page.text.replace("@media", "")


async def test_log_holds_no_link(recipient) -> None:
    link = await recipient.invited()
    with capture_logs() as lines:
        await recipient.pressed(link, "yes")
        await recipient.http.get(f"{link}x?address=anna@example.com")

    requests = [line for line in lines if line["event"] == "request-ended"]
    assert [(line["route"], line["status"]) for line in requests] == [
        ("/c/{token}", 200),
        ("/c/{token}", 200),
        ("/c/{token}", 404),
    ]
    assert link.removeprefix("/c/") not in str(lines)
    assert "anna" not in str(requests)


async def test_too_many_requests(recipient) -> None:
    link = await recipient.invited()
    said = [(await recipient.http.get(link)).status_code for _ in range(application.MAX_REQUESTS)]

    busy = await recipient.http.get(link)

    assert set(said) == {200}
    assert (busy.status_code, "Too many tries" in busy.text) == (429, True)
    assert int(busy.headers["retry-after"]) <= 61


async def test_word_of_a_proxy_counts(sqlite_url, smarthost, monkeypatch) -> None:
    """Behind a proxy each of its clients has a limit of its own, and is the evidence; who is no proxy is not heard."""
    async with receiving(sqlite_url, smarthost, monkeypatch, proxies=["127.0.0.0/8"]) as recipient:
        link = await recipient.invited()
        page = await recipient.opened(link)
        recipient.http.headers["x-forwarded-for"] = "198.51.100.9, 192.0.2.7"
        await recipient.pressed(link, "yes", page)
        [voucher] = (await recipient.guard.desks.addresses.show(recipient.mailbox)).vouchers

    assert "192.0.2.7" in voucher.evidence


async def test_word_of_others_does_not(recipient) -> None:
    link = await recipient.invited()
    page = await recipient.opened(link)
    recipient.http.headers["x-forwarded-for"] = "192.0.2.7"
    await recipient.pressed(link, "yes", page)
    [voucher] = (await recipient.guard.desks.addresses.show(recipient.mailbox)).vouchers

    assert "192.0.2.7" not in voucher.evidence


async def test_store_is_away(recipient, monkeypatch) -> None:
    link = await recipient.invited()
    page = await recipient.opened(link)

    async def fail(*_, **__):
        raise StoreUnavailable("secret words")

    monkeypatch.setattr(Invitations, "find", fail)
    shown, pressed = await recipient.http.get(link), await recipient.pressed(link, "yes", page)

    for answer in (shown, pressed):
        assert (answer.status_code, "Nothing was changed" in answer.text) == (503, True)
        assert "secret" not in answer.text


async def test_error_of_the_guard(recipient, monkeypatch) -> None:
    link = await recipient.invited()

    async def fail(*_, **__):
        raise RuntimeError("secret words")

    monkeypatch.setattr(Invitations, "find", fail)
    answer = await recipient.http.get(link)

    assert (answer.status_code, answer.headers["content-type"]) == (500, "text/html; charset=utf-8")
    assert "Nothing was changed" in answer.text
    assert "secret" not in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE"])
async def test_other_methods(recipient, method) -> None:
    link = await recipient.invited()

    assert (await recipient.http.request(method, link)).status_code == 405
