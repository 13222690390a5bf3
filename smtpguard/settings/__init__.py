"""Settings: how the process runs. A TOML file, with the environment laid over it.

Every key is an environment variable too, ``__`` between the levels (``SMTPGUARD_SMARTHOST__HOST``); the
environment wins over the file. A secret can be read from a file of its own (``url_file``). An unknown key is an error.
"""

from smtpguard.settings.kinds import Endpoint, IpNetwork
from smtpguard.settings.loading import (
    ENVIRONMENT_PREFIX,
    OPERATOR_VARIABLE,
    find_settings_file,
    load_settings,
    places,
)
from smtpguard.settings.sections import (
    ApplicationSettings,
    LogSettings,
    PolicySettings,
    QuarantineSettings,
    Settings,
    SmarthostSettings,
    SmtpSettings,
    StoreSettings,
    TlsSettings,
    masked_url,
)
from smtpguard.settings.verification import VerificationSettings
from smtpguard.settings.web import WebSettings

__all__ = [
    "ENVIRONMENT_PREFIX",
    "OPERATOR_VARIABLE",
    "ApplicationSettings",
    "Endpoint",
    "IpNetwork",
    "LogSettings",
    "PolicySettings",
    "QuarantineSettings",
    "Settings",
    "SmarthostSettings",
    "SmtpSettings",
    "StoreSettings",
    "TlsSettings",
    "VerificationSettings",
    "WebSettings",
    "find_settings_file",
    "load_settings",
    "masked_url",
    "places",
]
