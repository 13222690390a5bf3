"""aiosmtpd's own test-suite, which comes in its wheel, against GuardSMTP.

Not run of it: its command line, its LMTP class and its controllers, which the guard has no use for, and the tests of
its PROXY reader, which is used as it is.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import aiosmtpd
import pytest

from tests.conformance.differences import BY_REASON, DIFFERENCES

ROOT = Path(__file__).parents[2]
UPSTREAM = Path(aiosmtpd.__file__).parent
SUITE = (
    "test_handlers.py",
    "test_server.py::TestServer",
    "test_smtp.py",
    "test_starttls.py",
    "test_smtps.py",
    "test_smtpsmuggling.py",  # the last: where it fails it leaves smtplib patched
)
PLUGINS = ("tests.conformance.plugin", "pytest_mock", "pytest_timeout", "no:cacheprovider")
SECONDS = 100
"""Some thirty are enough on two busy cores."""


def run_suite(file: Path, tests: tuple[str, ...]) -> dict[str, str]:
    """Run tests of theirs in a process of its own, and return how each ended."""
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(UPSTREAM)]
    command += [word for plugin in PLUGINS for word in ("-p", plugin)]
    command += ["--quiet", "--tb=no", "--timeout=20", f"--outcomes={file}"]
    result = subprocess.run(
        [*command, *(str(UPSTREAM / "tests" / test) for test in tests)],
        cwd=ROOT,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert file.exists(), result.stdout + result.stderr
    outcomes: dict[str, str] = json.loads(file.read_text())
    return outcomes


def surprises(outcomes: dict[str, str]) -> dict[str, str]:
    """Return what did not end as it should."""
    expected = {test: "failed" if test in DIFFERENCES else "passed" for test in outcomes}
    return {test: outcome for test, outcome in outcomes.items() if outcome != expected[test]}


@pytest.mark.timeout(2 * SECONDS)
def test_suite_of_aiosmtpd(tmp_path) -> None:
    """What they test holds for GuardSMTP, but for the listed differences, each of which is real.

    Their tests wait by sleeping: one that surprises gets a second go, by itself.
    """
    outcomes = run_suite(tmp_path / "all.json", SUITE)

    again = tuple(test.replace("::", ".py::", 1) for test in surprises(outcomes))
    if again:
        outcomes |= run_suite(tmp_path / "again.json", again)
    assert surprises(outcomes) == {}
    assert set(DIFFERENCES) - set(outcomes) == set()
    assert len(outcomes) > 300


def test_difference_has_one_reason() -> None:
    assert len(DIFFERENCES) == sum(map(len, BY_REASON.values()))


@pytest.mark.parametrize("reason", BY_REASON)
def test_reason_stands_in_the_documents(reason) -> None:
    text = (ROOT / "docs" / "aiosmtpd.md").read_text(encoding="utf-8")

    assert f"- {reason} ({len(BY_REASON[reason])})\n" in text
