"""``smtpguard demo``: the case of 2019 in small, played on loopback with everything real but the people.

``cast`` knows who is who, ``crm`` sends, ``mail_server`` receives, ``recipient`` reads and presses, ``stage`` brings up
the guard between them, ``play`` lets it happen, ``check`` judges by what really happened, ``show`` tells it.
"""
