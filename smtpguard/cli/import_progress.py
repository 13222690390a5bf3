"""How far an import is, for people: a bar on a terminal, and above it the rows that were rejected."""

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from smtpguard.cli.output import one_line
from smtpguard.service.import_addresses import RejectedRow


def import_progress() -> Progress:
    """Return the bar, which shows itself on a terminal only."""
    console = Console(stderr=True, markup=False, highlight=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), DownloadColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal)


def report_row(console: Console, file: str, row: RejectedRow) -> None:
    """Print a rejected row in one piece."""
    console.print(Text(one_line(f"{file}:{row.line}: {row.why}")), soft_wrap=True)
