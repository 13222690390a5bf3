"""The composition root: settings become objects, and all tasks belong to one TaskGroup.

sources   where times, ids and chance come from: the only clock
tasks     the TaskGroup
desks     what operators, other systems and recipients work with
web       the HTTP side, loaded only where there is one
guard     all of it together, as it runs
"""

from smtpguard.app.desks import Desks, open_desks
from smtpguard.app.guard import Guard, running_guard
from smtpguard.app.sources import clock, new_transaction_id

__all__ = ["Desks", "Guard", "clock", "new_transaction_id", "open_desks", "running_guard"]
