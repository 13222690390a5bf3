"""The numbers of several workers as those of one guard.

Each worker writes its own into a file of its own, a second after they changed at the latest, in a directory that the
supervisor has made; whoever is asked adds all files up. A worker that is started again goes on with what its
predecessor has written, so that a counter does not go back.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from smtpguard.service.metrics import Labels, Metrics, Numbers, summed

PUBLISH_SECONDS = 1.0
OF_NOW = "sessions"
"""The family that is no counter: it ends with its process."""


class SharedMetrics(Metrics):
    """The numbers of one worker, and through the directory those of the others."""

    def __init__(self, directory: Path, number: int) -> None:
        super().__init__()
        self._directory = directory
        self._file = directory / f"{number}.json"
        self._before = {family: values for family, values in _read(self._file).items() if family != OF_NOW}
        self._published: Numbers = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, sessions: Callable[[], tuple[int, int]]) -> None:
        """Begin to publish."""
        super().begin(sessions)
        self._publish()

    def end(self) -> None:
        """Publish for the last time."""
        if self._timer is not None:
            self._timer.cancel()
            _write(self._file, self.numbers())

    def numbers(self) -> Numbers:
        """Return all numbers as they are now, with those of the predecessors."""
        return summed([self._before, super().numbers()])

    async def of_all(self) -> Numbers:
        """Return the numbers of all workers; those of the others are a second old at most."""
        others = await asyncio.to_thread(self._read_others)
        return summed([self.numbers(), *others])

    def _publish(self) -> None:
        """Write the numbers, off the event loop, where they have changed, and come again."""
        loop = asyncio.get_running_loop()
        numbers = self.numbers()
        if numbers != self._published:
            self._published = numbers
            loop.run_in_executor(None, _write, self._file, numbers)
        self._timer = loop.call_later(PUBLISH_SECONDS, self._publish)

    def _read_others(self) -> list[Numbers]:
        return [_read(file) for file in self._directory.glob("*.json") if file != self._file]


def _read(file: Path) -> dict[str, Counter[Labels]]:
    """Read what a worker has written, which may be nothing yet."""
    try:
        families = json.loads(file.read_text())
    except OSError:
        return {}
    return {family: Counter({tuple(labels): value for labels, value in values}) for family, values in families.items()}


def _write(file: Path, numbers: Numbers) -> None:
    """Write the whole file or leave it as it is: a number that cannot be written now is written later."""
    families = {family: [[labels, value] for labels, value in values.items()] for family, values in numbers.items()}
    new = file.with_suffix(".new")
    with suppress(OSError):
        new.write_text(json.dumps(families))
        new.replace(file)
