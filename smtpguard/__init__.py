"""smtpguard stands between an organisation's business systems and its mail server.

The life of a message:

1. An application connects; ``smtp`` finds out which one it is, by its network or its login.
2. MAIL is answered by the guard alone.
3. RCPT: ``domain.mailbox`` parses the address, ``storage`` says what the address book knows of it,
   ``domain.decision`` decides. For a recipient who is to be relayed, ``relay`` asks the smarthost at once and the
   application hears its reply; one who is to be quarantined gets 250.
4. DATA is read byte for byte, in bounded memory; ``spool`` keeps the rest of a big message in a file.
5. All recipients are decided again, now with the customer that the message names.
6. The body goes to the smarthost, the quarantine is committed, the final dot goes out, the smarthost's reply comes
   back; the ledger records it.
7. The application hears the smarthost's reply; one log line tells what was done.

The promise: after a 2xx to the end of data, each accepted recipient's message is either acknowledged 2xx by the
smarthost or durably in quarantine; nothing goes to a recipient who is not verified, or who is flagged.
"""

__version__ = "0.4.4"
