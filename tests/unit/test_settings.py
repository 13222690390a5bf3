"""The settings: defaults, file, environment, and one clear line for whatever is wrong."""

from ipaddress import ip_network
from pathlib import Path

import pytest
import tomli_w
from pydantic import ValidationError

from smtpguard.domain.policy import FlaggedPolicy, Mode, Policy, UnverifiedPolicy
from smtpguard.errors import SettingsError
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
        ("smarthost.host", '""', "smarthost.host: String should have at least 1 character"),
        ("smarthost.port", "0", "smarthost.port: Input should be greater than or equal to 1"),
        ("smarthost.port", "65536", "smarthost.port: Input should be less than or equal to 65535"),
        ("smarthost.tls", '"maybe"', "smarthost.tls: Input should be 'none'"),
        ("store.url", '"mysql://u:geheim@h/d"', "store.url: it begins with neither sqlite:/// nor postgresql://"),
        ("store.url", "5", "store.url: Input should be a valid string"),
        ("store.url_file", "5", "store.url_file: it is not a path"),
        ("store.url_file", '""', "store: url_file cannot be read: "),
        ("store.url_file", '"/dev/null/x"', "store: url_file cannot be read: "),
        ("store.url_file", '"a\\u0000b"', "store: url_file cannot be read: "),
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
        ("SMTPGUARD_SMTP__LISTEN", "[]", "smtp: listen and tls_listen are both empty"),
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
    ],
)
def test_wrong_application(complaint, text, message) -> None:
    line = complaint(text, SMTPGUARD_LOG__LEVEL="info")

    assert line.startswith(f"DIR/guard.toml: {message}")


def test_networks_may_lie_within_each_other(load) -> None:
    """The longest wins; only equal ones would be for the toss of a coin."""
    settings = load(CRM + BILLING.replace("10.2.0.0/16", '10.1.2.0/24", "10.0.0.0/8", "10.0.0.0/8'))

    assert len(settings.applications()) == 2
