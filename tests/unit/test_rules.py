"""The rules of the house that can be executed."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import smtpguard
from smtpguard.domain import reply
from smtpguard.domain.reply import Reply
from smtpguard.settings import Settings, load_settings, places

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "smtpguard"
REFERENCE = ROOT / "config" / "smtpguard.toml"
MODULES = sorted(PACKAGE.rglob("*.py"))

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 50
REPLY = re.compile(r"[2345][0-9]{2}[ -]")
SPEAKERS = {
    PACKAGE / "domain" / "reply.py",
    PACKAGE / "cli" / "demo" / "mail_server.py",  # the demo's mail server, a peer of the guard
}


def name_of(module: Path) -> str:
    return str(module.relative_to(ROOT))


def walk(module: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(module.read_text(encoding="utf-8")))


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_module_can_be_read_at_a_sitting(module) -> None:
    assert len(module.read_text(encoding="utf-8").splitlines()) < MAX_MODULE_LINES


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_functions_fit_on_a_screen(module) -> None:
    too_long = [
        node.name
        for node in walk(module)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= MAX_FUNCTION_LINES
    ]

    assert too_long == []


@pytest.mark.parametrize("module", [module for module in MODULES if module not in SPEAKERS], ids=name_of)
def test_replies_are_built_in_the_reply_table_only(module) -> None:
    """A string or bytes that begin like a reply, docstrings too, for they can do without."""
    values = [node.value for node in walk(module) if isinstance(node, ast.Constant)]
    texts = [value.decode("latin-1") if isinstance(value, bytes) else value for value in values]
    replies = [text for text in texts if isinstance(text, str) and REPLY.match(text)]

    assert replies == []


def test_every_reply_of_the_table_is_used() -> None:
    used = {
        node.id
        for module in MODULES
        for node in walk(module)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }

    assert {name for name, value in vars(reply).items() if isinstance(value, Reply)} - used == set()


@pytest.mark.parametrize(("section", "key"), [place for place in places() if len(place) == 2])
def test_setting_stands_in_the_reference(section, key) -> None:
    """With its default, or commented out where it would be one setting too many."""
    text = REFERENCE.read_text(encoding="utf-8")
    lines = text[text.index(f"\n[{section}]") + 1 :].split("\n[")[0]

    assert re.search(rf"^(# )?{key} = ", lines, re.MULTILINE)


def test_reference_is_the_defaults() -> None:
    assert load_settings(REFERENCE, {}) == Settings()


def test_examples_of_the_reference_are_settings(tmp_path) -> None:
    """What is commented out can be taken into use as it stands."""
    text = REFERENCE.read_text(encoding="utf-8")
    example = text[text.index("# [[application]]") :]
    file = tmp_path / "guard.toml"
    file.write_text(re.sub(r"^# ?", "", example, flags=re.MULTILINE))

    settings = load_settings(file, {"SMTPGUARD_SMTP__AUTH_WITHOUT_TLS": "true"})

    assert [application.name for application in settings.application] == ["crm", "billing", "shop"]


def test_changelog_tells_of_this_version() -> None:
    assert f"## [{smtpguard.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_constraints_pin_what_the_project_asks_for() -> None:
    """Exact versions and nothing else: no index, no path, no hash."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    asked = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *(wish for extra in project["project"]["optional-dependencies"].values() for wish in extra),
    ]

    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", pin)] == []
    assert pins == sorted(pins)
    assert {re.split(r"[^\w-]", wish)[0].lower() for wish in asked} <= {pin.partition("==")[0] for pin in pins}
