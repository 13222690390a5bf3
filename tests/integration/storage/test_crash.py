"""What was said to be kept is there, whatever becomes of the process that said so."""

import asyncio
import sys

import pytest

from smtpguard.domain.quarantined import OPEN_STATES
from smtpguard.storage import open_store

KEEPER = """
import asyncio, sys
from smtpguard.storage import open_store
from tests.integration.storage.builders import CONTENT, SUMMARY, messages

async def main(url):
    async with open_store(url) as store:
        while True:
            [message] = messages()
            await store.quarantine.keep([message], SUMMARY, [CONTENT.message])
            print(message.id, flush=True)

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("kept_before", [1, 50])
async def test_kill_9_after_keep(store_url, kept_before) -> None:
    """Every message that the process had said was kept is there, content and all; at most one more is."""
    keeper = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KEEPER, store_url, stdout=asyncio.subprocess.PIPE
    )
    assert keeper.stdout is not None
    said = [(await keeper.stdout.readline()).decode().strip() for _ in range(kept_before)]
    keeper.kill()
    said += (await keeper.stdout.read()).decode().split()
    await keeper.wait()

    async with open_store(store_url) as store:
        found = [message.id for message in await store.quarantine.list(limit=0, after=None, states=OPEN_STATES)]

        assert said == found[: len(said)]
        assert len(found) - len(said) <= 1
        assert all([(await store.quarantine.content(message_id)).message for message_id in found])


RECORDER = """
import asyncio, sys
from smtpguard.storage import open_store
from tests.integration.storage.builders import entry

async def main(url):
    async with open_store(url) as store:
        while True:
            one = entry()
            await store.ledger.record([one])
            print(one.transaction_id, flush=True)

asyncio.run(main(sys.argv[1]))
"""


async def test_kill_9_after_record(store_url) -> None:
    """A relaxed commit survives the death of the process."""
    recorder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RECORDER, store_url, stdout=asyncio.subprocess.PIPE
    )
    assert recorder.stdout is not None
    said = [(await recorder.stdout.readline()).decode().strip() for _ in range(50)]
    recorder.kill()
    said += (await recorder.stdout.read()).decode().split()
    await recorder.wait()

    async with open_store(store_url) as store:
        found = [row.entry.transaction_id for row in await store.ledger.list(limit=0, after=None)][::-1]

    assert said == found[: len(said)]
    assert len(found) - len(said) <= 1
