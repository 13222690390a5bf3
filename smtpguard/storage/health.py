"""Whether a store that is open can be used now."""

from datetime import datetime

from smtpguard.storage.database import HotPath
from smtpguard.storage.long_work import LongWork
from smtpguard.storage.schema import check_revision_of

NOBODY = ""
"""No address has this lookup key."""


class Health:
    """Asks the store."""

    def __init__(self, hot_path: HotPath, long_work: LongWork) -> None:
        self._hot_path = hot_path
        self._long_work = long_work

    async def check(self, now: datetime) -> None:
        """Look an address up as each message does, and read the schema. Raises StoreUnavailable, SchemaMismatch."""
        await self._hot_path.facts([NOBODY], customer=None, now=now)  # in vain within seconds, if it is in vain
        await self._long_work.read(check_revision_of)
