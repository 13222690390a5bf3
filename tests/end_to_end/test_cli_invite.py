"""``smtpguard address invite`` as an operator types it."""

from collections.abc import AsyncIterator

import pytest

from smtpguard.domain.invitation import Answer
from tests.support.command_line import ON_BOTH_ENGINES, OPERATOR, CommandLine
from tests.support.invitations import PUBLIC_URL, SENDER, text_of, token_of
from tests.support.scripted_smarthost import ScriptedSmarthost, refuse

ANNA = "anna@mail.example"
SET = {
    "SMTPGUARD_VERIFICATION__ORGANISATION": "Shop",
    "SMTPGUARD_VERIFICATION__SENDER": SENDER,
    "SMTPGUARD_WEB__PUBLIC_URL": f"{PUBLIC_URL}/",
}


@pytest.fixture
async def smarthost() -> AsyncIterator[ScriptedSmarthost]:
    async with ScriptedSmarthost() as smarthost:
        yield smarthost


@pytest.fixture
def smtpguard(request, smarthost) -> CommandLine:
    return CommandLine(request.getfixturevalue(getattr(request, "param", "sqlite_url")), smarthost.port)


@ON_BOTH_ENGINES
async def test_invitation_is_sent_and_answered(smtpguard, smarthost) -> None:
    arguments = (
        "--customer",
        "C-1",
        "--language",
        "de",
        "--challenge-label",
        "Kundennummer",
        "--challenge-answer",
        "4711",
    )
    ended = await smtpguard("address", "invite", ANNA, *arguments, **SET)
    [sent] = smarthost.messages
    async with smtpguard.desks() as desks:
        answer = await desks.invitations.answer(
            token_of(sent), Answer.YES, challenge_answer=" 4711", evidence="192.0.2.1"
        )
    row = (await smtpguard("address", "show", ANNA, "--json")).row
    acts = (await smtpguard("audit", "list", "--json")).rows

    assert ended.code == 0
    assert ended.out.startswith(f"{ANNA}: invited for customer C-1; the link ends at ")
    assert (len(ended.out.splitlines()), ended.err) == (1, "")
    assert text_of(sent).startswith("Guten Tag")
    assert answer.outcome.value == "confirmed"
    assert row["standing"] == "verified"
    assert [(act["kind"], act["actor"]) for act in acts] == [("confirm", "recipient"), ("invite", OPERATOR)]


async def test_second_invitation_is_refused(smtpguard, smarthost) -> None:
    await smtpguard("address", "invite", ANNA, **SET)
    ended = await smtpguard("address", "invite", ANNA, "--customer", "C-2", **SET)

    assert (ended.code, ended.out) == (1, "")
    assert ended.err == f"smtpguard: {ANNA} was invited within the last 7 days\n"
    assert len(smarthost.messages) == 1


async def test_refusal_of_the_smarthost_is_one_line(smtpguard, smarthost) -> None:
    smarthost.rcpt = refuse(550, "5.1.1 no such user")
    ended = await smtpguard("address", "invite", ANNA, **SET)

    assert (ended.code, ended.out) == (1, "")
    assert ended.err == "smtpguard: the smarthost refused the invitation: 550 5.1.1 no such user\n"


async def test_without_settings(smtpguard) -> None:
    ended = await smtpguard("address", "invite", ANNA)

    assert ended.code == 1
    assert "not set: verification.organisation, verification.sender, web.public_url" in ended.err


async def test_half_a_challenge(smtpguard) -> None:
    ended = await smtpguard("address", "invite", ANNA, "--challenge-label", "Kundennummer", **SET)

    assert ended.code == 2
    assert "belong together" in ended.err


async def test_broken_template_is_told_of_by_config_check(smtpguard, tmp_path) -> None:
    (tmp_path / "invitation.de.txt").write_text("{{ organisation }} {{ customer }}")
    ended = await smtpguard("config", "check", SMTPGUARD_VERIFICATION__TEMPLATES=str(tmp_path), **SET)

    assert ended.code == 1
    assert "invitation.de.txt: 'customer' is undefined" in ended.err
