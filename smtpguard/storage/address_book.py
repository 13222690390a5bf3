"""The address book: what is on record of each address, and the look-ups that every decision stands on."""

import builtins
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, insert, select, update

from smtpguard.domain.audit import Act
from smtpguard.domain.import_row import ImportRow
from smtpguard.domain.mailbox import Mailbox
from smtpguard.domain.standing import AddressFacts, AddressRecord, Flag, Standing, Voucher
from smtpguard.errors import ActRefused, NotFound
from smtpguard.storage.address_records import read_record, read_records
from smtpguard.storage.audit_log import append_act
from smtpguard.storage.database import HotPath
from smtpguard.storage.ending_vouchers import read_ending
from smtpguard.storage.imports import import_chunk
from smtpguard.storage.long_work import LongWork
from smtpguard.storage.sightings import see_address, see_bindings
from smtpguard.storage.tables import addresses, vouchers
from smtpguard.storage.writer import Writer


class AddressBook:
    """The addresses, the customers that they are on record for, and who vouched for them."""

    def __init__(self, hot_path: HotPath, writer: Writer, long_work: LongWork) -> None:
        self._hot_path = hot_path
        self._writer = writer
        self._long_work = long_work

    def facts(
        self, lookup_keys: Sequence[str], *, customer: str | None, now: datetime
    ) -> Coroutine[Any, Any, dict[str, AddressFacts]]:
        """Return the facts of every address asked about; raises StoreUnavailable, within seconds."""
        return self._hot_path.facts(lookup_keys, customer=customer, now=now)

    async def bind(self, lookup_keys: Sequence[str], *, customer: str, now: datetime) -> None:
        """Put on record that these addresses stand in the records of a customer."""
        if lookup_keys:
            await self._hot_path.bind({(lookup_key, customer): now for lookup_key in lookup_keys})

    async def verify(self, mailbox: Mailbox, voucher: Voucher, act: Act) -> None:
        """Add a voucher; the address and its customer are on record from now on. A flag stays."""

        def work(connection: Connection) -> None:
            append_act(connection, act)
            add_voucher(connection, mailbox, voucher, at=act.at)

        await self._writer.write(work, durable=True)

    async def flag(self, mailbox: Mailbox, flag: Flag, act: Act) -> None:
        """Flag an address; a newer flag takes the place of one that stands."""

        def work(connection: Connection) -> None:
            append_act(connection, act)
            set_flag(connection, mailbox, flag, at=act.at)

        await self._writer.write(work, durable=True)

    async def unflag(self, mailbox: Mailbox, act: Act) -> None:
        """Take the flag off; raises NotFound, and ActRefused where there is no flag."""

        def work(connection: Connection) -> None:
            append_act(connection, act)
            _take_flag_off(connection, mailbox)

        await self._writer.write(work, durable=True)

    async def record(self, lookup_key: str) -> AddressRecord:
        """Return all that is on record of an address, which may be nothing."""
        return await self._long_work.read(lambda connection: read_record(connection, lookup_key))

    async def list(
        self, *, limit: int, after: str | None, standing: Standing | None, now: datetime
    ) -> builtins.list[AddressRecord]:
        """Return the addresses behind the lookup key ``after``, in the order of their keys; ``limit`` 0: all.

        ``standing`` is the one where no customer is asked about; unknown addresses, which live traffic has bound to
        customers, are listed where they are asked for.
        """

        def page(connection: Connection, after: str | None, rows: int) -> list[AddressRecord]:
            return read_records(connection, after=after, rows=rows, standing=standing, now=now)

        return await self._long_work.gather(page, limit=limit, after=after, cursor_of=lambda record: record.lookup_key)

    async def ending(
        self, *, now: datetime, until: datetime
    ) -> AsyncGenerator[builtins.list[tuple[Mailbox, str | None]], None]:
        """Give page after page the pairs whose vouchers hold now, end by then, and have none behind them."""
        after: int | None = 0
        while after is not None:
            page = await self._long_work.read(partial(read_ending, after=after, now=now, until=until))
            yield page.pairs
            after = page.last

    async def number(self, lookup_key: str) -> int | None:
        """Return the number of an address: it stands for the address where that must not be seen, as in a URL."""
        query = select(addresses.c.id).where(addresses.c.lookup_key == lookup_key)
        return await self._long_work.read(lambda connection: connection.execute(query).scalar())

    async def lookup_key(self, number: int) -> str | None:
        """Return the lookup key of the address of this number."""
        query = select(addresses.c.lookup_key).where(addresses.c.id == number)
        return await self._long_work.read(lambda connection: connection.execute(query).scalar())

    async def import_rows(
        self,
        rows: Sequence[ImportRow],
        *,
        now: datetime,
        by: str,
        valid_until: datetime | None = None,
        on_staged: Callable[[], None] = lambda: None,
    ) -> None:
        """Take over a chunk of an import in one transaction; the same chunk again changes nothing but ``last_seen``.

        An import adds and flags, and never revokes nor unflags. Some thousands of rows are a good chunk. The commit is
        relaxed: it is on disk with the next durable one, such as that of the import's act. ``on_staged`` is called in
        the store's thread, once or several times, when the engine has the rows and the rest is its work alone.
        """

        def work(connection: Connection) -> None:
            import_chunk(connection, rows, now=now, by=by, valid_until=valid_until, on_staged=on_staged)

        await self._long_work.write(work)


def add_voucher(connection: Connection, mailbox: Mailbox, voucher: Voucher, *, at: datetime) -> int:
    """Add a voucher, and put the address and its customer on record; return the voucher's number."""
    see_address(connection, mailbox, at)
    if voucher.customer is not None:
        see_bindings(connection, {(mailbox.lookup_key, voucher.customer): at})
    added = insert(vouchers).values(_voucher_values(mailbox, voucher)).returning(vouchers.c.id)
    number: int = connection.execute(added).scalar_one()
    return number


def set_flag(connection: Connection, mailbox: Mailbox, flag: Flag, *, at: datetime) -> None:
    """Flag an address, and put it on record."""
    see_address(connection, mailbox, at)
    values = {"flag_reason": flag.reason, "flag_since": flag.since, "flag_by": flag.by}
    connection.execute(update(addresses).where(addresses.c.lookup_key == mailbox.lookup_key).values(values))


def _voucher_values(mailbox: Mailbox, voucher: Voucher) -> dict[str, Any]:
    return {
        "address_id": select(addresses.c.id).where(addresses.c.lookup_key == mailbox.lookup_key).scalar_subquery(),
        "customer": voucher.customer or "",
        "method": voucher.method,
        "verified_at": voucher.verified_at,
        "verified_by": voucher.by,
        "evidence": voucher.evidence,
        "valid_until": voucher.valid_until,
        "revoked_at": voucher.revoked_at,
    }


def _take_flag_off(connection: Connection, mailbox: Mailbox) -> None:
    is_this = addresses.c.lookup_key == mailbox.lookup_key
    no_flag = {"flag_reason": None, "flag_since": None, "flag_by": None}
    flagged = update(addresses).where(is_this, addresses.c.flag_since.is_not(None))
    if connection.execute(flagged.values(no_flag)).rowcount:
        return
    if connection.execute(select(addresses.c.id).where(is_this, addresses.c.first_seen.is_not(None))).first() is None:
        raise NotFound(f"{mailbox} is not on record")
    raise ActRefused(f"{mailbox} is not flagged")
