"""Imports that find a module missing for a while."""

import importlib
import subprocess
import sys

import pytest

from smtpguard.lean_import import without


def test_a_module_is_missing_and_comes_back(tmp_path, monkeypatch) -> None:
    (tmp_path / "lean_optional.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with without("lean_optional"), pytest.raises(ImportError):
        importlib.import_module("lean_optional")

    importlib.import_module("lean_optional")
    del sys.modules["lean_optional"]


def test_a_module_that_is_loaded_stays() -> None:
    with without("json"):
        assert importlib.import_module("json") is sys.modules["json"]
    assert "json" in sys.modules


def test_the_log_loads_no_more_than_it_needs() -> None:
    """Where they are installed, structlog loads both; and who wants rich gets it."""
    program = "import sys, smtpguard.telemetry; print({'rich', 'greenlet'} & set(sys.modules)); import rich.console"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ended.stdout == "set()\n"
