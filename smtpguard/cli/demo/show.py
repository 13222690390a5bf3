"""What the audience of the demo sees. Nothing of it comes from strangers: the texts are those of the cast."""

import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from smtpguard.cli.demo.cast import KUNDE, NILS, SENDER, STRANGERS, TEST, Customer
from smtpguard.cli.demo.check import delivered_letters, for_strangers, reached_strangers
from smtpguard.cli.demo.crm import Submission
from smtpguard.cli.demo.mail_server import LOOPBACK, Delivery
from smtpguard.cli.demo.recipient import ReadInvitation
from smtpguard.domain.invitation import Answer
from smtpguard.domain.quarantined import QuarantinedMessage

if TYPE_CHECKING:
    from smtpguard.cli.demo.stage import Stage

MAX_COLUMNS = 100

STORY = (
    "A telecom found that 4,000 letters about 600 of its customers had gone to 39 strangers: where a form insisted on "
    "an address, people had made one up. Nothing ever bounced, for each of these mailboxes exists and belongs to "
    "somebody. Here the CRM of a shop does the same, with smtpguard between it and the mail server."
)
ASIDE = (
    f"{KUNDE} is even verified, since its owner once confirmed a newsletter; but three customers are on record "
    f"for it, and so it counts for none. One invoice had two recipients: Bruno Costa has it, {TEST} has not."
)


class Screen:
    """Prints the show."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, emoji=False)
        self._console.width = min(self._console.width, MAX_COLUMNS)

    def tell_story(self) -> None:
        """Say what this is about."""
        self._console.print("[bold]The case of 2019, in small[/]")
        self._console.print(STORY)

    def show_result(
        self,
        submissions: Sequence[Submission],
        deliveries: Sequence[Delivery],
        quarantined: Sequence[QuarantinedMessage],
    ) -> None:
        """Say who got what, and who would have got what without the guard."""
        taken = sum(len(each.taken) for each in submissions if each.accepted)
        disclosed = len(reached_strangers(deliveries))
        self._head(f"The CRM sends {len(submissions)} invoices to {taken} recipients; each is answered 250")
        self._count(len(delivered_letters(deliveries)) - disclosed, "delivered to the customer it is about", "green")
        self._count(len(quarantined), "in quarantine", "yellow")
        self._count(disclosed, "delivered to a stranger", "red")
        without = for_strangers(each.letter for each in submissions)
        letters = len({letter for letter, _ in without})
        customers = len({letter.customer for letter, _ in without})
        strangers = len({recipient for _, recipient in without})
        self._console.print(
            f"Without the guard, [red]{letters} invoices about {customers} customers would now be in the mailboxes of "
            f"{strangers} strangers[/]."
        )
        self._show_quarantine(quarantined)
        if not disclosed:
            self._console.print(ASIDE)

    def begin_acts(self) -> None:
        """Announce the operator."""
        self._head("An operator acts")

    def show_flag(self, customer: Customer, why: str, kept: QuarantinedMessage | None) -> None:
        """Show that a flag counts at once."""
        self._command("address", "flag", customer.mailbox, "--reason", why)
        where = f"in quarantine: [yellow]{kept.reason.value}[/]" if kept else "[red]not in quarantine[/]"
        self._console.print(f"  {customer.name} is verified all the same; her next letter is {where}")

    def show_discard(self, customer: Customer, message: QuarantinedMessage, why: str) -> None:
        """Show a discard."""
        self._command("quarantine", "discard", message.id, "--reason", why)
        self._console.print(f"  The letter about {customer.name} is gone; who decided that, and why, is on record")

    def show_invitation(self, customer: Customer, invitation: ReadInvitation) -> None:
        """Show what a recipient is asked, and that it is he who decides."""
        self._tell_of(customer, invitation)
        self._line(invitation.link)
        self._console.print('  He opens this page, reads the question and presses "Yes, this is mine" ...')

    def show_yes(self, customer: Customer) -> None:
        """Show what a Yes has done."""
        self._console.print(
            f"  {customer.name} [green]has his invoice[/]: what waited for him went out by itself\n"
            "  Had he pressed No, the address would be flagged, and nothing more be sent there"
        )

    def offer_page(self, customer: Customer, invitation: ReadInvitation) -> None:
        """Let whoever watches decide in the recipient's place."""
        self._tell_of(customer, invitation)
        self._console.print(f"Open this page and press Yes (or No), as {customer.name} would:")
        self._line(invitation.link)

    def show_answer(self, customer: Customer, answer: Answer) -> None:
        """Tell what was pressed, and what that does."""
        match answer:
            case Answer.YES:
                self._console.print(
                    f"[green]Yes[/] was pressed: the mailbox is {customer.name}'s, and what waits for him goes out"
                )
            case Answer.NO:
                self._console.print(
                    f"[red]No[/] was pressed: {customer.mailbox} is flagged, and nothing is sent there any more"
                )

    def conclude(self) -> None:
        """Say that every promise was kept."""
        self._console.print(
            "\n[green]OK[/] Nothing reached a stranger and nothing is lost: mail server, quarantine and ledger agree."
        )

    def invite(self, stage: "Stage", message_id: str) -> None:
        """Say what can be tried in a second terminal."""
        variables = {
            "SMTPGUARD_STORE__URL": stage.settings.store.url,
            "SMTPGUARD_SMARTHOST__HOST": stage.settings.smarthost.host,
            "SMTPGUARD_SMARTHOST__PORT": str(stage.settings.smarthost.port),
        }
        curl = ["curl", "-sS", f"smtp://{LOOPBACK}:{stage.port}", "--mail-from", SENDER, "--mail-rcpt", KUNDE]
        self._head("The guard stays up until Ctrl-C. In a second terminal, in this directory:")
        self._line("export " + " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items()))
        for arguments in (
            ("quarantine", "list"),
            ("quarantine", "show", message_id),
            ("quarantine", "release", message_id, "--reason", "to see it arrive below"),
            ("address", "show", KUNDE),
        ):
            self._line(shlex.join([*_smtpguard(), *arguments]))
        self._line(rf"printf 'X-Customer-ID: C-1018\r\nSubject: one more\r\n\r\nHello\r\n' | {shlex.join(curl)} -T -")
        self._console.print(f"The log of the guard: {stage.log_file}", soft_wrap=True)

    def show_delivery(self, delivery: Delivery) -> None:
        """Tell of a delivery while others try things."""
        self._console.print(f"The mail server delivered a message to {delivery.recipient}", markup=False)

    def _tell_of(self, customer: Customer, invitation: ReadInvitation) -> None:
        self._head("The recipient decides")
        self._console.print(
            f"{customer.name} is a new customer, and nobody has asked him yet whether this mailbox is his. So his "
            "invoice waits, and the guard has written to him, with no word about a customer. (Nobody else is asked: "
            "the other addresses are flagged, or on record for several customers.)"
        )
        self._line(f"From: {invitation.sender}", f"Subject: {invitation.subject}")

    def _show_quarantine(self, messages: Sequence[QuarantinedMessage]) -> None:
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        for head in ("Recipient", "Who reads it", "Letters", "Reason"):
            table.add_column(head, overflow="fold", justify="right" if head == "Letters" else "left")
        counted = Counter((each.recipient.text, _reader(each), each.reason.value) for each in messages)
        for (recipient, reader, reason), count in counted.most_common():
            table.add_row(recipient, reader, str(count), f"[yellow]{reason}[/]")
        self._head("In quarantine")
        self._console.print(table)

    def _head(self, text: str) -> None:
        self._console.print(f"\n[bold]{text}[/]")

    def _count(self, number: int, what: str, style: str) -> None:
        shown = f"[{style}]{number:4}[/]" if number else f"{number:4}"
        self._console.print(f"{shown}  {what}")

    def _command(self, *arguments: str) -> None:
        self._line(shlex.join(["smtpguard", *arguments]))

    def _line(self, *texts: str) -> None:
        """Print what can be copied, such as a command: each text in one piece, however long."""
        for text in texts:
            self._console.print(f"  {text}", style="cyan", markup=False, soft_wrap=True)


def _reader(message: QuarantinedMessage) -> str:
    recipient = message.recipient.text
    if recipient in STRANGERS:
        return f"a stranger, {STRANGERS[recipient]}"
    return "the customer" if (recipient, message.customer) == (NILS.mailbox, NILS.reference) else "another customer"


def _smtpguard() -> list[str]:
    """Return what to type for this command, as it was typed."""
    return [sys.argv[0]] if Path(sys.argv[0]).name == "smtpguard" else [sys.executable, "-m", "smtpguard"]
