"""What MAIL and RCPT say to the smarthost: only extensions that it offers, and parameters as they were given."""

from collections.abc import Iterator, Mapping

from smtpguard.domain.envelope import Body, ForwardPath, MailParameters, ReversePath
from smtpguard.domain.reply import R550_NO_SMTPUTF8, R554_NO_8BITMIME, Reply


def missing_extension(parameters: MailParameters, capabilities: Mapping[str, str]) -> Reply | None:
    """Return the refusal of a message that the smarthost could take only if it were changed, else None."""
    if parameters.smtputf8 and "SMTPUTF8" not in capabilities:
        return R550_NO_SMTPUTF8
    if parameters.body is Body.EIGHT_BIT_MIME and "8BITMIME" not in capabilities:
        return R554_NO_8BITMIME
    return None


def mail_command(
    reverse_path: ReversePath, parameters: MailParameters, *, size: int | None, capabilities: Mapping[str, str]
) -> bytes:
    """Build MAIL; ``size`` in octets as RFC 1870 counts them."""
    words = [f"MAIL FROM:<{reverse_path}>", *_mail_parameters(parameters, size=size, capabilities=capabilities)]
    return _line(words)


def rcpt_command(path: ForwardPath, capabilities: Mapping[str, str]) -> bytes:
    """Build RCPT."""
    return _line([f"RCPT TO:<{path.recipient}>", *_rcpt_parameters(path, capabilities)])


def _mail_parameters(parameters: MailParameters, *, size: int | None, capabilities: Mapping[str, str]) -> Iterator[str]:
    if parameters.body is Body.EIGHT_BIT_MIME:
        yield "BODY=8BITMIME"
    if parameters.smtputf8:
        yield "SMTPUTF8"
    if size is not None and "SIZE" in capabilities:
        yield f"SIZE={size}"
    if "DSN" in capabilities:  # RFC 3461 5.2.2: a server that does not offer it is not asked
        yield from _given(RET=parameters.ret, ENVID=parameters.envid)


def _rcpt_parameters(path: ForwardPath, capabilities: Mapping[str, str]) -> Iterator[str]:
    if "DSN" in capabilities:
        yield from _given(NOTIFY=path.parameters.notify, ORCPT=path.parameters.orcpt)


def _given(**parameters: str | None) -> Iterator[str]:
    return (f"{keyword}={value}" for keyword, value in parameters.items() if value is not None)


def _line(words: list[str]) -> bytes:
    return f"{' '.join(words)}\r\n".encode()
