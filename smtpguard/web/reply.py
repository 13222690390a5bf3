"""An answer as it goes out, and as it is kept under an idempotency key."""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from smtpguard.web.problems import MEDIA_TYPE, Problem


@dataclass(frozen=True)
class Reply:
    """An answer."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def media_type(self) -> str:
        """What the body is."""
        return "application/json" if self.status < 400 else MEDIA_TYPE


def reply_of(answer: Any) -> Reply:
    """Say that it is done."""
    return Reply(200, msgspec.json.encode(answer))


def refusal(problem: Problem) -> Reply:
    """Say that it is not."""
    return Reply(problem.status, problem.body, problem.headers)
