"""The operator's acts on the address book: verify, flag, unflag. Each is a row in the audit log."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from smtpguard.domain.audit import Act, ActKind
from smtpguard.domain.import_row import ImportRow
from smtpguard.domain.mailbox import Mailbox
from smtpguard.domain.standing import AddressFacts, AddressRecord, Flag, Standing, Voucher
from smtpguard.errors import ActRefused
from smtpguard.storage import Store

OPERATOR_METHOD = "operator"


@dataclass(frozen=True)
class AddressDesk:
    """What operators do with addresses. ``valid_for`` is how long a voucher holds, None: for ever."""

    store: Store
    clock: Callable[[], datetime]
    valid_for: timedelta | None

    async def verify(
        self, mailbox: Mailbox, *, customer: str | None, by: str, why: str, valid_until: datetime | None = None
    ) -> None:
        """Vouch for an address, for one customer or (None) address-wide. A flag stays, and wins.

        ``valid_until`` None: as long as vouchers hold. Raises ActRefused where that is over already.
        """
        now = self.clock()
        valid_until = valid_until or self._end(now)
        if valid_until is not None and valid_until <= now:
            raise ActRefused(
                f"{mailbox}: a verification until {valid_until:%Y-%m-%d %H:%M} UTC would not hold any more"
            )
        voucher = Voucher(
            customer=customer,
            method=OPERATOR_METHOD,
            verified_at=now,
            by=by,
            evidence=why,
            valid_until=valid_until,
        )
        why = f"for customer {customer}: {why}" if customer else why
        await self.store.address_book.verify(mailbox, voucher, self._act(ActKind.ADDRESS_VERIFY, mailbox, by, why))

    async def flag(self, mailbox: Mailbox, *, by: str, reason: str) -> None:
        """Stop all mail to an address, from the next RCPT or end of data on."""
        act = self._act(ActKind.ADDRESS_FLAG, mailbox, by, reason)
        await self.store.address_book.flag(mailbox, Flag(reason=reason, since=act.at, by=by), act)

    async def unflag(self, mailbox: Mailbox, *, by: str, why: str) -> None:
        """Take a flag away. Raises NotFound where the address is unknown, ActRefused where it is not flagged."""
        await self.store.address_book.unflag(mailbox, self._act(ActKind.ADDRESS_UNFLAG, mailbox, by, why))

    async def show(self, mailbox: Mailbox) -> AddressRecord:
        """Return all that is on record of an address."""
        return await self.store.address_book.record(mailbox.lookup_key)

    async def list(
        self, *, limit: int, after: str | None = None, standing: Standing | None = None
    ) -> list[AddressRecord]:
        """List by lookup key; ``limit`` 0 is all, ``after`` the last lookup key of the page before."""
        return await self.store.address_book.list(limit=limit, after=after, standing=standing, now=self.clock())

    async def put(self, mailbox: Mailbox, *, bindings: Sequence[str], vouchers: Sequence[Voucher], by: str) -> None:
        """Put an address on record, with customers and with what another system vouches for; again changes nothing.

        It only adds: a flag stays, and so does what is not named. A voucher counts once for its customer and evidence,
        and holds from now on, whenever it was given.
        """
        rows = [ImportRow(mailbox, Standing.UNVERIFIED, each, None, "", "") for each in [None, *bindings]]
        rows += [
            ImportRow(mailbox, Standing.VERIFIED, each.customer, each.verified_at, each.evidence, "")
            for each in vouchers
        ]
        now = self.clock()
        await self.store.address_book.import_rows(rows, now=now, by=by, valid_until=self._end(now))
        why = f"{len(bindings)} customers, {len(vouchers)} vouchers"
        await self.store.audit_log.audit(Act(now, by, ActKind.ADDRESS_IMPORT, mailbox.lookup_key, why))

    async def facts(self, mailbox: Mailbox, *, customer: str | None) -> AddressFacts:
        """Return what a decision about an address stands on."""
        facts = await self.store.address_book.facts([mailbox.lookup_key], customer=customer, now=self.clock())
        return facts[mailbox.lookup_key]

    def _end(self, now: datetime) -> datetime | None:
        return now + self.valid_for if self.valid_for else None

    def _act(self, kind: ActKind, mailbox: Mailbox, by: str, why: str) -> Act:
        return Act(at=self.clock(), actor=by, kind=kind, subject=mailbox.lookup_key, why=why)
