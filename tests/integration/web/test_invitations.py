"""Invitations over HTTP: who gets one, what is said of it, and that no answer holds its link."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest

from smtpguard.app import clock
from smtpguard.domain.invitation import Answer, AnswerOutcome
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.service import challenges
from tests.integration.storage.builders import connected
from tests.support.api import Api, asking
from tests.support.guard import put_on_record
from tests.support.invitations import INVITING, VERIFICATION, text_of, token_of
from tests.support.scripted_smarthost import ScriptedSmarthost, drop, refuse

ANNA = "anna@customer.example"
PATH = "/invitations"
CHALLENGE = {"label": "customer number", "answer": "K-4711"}


@pytest.fixture
async def api(sqlite_url, smarthost) -> AsyncIterator[Api]:
    async with asking(sqlite_url, smarthost.port, **INVITING) as api:
        yield api


async def test_invitation(api, smarthost) -> None:
    """Whoever reads the mailbox gets the link, and nobody else does."""
    body = {"address": ANNA, "customer": "4711", "language": "fr", "challenge": CHALLENGE, "on_behalf_of": "Ben"}
    response = await api("POST", PATH, body)
    [sent] = smarthost.messages
    said, token = response.json(), token_of(sent)
    recorded, *_ = await api.guard.desks.store.audit_log.list(limit=0, after=None)

    assert response.status_code == 200
    assert set(said) == {"id", "expires_at", "language"}
    assert said["language"] == "fr"
    assert abs(datetime.fromisoformat(said["expires_at"]) - clock() - timedelta(days=7)) < timedelta(minutes=1)
    assert token not in response.text
    assert sent.recipients == [ANNA]
    assert text_of(sent).startswith("Bonjour")
    assert recorded.act.actor == "token:crm on behalf of Ben"
    assert said["id"] in recorded.act.why
    assert await answered(api, token, "K-4712") is AnswerOutcome.WRONG_ANSWER
    assert await answered(api, token, "k-4711") is AnswerOutcome.CONFIRMED
    [voucher] = (await api.done("POST", "/addresses/lookup", {"address": ANNA}))["vouchers"]
    assert (voucher["customer"], voucher["method"]) == ("4711", "confirmation")


async def answered(api: Api, token: str, challenge_answer: str = "") -> AnswerOutcome:
    answer = await api.guard.desks.invitations.answer(
        token, Answer.YES, challenge_answer=challenge_answer, evidence="192.0.2.1"
    )
    return answer.outcome


async def test_same_request_again(api, smarthost) -> None:
    """One message, the same answer; what is kept under the key tells nobody the answer to the challenge."""
    body = {"address": ANNA, "challenge": CHALLENGE}
    asked = [api("POST", PATH, body, Idempotency_Key="k") for _ in range(4)]
    said = await asyncio.gather(*asked)
    again = await api("POST", PATH, body, Idempotency_Key="k")

    assert {each.status_code for each in said} <= {200, 409}
    assert {each.content for each in said if each.status_code == 200} <= {again.content}
    assert again.headers["idempotency-replayed"] == "true"
    assert len(smarthost.messages) == 1
    assert await api.refused("POST", PATH, {"address": ANNA}, Idempotency_Key="k") == (422, "idempotency-key-reused")


async def test_kept_under_a_key(api, smarthost, sqlite_url) -> None:
    """The link and the answer to a challenge are not, nor what they could be guessed by."""
    from hashlib import sha256

    from sqlalchemy import text

    body = b'{"address":"anna@customer.example","challenge":{"label":"customer number","answer":"K-4711"}}'
    headers = {"Authorization": f"Bearer {api.token}", "Content-Type": "application/json", "Idempotency-Key": "k"}
    response = await api.http.post(f"/api/v1{PATH}", content=body, headers=headers)
    assert response.status_code == 200
    with connected(sqlite_url) as connection:
        [row] = connection.execute(text("SELECT * FROM idempotency_keys")).all()

    assert row.request_digest != sha256(b"POST /api/v1/invitations\n" + body).hexdigest()
    for secret in (token_of(smarthost.messages[0]), "4711"):
        assert secret not in repr(row)


async def test_who_is_not_invited(api, smarthost) -> None:
    flagged, shared, invited = "flagged@x.example", "shared@x.example", "invited@x.example"
    await api.guard.desks.addresses.flag(parse_mailbox(flagged), by="test", reason="x")
    for customer in ("1", "2"):
        await put_on_record(api.guard.desks, [shared], customer=customer)
    await api.done("POST", PATH, {"address": invited})

    for body, said in [
        ({"address": flagged, "customer": "1"}, (409, "recipient-flagged")),
        ({"address": shared}, (409, "shared")),
        ({"address": invited, "customer": "2"}, (409, "invited-before")),
        ({"address": "Postmaster"}, (409, "refused")),
        ({"address": "nonsense"}, (422, "invalid-address")),
        ({"address": ANNA, "language": "es"}, (400, "bad-body")),
        ({"address": ANNA, "customer": "7\r\n"}, (400, "bad-body")),
        ({"address": ANNA, "challenge": {"label": "a\nb", "answer": "1"}}, (400, "bad-body")),
        ({"address": ANNA, "challenge": {"label": "a", "answer": " \t"}}, (400, "bad-body")),
        ({"address": ANNA, "challenge": {"label": "a", "answer": "x" * 201}}, (400, "bad-body")),
        ({"address": ANNA, "challenge": {"label": "a"}}, (400, "bad-body")),
        ({"address": ANNA, "token": "x"}, (400, "bad-body")),
    ]:
        assert await api.refused("POST", PATH, body) == said, body
    assert len(smarthost.messages) == 1
    await api.done("POST", PATH, {"address": shared, "customer": "2"})


async def test_cap(sqlite_url, smarthost) -> None:
    sections = INVITING | {"verification": VERIFICATION | {"max_invitations_per_day": 1}}
    async with asking(sqlite_url, smarthost.port, **sections) as api:
        await api.done("POST", PATH, {"address": ANNA})
        assert await api.refused("POST", PATH, {"address": "b@x.example"}) == (409, "cap-reached")


async def test_settings_that_lack(sqlite_url, smarthost) -> None:
    """It says what is not set."""
    async with asking(sqlite_url, smarthost.port) as api:
        response = await api("POST", PATH, {"address": ANNA})

    assert (response.status_code, response.json()["code"]) == (409, "invitations-off")
    assert "verification.organisation" in response.json()["detail"]


async def test_smarthost_that_refuses_or_is_away(api, smarthost) -> None:
    """Nothing was sent, and the same request may come again under its key."""
    body = {"address": ANNA}
    smarthost.rcpt = {ANNA: refuse(550, "5.1.1 no")}
    response = await api("POST", PATH, body, Idempotency_Key="k")
    assert (response.status_code, response.json()["code"]) == (502, "smarthost-refused")
    assert response.json()["smarthost_code"] == 550
    smarthost.rcpt, smarthost.mail = {}, drop()
    assert await api.refused("POST", PATH, body, Idempotency_Key="k") == (502, "smarthost-unavailable")
    smarthost.mail = None
    await api.done("POST", PATH, body, Idempotency_Key="k")

    assert len(smarthost.messages) == 1


async def test_smarthost_that_is_lost(sqlite_url) -> None:
    """It may have been sent: it counts, and is not sent again under its key."""
    async with ScriptedSmarthost(dot=drop()) as smarthost, asking(sqlite_url, smarthost.port, **INVITING) as api:
        for _ in range(2):
            said = await api.refused("POST", PATH, {"address": ANNA}, Idempotency_Key="k")
            assert said == (502, "smarthost-lost")
        assert await api.refused("POST", PATH, {"address": ANNA}) == (409, "invited-before")


async def test_too_many_challenges_at_once(api, smarthost, monkeypatch) -> None:
    monkeypatch.setattr(challenges, "MAX_AT_ONCE", 0)
    body = {"address": ANNA, "challenge": CHALLENGE}
    assert await api.refused("POST", PATH, body, Idempotency_Key="k") == (503, "busy")
    monkeypatch.undo()

    await api.done("POST", PATH, body, Idempotency_Key="k")
