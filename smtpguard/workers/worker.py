"""A worker: ``python -m smtpguard.workers.worker NUMBER CHANNEL``, as the supervisor starts it.

It serves until its channel ends. Signals are the supervisor's: they are blocked here from the first instruction on.
"""

import socket
import sys
import time
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

import uvloop

from smtpguard.app import Guard, running_guard
from smtpguard.errors import SmtpguardError
from smtpguard.memory import give_back_what_is_freed
from smtpguard.sockets import ListeningSocket, Sockets
from smtpguard.telemetry import configure_logging, get_logger
from smtpguard.workers.channel import Answer, Begin, Channel, Message, Reload
from smtpguard.workers.metrics import SharedMetrics
from smtpguard.workers.shared import LockedFile, SharedRates, shared_output


async def work(number: int, end: socket.socket) -> int:
    """Carry out the supervisor's orders until there is no supervisor; return the exit code."""
    channel = await Channel.over(end)
    begin = await channel.receive()
    if not isinstance(begin, Begin):
        return 0
    log = begin.settings.log
    configure_logging(format_=log.format, level=log.level, stream=shared_output(begin.log_lock))
    async with AsyncExitStack() as stack:
        try:
            guard = await stack.enter_async_context(_guard(number, begin))
        except SmtpguardError as error:
            await channel.send(Answer(str(error)))
            return 1
        await channel.send(Answer())
        while (order := await channel.receive()) is not None:
            await channel.send(await _obey(guard, order))
    return 0


def _guard(number: int, begin: Begin) -> AbstractAsyncContextManager[Guard]:
    sockets = Sockets(
        tuple(ListeningSocket(socket.socket(fileno=descriptor), tls) for descriptor, tls in begin.sockets),
        tuple(ListeningSocket(socket.socket(fileno=descriptor)) for descriptor in begin.web_sockets),
        tuple(ListeningSocket(socket.socket(fileno=descriptor)) for descriptor in begin.page_sockets),
    )
    return running_guard(
        begin.settings,
        sockets=sockets,
        rates=SharedRates(time.monotonic, LockedFile(begin.rates)),
        metrics=SharedMetrics(Path(begin.metrics), number),
        logger=get_logger().bind(worker=number),
        keeps_house=number == 1,
    )


async def _obey(guard: Guard, order: Message) -> Answer:
    try:
        if isinstance(order, Reload):
            await guard.reload(order.settings)
    except SmtpguardError as error:
        return Answer(str(error))
    return Answer()


if __name__ == "__main__":
    give_back_what_is_freed()
    sys.exit(uvloop.run(work(int(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])))))
