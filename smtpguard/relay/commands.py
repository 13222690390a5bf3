"""What MAIL and RCPT say to the smarthost: only extensions that it offers, and parameters as they were given."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from smtpguard.domain.envelope import (
    NO_MAIL_PARAMETERS,
    NO_RCPT_PARAMETERS,
    Body,
    ForwardPath,
    MailParameters,
    ReversePath,
)
from smtpguard.domain.reply import R550_NO_SMTPUTF8, R554_NO_8BITMIME, Reply

_EIGHT_BIT_MIME: Final = Body.EIGHT_BIT_MIME  # looked at for each message: see domain/decision.py


def missing_extension(parameters: MailParameters, capabilities: Mapping[str, str]) -> Reply | None:
    """Return the refusal of a message that the smarthost could take only if it were changed, else None."""
    if parameters.smtputf8 and "SMTPUTF8" not in capabilities:
        return R550_NO_SMTPUTF8
    if parameters.body is _EIGHT_BIT_MIME and "8BITMIME" not in capabilities:
        return R554_NO_8BITMIME
    return None


def mail_command(
    reverse_path: ReversePath, parameters: MailParameters, *, size: int | None, capabilities: Mapping[str, str]
) -> bytes:
    """Build MAIL; ``size`` in octets as RFC 1870 counts them."""
    line = f"MAIL FROM:<{reverse_path}>"
    if parameters.body is _EIGHT_BIT_MIME:
        line += " BODY=8BITMIME"
    if parameters.smtputf8:
        line += " SMTPUTF8"
    if size is not None and "SIZE" in capabilities:
        line += f" SIZE={size}"
    if parameters is not NO_MAIL_PARAMETERS and "DSN" in capabilities:  # RFC 3461 5.2.2: who offers none is not asked
        line += _given("RET", parameters.ret) + _given("ENVID", parameters.envid)
    return f"{line}\r\n".encode()


def rcpt_command(path: ForwardPath, capabilities: Mapping[str, str]) -> bytes:
    """Build RCPT."""
    line = f"RCPT TO:<{path.recipient.text}>"
    if path.parameters is not NO_RCPT_PARAMETERS and "DSN" in capabilities:
        line += _given("NOTIFY", path.parameters.notify) + _given("ORCPT", path.parameters.orcpt)
    if path.vouched_since is not None and "RRVS" in capabilities:
        # ";C": a later hop that does not know the extension is no reason to refuse (RFC 7293 3.1; the default is).
        line += f" RRVS={_date_time(path.vouched_since)};C"
    return f"{line}\r\n".encode()


def _date_time(at: datetime) -> str:
    """Write a time as RFC 3339 has it, in UTC and without a fraction of a second (RFC 7293 3.1)."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def _given(keyword: str, value: str | None) -> str:
    return "" if value is None else f" {keyword}={value}"
