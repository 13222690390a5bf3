"""What holds for every value of the domain."""

import dataclasses
import importlib
import pkgutil
from enum import Enum

import pytest

import smtpguard.domain
from smtpguard.domain.api_token import Scope
from smtpguard.domain.envelope import Body, NullReversePath
from smtpguard.domain.quarantined import OPEN_STATES, QuarantineState

MODULES = [
    importlib.import_module(module.name)
    for module in pkgutil.iter_modules(smtpguard.domain.__path__, "smtpguard.domain.")
]
CLASSES = {
    value
    for module in MODULES
    for value in vars(module).values()
    if isinstance(value, type) and value.__module__ == module.__name__
}
VALUES = sorted((each for each in CLASSES if dataclasses.is_dataclass(each)), key=lambda each: each.__name__)
ENUMS = sorted(
    (each for each in CLASSES - {Body, NullReversePath, Scope} if issubclass(each, Enum)),
    key=lambda each: each.__name__,
)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value.__name__)
def test_value_is_frozen(value) -> None:
    assert value.__dataclass_params__.frozen
    assert "__slots__" in vars(value)


@pytest.mark.parametrize("enum", ENUMS, ids=lambda enum: enum.__name__)
def test_words_of_a_closed_list_are_kebab_case(enum) -> None:
    """They stand in the store, in logs and in listings: a renamed member must not rename them unseen."""
    assert [member.value for member in enum] == [name.lower().replace("_", "-") for name in enum.__members__]


def test_scopes_say_of_what_and_what() -> None:
    assert [scope.value for scope in Scope] == [name.lower().replace("_", ":") for name in Scope.__members__]


def test_open_states_are_those_with_content() -> None:
    closed = {QuarantineState.RELEASED, QuarantineState.DISCARDED, QuarantineState.EXPIRED}

    assert set(QuarantineState) - closed == OPEN_STATES
