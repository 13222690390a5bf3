"""The API does what its own document says, whatever it is asked: schemathesis makes it up, right and wrong.

A few examples of each operation here; ``make fuzz`` gives it FUZZ_SECONDS.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, strategies
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from smtpguard.web.application import OPERATIONS, PREFIX
from smtpguard.web.openapi import document
from tests.support.api import Api, asking
from tests.support.invitations import INVITING

EXAMPLES = 6
SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    negative_data_rejection,
]


def fuzz(operation, ask: Callable[[schemathesis.Case], None], seconds: float) -> None:
    """Make up requests for an operation, half of them wrong."""
    cases = strategies.one_of(operation.as_strategy(mode) for mode in GenerationMode)
    until = time.monotonic() + seconds

    @hypothesis.given(cases)
    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def examples(case: schemathesis.Case) -> None:
        ask(case)

    examples()
    while time.monotonic() < until:
        examples()


def fuzz_all(base_url: str, token: str) -> set[int]:
    """Return the statuses that were answered."""
    schema = schemathesis.openapi.from_dict(json.loads(document(OPERATIONS, PREFIX)))
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == len(OPERATIONS)
    statuses: set[int] = set()
    with requests.Session() as session:
        session.trust_env = False

        def ask(case: schemathesis.Case) -> None:
            headers = {"Authorization": f"Bearer {token}"}
            response = case.call(base_url, session, headers=headers)
            statuses.add(response.status_code)
            case.validate_response(response, checks=CHECKS)

        for operation in operations:
            fuzz(operation, ask, SECONDS / len(operations))
    return statuses


@pytest.fixture
async def api(sqlite_url, smarthost) -> AsyncIterator[Api]:
    """One that can do everything."""
    async with asking(sqlite_url, smarthost.port, **INVITING) as api:
        yield api


@pytest.mark.timeout(SECONDS * 3 + 120)
async def test_api_does_what_it_says(api: Api) -> None:
    token = api.token

    statuses = await asyncio.to_thread(fuzz_all, f"http://{api.guard.guard.web_endpoints[0]}", token)

    assert {200, 400} <= statuses
    assert await api.guard.desks.store.audit_log.verify() is None
