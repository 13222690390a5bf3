"""``smtpguard token`` and ``smtpguard readyz``, as an operator and a health check run them."""

from pathlib import Path

import pytest

from tests.support.api import ON_LOOPBACK
from tests.support.command_line import OPERATOR, CommandLine
from tests.support.guard import guarding
from tests.support.process import free_port


@pytest.fixture
def smtpguard(sqlite_url) -> CommandLine:
    return CommandLine(sqlite_url)


async def test_life_of_a_token(smtpguard) -> None:
    """It is printed once, alone on standard output, and every act on it is in the audit log."""
    made = await smtpguard("token", "create", "crm", "--scope", "addresses:read", "--scope", "quarantine:read")
    assert made.code == 0
    assert made.out.startswith("sg_")
    assert len(made.out.strip()) == 46
    [listed] = (await smtpguard("token", "list", "--json")).rows
    assert (listed["name"], listed["scopes"]) == ("crm", ["addresses:read", "quarantine:read"])
    assert (listed["created_by"], listed["last_used"], listed["revoked_at"]) == (OPERATOR, None, None)

    revoked = await smtpguard("token", "revoke", "crm", "--reason", "gone")
    again = await smtpguard("token", "revoke", "crm", "--reason", "gone")

    assert (revoked.code, revoked.out) == (0, "crm: revoked\n")
    assert (again.code, again.err) == (1, "smtpguard: token crm is revoked already\n")
    assert "revoked 20" in (await smtpguard("token", "list")).out
    acts = (await smtpguard("audit", "list", "--json")).rows
    assert [(act["kind"], act["subject"], act["why"]) for act in acts] == [
        ("token-revoke", "crm", "gone"),
        ("token-create", "crm", "addresses:read quarantine:read"),
    ]
    files = Path(smtpguard.store_url.removeprefix("sqlite:///")).parent.iterdir()
    assert not any(made.out.strip().encode() in file.read_bytes() for file in files if file.is_file())


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["create", "a b", "--scope", "addresses:read"], 2),
        (["create", "", "--scope", "addresses:read"], 2),
        (["create", "crm", "--scope", "everything"], 2),
        (["create", "crm"], 2),
        (["revoke", "crm", "--reason", "x"], 1),
        (["revoke", "crm"], 2),
    ],
)
async def test_what_is_refused(smtpguard, arguments, code) -> None:
    ended = await smtpguard("token", *arguments)

    assert (ended.code, ended.out) == (code, "")
    assert (await smtpguard("token", "list", "--json")).rows == []


async def test_readyz(smtpguard, sqlite_url) -> None:
    """Of a guard at ``web.listen``, of one elsewhere, of none, and of what is no guard."""
    async with guarding(sqlite_url, free_port(), web=ON_LOOPBACK) as guard:
        at = str(guard.guard.web_endpoints[0])
        ready = await smtpguard("readyz", SMTPGUARD_WEB__LISTEN=at)
        by_url = await smtpguard("readyz", "--url", f"http://{at}/readyz", http_proxy="http://127.0.0.1:9")
        elsewhere = await smtpguard("readyz", "--url", f"http://{at}/nothing")
        no_http = await smtpguard("readyz", "--url", f"http://127.0.0.1:{guard.port}/readyz")
    away = await smtpguard("readyz", SMTPGUARD_WEB__LISTEN=at)
    off = await smtpguard("readyz")
    wrong = await smtpguard("readyz", "--url", "file:///etc/passwd")

    for each in (ready, by_url):
        assert (each.code, "ready" in each.out.splitlines()) == (0, True)  # between the log lines of the guard here
    assert (elsewhere.code, elsewhere.err) == (1, f"smtpguard: http://{at}/nothing answered 404\n")
    for each in (no_http, away, off):
        assert (each.code, each.err.count("\n")) == (1, 1)
    assert wrong.code == 2
