"""The settings: one typed, frozen tree out of a TOML file and the environment, read once at the start.

Every key can be set as an environment variable too, ``__`` between the levels (``SMTPGUARD_SMARTHOST__HOST``); the
environment wins over the file. A secret can be read from a file of its own (``url_file``). An unknown key is an error.
"""

import json
import os
import re
import socket
import tomllib
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

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
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from smtpguard.domain.mailbox import parse_domain
from smtpguard.domain.policy import FlaggedPolicy, Mode, Policy, UnverifiedPolicy
from smtpguard.errors import MailboxSyntaxError, SettingsError

ENVIRONMENT_PREFIX = "SMTPGUARD_"
CONFIG_VARIABLE = "SMTPGUARD_CONFIG"
OPERATOR_VARIABLE = "SMTPGUARD_OPERATOR"
DEFAULT_FILES = (Path("config/smtpguard.toml"), Path("/etc/smtpguard/smtpguard.toml"))
LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Endpoint(NamedTuple):
    """A host and a port to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _endpoint(value: object) -> object:
    if not isinstance(value, str):
        return value
    host, colon, port = value.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{value!r} is not HOST:PORT")
    if not host.startswith("[") and ":" in host:
        raise ValueError(f"{value!r}: an IPv6 address wants brackets, as in [::1]:2525")
    return Endpoint(host.removeprefix("[").removesuffix("]"), int(port))


def _one_or_many(value: object) -> object:
    """A single string where a list is meant; from the environment also a JSON array."""
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.startswith(("[{", '["')) or value == "[]" else [value]


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
    return ip_network(value, strict=True) if isinstance(value, str) else value


Many = BeforeValidator(_one_or_many)
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
    max_message_bytes: Annotated[int, Field(ge=1024)] = 36_700_160
    max_recipients: Annotated[int, Field(ge=1)] = 1000
    max_sessions: Annotated[int, Field(ge=1)] = 1000
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
    port: Annotated[int, Field(ge=1, le=65535)] = 25
    tls: Literal["none"] = "none"
    max_connections: Annotated[int, Field(ge=1)] = 100
    idle_timeout: Seconds = 60
    """How long an idle connection is kept; below the 300 s after which mail servers hang up."""
    connect_timeout: Seconds = 30
    command_timeout: Seconds = 300
    data_timeout: Seconds = 120
    block_timeout: Seconds = 180
    reply_timeout: Seconds = 600


class StoreSettings(_Section):
    """[store]: the address book, the quarantine, the ledger and the audit log."""

    url: str = "sqlite:///smtpguard.db"
    url_file: Path | None = None
    """A file that holds the URL, which may have a password in it."""

    @model_validator(mode="before")
    @classmethod
    def _read_url_file(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not values.get("url_file"):
            return values
        if "url" in values:
            raise ValueError("url and url_file are both set")
        try:
            return values | {"url": Path(values["url_file"]).read_text(encoding="utf-8").strip()}
        except (OSError, UnicodeDecodeError) as error:
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


class Settings(BaseSettings):
    """All settings."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        enable_decoding=False,
    )

    smtp: SmtpSettings = SmtpSettings()
    smarthost: SmarthostSettings = SmarthostSettings()
    store: StoreSettings = StoreSettings()
    policy: PolicySettings = PolicySettings()
    application: Annotated[tuple[ApplicationSettings, ...], Many] = ()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [application.name for application in self.application]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two applications are named {name!r}")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file, which comes in as the constructor's arguments."""
        del settings_cls
        return env_settings, init_settings

    def applications(self) -> tuple[ApplicationSettings, ...]:
        """The applications; with none named, loopback may submit, as application ``default``."""
        return self.application or (ApplicationSettings(name="default", networks=LOOPBACK),)

    def masked(self) -> dict[str, Any]:
        """The effective tree as plain values, with secrets masked."""
        tree = self.model_dump(mode="json", exclude_none=True)
        tree["store"]["url"] = masked_url(self.store.url)
        return tree


def load_settings(path: Path | None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings; raise SettingsError, one line that names the key and where it was set.

    ``path`` None: the file of $SMTPGUARD_CONFIG, else the first of DEFAULT_FILES that exists, else no file.
    """
    file = _find_file(path, environment)
    _refuse_unknown_variables(environment)
    tree = _read_toml(file) if file else {}
    try:
        return Settings(**tree)
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(item, file, environment) for item in error.errors())) from error
    except ValueError as error:  # an environment variable that is not the JSON it must be
        raise SettingsError(f"the environment: {error}") from error


def masked_url(url: str) -> str:
    """Return a URL with ``***`` in place of its password, also where it stands in the query."""
    in_authority = re.sub(r"^(\w+://[^/?#:@]*):[^/?#]*@", r"\1:***@", url)
    return re.sub(r"([?&]password=)[^&#]*", r"\1***", in_authority)


def _find_file(path: Path | None, environment: Mapping[str, str]) -> Path | None:
    named = path or (Path(environment[CONFIG_VARIABLE]) if environment.get(CONFIG_VARIABLE) else None)
    return named or next((file for file in DEFAULT_FILES if file.is_file()), None)


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} is not TOML: {error}") from error


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    """Refuse a misspelt section; a misspelt key within one is found by its model."""
    sections = {f"{ENVIRONMENT_PREFIX}{section.upper()}" for section in Settings.model_fields}
    known = sections | {CONFIG_VARIABLE, OPERATOR_VARIABLE}
    for name in environment:
        upper = name.upper()
        if upper.startswith(ENVIRONMENT_PREFIX) and upper.partition("__")[0] not in known:
            raise SettingsError(f"environment variable {name}: there is no such setting")


def _explain(error: Any, file: Path | None, environment: Mapping[str, str]) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "settings"
    variable = ENVIRONMENT_PREFIX + "__".join(str(part) for part in error["loc"][:2]).upper()
    from_environment = any(name.upper() == variable for name in environment)
    where = f"environment variable {variable}" if from_environment else str(file or "defaults")
    message = {"extra_forbidden": "there is no such setting"}.get(error["type"], error["msg"])
    return f"{where}: {key}: {message.removeprefix('Value error, ')}"
