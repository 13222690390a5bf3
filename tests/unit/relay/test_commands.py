"""MAIL and RCPT: parameters as they were given, and only where the smarthost knows them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from smtpguard.domain.envelope import NULL_REVERSE_PATH, Body, ForwardPath, MailParameters, RcptParameters
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.domain.reply import R550_NO_SMTPUTF8, R554_NO_8BITMIME
from smtpguard.relay.commands import mail_command, missing_extension, rcpt_command

EVERYTHING = dict.fromkeys(("SIZE", "8BITMIME", "SMTPUTF8", "DSN"), "")
ALL_PARAMETERS = MailParameters(body=Body.EIGHT_BIT_MIME, smtputf8=True, ret="hdrs", envid="QQ+2B314159")


def mail(parameters: MailParameters, size: int | None, capabilities: dict[str, str]) -> str:
    return mail_command(NULL_REVERSE_PATH, parameters, size=size, capabilities=capabilities).decode()


def test_all_parameters_of_mail() -> None:
    assert mail(ALL_PARAMETERS, 17, EVERYTHING) == (
        "MAIL FROM:<> BODY=8BITMIME SMTPUTF8 SIZE=17 RET=hdrs ENVID=QQ+2B314159\r\n"
    )


@pytest.mark.parametrize(
    ("parameters", "size", "capabilities", "expected"),
    [
        (MailParameters(), None, EVERYTHING, "MAIL FROM:<>\r\n"),
        (MailParameters(body=Body.SEVEN_BIT), None, EVERYTHING, "MAIL FROM:<>\r\n"),
        (MailParameters(), 0, EVERYTHING, "MAIL FROM:<> SIZE=0\r\n"),
        (MailParameters(), 17, {}, "MAIL FROM:<>\r\n"),
        (MailParameters(ret="FULL", envid="x"), None, {"8BITMIME": ""}, "MAIL FROM:<>\r\n"),
        (MailParameters(envid="x"), None, EVERYTHING, "MAIL FROM:<> ENVID=x\r\n"),
        (MailParameters(ret="FULL"), None, EVERYTHING, "MAIL FROM:<> RET=FULL\r\n"),
    ],
)
def test_only_parameters_of_mail_that_are_given_and_offered(parameters, size, capabilities, expected) -> None:
    """RFC 3461 5.2.2: what DSN asks for is left out where it is not offered."""
    assert mail(parameters, size, capabilities) == expected


@pytest.mark.parametrize(
    ("parameters", "capabilities", "expected"),
    [
        (RcptParameters("Success,DELAY", "rfc822;Alice+2B@x.test"), EVERYTHING, " NOTIFY=Success,DELAY ORCPT=rfc822;Alice+2B@x.test"),
        (RcptParameters(notify="NEVER"), EVERYTHING, " NOTIFY=NEVER"),
        (RcptParameters(orcpt="utf-8;gr\u00fc\u00df@x.test"), EVERYTHING, " ORCPT=utf-8;gr\u00fc\u00df@x.test"),
        (RcptParameters("NEVER", "rfc822;a@x.test"), {"8BITMIME": ""}, ""),
        (RcptParameters(), EVERYTHING, ""),
    ],
)  # fmt: skip
def test_parameters_of_rcpt(parameters, capabilities, expected: str) -> None:
    path = ForwardPath(parse_mailbox("Gr\u00fc\u00df@X.test"), parameters)

    assert rcpt_command(path, capabilities) == f"RCPT TO:<Gr\u00fc\u00df@X.test>{expected}\r\n".encode()


@pytest.mark.parametrize(
    ("since", "capabilities", "expected"),
    [
        (datetime(2014, 4, 3, 23, 1, tzinfo=UTC), {"RRVS": ""}, " RRVS=2014-04-03T23:01:00Z;C"),
        (datetime(2014, 4, 3, 23, 1, 59, 999_999, tzinfo=UTC), {"RRVS": "x"}, " RRVS=2014-04-03T23:01:59Z;C"),
        (datetime(2014, 4, 4, 1, 1, tzinfo=timezone(timedelta(hours=2))), {"RRVS": ""}, " RRVS=2014-04-03T23:01:00Z;C"),
        (datetime(11, 1, 2, tzinfo=UTC), {"RRVS": ""}, " RRVS=0011-01-02T00:00:00Z;C"),
        (datetime(2014, 4, 3, tzinfo=UTC), EVERYTHING, " NOTIFY=NEVER"),
        (datetime(2014, 4, 3, tzinfo=UTC), {**EVERYTHING, "RRVS": ""}, " NOTIFY=NEVER RRVS=2014-04-03T00:00:00Z;C"),
        (None, {"RRVS": ""}, ""),
    ],
)
def test_time_of_the_voucher(since, capabilities, expected) -> None:
    """RFC 7293 3.1: a date-time of RFC 3339, without a fraction of a second, and ``;C`` for hops that cannot tell."""
    path = ForwardPath(parse_mailbox("a@x.test"), RcptParameters(notify="NEVER"), since)

    assert rcpt_command(path, capabilities) == f"RCPT TO:<a@x.test>{expected}\r\n".encode()


@pytest.mark.parametrize(
    ("parameters", "missing", "expected"),
    [
        (ALL_PARAMETERS, "", None),
        (ALL_PARAMETERS, "SMTPUTF8", R550_NO_SMTPUTF8),
        (ALL_PARAMETERS, "8BITMIME", R554_NO_8BITMIME),
        (ALL_PARAMETERS, "DSN", None),
        (MailParameters(body=Body.SEVEN_BIT), "8BITMIME", None),
        (MailParameters(), "SMTPUTF8", None),
    ],
)
def test_a_message_that_cannot_go_out_unchanged(parameters, missing: str, expected) -> None:
    capabilities = {keyword: "" for keyword in EVERYTHING if keyword != missing}

    assert missing_extension(parameters, capabilities) == expected
