"""How a process ended, in words."""

import signal

import pytest

from smtpguard.workers.process import _how


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exit code 0"),
        (3, "exit code 3"),
        (-signal.SIGKILL, "killed by SIGKILL"),
        (-signal.SIGSEGV, "killed by SIGSEGV"),
        (-(signal.SIGRTMIN + 5), f"killed by signal {signal.SIGRTMIN + 5}"),
    ],
)
def test_words(code, words) -> None:
    """Also for signals without a name."""
    assert _how(code) == words
