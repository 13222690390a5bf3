"""``smtpguard config``, without a process but where a terminal is needed."""

import json
import os
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager

import argon2
import pytest
import trustme
from typer.testing import CliRunner

from smtpguard.cli.main import app
from smtpguard.settings import ApplicationSettings, load_settings
from tests.support.process import SMTPGUARD, clean_environment

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


def invoke(*arguments: str, stdin: bytes = b"", **environment: str):
    return CliRunner().invoke(app, arguments, input=stdin, env=environment, prog_name="smtpguard")


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


# --- check: certificates and keys -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """``ca.pem``, ``guard.pem`` with its key in ``guard.key``, ``other.key``, and ``nonsense.pem``."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    own, other = authority.issue_cert("guard.example"), authority.issue_cert("other.example")
    own.cert_chain_pems[0].write_to_path(folder / "guard.pem")
    own.private_key_pem.write_to_path(folder / "guard.key")
    other.private_key_pem.write_to_path(folder / "other.key")
    (folder / "nonsense.pem").write_text("nonsense")
    return folder


def test_check_reads_the_certificates(file, certificates):
    file.write_text(
        f"""
        [tls]
        certificate_file = "{certificates}/guard.pem"
        key_file = "{certificates}/guard.key"
        [smarthost]
        tls = "starttls"
        ca_file = "{certificates}/ca.pem"
        certificate_file = "{certificates}/guard.pem"
        key_file = "{certificates}/guard.key"
        """
    )
    result = invoke("-c", str(file), "config", "check")

    assert (result.exit_code, result.stdout, result.stderr) == (0, f"OK: {file}\n", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tls]\ncertificate_file = 'DIR/none.pem'", "tls.certificate_file: DIR/none.pem"),
        ("[tls]\ncertificate_file = 'DIR/nonsense.pem'", "tls.certificate_file: DIR/nonsense.pem"),
        ("[tls]\ncertificate_file = 'DIR/guard.pem'", "tls.certificate_file: DIR/guard.pem"),
        (
            "[tls]\ncertificate_file = 'DIR/guard.pem'\nkey_file = 'DIR/other.key'",
            "tls.certificate_file: DIR/guard.pem and its key: key values mismatch",
        ),
        ("[smarthost]\ntls = 'starttls'\nca_file = 'DIR/none.pem'", "smarthost.ca_file: DIR/none.pem"),
        ("[smarthost]\ntls = 'implicit'\nca_file = 'DIR/nonsense.pem'", "smarthost.ca_file: DIR/nonsense.pem"),
        (
            "[smarthost]\ntls = 'implicit'\ncertificate_file = 'DIR/guard.pem'\nkey_file = 'DIR/other.key'",
            "smarthost.key_file: DIR/other.key: key values mismatch",
        ),
    ],
)
def test_wrong_certificate_is_one_line(file, certificates, text, said):
    file.write_text(text.replace("DIR", str(certificates)))
    result = invoke("-c", str(file), "config", "check")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.replace(str(certificates), "DIR").startswith(f"smtpguard: {said}")
    assert result.stderr.count("\n") == 1


# --- hash-password --------------------------------------------------------------------------------------------------

OWASP_MINIMUM = argon2.Parameters(argon2.Type.ID, 19, 16, 32, time_cost=2, memory_cost=19_456, parallelism=1)


@pytest.mark.parametrize(
    ("stdin", "password"),
    [
        (b"geheim\n", "geheim"),
        (b"geheim", "geheim"),
        (b"geheim\r\n", "geheim"),
        (b"geheim\nand another line\n", "geheim"),
        (b" with spaces \n", " with spaces "),
        ("gehéim\n".encode(), "gehéim"),
        ("gehe\u0301im\n".encode(), "gehéim"),
    ],
)
def test_hash_of_a_line(stdin, password):
    """The first line of standard input, and nothing but the hash on standard output."""
    result = invoke("config", "hash-password", stdin=stdin)

    assert (result.exit_code, result.stderr) == (0, "")
    hashed = result.stdout.removesuffix("\n")
    assert argon2.PasswordHasher().verify(hashed, password)
    assert argon2.extract_parameters(hashed) == OWASP_MINIMUM


def test_hash_is_what_the_settings_take():
    hashed = invoke("config", "hash-password", stdin=b"geheim\n").stdout.strip()

    assert ApplicationSettings(name="crm", username="crm", password_hash=hashed).password_hash == (hashed,)


def test_no_two_hashes_are_alike():
    assert 2 == len({invoke("config", "hash-password", stdin=b"geheim\n").stdout for _ in range(2)})


@pytest.mark.parametrize(
    ("stdin", "said"),
    [
        (b"", "the password is empty"),
        (b"\n", "the password is empty"),
        (b"\r\ngeheim\n", "the password is empty"),
        (b"geh\xe9im\n", "the password is not UTF-8"),
        (b"geh\teim\n", "the password has characters that cannot be printed"),
        (b"geheim\0\n", "the password has characters that cannot be printed"),
    ],
)
def test_line_that_is_no_password(stdin, said):
    result = invoke("config", "hash-password", stdin=stdin)

    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"smtpguard: {said}\n")


class Terminal:
    """``config hash-password`` at a terminal of its own."""

    def __init__(self, process: subprocess.Popen[bytes], keyboard: int) -> None:
        self._process = process
        self._keyboard = keyboard

    def answer(self, prompt: bytes, typed: bytes) -> None:
        assert self._process.stderr is not None
        assert prompt == self._process.stderr.read(len(prompt))
        os.write(self._keyboard, typed)

    def end(self) -> tuple[int, str, str]:
        out, err = self._process.communicate(timeout=60)
        return self._process.returncode, out.decode(), err.decode()

    def shown(self) -> bytes:
        """What the terminal shows of what was typed."""
        os.set_blocking(self._keyboard, False)
        try:
            return os.read(self._keyboard, 1000)
        except BlockingIOError:
            return b""


@contextmanager
def terminal() -> Iterator[Terminal]:
    keyboard, stdin = os.openpty()
    command = [*SMTPGUARD, "config", "hash-password"]
    pipe = subprocess.PIPE
    try:
        with subprocess.Popen(
            command, stdin=stdin, stdout=pipe, stderr=pipe, env=clean_environment(), start_new_session=True
        ) as process:
            try:
                yield Terminal(process, keyboard)
            finally:
                process.kill()
    finally:
        os.close(keyboard)
        os.close(stdin)


def test_password_is_asked_for_twice_and_not_shown():
    with terminal() as at:
        at.answer(b"Password: ", b"geheim\n")
        at.answer(b"\nThe same again: ", b"geheim\n")
        code, out, err = at.end()
        shown = at.shown()

    assert (code, err) == (0, "\n")
    assert argon2.PasswordHasher().verify(out.strip(), "geheim")
    assert b"geheim" not in shown


def test_password_mistyped():
    with terminal() as at:
        at.answer(b"Password: ", b"geheim\n")
        at.answer(b"\nThe same again: ", b"gehiem\n")

        assert at.end() == (1, "", "\nsmtpguard: the two are not the same\n")


def test_password_given_up():
    """Ctrl-D is no empty password, and no traceback."""
    with terminal() as at:
        at.answer(b"Password: ", b"\x04")
        code, out, err = at.end()

    assert (code, out) == (1, "")
    assert "Traceback" not in err


def test_closed_standard_input():
    command = " ".join([*SMTPGUARD, "config hash-password <&-"])
    ended = subprocess.run(command, shell=True, env=clean_environment(), capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "smtpguard: the password is empty\n")
