"""Invitations: who gets one, what it says, and what becomes of its link, on both stores."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from argon2 import PasswordHasher
from structlog.testing import capture_logs

from smtpguard.app import Desks, clock, open_desks
from smtpguard.domain.audit import ActKind
from smtpguard.domain.invitation import Answer, AnswerOutcome, InvitationKind, InvitationState, Language
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.domain.standing import Standing
from smtpguard.errors import ActRefused, Busy, RecipientFlagged, SettingsError, SmarthostLost, SmarthostUnavailable
from smtpguard.service import challenges, password_hashes
from tests.support.eventually import eventually
from tests.support.guard import make_settings, put_on_record
from tests.support.invitations import ORGANISATION, PUBLIC_URL, SENDER, inviting_settings, parsed, text_of, token_of
from tests.support.scripted_smarthost import ScriptedSmarthost, drop, hold, refuse

ANNA = parse_mailbox("Anna@example.com")
YES, NO = Answer.YES, Answer.NO
ON_ONE_ENGINE = pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
"""For what does not depend on the store."""
LIMITS = {"command_timeout": 0.5, "connect_timeout": 0.5, "data_timeout": 0.5, "reply_timeout": 0.5}


@pytest.fixture(name="desks")
async def _desks(store_url, smarthost) -> AsyncIterator[Desks]:
    async with open_desks(inviting_settings(store_url, smarthost.port, smarthost=LIMITS)) as desks:
        yield desks


@pytest.fixture(autouse=True)
def _quick_hashes(monkeypatch) -> None:
    quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(password_hashes, "_HASHER", quick)


async def invite(desks: Desks, mailbox=ANNA, *, customer="7", language=None, challenge=None):
    return await desks.invitations.invite(mailbox, customer=customer, language=language, challenge=challenge, by="anna")


async def invited(desks: Desks, smarthost: ScriptedSmarthost, **values) -> str:
    """Invite, and return the token that came."""
    await invite(desks, **values)
    return token_of(smarthost.messages[-1])


async def answer(desks: Desks, token: str, said: Answer, challenge: str = "") -> AnswerOutcome:
    answered = await desks.invitations.answer(token, said, challenge_answer=challenge, evidence="192.0.2.1")
    return answered.outcome


async def standing(desks: Desks, mailbox=ANNA) -> Standing:
    return (await desks.addresses.show(mailbox)).standing(desks.clock())


async def acts(desks: Desks) -> list[tuple[ActKind, str, str]]:
    """What the audit log says, oldest first."""
    listed = await desks.store.audit_log.list(limit=0, after=None)
    return [(each.act.kind, each.act.actor, each.act.why) for each in reversed(listed)]


def seven_days_later(monkeypatch) -> None:
    """Let what is opened from now on live then."""
    then = clock() + timedelta(days=7)
    monkeypatch.setattr("smtpguard.app.desks.clock", lambda: then)


# The message


@ON_ONE_ENGINE
async def test_message_says_who_asks_and_nothing_about_a_customer(desks, smarthost) -> None:
    await invite(desks, customer="K-4711")
    [sent] = smarthost.messages
    message = parsed(sent)

    assert (sent.reverse_path, sent.recipients) == (SENDER, ["Anna@example.com"])
    assert message["From"].addresses[0].display_name == ORGANISATION
    assert message["From"].addresses[0].addr_spec == SENDER
    assert [each.addr_spec for each in message["To"].addresses] == ["Anna@example.com"]
    assert message["Subject"] == f"{ORGANISATION}: is this e-mail address yours?"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["X-Auto-Response-Suppress"] == "All"
    assert message["Message-ID"].endswith("@shop.example>")
    assert abs(message["Date"].datetime - desks.clock()) < timedelta(minutes=1)
    assert b"4711" not in sent.message
    assert sent.message.isascii()
    assert max(map(len, sent.message.split(b"\r\n"))) <= 78
    assert b"\n" not in sent.message.replace(b"\r\n", b"")
    for part in (text_of(sent), text_of(sent, "html")):
        assert "4711" not in part
        assert f"{PUBLIC_URL}/c/{token_of(sent)}" in part
    assert ORGANISATION in text_of(sent)
    assert "Muster &amp; Söhne AG" in text_of(sent, "html")


@ON_ONE_ENGINE
@pytest.mark.parametrize("language", Language)
async def test_message_is_in_the_language_asked_for(desks, smarthost, language) -> None:
    await invite(desks, language=language)
    words = {"de": "Guten Tag", "fr": "Bonjour", "it": "Buongiorno", "en": "Hello"}

    assert text_of(smarthost.messages[0]).startswith(words[language.value])
    assert f'<html lang="{language.value}">' in text_of(smarthost.messages[0], "html")


@ON_ONE_ENGINE
async def test_mailbox_of_other_letters(desks, smarthost) -> None:
    smarthost.capabilities = (*smarthost.capabilities, "SMTPUTF8")
    await invite(desks, parse_mailbox("josé@bücher.example"))
    [sent] = smarthost.messages

    assert sent.recipients == ["josé@bücher.example"]
    assert "SMTPUTF8" in sent.parameters
    assert "To: josé@bücher.example\r\n".encode() in sent.message


@ON_ONE_ENGINE
async def test_mailbox_that_a_header_would_change_is_not_invited(desks, smarthost) -> None:
    for address in ("Postmaster", "=?utf-8?q?x?=@example.com"):
        with pytest.raises(ActRefused, match="no message can be addressed"):
            await invite(desks, parse_mailbox(address))

    assert smarthost.connections == []


# Yes and No


async def test_yes_vouches_for_the_pair(desks, smarthost) -> None:
    token = await invited(desks, smarthost)
    assert await standing(desks) is Standing.UNVERIFIED
    assert await answer(desks, token, YES) is AnswerOutcome.CONFIRMED
    record = await desks.addresses.show(ANNA)
    [voucher] = record.vouchers
    invitation = (await acts(desks))[0][2].split(",")[0]

    assert record.standing(desks.clock()) is Standing.VERIFIED
    assert (voucher.customer, voucher.method, voucher.by) == ("7", "confirmation", "recipient")
    assert voucher.evidence == f"{invitation}, from 192.0.2.1"
    assert [binding.customer for binding in record.bindings] == ["7"]
    assert [(kind, actor) for kind, actor, _ in await acts(desks)] == [
        (ActKind.INVITE, "anna"),
        (ActKind.CONFIRM, "recipient"),
    ]
    assert await desks.store.audit_log.verify() is None


async def test_yes_holds_for_its_time_and_not_a_moment_longer(store_url, smarthost, monkeypatch) -> None:
    begin = datetime(2026, 5, 4, 12, tzinfo=UTC)
    monkeypatch.setattr("smtpguard.app.desks.clock", lambda: begin)
    async with open_desks(inviting_settings(store_url, smarthost.port, verification={"valid_for": 30})) as desks:
        await answer(desks, await invited(desks, smarthost), YES)
        end = begin + timedelta(days=30)

        async def is_vouched_for(at: datetime) -> bool:
            facts = await desks.store.address_book.facts([ANNA.lookup_key], customer="7", now=at)
            return facts[ANNA.lookup_key].vouched_for_customer

        assert await is_vouched_for(end - timedelta(microseconds=1))
        assert not await is_vouched_for(end)


@ON_ONE_ENGINE
async def test_yes_that_never_ends(store_url, smarthost) -> None:
    async with open_desks(inviting_settings(store_url, smarthost.port, verification={"valid_for": 0})) as desks:
        await answer(desks, await invited(desks, smarthost), YES)
        [voucher] = (await desks.addresses.show(ANNA)).vouchers

    assert voucher.valid_until is None


async def test_yes_of_the_address_alone(desks, smarthost) -> None:
    await answer(desks, await invited(desks, smarthost, customer=None), YES)

    assert [voucher.customer for voucher in (await desks.addresses.show(ANNA)).vouchers] == [None]


async def test_no_flags(desks, smarthost) -> None:
    token = await invited(desks, smarthost)
    assert await answer(desks, token, NO) is AnswerOutcome.DISOWNED
    record = await desks.addresses.show(ANNA)

    assert record.standing(desks.clock()) is Standing.FLAGGED
    assert (record.flag.reason, record.flag.by) == ("disowned", "recipient")
    assert [kind for kind, *_ in await acts(desks)] == [ActKind.INVITE, ActKind.DISOWN]


async def test_no_after_yes_flags_and_takes_the_voucher_back(desks, smarthost) -> None:
    """Once the flag is taken off, what was contradicted does not count again."""
    token = await invited(desks, smarthost)
    assert await answer(desks, token, YES) is AnswerOutcome.CONFIRMED
    assert await answer(desks, token, NO) is AnswerOutcome.DISOWNED
    assert await standing(desks) is Standing.FLAGGED

    await desks.addresses.unflag(ANNA, by="anna", why="a mistake")
    assert await standing(desks) is Standing.UNVERIFIED


async def test_yes_after_no_does_nothing(desks, smarthost) -> None:
    token = await invited(desks, smarthost)
    await answer(desks, token, NO)
    before = await acts(desks)

    assert await answer(desks, token, YES) is AnswerOutcome.REFUSED
    assert await answer(desks, token, NO) is AnswerOutcome.REFUSED
    assert (await desks.addresses.show(ANNA)).vouchers == ()
    assert before == await acts(desks)


async def test_yes_of_a_flagged_address_does_nothing(desks, smarthost) -> None:
    """Whoever flagged it, and by whichever link: once the flag is taken off somebody has to ask again."""
    token = await invited(desks, smarthost)
    desks.invitations.request_disown(ANNA)
    disowning = token_of(await smarthost.wait_for_message(2))
    assert await answer(desks, disowning, NO) is AnswerOutcome.DISOWNED
    assert await answer(desks, token, YES) is AnswerOutcome.REFUSED

    await desks.addresses.unflag(ANNA, by="anna", why="a mistake")
    assert await standing(desks) is Standing.UNVERIFIED


async def test_link_is_used_once(desks, smarthost) -> None:
    token = await invited(desks, smarthost)
    outcomes = [await answer(desks, token, YES) for _ in range(2)]

    assert outcomes == [AnswerOutcome.CONFIRMED, AnswerOutcome.REFUSED]
    assert len((await desks.addresses.show(ANNA)).vouchers) == 1


@pytest.mark.parametrize("order", [(YES, NO), (NO, YES), (YES, NO, YES, NO), (NO, YES, YES)])
async def test_both_buttons_at_once_end_as_not_verified(desks, smarthost, order) -> None:
    token = await invited(desks, smarthost)
    outcomes = await asyncio.gather(*(answer(desks, token, each) for each in order))

    assert outcomes.count(AnswerOutcome.DISOWNED) == 1
    assert outcomes.count(AnswerOutcome.CONFIRMED) <= 1
    assert await standing(desks) is Standing.FLAGGED


async def test_both_buttons_on_two_nodes(desks, smarthost, store_url) -> None:
    token = await invited(desks, smarthost)
    async with open_desks(inviting_settings(store_url, smarthost.port)) as others:
        answers = [answer(each, token, said) for each in (desks, others) for said in (YES, NO)]
        outcomes = await asyncio.gather(*answers)

    assert outcomes.count(AnswerOutcome.DISOWNED) == 1
    assert outcomes.count(AnswerOutcome.CONFIRMED) <= 1
    assert await standing(desks) is Standing.FLAGGED


# Links


async def test_to_look_changes_nothing(desks, smarthost) -> None:
    token = await invited(desks, smarthost, language=Language.DE, challenge=("customer number", "4711"))
    before = await acts(desks)
    views = [await desks.invitations.look(token) for _ in range(10)]

    assert len(set(views)) == 1
    assert (views[0].kind, views[0].state) == (InvitationKind.CONFIRM, InvitationState.OPEN)
    assert (views[0].language, views[0].organisation) == (Language.DE, ORGANISATION)
    assert (views[0].challenge_label, views[0].tries_left) == ("customer number", 5)
    assert before == await acts(desks)
    assert await answer(desks, token, YES, "4711") is AnswerOutcome.CONFIRMED
    assert (await desks.invitations.look(token)).state is InvitationState.ANSWERED


@ON_ONE_ENGINE
async def test_guessed_and_cut_tokens(desks, smarthost) -> None:
    token = await invited(desks, smarthost)
    last = "AEIMQUYcgkosw048"[("AEIMQUYcgkosw048".index(token[-1]) + 1) % 16]
    for wrong in ("", token[:-1], f"{token}A", token[:-1] + last, token.swapcase(), f" {token}", "é" * 43, "A" * 43):
        assert await desks.invitations.look(wrong) is None
        for said in Answer:
            assert await answer(desks, wrong, said) is AnswerOutcome.REFUSED

    assert await standing(desks) is Standing.UNVERIFIED
    assert [kind for kind, *_ in await acts(desks)] == [ActKind.INVITE]


@ON_ONE_ENGINE
async def test_tokens_are_each_for_their_own_pair(desks, smarthost) -> None:
    ben = parse_mailbox("ben@example.com")
    of_anna, of_ben = await invited(desks, smarthost), await invited(desks, smarthost, mailbox=ben, customer="8")
    await answer(desks, of_ben, YES)

    assert await standing(desks) is Standing.UNVERIFIED
    assert [voucher.customer for voucher in (await desks.addresses.show(ben)).vouchers] == ["8"]
    assert (await desks.invitations.look(of_anna)).state is InvitationState.OPEN


async def test_expired_link(store_url, smarthost, monkeypatch) -> None:
    async with open_desks(inviting_settings(store_url, smarthost.port)) as desks:
        token = await invited(desks, smarthost)
    seven_days_later(monkeypatch)
    async with open_desks(inviting_settings(store_url, smarthost.port)) as desks:
        assert (await desks.invitations.look(token)).state is InvitationState.EXPIRED
        assert [await answer(desks, token, said) for said in Answer] == [AnswerOutcome.REFUSED] * 2
        assert await standing(desks) is Standing.UNVERIFIED


async def test_nothing_secret_is_kept_or_logged(desks, smarthost) -> None:
    with capture_logs() as logs:
        token = await invited(desks, smarthost, challenge=("customer number", "geheim"))
        await answer(desks, token, YES, "falsch")
        await answer(desks, token, YES, "geheim")
    [event, *_] = logs
    kept = repr((logs, await acts(desks), await desks.addresses.show(ANNA)))
    digest = (await desks.store.invitations._long_work.read(_digests))[0]

    assert event["event"] == "invitation-sent"
    assert [each["outcome"] for each in logs[1:3]] == ["wrong-answer", "confirmed"]
    for secret in (token, digest, "geheim", "falsch"):
        assert secret not in kept


def _digests(connection) -> list[str]:
    from sqlalchemy import select

    from smtpguard.storage.tables import invitations

    return list(connection.execute(select(invitations.c.token_digest)).scalars())


# The challenge


@ON_ONE_ENGINE
@pytest.mark.parametrize("said", ["Straße 4 b", "  straße  4 B ", "STRASSE 4 B", "straße\t4\u00a0b"])
async def test_answer_is_compared_without_spaces_and_case(desks, smarthost, said) -> None:
    token = await invited(desks, smarthost, challenge=("street", "Straße 4 b"))

    assert await answer(desks, token, YES, said) is AnswerOutcome.CONFIRMED


@ON_ONE_ENGINE
async def test_five_tries_and_no_more(desks, smarthost) -> None:
    token = await invited(desks, smarthost, challenge=("customer number", "4711"))
    wrong = [
        await desks.invitations.answer(token, YES, challenge_answer=str(number), evidence="x") for number in range(5)
    ]

    assert [each.tries_left for each in wrong] == [4, 3, 2, 1, 0]
    assert {each.outcome for each in wrong} == {AnswerOutcome.WRONG_ANSWER}
    assert await answer(desks, token, YES, "4711") is AnswerOutcome.REFUSED
    assert (await desks.invitations.look(token)).state is InvitationState.TRIES_USED_UP
    assert await standing(desks) is Standing.UNVERIFIED
    assert await answer(desks, token, NO) is AnswerOutcome.DISOWNED


async def test_parallel_guesses_get_five_tries(desks, smarthost, store_url) -> None:
    token = await invited(desks, smarthost, challenge=("customer number", "4711"))
    async with open_desks(inviting_settings(store_url, smarthost.port)) as others:
        guesses = [answer(each, token, YES, str(number)) for number in range(8) for each in (desks, others)]
        outcomes = await asyncio.gather(*guesses)

    assert outcomes.count(AnswerOutcome.WRONG_ANSWER) == 5
    assert outcomes.count(AnswerOutcome.REFUSED) == 11
    assert await answer(desks, token, YES, "4711") is AnswerOutcome.REFUSED


@ON_ONE_ENGINE
async def test_yes_without_an_answer_costs_no_try(desks, smarthost) -> None:
    token = await invited(desks, smarthost, challenge=("customer number", "4711"))
    for said in ("", "  "):
        assert await answer(desks, token, YES, said) is AnswerOutcome.WRONG_ANSWER
    assert (await desks.invitations.look(token)).tries_left == 5


@ON_ONE_ENGINE
async def test_answer_that_finds_no_place_costs_no_try(desks, smarthost, monkeypatch) -> None:
    token = await invited(desks, smarthost, challenge=("customer number", "4711"))
    monkeypatch.setattr(challenges, "MAX_AT_ONCE", 0)
    with pytest.raises(Busy):
        await answer(desks, token, YES, "4711")
    monkeypatch.undo()

    assert (await desks.invitations.look(token)).tries_left == 5
    assert await answer(desks, token, YES, "4711") is AnswerOutcome.CONFIRMED


@ON_ONE_ENGINE
async def test_known_or_not_an_answer_takes_as_long(desks, smarthost, monkeypatch) -> None:
    """It is compared with a hash in any case: of a link that is open, used, or unknown, and of one that wants none."""
    compared = []
    fits = challenges.fits
    monkeypatch.setattr(challenges, "fits", lambda hash_, said: compared.append(said) or fits(hash_, said))
    ben = parse_mailbox("ben@example.com")
    of_anna = await invited(desks, smarthost, challenge=("customer number", "4711"))
    of_ben = await invited(desks, smarthost, mailbox=ben)
    said = [await answer(desks, token, YES, "1") for token in (of_anna, of_ben, of_ben, "A" * 43, "")]

    assert [each.value for each in said] == ["wrong-answer", "confirmed", "refused", "refused", "refused"]
    assert compared == ["1"] * 5


@ON_ONE_ENGINE
async def test_no_needs_no_answer(desks, smarthost) -> None:
    token = await invited(desks, smarthost, challenge=("customer number", "4711"))

    assert await answer(desks, token, NO) is AnswerOutcome.DISOWNED


@ON_ONE_ENGINE
@pytest.mark.parametrize("challenge", [("", "x"), ("two\nlines", "x"), ("label", " "), ("label", "x" * 201)])
async def test_challenge_that_nobody_could_meet(desks, smarthost, challenge) -> None:
    with pytest.raises(ActRefused, match="challenge"):
        await invite(desks, challenge=challenge)

    assert smarthost.connections == []


# The limits


async def test_one_an_address_in_seven_days_whichever_customer(desks, smarthost, store_url) -> None:
    async with open_desks(inviting_settings(store_url, smarthost.port)) as others:
        calls = [invite(each, customer=str(number)) for number in range(4) for each in (desks, others)]
        results = await asyncio.gather(*calls, return_exceptions=True)

    assert len(smarthost.messages) == 1
    assert sum(isinstance(result, ActRefused) for result in results) == 7
    with pytest.raises(ActRefused, match="within the last 7 days"):
        await invite(desks, customer="9")


async def test_after_seven_days_again(store_url, smarthost, monkeypatch) -> None:
    async with open_desks(inviting_settings(store_url, smarthost.port)) as desks:
        first = await invited(desks, smarthost)
    seven_days_later(monkeypatch)
    async with open_desks(inviting_settings(store_url, smarthost.port)) as desks:
        assert first != await invited(desks, smarthost)


async def test_cap_a_day(store_url, smarthost) -> None:
    settings = inviting_settings(store_url, smarthost.port, verification={"max_invitations_per_day": 3})
    async with open_desks(settings) as desks, open_desks(settings) as others:
        calls = [
            invite(each, parse_mailbox(f"user{number}{index}@example.com"))
            for number in range(4)
            for index, each in enumerate((desks, others))
        ]
        results = await asyncio.gather(*calls, return_exceptions=True)

        assert len(smarthost.messages) == 3
        assert sum(isinstance(result, ActRefused) for result in results) == 5
        with pytest.raises(ActRefused, match="max_invitations_per_day, 3, is reached"):
            await invite(desks)


async def test_flagged_address_is_never_invited(desks, smarthost) -> None:
    await desks.addresses.flag(ANNA, by="anna", reason="complaint")
    with pytest.raises(RecipientFlagged):
        await invite(desks)

    assert smarthost.connections == []


async def test_flag_set_while_the_invitation_is_on_its_way(desks, smarthost) -> None:
    go_on = asyncio.Event()
    smarthost.data = hold(go_on)
    inviting = asyncio.create_task(invite(desks))
    await smarthost.wait_for_command("DATA")
    await desks.addresses.flag(ANNA, by="anna", reason="complaint")
    go_on.set()
    with pytest.raises(RecipientFlagged):
        await inviting

    assert smarthost.messages == []


async def test_shared_address_wants_a_customer(desks, smarthost) -> None:
    for customer in ("7", "8"):
        await put_on_record(desks, [ANNA.text], customer=customer)
    with pytest.raises(ActRefused, match="several customers"):
        await invite(desks, customer=None)
    await invite(desks, customer="7")

    assert len(smarthost.messages) == 1


@ON_ONE_ENGINE
async def test_without_settings_there_are_none(store_url, smarthost) -> None:
    async with open_desks(make_settings(store_url, smarthost.port)) as desks:
        with pytest.raises(SettingsError, match=r"verification\.organisation, verification\.sender, web\.public_url"):
            await invite(desks)

        assert await acts(desks) == []


# The smarthost


@ON_ONE_ENGINE
@pytest.mark.parametrize(
    ("step", "action", "error"),
    [
        ("rcpt", refuse(550, "5.1.1 no such user"), ActRefused),
        ("data", refuse(451, "4.3.0 later"), ActRefused),
        ("dot", refuse(554, "5.7.1 spam"), ActRefused),
        ("greeting", drop(), SmarthostUnavailable),
    ],
)
async def test_invitation_that_was_not_sent_does_not_count(desks, smarthost, step, action, error) -> None:
    setattr(smarthost, step, action)
    with capture_logs() as logs, pytest.raises(error):
        await invite(desks)
    setattr(smarthost, step, None)
    token = await invited(desks, smarthost)

    assert [each["event"] for each in logs] == ["invitation-failed"]
    assert await answer(desks, token, YES) is AnswerOutcome.CONFIRMED


@ON_ONE_ENGINE
async def test_link_of_an_invitation_that_was_refused_is_dead(desks, smarthost) -> None:
    smarthost.dot = refuse(554, "5.7.1 spam")
    with pytest.raises(ActRefused):
        await invite(desks)
    token = token_of(smarthost.messages[0])

    assert await answer(desks, token, YES) is AnswerOutcome.REFUSED


async def test_invitation_whose_reply_was_lost_counts(desks, smarthost) -> None:
    """It may have been sent: nobody gets a second one at once, and its link is good."""
    smarthost.dot = drop()
    with pytest.raises(SmarthostLost):
        await invite(desks)
    smarthost.dot = None
    with pytest.raises(ActRefused, match="7 days"):
        await invite(desks)

    assert await answer(desks, token_of(smarthost.messages[0]), YES) is AnswerOutcome.CONFIRMED


# Links to disown


async def test_stranger_disowns_an_address(desks, smarthost) -> None:
    await desks.addresses.verify(ANNA, customer="7", by="anna", why="import")
    desks.invitations.request_disown(ANNA, language=Language.FR)
    sent = await smarthost.wait_for_message()
    token = token_of(sent)

    assert f"{PUBLIC_URL}/d/{token}" in text_of(sent)
    assert text_of(sent).startswith("Bonjour")
    assert (await desks.invitations.look(token)).kind is InvitationKind.DISOWN
    assert await answer(desks, token, YES) is AnswerOutcome.REFUSED
    assert await standing(desks) is Standing.VERIFIED
    assert await answer(desks, token, NO) is AnswerOutcome.DISOWNED
    assert await standing(desks) is Standing.FLAGGED


async def test_links_to_disown_go_to_known_addresses_only_and_once(desks, smarthost) -> None:
    await put_on_record(desks, ["last@example.com", ANNA.text, "flagged@example.com"])
    await desks.addresses.flag(parse_mailbox("flagged@example.com"), by="anna", reason="complaint")
    for _ in range(3):
        for address in ("nobody@example.com", "flagged@example.com", ANNA.text, "last@example.com"):
            assert desks.invitations.request_disown(parse_mailbox(address)) is None
        await eventually(lambda: not desks.invitations._asked_for._working)

    assert sorted(each.recipients for each in smarthost.messages) == [["Anna@example.com"], ["last@example.com"]]
    assert not await desks.store.invitations._long_work.read(_is_known)


def _is_known(connection) -> bool:
    from sqlalchemy import select

    from smtpguard.storage.tables import addresses

    return bool(connection.execute(select(addresses.c.id).where(addresses.c.lookup_key == "nobody@example.com")).all())


async def test_invitation_and_link_to_disown_are_counted_apart(desks, smarthost) -> None:
    await invite(desks)
    desks.invitations.request_disown(ANNA)
    await smarthost.wait_for_message(2)

    assert len(smarthost.messages) == 2
