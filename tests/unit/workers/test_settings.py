"""How many workers, and what each of them keeps to."""

import os

import pytest

from smtpguard.errors import SettingsError
from smtpguard.settings import Settings, load_settings


def test_auto_is_one_for_each_cpu() -> None:
    settings = load_settings(None, {"SMTPGUARD_SMTP__WORKERS": "auto"})

    assert settings.smtp.workers == min(len(os.sched_getaffinity(0)), 64)


@pytest.mark.parametrize("value", ["1", "2", "64"])
def test_number(value) -> None:
    assert load_settings(None, {"SMTPGUARD_SMTP__WORKERS": value}).smtp.workers == int(value)


@pytest.mark.parametrize("value", ["0", "-1", "65", "many", "1.5", "", "AUTO", "true"])
def test_what_is_no_number_of_workers(value) -> None:
    """From the environment."""
    with pytest.raises(SettingsError, match=r"^environment variable SMTPGUARD_SMTP__WORKERS: smtp\.workers: "):
        load_settings(None, {"SMTPGUARD_SMTP__WORKERS": value})


@pytest.mark.parametrize("value", ["0", "-1", "65", '"many"', "1.5", "true", "[2]"])
def test_what_is_no_number_of_workers_in_a_file(tmp_path, value) -> None:
    file = tmp_path / "guard.toml"
    file.write_text(f"[smtp]\nworkers = {value}\n")

    with pytest.raises(SettingsError, match=r"guard\.toml: smtp\.workers: "):
        load_settings(file, {})


def test_limits_are_divided() -> None:
    """To one at least, and to as much memory as a message wants."""
    limits = {"max_sessions": 1000, "max_sessions_per_network": 3, "max_buffered_bytes": 8_388_608}
    whole = Settings(smtp={**limits, "spool_above": 4_194_304}, smarthost={"max_connections": 10})
    share = whole.share_of_one(4)

    assert (share.smtp.max_sessions, share.smtp.max_sessions_per_network) == (250, 1)
    assert (share.smtp.max_buffered_bytes, share.smarthost.max_connections) == (4_194_304, 2)
    assert whole.smtp.max_sessions == 1000
