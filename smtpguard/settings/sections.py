"""The sections of the settings: one typed frozen tree."""

import re
import socket
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from smtpguard.domain.policy import FlaggedPolicy, Mode, Policy, UnverifiedPolicy
from smtpguard.errors import SettingsError
from smtpguard.settings.kinds import (
    Count,
    CountOrNone,
    DaysOrEver,
    DomainName,
    Endpoint,
    HeaderName,
    IpNetwork,
    Listen,
    Many,
    Network,
    PasswordHash,
    Seconds,
    Secret,
    Username,
    Workers,
)
from smtpguard.settings.section import Section
from smtpguard.settings.verification import VerificationSettings
from smtpguard.settings.web import WebSettings

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
MASK = "***"
MIN_BUFFERED_BYTES = 1_048_576
FIXED_SECTIONS = ("smtp", "smarthost", "store", "quarantine", "verification", "web", "log")
"""What stays as it is for as long as a guard runs."""


class SmtpSettings(Section):
    """[smtp]: where applications deliver. Times in seconds, sizes in octets."""

    listen: Annotated[tuple[Listen, ...], Many] = (Endpoint("127.0.0.1", 2525),)
    tls_listen: Annotated[tuple[Listen, ...], Many] = ()
    """With TLS from the first octet (RFC 8314)."""
    hostname: str = ""
    """The name in the greeting and in ``Received:``; empty: the name of this host."""
    workers: Workers = 1
    """Processes that share the listening sockets."""
    max_message_bytes: Annotated[Count, Field(ge=1024)] = 36_700_160
    max_buffered_bytes: Annotated[Count, Field(ge=MIN_BUFFERED_BYTES)] = 67_108_864
    """What all messages together may hold in memory."""
    spool_above: Annotated[Count, Field(ge=4096)] = 1_048_576
    """What one message may hold in memory behind its header; the rest lies in a file."""
    spool_directory: Path | None = None
    """None: the system's directory for temporary files."""
    max_recipients: Count = 1000
    max_sessions: Count = 1000
    max_sessions_per_network: Count = 500
    """Of one IPv4 address, or one IPv6 /64."""
    max_commands: Annotated[Count, Field(ge=100)] = 10_000
    """Of a session, counted anew after each accepted message."""
    max_errors: Count = 20
    """Syntax and sequence errors of a session, counted anew after each accepted message."""
    max_auth_failures: Count = 5
    idle_timeout: Seconds = 300
    """How long an application may be silent, between commands and within a message (RFC 5321 4.5.3.2.7)."""
    min_data_rate: Count = 100
    """Octets a second that a message must come with, once ``idle_timeout`` has passed."""
    max_session_age: Seconds = 86_400
    shutdown_timeout: Seconds = 30
    """After SIGTERM, for what is past the end of data."""
    bare_line_feeds: Literal["refuse", "normalize"] = "refuse"
    auth_without_tls: bool = False
    proxy_networks: Annotated[tuple[Network, ...], Many] = ()
    """Connections from here begin with a PROXY header, and no others."""
    xclient_networks: Annotated[tuple[Network, ...], Many] = ()

    @field_validator("hostname")
    @classmethod
    def _known_host(cls, value: str) -> str:
        name = value or socket.gethostname()
        if not all("!" <= character <= "~" for character in name):
            raise ValueError(f"{name!r} is not a host name")
        return name

    @model_validator(mode="after")
    def _listens(self) -> "SmtpSettings":
        if not self.listen and not self.tls_listen:
            raise ValueError("listen and tls_listen are both empty")
        return self

    def share_of_one(self, workers: int) -> "SmtpSettings":
        """Return what one of so many workers keeps to, so that together they keep to these limits."""
        share = {
            "max_sessions": self.max_sessions // workers or 1,
            "max_sessions_per_network": self.max_sessions_per_network // workers or 1,
            "max_buffered_bytes": max(self.max_buffered_bytes // workers, self.spool_above, MIN_BUFFERED_BYTES),
        }
        return self.model_copy(update=share)


class TlsSettings(Section):
    """[tls]: what applications are shown."""

    certificate_file: Path | None = None
    """PEM, with the certificates of the chain behind the own one."""
    key_file: Path | None = None
    """PEM; None: it stands in ``certificate_file``."""
    required: bool = False
    """No mail before STARTTLS (RFC 3207 4)."""

    @model_validator(mode="after")
    def _has_certificate(self) -> "TlsSettings":
        if self.certificate_file is None and (self.key_file or self.required):
            raise ValueError("there is no certificate_file")
        return self


class SmarthostSettings(Section):
    """[smarthost]: the real mail server. Time-outs in seconds; the defaults are those of RFC 5321 4.5.3.2."""

    secrets = ("password",)

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[Count, Field(le=65535)] = 25
    tls: Literal["none", "starttls", "implicit"] = "none"
    tls_verify: bool = True
    """Whether its certificate must be valid and name ``host``."""
    ca_file: Path | None = None
    """PEM; None: what the system trusts."""
    certificate_file: Path | None = None
    """The client certificate, PEM."""
    key_file: Path | None = None
    username: str = ""
    """Empty: no AUTH."""
    password: Secret = ""
    password_file: Path | None = None
    auth_without_tls: bool = False
    max_connections: Count = 100
    idle_timeout: Seconds = 60
    """How long an idle connection is kept; below the 300 s after which mail servers hang up."""
    connect_timeout: Seconds = 30
    command_timeout: Seconds = 300
    data_timeout: Seconds = 120
    block_timeout: Seconds = 180
    reply_timeout: Seconds = 600

    @model_validator(mode="after")
    def _fits(self) -> "SmarthostSettings":
        if self.key_file and not self.certificate_file:
            raise ValueError("there is a key_file, but no certificate_file")
        if self.tls == "none" and (self.ca_file or self.certificate_file):
            raise ValueError("there are certificates, but tls is none")
        if bool(self.username) != bool(self.password):
            raise ValueError("username and password belong together")
        if self.username and self.tls == "none" and not self.auth_without_tls:
            raise ValueError("the password would go out in the clear: set tls, or auth_without_tls = true")
        return self

    def share_of_one(self, workers: int) -> "SmarthostSettings":
        """Return what one of so many workers keeps to, so that together they keep to these limits."""
        return self.model_copy(update={"max_connections": self.max_connections // workers or 1})


class StoreSettings(Section):
    """[store]: the address book, the quarantine, the ledger and the audit log."""

    secrets = ("url",)

    url: Secret = "sqlite:///smtpguard.db"
    url_file: Path | None = None
    """A file that holds the URL, which may have a password in it."""

    @field_validator("url")
    @classmethod
    def _known_engine(cls, value: str) -> str:
        if not value.startswith(("sqlite:///", "postgresql://")):
            raise ValueError("it begins with neither sqlite:/// nor postgresql://")
        return value


class QuarantineSettings(Section):
    """[quarantine]: what becomes of messages that wait."""

    retention: DaysOrEver = 30


class PolicyOverrides(Section):
    """The keys of [policy]; under [[application]] those that are set stand in place of the general ones."""

    mode: Mode | None = None
    unverified: UnverifiedPolicy | None = None
    flagged: FlaggedPolicy | None = None
    customer_header: HeaderName | None = None
    trusted_domains: Annotated[tuple[DomainName, ...] | None, Many] = None


class PolicySettings(Section):
    """[policy]: what is done with which standing."""

    mode: Mode = Mode.ENFORCE
    unverified: UnverifiedPolicy = UnverifiedPolicy.QUARANTINE
    flagged: FlaggedPolicy = FlaggedPolicy.QUARANTINE
    customer_header: HeaderName = "X-Customer-ID"
    trusted_domains: Annotated[tuple[DomainName, ...], Many] = ()

    def policy(self, overrides: PolicyOverrides | None = None) -> Policy:
        """Build the policy, with an application's own keys in place of the general ones."""
        own = overrides.model_dump(include=set(PolicyOverrides.model_fields)) if overrides else {}
        merged = dict(self) | {key: value for key, value in own.items() if value is not None}
        return Policy(**merged | {"trusted_domains": frozenset(merged["trusted_domains"])})


class ApplicationSettings(PolicyOverrides):
    """[[application]]: a business system that may submit, known by its networks or by its login."""

    secrets = ("password_hash",)

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[!-~]+$")]
    networks: Annotated[tuple[Network, ...], Many] = ()
    username: Username = ""
    """Empty: it does not log in."""
    password_hash: Annotated[tuple[PasswordHash, ...], Many, Field(repr=False)] = ()
    """More than one while a password is being changed."""
    password_hash_file: Path | None = None
    max_messages_per_minute: CountOrNone = 0
    reverse_path_domains: Annotated[tuple[DomainName, ...], Many] = ()
    """The domains that it may send as; empty: any. The null reverse-path is always allowed."""
    may_verify: bool = False
    """Whether what it marks as verification mail is relayed to recipients who are not verified."""

    @model_validator(mode="after")
    def _can_be_known(self) -> "ApplicationSettings":
        if bool(self.username) != bool(self.password_hash):
            raise ValueError("username and password_hash belong together")
        if not self.username and not self.networks:
            raise ValueError("it has neither networks nor a username")
        return self


class LogSettings(Section):
    """[log]: what goes to standard output."""

    format: Literal["auto", "json", "console"] = "auto"
    """auto: console on a terminal, else JSON."""
    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(Section):
    """All settings."""

    smtp: SmtpSettings = Field(default_factory=SmtpSettings)
    tls: TlsSettings = Field(default_factory=TlsSettings)
    smarthost: SmarthostSettings = Field(default_factory=SmarthostSettings)
    store: StoreSettings = Field(default_factory=StoreSettings)
    policy: PolicySettings = Field(default_factory=PolicySettings)
    quarantine: QuarantineSettings = Field(default_factory=QuarantineSettings)
    verification: VerificationSettings = Field(default_factory=VerificationSettings)
    application: Annotated[tuple[ApplicationSettings, ...], Many] = ()
    web: WebSettings = Field(default_factory=WebSettings)
    log: LogSettings = Field(default_factory=LogSettings)

    @field_validator("application")
    @classmethod
    def _are_apart(cls, applications: tuple[ApplicationSettings, ...]) -> tuple[ApplicationSettings, ...]:
        names: set[str] = set()
        owners: dict[str | IpNetwork, str] = {}
        for application in applications:
            if application.name in names:
                raise ValueError(f"two applications are named {application.name!r}")
            names.add(application.name)
            marks = [*application.networks, *([application.username] if application.username else [])]
            for mark in marks:
                if owners.setdefault(mark, application.name) != application.name:
                    raise ValueError(f"{mark} stands under {owners[mark]!r} and under {application.name!r}")
        return applications

    @model_validator(mode="after")
    def _fit_together(self) -> "Settings":
        self.ensure_fit()
        return self

    def ensure_fit(self) -> None:
        """Raise ValueError where one section wants what another does not give."""
        certificate = self.tls.certificate_file
        if self.smtp.tls_listen and certificate is None:
            raise ValueError("smtp.tls_listen is set, but no tls.certificate_file")
        if self.web.public_listen and not (self.verification.organisation and self.web.public_url):
            raise ValueError("web.public_listen is set, but not both of verification.organisation and web.public_url")
        locked_out = [each.name for each in self.application if each.username]
        if locked_out and certificate is None and not self.smtp.auth_without_tls:
            raise ValueError(
                f"application {locked_out[0]!r} cannot log in: set tls.certificate_file, or smtp.auth_without_tls"
            )

    @property
    def lacking_for_invitations(self) -> tuple[str, ...]:
        """The keys that must be set before an invitation can be made, and are not."""
        wanted = {
            "verification.organisation": self.verification.organisation,
            "verification.sender": self.verification.sender,
            "web.public_url": self.web.public_url,
        }
        return tuple(key for key, value in wanted.items() if not value)

    def share_of_one(self, workers: int) -> "Settings":
        """Return the settings of one of so many workers: limits of the whole guard are divided, to 1 at least."""
        shares = {"smtp": self.smtp.share_of_one(workers), "smarthost": self.smarthost.share_of_one(workers)}
        return self.model_copy(update=shares)

    def reloaded(self, settings: "Settings") -> "Settings":
        """Return what is in force when others are read while a guard runs: FIXED_SECTIONS stay as they are.

        Raises SettingsError where the others do not fit what stays.
        """
        reloaded = settings.model_copy(update={name: getattr(self, name) for name in FIXED_SECTIONS})
        try:
            reloaded.ensure_fit()
        except ValueError as error:
            raise SettingsError(f"without a restart: {error}") from error
        return reloaded

    def want_restart(self, settings: "Settings") -> tuple[str, ...]:
        """Name the sections in which others differ, and which count from a restart on."""
        return tuple(name for name in FIXED_SECTIONS if getattr(self, name) != getattr(settings, name))

    def applications(self) -> tuple[ApplicationSettings, ...]:
        """The applications; with none named, loopback may submit, as application ``default``."""
        return self.application or (ApplicationSettings(name="default", networks=LOOPBACK),)

    def masked(self) -> dict[str, Any]:
        """The effective tree as plain values, with secrets masked.

        It can be read again, but for a password or a hash that stands in it directly.
        """
        tree = self.model_dump(mode="json", exclude_none=True)
        if self.store.url_file:  # both together are an error
            del tree["store"]["url"]
        else:
            tree["store"]["url"] = masked_url(self.store.url)
        _mask(tree["smarthost"], "password", MASK)
        for application in tree["application"]:
            _mask(application, "password_hash", [MASK])
        return tree


def masked_url(url: str) -> str:
    """Return a URL with ``***`` in place of its password, also where it stands in the query.

    A password with characters that ought to have been percent-encoded is hidden too, at the cost of what stands
    between it and the last ``@``.
    """
    without_userinfo = re.sub(r"^(\w+://[^:@]*):.*@", r"\1:***@", url)
    return re.sub(r"([?&]\w*password=)[^&]*", r"\1***", without_userinfo)


def _mask(table: dict[str, Any], secret: str, mask: object) -> None:
    if f"{secret}_file" in table:  # both together are an error
        del table[secret]
    elif table[secret]:
        table[secret] = mask
