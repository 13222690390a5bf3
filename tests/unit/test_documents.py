"""The documents tell of everything that there is."""

import re
from pathlib import Path

import pytest
import typer.main

from smtpguard.cli.main import app
from smtpguard.domain import reply
from smtpguard.domain.decision import Reason, Verdict
from smtpguard.domain.quarantined import QuarantineState
from smtpguard.domain.reply import Reply
from smtpguard.domain.standing import Standing
from smtpguard.service.record import Outcome
from smtpguard.telemetry import Event

ROOT = Path(__file__).parents[2]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("event", Event)
def test_event_is_explained(event) -> None:
    assert f"| `{event.value}` |" in read("docs/log.md")


@pytest.mark.parametrize("outcome", Outcome)
def test_outcome_is_explained(outcome) -> None:
    assert f"| `{outcome.value}` |" in read("docs/log.md")


@pytest.mark.parametrize("reason", Reason)
def test_reason_is_explained(reason) -> None:
    assert f"| `{reason.value}` |" in read("README.md")


@pytest.mark.parametrize("word", [*Standing, *Verdict])
def test_word_is_in_the_glossary(word) -> None:
    glossary = read("README.md").partition("## Glossary")[2].partition("\n## ")[0]

    assert word.value in glossary


@pytest.mark.parametrize("state", QuarantineState)
def test_state_is_explained(state) -> None:
    assert f"`{state.value}`" in read("docs/cli.md")


@pytest.mark.parametrize("name", [name for name, value in vars(reply).items() if isinstance(value, Reply)])
def test_refusal_is_explained(name) -> None:
    said: Reply = getattr(reply, name)

    assert said.code < 400 or f"| {said.code} {said.enhanced} | {said.text} |" in read("docs/smtp.md")


def commands() -> list[str]:
    root = typer.main.get_command(app)
    names = []
    for name, command in root.commands.items():
        names += [f"{name} {inner}" for inner in getattr(command, "commands", {})] or [name]
    return names


@pytest.mark.parametrize("command", commands())
def test_command_is_documented(command) -> None:
    assert f"smtpguard {command}" in read("docs/cli.md")


@pytest.mark.parametrize(
    "document", sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").glob("*.md")), ids=lambda p: p.name
)
def test_links_lead_somewhere(document) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text(encoding="utf-8"))

    assert [link for link in links if not (document.parent / link).exists()] == []
