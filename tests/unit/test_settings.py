"""The settings: defaults, file, environment, and one clear line for whatever is wrong."""

import json
from ipaddress import ip_network
from pathlib import Path

import pytest
import tomli_w
from pydantic import ValidationError

from smtpguard.domain.policy import FlaggedPolicy, Mode, Policy, UnverifiedPolicy
from smtpguard.errors import SettingsError
from smtpguard.service.password_hashes import hash_password
from smtpguard.settings import (
    ApplicationSettings,
    Endpoint,
    PolicySettings,
    Settings,
    StoreSettings,
    load_settings,
    masked_url,
)
from smtpguard.settings.sections import PolicyOverrides

CRM = '[[application]]\nname = "crm"\nnetworks = ["10.1.0.0/16"]\n'
BILLING = '[[application]]\nname = "billing"\nnetworks = ["10.2.0.0/16"]\n'
HASH = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2E$G6tCmBxQPU2mUCqdQI1mXe4mgGdHlwe3fcP7dRLlAnw"
OTHER_HASH = HASH.replace("c2FsdH", "b3RoZX")
NO_TLS = "[smtp]\nauth_without_tls = true\n"
SHOP = f"{NO_TLS}[[application]]\nname = 'shop'\nusername = 'shop'\n"


@pytest.fixture
def load(tmp_path):
    """Load what stands in a file and in an environment."""

    def load(text: str = "", /, **environment: str) -> Settings:
        file = tmp_path / "guard.toml"
        file.write_text(text, encoding="utf-8")
        return load_settings(file, environment)

    return load


@pytest.fixture
def complaint(load, tmp_path):
    """The one line that says what is wrong."""

    def complaint(text: str = "", /, **environment: str) -> str:
        with pytest.raises(SettingsError) as raised:
            load(text, **environment)
        line = str(raised.value)
        assert line.isprintable()
        return line.replace(str(tmp_path), "DIR")

    return complaint


# --- Defaults, file, environment ------------------------------------------------------------------------------------


def test_defaults(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("smtpguard.settings.loading.DEFAULT_FILES", (Path("config/smtpguard.toml"),))

    settings = load_settings(None, {})

    assert settings == Settings()
    assert settings.smtp.listen == (Endpoint("127.0.0.1", 2525),)
    assert (settings.smarthost.host, settings.smarthost.port) == ("127.0.0.1", 25)
    assert settings.store.url == "sqlite:///smtpguard.db"
    assert settings.policy.policy() == Policy()
    assert settings.log.format == "auto"


def test_file(load) -> None:
    settings = load(
        """
        [smtp]
        listen = ["192.0.2.1:25", "[2001:db8::1]:2525"]
        max_recipients = 5
        [smarthost]
        host = "mail.example"
        connect_timeout = 1.5
        [policy]
        unverified = "reject"
        trusted_domains = ["Example.NET", "bücher.example"]
        """
    )

    assert settings.smtp.listen == (Endpoint("192.0.2.1", 25), Endpoint("2001:db8::1", 2525))
    assert settings.smtp.max_recipients == 5
    assert (settings.smarthost.host, settings.smarthost.connect_timeout) == ("mail.example", 1.5)
    assert settings.policy.policy() == Policy(
        unverified=UnverifiedPolicy.REJECT, trusted_domains=frozenset({"example.net", "xn--bcher-kva.example"})
    )


def test_environment_wins_over_the_file(load) -> None:
    settings = load(
        "[smarthost]\nhost = 'a.example'\nport = 26\n",
        SMTPGUARD_SMARTHOST__HOST="b.example",
        SMTPGUARD_POLICY__MODE="observe",
        SMTPGUARD_SMTP__IDLE_TIMEOUT="7.5",
        HOME="/root",
    )

    assert (settings.smarthost.host, settings.smarthost.port) == ("b.example", 26)
    assert settings.policy.mode is Mode.OBSERVE
    assert settings.smtp.idle_timeout == 7.5


def test_settings_are_frozen(load) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load().smtp.max_sessions = 5


def test_names_of_variables_in_any_case(load) -> None:
    assert load(smtpguard_smarthost__port="26").smarthost.port == 26


def test_settings_do_not_read_the_environment_of_the_process(monkeypatch) -> None:
    """Only what is handed in counts, so that nothing leaks into a test or a demo."""
    monkeypatch.setenv("SMTPGUARD_SMARTHOST__PORT", "26")

    assert Settings().smarthost.port == 25


@pytest.mark.parametrize(
    ("value", "endpoints"),
    [
        ("127.0.0.1:0", (Endpoint("127.0.0.1", 0),)),
        ("127.0.0.1:65535", (Endpoint("127.0.0.1", 65535),)),
        ("[::1]:2525", (Endpoint("::1", 2525),)),
        (":25", (Endpoint("", 25),)),
        ('["localhost:1", "[::1]:2"]', (Endpoint("localhost", 1), Endpoint("::1", 2))),
        (' [\n "localhost:1"]', (Endpoint("localhost", 1),)),
    ],
)
def test_list_from_the_environment(load, value, endpoints) -> None:
    """A single value, or a JSON array."""
    assert endpoints == load(SMTPGUARD_SMTP__LISTEN=value).smtp.listen


@pytest.mark.parametrize(
    ("value", "domains"), [("x.example", ("x.example",)), ('["x", "y"]', ("x", "y")), ("[]", ()), ("[ ]", ())]
)
def test_trusted_domains_from_the_environment(load, value, domains) -> None:
    assert domains == load(SMTPGUARD_POLICY__TRUSTED_DOMAINS=value).policy.trusted_domains


def test_applications_from_the_environment_replace_those_of_the_file(load) -> None:
    settings = load(CRM, SMTPGUARD_APPLICATION='[{"name": "erp", "networks": "10.3.0.0/16", "mode": "observe"}]')

    (erp,) = settings.applications()
    assert (erp.name, erp.networks, erp.mode) == ("erp", (ip_network("10.3.0.0/16"),), Mode.OBSERVE)


def test_endpoint_as_text() -> None:
    assert str(Endpoint("127.0.0.1", 25)) == "127.0.0.1:25"
    assert str(Endpoint("::1", 25)) == "[::1]:25"


def test_host_name_is_that_of_this_host_unless_set(load, monkeypatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "guard.example")

    assert load().smtp.hostname == "guard.example"
    assert load("[smtp]\nhostname = 'mx.example'").smtp.hostname == "mx.example"


def test_host_with_a_name_that_cannot_be_sent(complaint, monkeypatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "gärd host")

    assert complaint() == "DIR/guard.toml: smtp.hostname: 'gärd host' is not a host name"


# --- Which file -----------------------------------------------------------------------------------------------------


def test_which_file_is_read(tmp_path, monkeypatch) -> None:
    """The argument, else the variable, else the first default file that exists, else none."""
    files = {name: tmp_path / f"{name}.toml" for name in ("argument", "variable", "local", "system")}
    for port, file in enumerate(files.values(), start=1):
        file.write_text(f"[smarthost]\nport = {port}\n")
    monkeypatch.setattr(
        "smtpguard.settings.loading.DEFAULT_FILES", (tmp_path / "none", files["local"], files["system"])
    )
    environment = {"SMTPGUARD_CONFIG": str(files["variable"]), "SMTPGUARD_OPERATOR": "anna"}

    assert load_settings(files["argument"], environment).smarthost.port == 1
    assert load_settings(None, environment).smarthost.port == 2
    assert load_settings(None, {}).smarthost.port == 3
    assert load_settings(None, {"SMTPGUARD_CONFIG": ""}).smarthost.port == 3


@pytest.mark.parametrize("content", [None, b"\xff", b"[smtp", b"a = 1\na = 2"])
def test_file_that_cannot_be_read(tmp_path, content) -> None:
    file = tmp_path / "guard.toml"
    if content is not None:
        file.write_bytes(content)

    for path, environment in ((file, {}), (None, {"SMTPGUARD_CONFIG": str(file)})):
        with pytest.raises(SettingsError, match=r"guard\.toml (cannot be read|is not TOML): .+"):
            load_settings(path, environment)


# --- What is wrong, and where it was set ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("smtp.listen", '"127.0.0.1"', "smtp.listen.0: '127.0.0.1' is not HOST:PORT, or [HOST]:PORT for IPv6"),
        ("smtp.listen", '"h:65536"', "smtp.listen.0: 'h:65536' is not HOST:PORT"),
        ("smtp.listen", '"h:-1"', "smtp.listen.0: 'h:-1' is not HOST:PORT"),
        ("smtp.listen", '"h:٣"', "smtp.listen.0: 'h:٣' is not HOST:PORT"),
        ("smtp.listen", '"::1:25"', "smtp.listen.0: '::1:25' is not HOST:PORT"),
        ("smtp.listen", '"[::1:25"', "smtp.listen.0: '[::1:25' is not HOST:PORT"),
        ("smtp.listen", '["h:1", 2]', "smtp.listen.1: 2 is not HOST:PORT"),
        ("smtp.listen", '[["h", 25]]', "smtp.listen.0: ['h', 25] is not HOST:PORT"),
        ("smtp.listen", "[]", "smtp: listen and tls_listen are both empty"),
        ("smtp.listen", "25", "smtp.listen: it is not a list"),
        ("smtp.hostname", '"a b"', "smtp.hostname: 'a b' is not a host name"),
        ("smtp.hostname", "5", "smtp.hostname: Input should be a valid string"),
        ("smtp.max_message_bytes", "1023", "smtp.max_message_bytes: Input should be greater than or equal to 1024"),
        ("smtp.max_recipients", "0", "smtp.max_recipients: Input should be greater than or equal to 1"),
        ("smtp.max_recipients", '"many"', "smtp.max_recipients: Input should be a valid integer"),
        ("smtp.max_recipients", "1.5", "smtp.max_recipients: Input should be a valid integer"),
        ("smtp.max_recipients", "true", "smtp.max_recipients: true and false are no numbers"),
        ("smtp.max_sessions", "1979-05-27", "smtp.max_sessions: Input should be a valid integer"),
        ("smtp.max_sessions", "{x = 1}", "smtp.max_sessions: Input should be a valid integer"),
        ("smtp.idle_timeout", "0", "smtp.idle_timeout: Input should be greater than 0"),
        ("smtp.idle_timeout", "nan", "smtp.idle_timeout: Input should be"),
        ("smtp.idle_timeout", "inf", "smtp.idle_timeout: Input should be a finite number"),
        ("smtp.shutdown_timeout", "false", "smtp.shutdown_timeout: true and false are no numbers"),
        ("smtp.tls_listen", '"h"', "smtp.tls_listen.0: 'h' is not HOST:PORT"),
        (
            "smtp.max_buffered_bytes",
            "1048575",
            "smtp.max_buffered_bytes: Input should be greater than or equal to 1048",
        ),
        ("smtp.spool_above", "4095", "smtp.spool_above: Input should be greater than or equal to 4096"),
        ("smtp.spool_directory", "5", "smtp.spool_directory: it is not a path"),
        ("smtp.max_sessions_per_network", "0", "smtp.max_sessions_per_network: Input should be greater than or equal"),
        ("smtp.max_commands", "99", "smtp.max_commands: Input should be greater than or equal to 100"),
        ("smtp.max_errors", "0", "smtp.max_errors: Input should be greater than or equal to 1"),
        ("smtp.max_auth_failures", "0", "smtp.max_auth_failures: Input should be greater than or equal to 1"),
        ("smtp.min_data_rate", "0", "smtp.min_data_rate: Input should be greater than or equal to 1"),
        ("smtp.max_session_age", "0", "smtp.max_session_age: Input should be greater than 0"),
        ("smtp.auth_without_tls", '"perhaps"', "smtp.auth_without_tls: Input should be a valid boolean"),
        ("smtp.proxy_networks", '"10.0.0.1/8"', "smtp.proxy_networks.0: 10.0.0.1/8 has host bits set"),
        ("smtp.proxy_networks", '["::1", "lan"]', "smtp.proxy_networks.1: 'lan' does not appear to be"),
        ("smtp.xclient_networks", "[5]", "smtp.xclient_networks.0: 5 is not a network"),
        ("tls.certificate_file", "5", "tls.certificate_file: it is not a path"),
        ("tls.key_file", '"guard.key"', "tls: there is no certificate_file"),
        ("tls.required", "true", "tls: there is no certificate_file"),
        ("tls.required", '"perhaps"', "tls.required: Input should be a valid boolean"),
        ("smarthost.host", '""', "smarthost.host: String should have at least 1 character"),
        ("smarthost.port", "0", "smarthost.port: Input should be greater than or equal to 1"),
        ("smarthost.port", "65536", "smarthost.port: Input should be less than or equal to 65535"),
        ("smarthost.tls", '"maybe"', "smarthost.tls: Input should be 'none'"),
        ("smarthost.tls_verify", '"perhaps"', "smarthost.tls_verify: Input should be a valid boolean"),
        ("smarthost.ca_file", "5", "smarthost.ca_file: it is not a path"),
        ("smarthost.password", '{x = "geheim"}', "smarthost.password: Input should be a valid string"),
        ("smarthost.password_file", "5", "smarthost.password_file: it is not a path"),
        ("smarthost.max_connections", "0", "smarthost.max_connections: Input should be greater than or equal to 1"),
        ("store.url", '"mysql://u:geheim@h/d"', "store.url: it begins with neither sqlite:/// nor postgresql://"),
        ("store.url", "5", "store.url: Input should be a valid string"),
        ("store.url_file", "5", "store.url_file: it is not a path"),
        ("store.url_file", '""', "store: url_file cannot be read: "),
        ("store.url_file", '"/dev/null/x"', "store: url_file cannot be read: "),
        ("store.url_file", '"a\\u0000b"', "store: url_file cannot be read: "),
        ("quarantine.retention", "-1", "quarantine.retention: Input should be greater than or equal to 0"),
        ("quarantine.retention", "3651", "quarantine.retention: Input should be less than or equal to 3650"),
        ("policy.mode", '"on"', "policy.mode: Input should be 'enforce' or 'observe'"),
        ("policy.unverified", '"drop"', "policy.unverified: Input should be 'quarantine', 'reject' or 'relay'"),
        ("policy.flagged", '"relay"', "policy.flagged: Input should be 'quarantine' or 'reject'"),
        ("policy.customer_header", '"X Customer"', "policy.customer_header: 'X Customer' is not a header name"),
        ("policy.customer_header", '"X-Customer:"', "policy.customer_header: 'X-Customer:' is not a header name"),
        ("policy.customer_header", '""', "policy.customer_header: '' is not a header name"),
        ("policy.trusted_domains", '"u@x"', "policy.trusted_domains.0: 'u@x': the domain is empty or has an invalid"),
        ("policy.trusted_domains", '["x", "*.x"]', "policy.trusted_domains.1: '*.x': the domain is empty"),
        ("policy.trusted_domains", '["x", 5]', "policy.trusted_domains.1: Input should be a valid string"),
        ("log.level", '"loud"', "log.level: Input should be 'debug', 'info', 'warning' or 'error'"),
        ("log.format", '"xml"', "log.format: Input should be 'auto', 'json' or 'console'"),
    ],
)
def test_wrong_value_in_the_file(complaint, key, value, message) -> None:
    section, _, name = key.partition(".")

    line = complaint(f"[{section}]\n{name} = {value}\n", SMTPGUARD_SMARTHOST__BLOCK_TIMEOUT="9")

    assert line.startswith(f"DIR/guard.toml: {message}")
    assert "geheim" not in line


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SMTPGUARD_SMTP__LISTEN", "", "smtp.listen.0: '' is not HOST:PORT"),
        ("SMTPGUARD_SMTP__LISTEN", '["h:1"', "smtp.listen: it is not a JSON array: "),
        ("SMTPGUARD_SMTP__MAX_SESSIONS", "", "smtp.max_sessions: Input should be a valid integer"),
        ("SMTPGUARD_SMTP__MAX_SESSIONS", "-1", "smtp.max_sessions: Input should be greater than or equal to 1"),
        ("SMTPGUARD_SMARTHOST__CONNECT_TIMEOUT", "soon", "smarthost.connect_timeout: Input should be a valid number"),
        ("SMTPGUARD_STORE__URL", "file:x", "store.url: it begins with neither sqlite:/// nor postgresql://"),
        ("SMTPGUARD_STORE__URL_FILE", "", "store: url_file cannot be read: "),
        ("SMTPGUARD_STORE__URL_FILE", "/dev/null", "store.url: it begins with neither sqlite:/// nor postgresql://"),
        ("SMTPGUARD_POLICY__TRUSTED_DOMAINS", "a.example,b.example", "policy.trusted_domains.0: 'a.example,b.example'"),
        ("SMTPGUARD_APPLICATION", "crm", "application.0: it is not a table"),
        ("SMTPGUARD_APPLICATION", '[{"name"', "application: it is not a JSON array: "),
        ("SMTPGUARD_APPLICATION", '[{"name": "crm"}]', "application.0: it has neither networks nor a username"),
        (
            "SMTPGUARD_APPLICATION",
            '[{"name": "crm", "networks": "::1", "mode": "on"}]',
            "application.0.mode: Input should be 'enforce' or 'observe'",
        ),
        ("SMTPGUARD_SMTP", "1", "there is no such setting"),
        ("SMTPGUARD_SMTP__", "1", "there is no such setting"),
        ("SMTPGUARD_SMTP__MAX_SESSIONS__X", "1", "there is no such setting"),
        ("SMTPGUARD_SMTP__MAX_SESSION", "1", "there is no such setting"),
        ("SMTPGUARD_SMPT__MAX_SESSIONS", "1", "there is no such setting"),
        ("SMTPGUARD_APPLICATION__0__MODE", "observe", "there is no such setting"),
        ("SMTPGUARD_CONFIG__X", "1", "there is no such setting"),
        ("SMTPGUARD_", "1", "there is no such setting"),
        ("smtpguard_smpt__listen", "1", "there is no such setting"),
    ],
)
def test_wrong_variable(complaint, variable, value, message) -> None:
    line = complaint("[smtp]\nmax_recipients = 7\n", **{variable: value})

    assert line.startswith(f"environment variable {variable}: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("smpt = {}", "smpt: there is no such setting"),
        ("listen = 1", "listen: there is no such setting"),
        ("_env_prefix = 'X'", "_env_prefix: there is no such setting"),
        ("[smtp]\nlisten_on = 1", "smtp.listen_on: there is no such setting"),
        ("[smtp.listen]\nx = 1", "smtp.listen: it is not a list"),
        ("[policy]\nname = 'x'", "policy.name: there is no such setting"),
        (CRM + "color = 1", "application.0.color: there is no such setting"),
        (CRM + BILLING + "store = 1", "application.1.store: there is no such setting"),
        ("smtp = 5", "smtp: it is not a table"),
        ("[[smtp]]", "smtp: it is not a table"),
        ("application = 'crm'", "application.0: it is not a table"),
        ("[application]\nname = 'crm'", "application: it is not a list"),
    ],
)
def test_unknown_key_or_section(complaint, text, message) -> None:
    assert complaint(text) == f"DIR/guard.toml: {message}"


def test_section_that_is_no_table_is_not_hidden_by_a_variable(complaint) -> None:
    assert complaint("smtp = 5", SMTPGUARD_SMTP__MAX_SESSIONS="4") == "DIR/guard.toml: smtp: it is not a table"


def test_two_faults_in_one_line(complaint) -> None:
    line = complaint("[smtp]\nmax_sessions = 0\n[log]\nlevel = 'x'\n", SMTPGUARD_LOG__LEVEL="loud")

    assert line == (
        "DIR/guard.toml: smtp.max_sessions: Input should be greater than or equal to 1; environment variable "
        "SMTPGUARD_LOG__LEVEL: log.level: Input should be 'debug', 'info', 'warning' or 'error'"
    )


# --- The URL of the store, and secrets ------------------------------------------------------------------------------

URL = "postgresql://guard:geheim@db/guard"


@pytest.fixture
def url_file(tmp_path):
    file = tmp_path / "url"
    file.write_text(f"{URL}\n")
    return file


def test_url_from_a_file_of_its_own(load, url_file) -> None:
    assert load(f"[store]\nurl_file = '{url_file}'\n").store.url == URL
    assert load(SMTPGUARD_STORE__URL_FILE=str(url_file)).store.url == URL
    assert StoreSettings(url_file=url_file).url == URL


def test_the_environment_says_where_the_store_is(load, url_file) -> None:
    """Either key in the environment takes the place of either in the file."""
    by_url, by_file = "[store]\nurl = 'sqlite:///other.db'\n", f"[store]\nurl_file = '{url_file}'\n"

    assert load(by_url, SMTPGUARD_STORE__URL_FILE=str(url_file)).store.url == URL
    assert load(by_file, SMTPGUARD_STORE__URL="sqlite:///other.db").store.url == "sqlite:///other.db"
    assert load(by_file, SMTPGUARD_STORE__URL="sqlite:///other.db").store.url_file is None


def test_url_and_file_in_one_place(complaint, url_file) -> None:
    both = {"SMTPGUARD_STORE__URL": URL, "SMTPGUARD_STORE__URL_FILE": str(url_file)}

    assert complaint(f"[store]\nurl = '{URL}'\nurl_file = '{url_file}'\n") == (
        "DIR/guard.toml: store: url and url_file are both set"
    )
    assert complaint(**both) == (
        "environment variable SMTPGUARD_STORE__URL and SMTPGUARD_STORE__URL_FILE: store: url and url_file are both set"
    )


def test_wrong_section_names_both_that_have_a_part_in_it(complaint, tmp_path) -> None:
    file = f"[smarthost]\nusername = 'guard'\npassword_file = '{tmp_path}/none'\n"

    assert complaint(file, SMTPGUARD_SMARTHOST__BLOCK_TIMEOUT="5", SMTPGUARD_SMTP__MAX_RECIPIENTS="5").startswith(
        "environment variable SMTPGUARD_SMARTHOST__BLOCK_TIMEOUT over DIR/guard.toml: smarthost: password_file cannot "
    )


def test_settings_that_do_not_fit_together(complaint) -> None:
    assert complaint("[smtp]\ntls_listen = 'h:465'\n") == (
        "DIR/guard.toml: smtp.tls_listen is set, but no tls.certificate_file"
    )


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"nonsense"])
def test_url_file_with_something_else_in_it(complaint, tmp_path, content) -> None:
    file = tmp_path / "url"
    file.write_bytes(content)

    line = complaint(SMTPGUARD_STORE__URL_FILE=str(file))

    assert line.startswith("environment variable SMTPGUARD_STORE__URL_FILE: store")
    assert "nonsense" not in line


def test_missing_url_file(complaint, tmp_path) -> None:
    line = complaint(SMTPGUARD_STORE__URL_FILE=str(tmp_path / "none"))

    assert line == (
        "environment variable SMTPGUARD_STORE__URL_FILE: store: url_file cannot be read: "
        "[Errno 2] No such file or directory: 'DIR/none'"
    )


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("sqlite:///smtpguard.db", "sqlite:///smtpguard.db"),
        ("postgresql://h/d", "postgresql://h/d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql://u@h1:1,h2:2/d", "postgresql://u@h1:1,h2:2/d"),
        ("postgresql://u@[::1]:5432/d", "postgresql://u@[::1]:5432/d"),
        ("postgresql://u:geheim@h:5432/d?a=b", "postgresql://u:***@h:5432/d?a=b"),
        ("postgresql://u:geheim@[::1]:5432/d", "postgresql://u:***@[::1]:5432/d"),
        ("postgresql://:geheim@h/d", "postgresql://:***@h/d"),
        ("postgresql://u:ge@heim@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:ge/heim@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:ge?heim@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:ge#heim@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:ge:heim@h/d", "postgresql://u:***@h/d"),
        ("postgresql://h/d?user=u&password=geheim", "postgresql://h/d?user=u&password=***"),
        ("postgresql://h/d?password=geheim&a=b", "postgresql://h/d?password=***&a=b"),
        ("postgresql://h/d?sslpassword=geheim", "postgresql://h/d?sslpassword=***"),
        ("postgresql://u:geheim@h/d?password=ge%40heim", "postgresql://u:***@h/d?password=***"),
    ],
)
def test_masked_url(url, masked) -> None:
    assert masked == masked_url(url)


def test_no_secret_is_shown(load, url_file) -> None:
    direct, by_file = load(f"[store]\nurl = '{URL}'"), load(SMTPGUARD_STORE__URL_FILE=str(url_file))

    for settings in (direct, by_file):
        assert "geheim" not in repr(settings)
        assert "geheim" not in str(settings)
        assert "geheim" not in repr(settings.masked())
    assert direct.masked()["store"] == {"url": "postgresql://guard:***@db/guard"}
    assert by_file.masked()["store"] == {"url_file": str(url_file)}


def test_effective_settings_can_be_read_again(load) -> None:
    """What `config print` writes is a file of settings."""
    settings = load(CRM + "mode = 'observe'\ntrusted_domains = 'x'\n[smtp]\nlisten = ['[::1]:25', 'h:26']\n")

    assert settings == load(tomli_w.dumps(settings.masked()))


# --- Applications and their policies --------------------------------------------------------------------------------


def test_without_applications_loopback_may_submit(load) -> None:
    (default,) = load().applications()

    assert default.name == "default"
    assert [str(network) for network in default.networks] == ["127.0.0.0/8", "::1/128"]


def test_application_overrides_the_policy(load) -> None:
    settings = load(
        "[policy]\nmode = 'observe'\nflagged = 'reject'\ntrusted_domains = ['x']\n"
        + CRM
        + "mode = 'enforce'\ntrusted_domains = []\ncustomer_header = 'X-Client'\n"
        + BILLING
    )

    crm, billing = settings.applications()
    assert settings.policy.policy(crm) == Policy(flagged=FlaggedPolicy.REJECT, customer_header="X-Client")
    assert settings.policy.policy(billing) == settings.policy.policy()
    assert settings.policy.policy() == Policy(
        mode=Mode.OBSERVE, flagged=FlaggedPolicy.REJECT, trusted_domains=frozenset({"x"})
    )


def test_every_key_of_the_policy_can_be_overridden() -> None:
    keys = set(PolicySettings.model_fields)

    assert keys == set(Policy.__dataclass_fields__)
    assert keys == set(PolicyOverrides.model_fields)
    assert keys < set(ApplicationSettings.model_fields)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CRM + CRM.replace("10.1", "10.2"), "application: two applications are named 'crm'"),
        (CRM + BILLING.replace("10.2", "10.1"), "application: 10.1.0.0/16 stands under 'crm' and under 'billing'"),
        (
            CRM.replace('["', '["::1", "') + BILLING.replace('["', '["0:0::1/128", "'),
            "application: ::1/128 stands under 'crm' and under 'billing'",
        ),
        (CRM.replace('"crm"', '""'), "application.0.name: String should have at least 1 character"),
        (CRM.replace('"crm"', '"c r m"'), "application.0.name: String should match pattern '^[!-~]+$'"),
        (CRM.replace('"crm"', f'"{"x" * 101}"'), "application.0.name: String should have at most 100 characters"),
        (CRM.replace('"crm"', "5"), "application.0.name: Input should be a valid string"),
        (CRM.replace("/16", "/8"), "application.0.networks.0: 10.1.0.0/8 has host bits set"),
        (CRM.replace("10.1.0.0/16", "lan"), "application.0.networks.0: 'lan' does not appear to be an IPv4 or IPv6"),
        (CRM.replace('"10.1.0.0/16"', "5"), "application.0.networks.0: 5 is not a network"),
        (CRM.replace('["10.1.0.0/16"]', "[]"), "application.0: it has neither networks nor a username"),
        ("[[application]]\nname = 'crm'", "application.0: it has neither networks nor a username"),
        ("[[application]]\nnetworks = '::1'", "application.0.name: it is not set"),
        (CRM + BILLING + "flagged = 'relay'", "application.1.flagged: Input should be 'quarantine' or 'reject'"),
        (
            CRM + "max_messages_per_minute = -1",
            "application.0.max_messages_per_minute: Input should be greater than or",
        ),
        (
            CRM + "max_messages_per_minute = true",
            "application.0.max_messages_per_minute: true and false are no numbers",
        ),
        (
            CRM + "reverse_path_domains = '*.x'",
            "application.0.reverse_path_domains.0: '*.x': the domain is empty or has",
        ),
        (CRM + "reverse_path_domains = ['x', 'u@x']", "application.0.reverse_path_domains.1: 'u@x': the domain is"),
        (CRM + f"username = '{'x' * 256}'", "application.0.username: String should have at most 255 characters"),
        (CRM + "username = 'crm'", "application.0: username and password_hash belong together"),
        (CRM + f"password_hash = '{HASH}'", "application.0: username and password_hash belong together"),
        (SHOP, "application.0: username and password_hash belong together"),
        (SHOP + "password_hash = []", "application.0: username and password_hash belong together"),
        (SHOP + "password_hash = 5", "application.0.password_hash: it is not a list"),
        (SHOP + "password_hash_file = 5", "application.0.password_hash_file: it is not a path"),
        (SHOP + "password_hash_file = '/dev/null/x'", "application.0: password_hash_file cannot be read: "),
        (
            f"{SHOP}password_hash = '{HASH}'\npassword_hash_file = '/dev/null'",
            "application.0: password_hash and password_hash_file are both set",
        ),
        (
            f"{SHOP}password_hash = '{HASH}'\n{BILLING}username = 'shop'\npassword_hash = '{HASH}'",
            "application: shop stands under 'shop' and under 'billing'",
        ),
    ],
)
def test_wrong_application(complaint, text, message) -> None:
    line = complaint(text, SMTPGUARD_LOG__LEVEL="info")

    assert line.startswith(f"DIR/guard.toml: {message}")


def test_networks_may_lie_within_each_other(load) -> None:
    """The longest wins; only equal ones would be for the toss of a coin."""
    settings = load(CRM + BILLING.replace("10.2.0.0/16", '10.1.2.0/24", "10.0.0.0/8", "10.0.0.0/8'))

    assert len(settings.applications()) == 2


# --- Logins ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "hashes"),
    [
        (f"'{HASH}'", (HASH,)),
        (f"['{HASH}']", (HASH,)),
        (f"['{HASH}', '{OTHER_HASH}']", (HASH, OTHER_HASH)),
    ],
)
def test_application_that_logs_in(load, value, hashes) -> None:
    """Two hashes while a password is being changed."""
    (shop,) = load(f"{SHOP}password_hash = {value}\n").applications()

    assert (shop.username, shop.password_hash, shop.networks) == ("shop", hashes, ())


def test_application_known_by_network_and_by_login(load) -> None:
    (crm,) = load(f"{NO_TLS}{CRM}username = 'crm'\npassword_hash = '{HASH}'\n").applications()

    assert (crm.username, crm.networks) == ("crm", (ip_network("10.1.0.0/16"),))


def test_hash_as_the_command_makes_it(load) -> None:
    hashed = hash_password("geheim")

    assert load(f"{SHOP}password_hash = '{hashed}'").application[0].password_hash == (hashed,)


@pytest.mark.parametrize("content", [HASH, f"{HASH}\n", f'["{HASH}"]\n'])
def test_hash_from_a_file_of_its_own(load, tmp_path, content) -> None:
    (tmp_path / "hash").write_text(content)

    assert load(f"{SHOP}password_hash_file = '{tmp_path}/hash'").application[0].password_hash == (HASH,)


def test_hashes_from_a_file_of_their_own(load, tmp_path) -> None:
    (tmp_path / "hashes").write_text(f'["{HASH}", "{OTHER_HASH}"]\n')

    application = load(f"{SHOP}password_hash_file = '{tmp_path}/hashes'").application[0]
    assert application.password_hash == (HASH, OTHER_HASH)


@pytest.mark.parametrize("hashes", [f'"{HASH}"', f'["{HASH}", "{OTHER_HASH}"]'])
def test_hashes_from_the_environment(load, hashes) -> None:
    """An application stands there as JSON, and so do its hashes."""
    value = f'[{{"name": "shop", "username": "shop", "password_hash": {hashes}}}]'

    settings = load(SMTPGUARD_APPLICATION=value, SMTPGUARD_SMTP__AUTH_WITHOUT_TLS="true")
    assert settings.application[0].password_hash == (HASH, OTHER_HASH)[: hashes.count("argon2id")]


WRONG_HASHES = [
    "",
    "geheim",
    f"{HASH} ",
    f" {HASH}",
    f"{HASH}=",
    HASH[:-36],
    HASH.replace("argon2id", "argon2i"),
    HASH.replace("argon2id", "argon2d"),
    HASH.replace("v=19", "v=16"),
    HASH.replace("$v=19", ""),
    HASH.replace("m=19456", "m=7"),
    HASH.replace("m=19456", "m=15").replace("p=1", "p=2"),
    HASH.replace("c2FsdHNhbHRzYWx0c2E", "c2FsdHNhbH"),
    HASH.replace("c2FsdHNhbHRzYWx0c2E", "c2FsdHNhbHRzYWx0c"),
    HASH + "AA",
    HASH.replace("m=19456", "m=1048577"),
    HASH.replace("m=19456", "m=99999999"),
    HASH.replace("m=19456", "m=١٩٤٥٦"),
    HASH.replace("t=2", "t=0"),
    HASH.replace("p=1", "p=0"),
    "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
    "{SSHA}geheim",
]


@pytest.mark.parametrize("wrong", WRONG_HASHES)
def test_what_is_no_hash(complaint, tmp_path, wrong) -> None:
    """It may be a password: it is not shown, wherever it stands."""
    reason = "application.0.password_hash.1: it is not an argon2id hash as `smtpguard config hash-password` makes it"
    (tmp_path / "hashes").write_text(json.dumps([HASH, wrong]))
    both = json.dumps([HASH, wrong])
    variable = json.dumps([{"name": "shop", "username": "shop", "password_hash": [HASH, wrong]}])

    assert complaint(f"{SHOP}password_hash = {both}") == f"DIR/guard.toml: {reason}"
    assert complaint(f"{SHOP}password_hash_file = '{tmp_path}/hashes'") == f"DIR/guard.toml: {reason}"
    assert complaint(NO_TLS, SMTPGUARD_APPLICATION=variable) == f"environment variable SMTPGUARD_APPLICATION: {reason}"


@pytest.mark.parametrize("content", [b"", b"geheim", f"{HASH}\n{OTHER_HASH}\n".encode(), b"\xff"])
def test_file_that_holds_no_hash(complaint, tmp_path, content) -> None:
    (tmp_path / "hash").write_bytes(content)

    line = complaint(f"{SHOP}password_hash_file = '{tmp_path}/hash'")
    assert line.startswith("DIR/guard.toml: application.0")
    assert "geheim" not in line
    assert "argon2id$" not in line


@pytest.mark.parametrize("cost", ["m=8,t=1,p=1", "m=1048576,t=2,p=4", "m=65536,t=3,p=4"])
def test_hash_of_another_cost(load, cost) -> None:
    """Made elsewhere, with less or more than the command takes."""
    hashed = HASH.replace("m=19456,t=2,p=1", cost)

    assert load(f"{SHOP}password_hash = '{hashed}'").application[0].password_hash == (hashed,)


# --- What belongs together ------------------------------------------------------------------------------------------


def test_login_that_would_never_be_offered(complaint, load, tmp_path) -> None:
    """Without TLS there is no AUTH, unless the settings say that there is."""
    text = SHOP.removeprefix(NO_TLS) + f"password_hash = '{HASH}'\n"

    line = complaint(text)
    assert line.startswith("DIR/guard.toml: ")
    assert line.endswith("application 'shop' cannot log in: set tls.certificate_file, or smtp.auth_without_tls")
    assert load(text + "[tls]\ncertificate_file = 'guard.pem'").application
    assert load(text, SMTPGUARD_SMTP__AUTH_WITHOUT_TLS="true").application


def test_tls_without_a_certificate(complaint, load) -> None:
    text = "[smtp]\ntls_listen = '127.0.0.1:465'\n"

    assert complaint(text).endswith("smtp.tls_listen is set, but no tls.certificate_file")
    with_certificate = load(text + "[tls]\ncertificate_file = 'guard.pem'\nkey_file = 'guard.key'\nrequired = true")
    assert with_certificate.smtp.tls_listen == (Endpoint("127.0.0.1", 465),)
    assert with_certificate.tls.required


def test_guard_that_listens_with_tls_only(load) -> None:
    settings = load("[smtp]\nlisten = []\ntls_listen = '[::1]:465'\n[tls]\ncertificate_file = 'guard.pem'")

    assert (settings.smtp.listen, settings.smtp.tls_listen) == ((), (Endpoint("::1", 465),))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("key_file = 'client.key'", "there is a key_file, but no certificate_file"),
        ("username = 'guard'", "username and password belong together"),
        ("password = 'geheim'", "username and password belong together"),
        ("password_file = '/dev/null/x'", "password_file cannot be read: [Errno 20] Not a directory: '/dev/null/x'"),
    ],
)
def test_half_of_what_the_smarthost_wants(complaint, text, message) -> None:
    assert complaint(f"[smarthost]\n{text}\n") == f"DIR/guard.toml: smarthost: {message}"


LOGIN = "[smarthost]\nusername = 'guard'\n"


def test_login_at_the_smarthost_wants_tls(complaint, load) -> None:
    text = f"{LOGIN}password = 'geheim'\n"

    assert complaint(text) == (
        "DIR/guard.toml: smarthost: the password would go out in the clear: set tls, or auth_without_tls = true"
    )
    for key in ("tls = 'starttls'", "tls = 'implicit'", "auth_without_tls = true"):
        assert load(text + key).smarthost.password == "geheim"


def test_password_of_the_smarthost_from_a_file_of_its_own(load, tmp_path) -> None:
    """Either key in the environment takes the place of either in the file."""
    (tmp_path / "password").write_text(" geheim \n")
    by_file, direct = f"password_file = '{tmp_path}/password'\n", "password = 'other'\n"
    text = LOGIN + "tls = 'starttls'\n"

    assert load(text + by_file).smarthost.password == "geheim"
    assert load(text + direct, SMTPGUARD_SMARTHOST__PASSWORD_FILE=f"{tmp_path}/password").smarthost.password == "geheim"
    assert load(text + by_file, SMTPGUARD_SMARTHOST__PASSWORD="other").smarthost.password == "other"


def test_password_of_the_smarthost_in_two_places(complaint, tmp_path) -> None:
    (tmp_path / "password").write_text("geheim")
    line = complaint(f"{LOGIN}tls = 'starttls'\npassword = 'geheim'\npassword_file = '{tmp_path}/password'\n")

    assert line == "DIR/guard.toml: smarthost: password and password_file are both set"


def test_no_password_is_shown(load) -> None:
    """Neither of the smarthost nor a hash, which can be guessed at."""
    settings = load(f"{SHOP}password_hash = '{HASH}'\n{LOGIN}tls = 'starttls'\npassword = 'geheim'\n")

    for shown in (repr(settings), str(settings), repr(settings.masked())):
        assert "geheim" not in shown
        assert "argon2id" not in shown
    assert settings.masked()["smarthost"]["password"] == "***"
    assert settings.masked()["application"][0]["password_hash"] == ["***"]


def test_settings_without_passwords_mask_nothing(load) -> None:
    tree = load(CRM).masked()

    assert tree["smarthost"]["password"] == ""
    assert tree["application"][0]["password_hash"] == []


def test_settings_with_passwords_in_files_can_be_read_again(load, tmp_path) -> None:
    (tmp_path / "password").write_text("geheim")
    (tmp_path / "hash").write_text(HASH)
    settings = load(
        f"{SHOP}password_hash_file = '{tmp_path}/hash'\n{LOGIN}tls = 'starttls'\npassword_file = '{tmp_path}/password'"
    )

    masked = tomli_w.dumps(settings.masked())
    assert "geheim" not in masked
    assert "argon2id" not in masked
    assert settings == load(masked)


def test_every_key_of_the_edge_can_be_read_again(load) -> None:
    settings = load(
        """
        [smtp]
        tls_listen = ["[::1]:465", "127.0.0.1:465"]
        max_buffered_bytes = 2_000_000
        spool_above = 8192
        spool_directory = "/var/spool"
        max_sessions_per_network = 7
        max_commands = 100
        max_errors = 1
        max_auth_failures = 1
        min_data_rate = 1
        max_session_age = 0.5
        auth_without_tls = true
        proxy_networks = ["10.0.0.0/8", "fd00::/8"]
        xclient_networks = "::1"
        [tls]
        certificate_file = "guard.pem"
        key_file = "guard.key"
        required = true
        [smarthost]
        tls = "implicit"
        tls_verify = false
        ca_file = "ca.pem"
        certificate_file = "client.pem"
        key_file = "client.key"
        [[application]]
        name = "crm"
        networks = "10.0.0.0/8"
        max_messages_per_minute = 60
        reverse_path_domains = ["Bücher.example", "SHOP.example"]
        """
    )

    assert settings == load(tomli_w.dumps(settings.masked()))
    assert settings.smtp.xclient_networks == (ip_network("::1"),)
    assert settings.application[0].reverse_path_domains == ("xn--bcher-kva.example", "shop.example")


def test_networks_of_proxies_from_the_environment(load) -> None:
    settings = load(SMTPGUARD_SMTP__PROXY_NETWORKS='["10.0.0.0/8", "::1"]', SMTPGUARD_SMTP__XCLIENT_NETWORKS="::1")

    assert settings.smtp.proxy_networks == (ip_network("10.0.0.0/8"), ip_network("::1"))
    assert settings.smtp.xclient_networks == (ip_network("::1"),)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("organisation", "Shop\r\nBcc: everybody@shop.example"),
        ("organisation", "Shop\x00"),
        ("organisation", "Shop\u2028AG"),
        ("organisation", "x" * 101),
        ("organisation", "=?utf-8?q?x?="),
        ("sender", "Shop <shop@shop.example>"),
        ("sender", "shop@shop.example\r\nBcc: x@shop.example"),
        ("sender", "postmaster"),
        ("sender", "s\u00f6hne@shop.example"),
        ("language", "rm"),
        ("invitation_valid_for", "0"),
        ("max_invitations_per_day", "0"),
        ("release_up_to", "0"),
    ],
)
def test_verification_that_is_refused(key, value) -> None:
    with pytest.raises(SettingsError, match=f"verification.{key}: "):
        load_settings(None, {f"SMTPGUARD_VERIFICATION__{key.upper()}": value})


@pytest.mark.parametrize(
    "url",
    ["check.example", "ftp://check.example", "https://", "https://a b", "https://x/?a", "https://x/#a", "https://u@x/"],
)
def test_public_url_that_is_refused(url) -> None:
    with pytest.raises(SettingsError, match=r"web\.public_url: "):
        load_settings(None, {"SMTPGUARD_WEB__PUBLIC_URL": url})


def test_public_url_is_kept_without_its_slash() -> None:
    for url in ("https://check.example", "http://127.0.0.1:8026/mail", "http://[::1]:8026"):
        assert load_settings(None, {"SMTPGUARD_WEB__PUBLIC_URL": f"{url}/"}).web.public_url == url


def test_what_invitations_lack() -> None:
    environment = {"SMTPGUARD_VERIFICATION__SENDER": "shop@shop.example"}

    assert load_settings(None, {}).lacking_for_invitations == (
        "verification.organisation",
        "verification.sender",
        "web.public_url",
    )
    assert load_settings(None, environment).lacking_for_invitations == ("verification.organisation", "web.public_url")
