"""The settings: one typed, frozen tree out of a TOML file and the environment, read once at the start.

Every key can be set as an environment variable too, ``__`` between the levels (``SMTPGUARD_SMARTHOST__HOST``); the
environment wins over the file. A secret can be read from a file of its own (``url_file``). An unknown key is an error.
"""

import json
import os
import re
import socket
import tomllib
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)

from smtpguard.domain.mailbox import parse_domain
from smtpguard.domain.policy import FlaggedPolicy, Mode, Policy, UnverifiedPolicy
from smtpguard.errors import MailboxSyntaxError, SettingsError

ENVIRONMENT_PREFIX = "SMTPGUARD_"
CONFIG_VARIABLE = "SMTPGUARD_CONFIG"
OPERATOR_VARIABLE = "SMTPGUARD_OPERATOR"
DEFAULT_FILES = (Path("config/smtpguard.toml"), Path("/etc/smtpguard/smtpguard.toml"))
LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))

_ENDPOINT = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]*)):([0-9]{1,5})")
_JSON_ARRAY = re.compile(r'\s*\[\s*["{\]]')  # and not the bracket of [::1]:2525
_PLAIN_MESSAGES = {
    "extra_forbidden": "there is no such setting",
    "missing": "it is not set",
    "model_type": "it is not a table",
    "path_type": "it is not a path",
    "tuple_type": "it is not a list",
}

Place = tuple[str, ...]
"""Where a setting stands: section and key, or ``("application",)``."""

_EITHER_OR: dict[Place, Place] = {("store", "url"): ("store", "url_file"), ("store", "url_file"): ("store", "url")}


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


def _trusted_domain(value: str) -> str:
    try:
        return parse_domain(value)
    except MailboxSyntaxError as error:
        raise ValueError(f"{value!r}: {error}") from error


def _header_name(value: str) -> str:
    if not value or not all("!" <= character <= "~" and character != ":" for character in value):
        raise ValueError(f"{value!r} is not a header name (RFC 5322 3.6.8)")
    return value


def _network(value: object) -> object:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a network")  # noqa: TRY004 - see above
    return ip_network(value)


Many = BeforeValidator(_one_or_many)
Number = BeforeValidator(_no_truth_value)
Count = Annotated[int, Number, Field(ge=1)]
Seconds = Annotated[float, Number, Field(gt=0, allow_inf_nan=False)]
Listen = Annotated[Endpoint, BeforeValidator(_endpoint), PlainSerializer(str, return_type=str)]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network), PlainSerializer(str, return_type=str)]
TrustedDomain = Annotated[str, AfterValidator(_trusted_domain)]
HeaderName = Annotated[str, AfterValidator(_header_name)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class SmtpSettings(_Section):
    """[smtp]: where applications deliver."""

    listen: Annotated[tuple[Listen, ...], Many, Field(min_length=1)] = (Endpoint("127.0.0.1", 2525),)
    hostname: str = ""
    """The name in the greeting and in ``Received:``; empty: the name of this host."""
    max_message_bytes: Annotated[Count, Field(ge=1024)] = 36_700_160
    max_recipients: Count = 1000
    max_sessions: Count = 1000
    idle_timeout: Seconds = 300
    """Seconds that an application may be silent, between commands and within a message (RFC 5321 4.5.3.2.7)."""
    shutdown_timeout: Seconds = 30
    """Seconds after SIGTERM for what is past the end of data."""

    @field_validator("hostname")
    @classmethod
    def _known_host(cls, value: str) -> str:
        name = value or socket.gethostname()
        if not all("!" <= character <= "~" for character in name):
            raise ValueError(f"{name!r} is not a host name")
        return name


class SmarthostSettings(_Section):
    """[smarthost]: the real mail server. Time-outs in seconds; the defaults are those of RFC 5321 4.5.3.2."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[Count, Field(le=65535)] = 25
    tls: Literal["none"] = "none"
    max_connections: Count = 100
    idle_timeout: Seconds = 60
    """How long an idle connection is kept; below the 300 s after which mail servers hang up."""
    connect_timeout: Seconds = 30
    command_timeout: Seconds = 300
    data_timeout: Seconds = 120
    block_timeout: Seconds = 180
    reply_timeout: Seconds = 600


class StoreSettings(_Section):
    """[store]: the address book, the quarantine, the ledger and the audit log."""

    url: Annotated[str, Field(repr=False)] = "sqlite:///smtpguard.db"
    url_file: Path | None = None
    """A file that holds the URL, which may have a password in it."""

    @model_validator(mode="before")
    @classmethod
    def _read_url_file(cls, values: Any) -> Any:
        path = values.get("url_file") if isinstance(values, dict) else None
        if not isinstance(path, str | Path):
            return values
        if "url" in values:
            raise ValueError("url and url_file are both set")
        try:
            return values | {"url": Path(path).read_text(encoding="utf-8").strip()}
        except (OSError, ValueError) as error:
            raise ValueError(f"url_file cannot be read: {error}") from error

    @field_validator("url")
    @classmethod
    def _known_engine(cls, value: str) -> str:
        if not value.startswith(("sqlite:///", "postgresql://")):
            raise ValueError("it begins with neither sqlite:/// nor postgresql://")
        return value


class PolicyOverrides(_Section):
    """The keys of [policy]; under [[application]] those that are set stand in place of the general ones."""

    mode: Mode | None = None
    unverified: UnverifiedPolicy | None = None
    flagged: FlaggedPolicy | None = None
    customer_header: HeaderName | None = None
    trusted_domains: Annotated[tuple[TrustedDomain, ...] | None, Many] = None


class PolicySettings(_Section):
    """[policy]: what is done with which standing."""

    mode: Mode = Mode.ENFORCE
    unverified: UnverifiedPolicy = UnverifiedPolicy.QUARANTINE
    flagged: FlaggedPolicy = FlaggedPolicy.QUARANTINE
    customer_header: HeaderName = "X-Customer-ID"
    trusted_domains: Annotated[tuple[TrustedDomain, ...], Many] = ()

    def policy(self, overrides: PolicyOverrides | None = None) -> Policy:
        """Build the policy, with an application's own keys in place of the general ones."""
        own = overrides.model_dump(include=set(PolicyOverrides.model_fields)) if overrides else {}
        merged = dict(self) | {key: value for key, value in own.items() if value is not None}
        return Policy(**merged | {"trusted_domains": frozenset(merged["trusted_domains"])})


class ApplicationSettings(PolicyOverrides):
    """[[application]]: a business system that may submit, known by the networks it connects from."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[!-~]+$")]
    networks: Annotated[tuple[Network, ...], Many, Field(min_length=1)]


class LogSettings(_Section):
    """[log]: what goes to standard output."""

    format: Literal["auto", "json", "console"] = "auto"
    """auto: console on a terminal, else JSON."""
    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(_Section):
    """All settings."""

    smtp: SmtpSettings = Field(default_factory=SmtpSettings)
    smarthost: SmarthostSettings = Field(default_factory=SmarthostSettings)
    store: StoreSettings = Field(default_factory=StoreSettings)
    policy: PolicySettings = Field(default_factory=PolicySettings)
    application: Annotated[tuple[ApplicationSettings, ...], Many] = ()
    log: LogSettings = Field(default_factory=LogSettings)

    @field_validator("application")
    @classmethod
    def _are_apart(cls, applications: tuple[ApplicationSettings, ...]) -> tuple[ApplicationSettings, ...]:
        names: set[str] = set()
        owners: dict[IPv4Network | IPv6Network, str] = {}
        for application in applications:
            if application.name in names:
                raise ValueError(f"two applications are named {application.name!r}")
            names.add(application.name)
            for network in application.networks:
                if owners.setdefault(network, application.name) != application.name:
                    raise ValueError(f"{network} stands under {owners[network]!r} and under {application.name!r}")
        return applications

    def applications(self) -> tuple[ApplicationSettings, ...]:
        """The applications; with none named, loopback may submit, as application ``default``."""
        return self.application or (ApplicationSettings(name="default", networks=LOOPBACK),)

    def masked(self) -> dict[str, Any]:
        """The effective tree as plain values that can be read again, with secrets masked."""
        tree = self.model_dump(mode="json", exclude_none=True)
        if self.store.url_file:  # both together are an error
            del tree["store"]["url"]
        else:
            tree["store"]["url"] = masked_url(self.store.url)
        return tree


def load_settings(path: Path | None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings; raise SettingsError, one line that names the key and where it was set.

    ``path`` None: the file of $SMTPGUARD_CONFIG, else the first of DEFAULT_FILES that exists, else no file.
    """
    file = find_settings_file(path, environment)
    variables = _find_variables(environment)
    tree = _read_toml(file) if file else {}
    try:
        return Settings.model_validate(_merge(tree, {place: environment[name] for place, name in variables.items()}))
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(item, file, variables) for item in error.errors())) from error


def masked_url(url: str) -> str:
    """Return a URL with ``***`` in place of its password, also where it stands in the query.

    A password with characters that ought to have been percent-encoded is hidden too, at the cost of what stands
    between it and the last ``@``.
    """
    without_userinfo = re.sub(r"^(\w+://[^:@]*):.*@", r"\1:***@", url)
    return re.sub(r"([?&]\w*password=)[^&]*", r"\1***", without_userinfo)


def find_settings_file(path: Path | None, environment: Mapping[str, str]) -> Path | None:
    """Return the file that ``load_settings`` reads, None where there is none to read."""
    named = path or (Path(environment[CONFIG_VARIABLE]) if environment.get(CONFIG_VARIABLE) else None)
    return named or next((file for file in DEFAULT_FILES if file.is_file()), None)


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} is not TOML: {error}") from error


def _find_variables(environment: Mapping[str, str]) -> dict[Place, str]:
    """Find which variable sets what; refuse one that sets nothing, because it is misspelt."""
    places = {f"{ENVIRONMENT_PREFIX}{'__'.join(place)}".upper(): place for place in _places()}
    found = {}
    for name in environment:
        upper = name.upper()
        if not upper.startswith(ENVIRONMENT_PREFIX) or upper in {CONFIG_VARIABLE, OPERATOR_VARIABLE}:
            continue
        if upper not in places:
            raise SettingsError(f"environment variable {name}: there is no such setting")
        found[places[upper]] = name
    return found


def _places() -> Iterator[Place]:
    for section, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, _Section):
            yield from ((section, key) for key in field.annotation.model_fields)
        else:
            yield (section,)


def _merge(tree: dict[str, Any], values: Mapping[Place, str]) -> dict[str, Any]:
    """Lay the environment over the file."""
    overridden = set(values) | {_EITHER_OR[place] for place in values if place in _EITHER_OR}
    merged: dict[str, Any] = {section: {} for section, *keys in _places() if keys}
    for section, table in tree.items():
        if isinstance(table, dict):
            merged[section] = {key: value for key, value in table.items() if (section, key) not in overridden}
        else:
            merged[section] = table
    for (section, *keys), value in values.items():
        if not keys:
            merged[section] = value
        elif isinstance(merged[section], dict):  # else it is refused for that
            merged[section][keys[0]] = value
    return merged


def _explain(error: Any, file: Path | None, variables: Mapping[Place, str]) -> str:
    loc = error["loc"]
    names = [name for place, name in variables.items() if _concerns(loc, place)]
    if error["type"] == "model_type" and len(loc) == 1:  # no variable sets a section as such
        names = []
    where = f"environment variable {' and '.join(names)}" if names else str(file or "defaults")
    message = _PLAIN_MESSAGES.get(error["type"], error["msg"]).removeprefix("Value error, ")
    return f"{where}: {'.'.join(str(part) for part in loc)}: {message}"


def _concerns(loc: Place, place: Place) -> bool:
    """Whether an error at ``loc``, which may lie deeper or be about a whole section, is about what stands here."""
    candidates = (place, _EITHER_OR.get(place, place))
    return any(candidate[: len(loc)] == loc[: len(candidate)] for candidate in candidates)
