"""Every error that smtpguard raises on purpose.

    SmtpguardError
    ├── SettingsError             a setting is missing, unknown or wrong
    ├── MailboxSyntaxError        not a mailbox of RFC 5321 4.1.2 / RFC 6531 3.3
    ├── StoreError                the store could not do what was asked
    │   ├── StoreUnavailable      it cannot be reached, is locked, or went away: maybe at a commit, and then
    │   │                         whether it was written is not known
    │   │   └── StoreUntouched    it let nothing begin: nothing was written
    │   ├── StoreFull             it has no room left; nothing was written
    │   └── SchemaMismatch        its tables are not those of this version
    ├── SmarthostError            the smarthost could not be asked, or did not answer
    │   ├── SmarthostUnavailable  down, busy, slow or not speaking SMTP; the final dot was not sent
    │   └── SmarthostLost         gone after the final dot: maybe delivered
    ├── NotFound                  no such thing in the store
    ├── Busy                      there is too much to do just now
    └── ActRefused                an act that the guard does not do
        ├── RecipientFlagged      because nothing may be sent to the recipient
        ├── InvitationRefused     because this invitation is not to be made
        └── SmarthostRefused      because the smarthost did not take it; nothing was sent

Each message is one line for an operator: it goes to the log and to the command line, never to an SMTP peer
(what a peer hears stands in ``domain.reply``). The cause, if there is one, is ``__cause__``.
"""


class SmtpguardError(Exception):
    """Something went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.__doc__)


class SettingsError(SmtpguardError):
    """A setting is wrong."""


class MailboxSyntaxError(SmtpguardError):
    """Not a mailbox."""


class StoreError(SmtpguardError):
    """The store could not do what was asked."""


class StoreUnavailable(StoreError):
    """The store cannot be reached."""


class StoreUntouched(StoreUnavailable):
    """The store let nothing begin."""


class StoreFull(StoreError):
    """The store has no room left."""


class SchemaMismatch(StoreError):
    """The tables of the store are not those of this version."""


class SmarthostError(SmtpguardError):
    """The smarthost did not answer."""


class SmarthostUnavailable(SmarthostError):
    """The smarthost cannot be used now; the final dot was not sent."""


class SmarthostLost(SmarthostError):
    """The smarthost was lost after the final dot; it may have the message."""


class NotFound(SmtpguardError):
    """There is no such thing in the store."""


class Busy(SmtpguardError):
    """There is too much to do just now; a little later it may work."""


class ActRefused(SmtpguardError):
    """The guard does not do this."""


class RecipientFlagged(ActRefused):
    """The recipient is flagged."""


class InvitationRefused(ActRefused):
    """Nobody is invited; ``code`` is the word for why."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class SmarthostRefused(ActRefused):
    """The smarthost said no; ``code`` is that of its reply."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
