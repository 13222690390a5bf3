"""The kinds of values that settings have."""

import ipaddress
import json
import os
import re
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from smtpguard.domain.application import opaque_string
from smtpguard.domain.mailbox import parse_domain
from smtpguard.errors import MailboxSyntaxError

_ENDPOINT = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]*)):([0-9]{1,5})")
_JSON_ARRAY = re.compile(r'\s*\[\s*["{\]]')  # and not the bracket of [::1]:2525
_ARGON2ID = re.compile(
    r"\$argon2id\$v=19\$m=([0-9]{1,7}),t=([0-9]{1,3}),p=([0-9]{1,2})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)"
)
_HTTP_URL = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~/-]*)?")
_MAX_HASH_KIB = 1_048_576
_MIN_SALT_CHARACTERS = 11  # 8 octets
_MIN_TAG_CHARACTERS = 8

MAX_WORKERS = 64


class Endpoint(NamedTuple):
    """A host and a port to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _endpoint(value: object) -> object:
    if isinstance(value, Endpoint):
        return value
    match = _ENDPOINT.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[3]) > 65535:
        raise ValueError(f"{value!r} is not HOST:PORT, or [HOST]:PORT for IPv6")
    return Endpoint(match[1] or match[2], int(match[3]))


def _one_or_many(value: object) -> object:
    """A single string where a list is meant; from the environment also a JSON array."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if _JSON_ARRAY.match(value) else [value]
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not a JSON array: {error}") from error


def _no_truth_value(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("true and false are no numbers")  # noqa: TRY004 - pydantic explains a ValueError only
    return value


def _workers(value: object) -> object:
    if value == "auto":
        return min(len(os.sched_getaffinity(0)), MAX_WORKERS)
    if isinstance(value, str) and not value.isdecimal():
        raise ValueError(f'{value!r} is neither a number nor "auto"')
    return value


def _domain(value: str) -> str:
    try:
        return parse_domain(value)
    except MailboxSyntaxError as error:
        raise ValueError(f"{value!r}: {error}") from error


def _header_name(value: str) -> str:
    if not value or not all("!" <= character <= "~" and character != ":" for character in value):
        raise ValueError(f"{value!r} is not a header name (RFC 5322 3.6.8)")
    return value


def _network(value: object) -> object:
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a network")  # noqa: TRY004 - see above
    return ipaddress.ip_network(value)


def _password_hash(value: str) -> str:
    match = _ARGON2ID.fullmatch(value)
    if match is None or not _can_be_verified(*match.groups()):
        raise ValueError("it is not an argon2id hash as `smtpguard config hash-password` makes it")
    return value


def _can_be_verified(memory: str, time: str, parallelism: str, salt: str, tag: str) -> bool:
    """RFC 9106 3.1, and a bound on the memory (KiB); base64 without padding never has a length of 4n + 1."""
    costs = bool(int(time) and int(parallelism)) and 8 * int(parallelism) <= int(memory) <= _MAX_HASH_KIB
    return (
        costs
        and len(salt) >= _MIN_SALT_CHARACTERS
        and len(tag) >= _MIN_TAG_CHARACTERS
        and 1
        not in {
            len(salt) % 4,
            len(tag) % 4,
        }
    )


def _http_url(value: str) -> str:
    if value and not _HTTP_URL.fullmatch(value):
        raise ValueError(f"{value!r} is not http(s)://HOST, with a port and a path if need be")
    return value.rstrip("/")


Many = BeforeValidator(_one_or_many)
_Number = BeforeValidator(_no_truth_value)
Count = Annotated[int, _Number, Field(ge=1)]
CountOrNone = Annotated[int, _Number, Field(ge=0)]
"""0: no limit."""
Workers = Annotated[int, BeforeValidator(_workers), _Number, Field(ge=1, le=MAX_WORKERS)]
"""How many processes; "auto" becomes the number of CPUs that this one may use."""
Seconds = Annotated[float, _Number, Field(gt=0, allow_inf_nan=False)]
Days = Annotated[int, _Number, Field(ge=1, le=3650)]
DaysOrEver = Annotated[int, _Number, Field(ge=0, le=3650)]
"""0: for ever."""
HttpUrl = Annotated[str, AfterValidator(_http_url)]
Listen = Annotated[Endpoint, BeforeValidator(_endpoint), PlainSerializer(str, return_type=str)]
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
Network = Annotated[IpNetwork, BeforeValidator(_network), PlainSerializer(str, return_type=str)]
DomainName = Annotated[str, AfterValidator(_domain)]
"""As its lookup form: lower case, A-labels."""
HeaderName = Annotated[str, AfterValidator(_header_name)]
PasswordHash = Annotated[str, AfterValidator(_password_hash)]
"""argon2id (RFC 9106) in the PHC string format."""
Username = Annotated[str, Field(max_length=255), AfterValidator(opaque_string)]
Secret = Annotated[str, Field(repr=False)]


def read_secret(key: str, path: str | Path) -> str:
    """Return the content of the file that ``key`` names, without white space around it; raise ValueError."""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ValueError(f"{key} cannot be read: {error}") from error
