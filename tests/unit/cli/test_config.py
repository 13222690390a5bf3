"""``config check`` and ``config print``, without a process: neither opens anything but the file."""

import json
import tomllib

import pytest
from typer.testing import CliRunner

from smtpguard.cli.main import app
from smtpguard.settings import load_settings

FILE = """
[smtp]
listen = ["127.0.0.1:2525", "[::1]:2525"]
hostname = "guard.example"
[store]
url = "postgresql://guard:pa55word@db.example/guard?password=hidden"
[policy]
trusted_domains = ["shop.example", "bücher.example"]
[[application]]
name = "crm"
networks = ["10.1.0.0/16", "2001:db8::/32"]
mode = "observe"
"""


def invoke(*arguments: str, **environment: str):
    return CliRunner().invoke(app, arguments, env=environment, prog_name="smtpguard")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "guard.toml"
    path.write_text(FILE, encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """No settings of the checkout count."""
    monkeypatch.chdir(tmp_path)


def test_check_names_the_file(file):
    result = invoke("-c", str(file), "config", "check")

    assert (result.exit_code, result.stdout) == (0, f"OK: {file}\n")


def test_check_names_the_file_of_the_environment(file):
    result = invoke("config", "check", SMTPGUARD_CONFIG=str(file))

    assert (result.exit_code, result.stdout) == (0, f"OK: {file}\n")


def test_check_without_a_file():
    result = invoke("config", "check")

    assert (result.exit_code, result.stdout) == (0, "OK: no file, defaults and environment\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[smtp]\nport = 25\n", "smtp.port: there is no such setting"),
        ("[smtp]\nlisten = 'x'\n", "smtp.listen.0: 'x' is not HOST:PORT"),
        ("[smarthost\n", "is not TOML"),
        ("[store]\nurl = 'mysql://x'\n", "store.url: it begins with neither"),
    ],
)
def test_wrong_file_is_one_line(file, text, said):
    file.write_text(text)
    result = invoke("-c", str(file), "config", "check")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"smtpguard: {file}")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_missing_file_is_one_line(tmp_path):
    result = invoke("-c", str(tmp_path / "none.toml"), "config", "check")

    assert result.exit_code == 1
    assert result.stderr.startswith(f"smtpguard: {tmp_path / 'none.toml'} cannot be read: ")
    assert result.stderr.count("\n") == 1


def test_wrong_variable_is_one_line():
    result = invoke("config", "print", SMTPGUARD_SMARTHOST__PORT="0")

    assert result.exit_code == 1
    assert "environment variable SMTPGUARD_SMARTHOST__PORT" in result.stderr
    assert result.stderr.count("\n") == 1


def test_printed_settings_can_be_read_again(file, tmp_path):
    printed = invoke("-c", str(file), "config", "print")
    again = tmp_path / "again.toml"
    again.write_text(printed.stdout, encoding="utf-8")

    assert printed.exit_code == 0
    before, after = load_settings(file, {}), load_settings(again, {})
    assert after.model_dump(exclude={"store"}) == before.model_dump(exclude={"store"})


def test_printed_settings_show_no_secret(file):
    for arguments in (["config", "print"], ["config", "print", "--json"]):
        printed = invoke("-c", str(file), *arguments).stdout

        assert "pa55word" not in printed
        assert "hidden" not in printed
        assert "guard:***@db.example" in printed


def test_secret_of_a_file_of_its_own_is_not_printed(tmp_path):
    url_file = tmp_path / "url"
    url_file.write_text("postgresql://guard:pa55word@db.example/guard\n")
    printed = invoke("config", "print", SMTPGUARD_STORE__URL_FILE=str(url_file)).stdout

    again = tmp_path / "again.toml"
    again.write_text(printed)

    assert "pa55word" not in printed
    assert load_settings(again, {}).store.url == "postgresql://guard:pa55word@db.example/guard"


def test_json_is_the_same_tree(file):
    as_json = json.loads(invoke("-c", str(file), "config", "print", "--json").stdout)

    assert as_json == tomllib.loads(invoke("-c", str(file), "config", "print").stdout)
    assert as_json["smtp"]["listen"] == ["127.0.0.1:2525", "[::1]:2525"]
