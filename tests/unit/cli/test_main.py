"""The command as it is typed: what is a usage error, and who acts."""

import os
import pwd

import pytest
import typer
from typer.testing import CliRunner

import smtpguard
from smtpguard.cli import common
from smtpguard.cli.common import mailbox_of
from smtpguard.cli.main import app
from smtpguard.errors import MailboxSyntaxError

ID = "01K2ABCDEFGHJKMNPQRS-1"
NOUNS = ["demo", "serve", "readyz", "config", "db", "address", "quarantine", "ledger", "audit", "token"]


def invoke(*arguments: str, **environment: str):
    return CliRunner().invoke(app, arguments, env=environment, prog_name="smtpguard")


def commands(group: typer.Typer | None = None, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command there is, as it is typed."""
    found = []
    for command in (group or app).registered_commands:
        found.append((*prefix, command.name or command.callback.__name__.strip("_")))
    for noun in (group or app).registered_groups:
        found += commands(noun.typer_instance, (*prefix, noun.name))
    return found


def test_version():
    result = invoke("--version")

    assert (result.exit_code, result.stdout) == (0, f"smtpguard {smtpguard.__version__}\n")


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_names_every_noun(option):
    result = invoke(option)

    assert result.exit_code == 0
    assert all(f"  {noun} " in result.stdout for noun in NOUNS)


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_explains_itself(command):
    result = invoke(*command, "--help")

    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: smtpguard {' '.join(command)}")
    assert len(result.stdout.splitlines()[2].split()) > 2
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["--nonsense"], "No such option: --nonsense"),
        (["quarantine", "relase"], "Did you mean 'release'"),
        (["quarantine", "list", "--limit", "-1"], "--limit"),
        (["quarantine", "list", "--limit", "many"], "--limit"),
        (["quarantine", "list", "--state", "held"], "'held'"),
        (["quarantine", "list", "--all", "--state", "released"], "--all and --state exclude each other"),
        (["quarantine", "show"], "ID"),
        (["quarantine", "show", ID, "--json", "--content"], "--content and --json exclude each other"),
        (["quarantine", "release", "--reason", "x"], "ID"),
        (["quarantine", "release", ID], "--reason"),
        (["quarantine", "release", ID, "--reason", ""], "--reason"),
        (["quarantine", "release", ID, "--reason", "  "], "--reason"),
        (["quarantine", "release", ID, "--reason", "two\nlines"], "--reason"),
        (["quarantine", "release", ID, "--reason", "\x1b[31m"], "--reason"),
        (["quarantine", "release", ID, "--reason", "x", "--by", ""], "--by"),
        (["quarantine", "discard", ID], "--reason"),
        (["quarantine", "discard", ID, "--reason", ""], "--reason"),
        (["quarantine", "settle", ID, "--reason", "x"], "one of --sent and --not-sent"),
        (["quarantine", "settle", ID, "--sent", "--not-sent", "--reason", "x"], "one of --sent and --not-sent"),
        (["quarantine", "settle", ID, "--sent"], "--reason"),
        (["address", "flag", "a@x.example"], "--reason"),
        (["address", "flag", "a@x.example", "--reason", ""], "--reason"),
        (["address", "unflag", "a@x.example"], "--reason"),
        (["address", "verify", "a@x.example", "--reason", ""], "--reason"),
        (["address", "verify", "a@x.example", "--customer", ""], "--customer"),
        (["address", "verify", "a@x.example", "--customer", "a\nb"], "--customer"),
        (["address", "verify", "a@x.example", "--customer", "x" * 201], "--customer"),
        (["address", "list", "--standing", "good"], "'good'"),
        (["address", "list", "--limit", "-1"], "--limit"),
        (["address", "import"], "FILE"),
        (["audit", "list", "--after", "x"], "--after"),
        (["ledger", "list", "--limit", "1.5"], "--limit"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_usage_error(arguments, said):
    result = invoke(*arguments)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert said in result.stderr
    assert result.stderr.startswith("Usage: smtpguard ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["address", "flag", "nonsense", "--reason", "x"],
        ["address", "unflag", "nonsense", "--reason", "x"],
        ["address", "verify", "nonsense"],
        ["address", "show", "nonsense"],
    ],
    ids=" ".join,
)
def test_wrong_address_is_one_line(arguments):
    result = invoke(*arguments)

    assert result.exit_code == 1
    assert result.stderr == "smtpguard: 'nonsense': the local part is not followed by @ and a domain\n"


def test_wrong_address_is_shown_without_its_escapes():
    with pytest.raises(MailboxSyntaxError) as error:
        mailbox_of("a\x1b[31m@x.example")

    assert str(error.value).isprintable()


def test_operator_is_the_option_before_the_environment_before_the_user(monkeypatch):
    assert common._operator() == pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setenv("SMTPGUARD_OPERATOR", "")
    assert common._operator() == pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setenv("SMTPGUARD_OPERATOR", "anna")
    assert common._operator() == "anna"


def test_user_without_a_name_acts_by_number(monkeypatch):
    """As in a container that runs under a uid of its own."""
    monkeypatch.setattr(os, "getuid", lambda: 4_000_123)

    assert common._operator() == "uid-4000123"
