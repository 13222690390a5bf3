"""``smtpguard address invite``: ask whoever reads a mailbox whether it is theirs."""

from typing import TYPE_CHECKING, Annotated

import typer

from smtpguard.cli.common import Address, By, Customer, at_desks, mailbox_of, words
from smtpguard.cli.output import say, utc
from smtpguard.domain.invitation import Invitation, Language

if TYPE_CHECKING:
    from smtpguard.app import Desks

LANGUAGES = ", ".join(language.value for language in Language)


def invite(
    ctx: typer.Context,
    address: Address,
    *,
    by: By,
    customer: Customer = None,
    language: Annotated[
        Language | None,
        typer.Option("--language", metavar="LANGUAGE", help=f"{LANGUAGES}; else that of the settings."),
    ] = None,
    challenge_label: Annotated[
        str | None,
        typer.Option(
            "--challenge-label", metavar="L", callback=words, help='What a Yes asks for, such as "customer number".'
        ),
    ] = None,
    challenge_answer: Annotated[
        str | None, typer.Option("--challenge-answer", metavar="A", callback=words, help="The answer that a Yes needs.")
    ] = None,
) -> None:
    """Send an invitation: whoever reads the mailbox says whether it is theirs. At most one in 7 days."""
    mailbox = mailbox_of(address)
    challenge = _challenge(challenge_label, challenge_answer)

    async def work(desks: "Desks") -> Invitation:
        return await desks.invitations.invite(mailbox, customer=customer, language=language, challenge=challenge, by=by)

    invitation = at_desks(ctx, work)
    whom = f"for customer {customer}" if customer else "address-wide"
    say(f"{mailbox}: invited {whom}; the link ends at {utc(invitation.expires_at)} UTC")


def _challenge(label: str | None, answer: str | None) -> tuple[str, str] | None:
    if label is None and answer is None:
        return None
    if label is None or answer is None:
        raise typer.BadParameter("--challenge-label and --challenge-answer belong together")
    return label, answer
