"""Postfix's smtp-source and smtp-sink around the installed guard: many messages, several sessions at a time."""

import pytest

from tests.support.peers import need
from tests.support.peers.guarded import guarded
from tests.support.peers.sink import smtp_sink
from tests.support.process import run

pytestmark = pytest.mark.peers

ALICE = "alice@verified.example"
STRANGER = "xyz123@provider.example"


async def test_many_messages(store_url, tmp_path) -> None:
    """Those to the verified recipient arrive, the others wait, one for each recipient."""
    source = need("smtp-source", "postfix")
    async with smtp_sink(tmp_path) as sink, guarded(store_url, sink.port, tmp_path, verified=[ALICE]) as guard:
        to_guard = f"127.0.0.1:{guard.port}"
        for recipient in (ALICE, STRANGER):
            code, _, err = await run(source, "-m", "20", "-s", "5", "-f", "crm@shop.example", "-t", recipient, to_guard)
            assert code == 0, err
        code, _, err = await run(source, "-m", "5", "-r", "2", "-N", "-t", "mixed@provider.example", to_guard)
        assert code == 0, err
        waiting = await guard.waiting_for()

    assert sink.recipients() == [ALICE] * 20
    assert len(waiting) == 30
    assert waiting.count(STRANGER) == 20
