"""The operation on invitations. Its answer never holds the link: that is for whoever reads the mailbox alone."""

from typing import Any

from smtpguard.domain.api_token import Scope
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.errors import InvitationRefused, RecipientFlagged, SettingsError, SmarthostLost
from smtpguard.web.bodies import InvitationAnswer, InvitationBody
from smtpguard.web.operation import Call, NoQuery, Operation
from smtpguard.web.problems import Problem


async def invite(call: Call[InvitationBody, NoQuery]) -> InvitationAnswer:
    """Invite whoever reads a mailbox to say whether it is theirs."""
    body = call.body
    challenge = (body.challenge.label, body.challenge.answer) if body.challenge else None
    try:
        invitation = await call.office.invitations.invite(
            parse_mailbox(body.address),
            customer=body.customer,
            language=body.language,
            challenge=challenge,
            by=call.by,
        )
    except SettingsError as error:
        raise Problem(409, "invitations-off", str(error)) from error
    except InvitationRefused as error:
        raise Problem(409, error.code, str(error)) from error
    except RecipientFlagged as error:
        raise Problem(409, "recipient-flagged", str(error)) from error
    except SmarthostLost as error:
        detail = "The smarthost was lost after the final dot: maybe sent, and so it counts as sent."
        raise Problem(502, "smarthost-lost", detail) from error
    return InvitationAnswer(invitation.id, invitation.expires_at, invitation.language.value)


OPERATIONS: tuple[Operation[Any, Any], ...] = (
    Operation(
        "POST",
        "/invitations",
        Scope.INVITATIONS_WRITE,
        "Invite whoever reads a mailbox to say whether it is theirs",
        invite,
        InvitationAnswer,
        InvitationBody,
    ),
)
