"""Reading the settings: the file, and the environment laid over it."""

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from smtpguard.errors import SettingsError
from smtpguard.settings.section import Section
from smtpguard.settings.sections import Settings

ENVIRONMENT_PREFIX = "SMTPGUARD_"
CONFIG_VARIABLE = "SMTPGUARD_CONFIG"
OPERATOR_VARIABLE = "SMTPGUARD_OPERATOR"
DEFAULT_FILES = (Path("config/smtpguard.toml"), Path("/etc/smtpguard/smtpguard.toml"))

_PLAIN_MESSAGES = {
    "extra_forbidden": "there is no such setting",
    "missing": "it is not set",
    "model_type": "it is not a table",
    "path_type": "it is not a path",
    "tuple_type": "it is not a list",
}

Place = tuple[str, ...]
"""Where a setting stands: section and key, or ``("application",)``."""


def load_settings(path: Path | None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings; raise SettingsError, one line that names the key and where it was set.

    ``path`` None: the file of $SMTPGUARD_CONFIG, else the first of DEFAULT_FILES that exists, else no file.
    """
    file = find_settings_file(path, environment)
    variables = _find_variables(environment)
    tree = _read_toml(file) if file else {}
    try:
        return Settings.model_validate(_merge(tree, {place: environment[name] for place, name in variables.items()}))
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(item, file, tree, variables) for item in error.errors())) from error


def find_settings_file(path: Path | None, environment: Mapping[str, str]) -> Path | None:
    """Return the file that ``load_settings`` reads, None where there is none to read."""
    named = path or (Path(environment[CONFIG_VARIABLE]) if environment.get(CONFIG_VARIABLE) else None)
    return named or next((file for file in DEFAULT_FILES if file.is_file()), None)


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} is not TOML: {error}") from error


def _find_variables(environment: Mapping[str, str]) -> dict[Place, str]:
    """Find which variable sets what; refuse one that sets nothing, because it is misspelt."""
    by_name = {f"{ENVIRONMENT_PREFIX}{'__'.join(place)}".upper(): place for place in places()}
    found = {}
    for name in environment:
        upper = name.upper()
        if not upper.startswith(ENVIRONMENT_PREFIX) or upper in {CONFIG_VARIABLE, OPERATOR_VARIABLE}:
            continue
        if upper not in by_name:
            raise SettingsError(f"environment variable {name}: there is no such setting")
        found[by_name[upper]] = name
    return found


def places() -> Iterator[Place]:
    """Where a setting can stand."""
    for section, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from ((section, key) for key in field.annotation.model_fields)
        else:
            yield (section,)


def _either_or() -> dict[Place, Place]:
    """Which setting takes the place of which: a secret, and the file that it is read from."""
    pairs: dict[Place, Place] = {}
    for section, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            for name in field.annotation.secrets:
                direct, by_file = (section, name), (section, f"{name}_file")
                pairs |= {direct: by_file, by_file: direct}
    return pairs


def _merge(tree: dict[str, Any], values: Mapping[Place, str]) -> dict[str, Any]:
    """Lay the environment over the file."""
    either_or = _either_or()
    overridden = set(values) | {either_or[place] for place in values if place in either_or}
    merged: dict[str, Any] = {section: {} for section, *keys in places() if keys}
    for section, table in tree.items():
        if isinstance(table, dict):
            merged[section] = {key: value for key, value in table.items() if (section, key) not in overridden}
        else:
            merged[section] = table
    for (section, *keys), value in values.items():
        if not keys:
            merged[section] = value
        elif isinstance(merged[section], dict):  # else it is refused for that
            merged[section][keys[0]] = value
    return merged


def _explain(error: Any, file: Path | None, tree: Mapping[str, Any], variables: Mapping[Place, str]) -> str:
    loc = error["loc"]
    message = _PLAIN_MESSAGES.get(error["type"], error["msg"]).removeprefix("Value error, ")
    return ": ".join(filter(None, [_source(error, file, tree, variables), ".".join(map(str, loc)), message]))


def _source(error: Any, file: Path | None, tree: Mapping[str, Any], variables: Mapping[Place, str]) -> str:
    """Name what a wrong value came from: its variable; of a wrong section, the variables and the file if it has it."""
    loc, either_or = error["loc"], _either_or()
    at_fault, involved = [], []
    for place, name in variables.items():
        candidates = (place, either_or.get(place, place))
        if any(candidate == loc[: len(candidate)] for candidate in candidates):
            at_fault.append(name)
        elif any(candidate[: len(loc)] == loc for candidate in candidates):
            involved.append(name)
    if error["type"] == "model_type" and len(loc) == 1:  # no variable sets a section as such
        involved = []
    if not at_fault and not involved:
        return str(file or "defaults")
    variable = f"environment variable {' and '.join(at_fault or involved)}"
    is_in_file = any(not loc or loc[0] == section for section in tree)
    return f"{variable} over {file}" if is_in_file and not at_fault else variable
