"""Who is who: the customers of a shop, the addresses in its records, and whose mailboxes these really are.

The shop and its guard do not know the last. The demo does, and can therefore judge.
"""

from dataclasses import dataclass

SHOP = "The Shop"
SENDER = "billing@shop.example"
INVITER = "address-check@shop.example"

XYZ, NOEMAIL, KUNDE, TEST = (
    "xyz123@provider.example",
    "noemail@provider.example",
    "kunde@webmail.test",
    "test@provider.example",
)
STRANGERS = {XYZ: "Xenia", NOEMAIL: "Noel", KUNDE: "Kuno", TEST: "Tess"}
"""Addresses that were made up because a form insisted on one, and who owns the mailbox without knowing the shop."""


@dataclass(frozen=True)
class Customer:
    """A customer: the mailbox that is really theirs, and a wrong one in the records; "" where there is none."""

    reference: str
    name: str
    mailbox: str
    wrong: str

    @property
    def addresses(self) -> tuple[str, ...]:
        """What stands in the shop's records."""
        return tuple(address for address in (self.mailbox, self.wrong) if address)


@dataclass(frozen=True)
class Letter:
    """A message that the shop sends about a customer."""

    number: int
    customer: Customer
    recipients: tuple[str, ...]
    subject: str

    @property
    def message_id(self) -> str:
        """Its Message-ID."""
        return f"<letter-{self.number}@crm.shop.example>"


_RECORDS = (
    ("Anna Berg", "anna.berg@mail.example", ""),
    ("Bruno Costa", "bruno.costa@mail.example", TEST),
    ("Chiara Donati", "chiara.donati@post.test", ""),
    ("David Ekman", "d.ekman@mail.example", ""),
    ("Emma Lang", "lang@mail.example", ""),
    ("Farid Haddad", "farid@haddad.example", ""),
    ("Greta Holm", "greta.holm@post.test", ""),
    ("Hugo Ivens", "h.ivens@post.test", ""),
    ("Ines Jansen", "ines.jansen@mail.example", ""),
    ("Jonas Keller", "jonas.keller@mail.example", ""),
    ("Karin Lund", "", XYZ),
    ("Leo Marek", "", XYZ),
    ("Mia Novak", "", XYZ),
    ("Nora Olsen", "", XYZ),
    ("Otto Paulsen", "", NOEMAIL),
    ("Petra Quist", "", NOEMAIL),
    ("Rosa Silva", "", NOEMAIL),
    ("Stefan Thoma", "", KUNDE),
    ("Tilda Urban", "", KUNDE),
    ("Ulf Vogel", "", KUNDE),
    ("Vera Weiss", "", TEST),
    ("Walter Young", "", TEST),
    ("Lena Lang", "", "lang@mail.example"),  # the clerk took the mailbox of another Lang
)
CUSTOMERS = tuple(Customer(f"C-{number}", *record) for number, record in enumerate(_RECORDS, start=1001))
GRETA = CUSTOMERS[6]
NILS = Customer("C-1024", "Nils Nord", "nils.nord@mail.example", "")
"""A new customer: the mailbox is his, but nobody has asked him yet, and the address book has not heard of it."""

INVOICES = tuple(
    Letter(number, customer, customer.addresses, "Your invoice of May 2019")
    for number, customer in enumerate((*CUSTOMERS, NILS), start=1)
)
REMINDER = Letter(len(INVOICES) + 1, GRETA, GRETA.addresses, "Our new summer offers")
LETTERS = (*INVOICES, REMINDER)

VERIFIED = tuple(customer for customer in CUSTOMERS if customer.mailbox)
"""Those who proved to the shop that the mailbox is theirs."""

_OWNERS = STRANGERS | {customer.mailbox: customer.name for customer in (*VERIFIED, NILS)}


def owner_of(address: str) -> str:
    """Tell whose mailbox an address really is."""
    return _OWNERS.get(address, "unknown")


def address_book() -> list[str]:
    """Return what the shop knows of its addresses, as CSV lines for ``smtpguard address import``."""
    return [
        "address,standing,customer,verified_at,source,reason",
        *(f"{each.mailbox},verified,{each.reference},2019-02-01,confirmed by mail," for each in VERIFIED),
        *(f"{each.wrong},unverified,{each.reference},,crm," for each in CUSTOMERS if each.wrong),
        f"{KUNDE},verified,,2018-11-02,confirmed a newsletter,",
        f"{NOEMAIL},flagged,,,complaint,the owner complained: not a customer",
    ]
