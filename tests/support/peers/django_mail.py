"""A program that sends one message with Django's mail backend: see clients.py for its arguments."""

import sys
from smtplib import SMTPException

from django.conf import settings
from django.core.mail import EmailMessage


def main(host: str, port: str, security: str, username: str, password: str, sender: str, recipients: str) -> int:
    settings.configure(
        EMAIL_HOST=host,
        EMAIL_PORT=int(port),
        EMAIL_USE_TLS=security == "starttls",
        EMAIL_USE_SSL=security == "implicit",
        EMAIL_HOST_USER=username,
        EMAIL_HOST_PASSWORD=password,
        EMAIL_TIMEOUT=30,
    )
    message = EmailMessage(
        "Rechnung für März",
        ".a dot first\nGrüße\n",
        sender,
        recipients.split(","),
        headers={"Date": "Mon, 1 Jul 2024 08:00:00 +0000", "Message-ID": "<invoice-1@shop.example>"},
    )
    try:
        message.send()
    except (SMTPException, OSError) as error:
        print(f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
