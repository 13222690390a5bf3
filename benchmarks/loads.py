"""The mail that smtp-source sends: how big, to how many recipients, over how many sessions."""

from dataclasses import dataclass, replace

SOURCE = "smtp-source"
REVERSE_PATH = "app@example.com"
VERIFIED = "user@example.org"
"""With a number in front each is another address; those from 1 on are in the address book."""
STRANGER = "stranger@example.net"
"""With a number in front each is another address; none is in the address book."""
KIB_4 = 4096


@dataclass(frozen=True)
class Load:
    """One kind of load. ``keeps``: many messages a connection, else one."""

    name: str
    sessions: int
    octets: int = KIB_4
    recipients: int = 1
    keeps: bool = False
    to: str = VERIFIED
    fewest: int = 200
    most: int = 40_000

    @property
    def is_kept_back(self) -> bool:
        """Whether nobody has verified the recipients, so that no message gets through."""
        return self.to == STRANGER

    def command(self, messages: int | str, port: int | str) -> list[str]:
        """Return the command that sends so many messages; -N numbers the recipients from 1 on."""
        return [
            SOURCE, "-N", "-M", "bench.example.com", "-f", REVERSE_PATH, "-t", self.to,
            *(["-d"] if self.keeps else []), "-s", str(self.sessions), "-l", str(self.octets),
            *(["-r", str(self.recipients)] if self.recipients > 1 else []), "-m", str(messages), f"127.0.0.1:{port}",
        ]  # fmt: skip

    def shown(self) -> str:
        """Return the command for a reader."""
        return " ".join(self.command("N", "PORT"))

    def messages_for(self, rate: float, seconds: float, addresses: int) -> int:
        """Return how many messages take about so many seconds, each recipient another one."""
        most = min(self.most, addresses // self.recipients) if not self.is_kept_back else self.most
        return min(max(self.fewest, int(rate * seconds)), most)

    def at_most(self, messages: int) -> "Load":
        """Return the same load, for a run that is short."""
        return replace(self, fewest=min(self.fewest, messages), most=min(self.most, messages))


CELLS = (
    Load("c1", sessions=1, fewest=100),
    Load("c10", sessions=10),
    Load("c50", sessions=50, fewest=400),
    Load("k1", sessions=1, keeps=True, fewest=100),
    Load("k10", sessions=10, keeps=True),
    Load("k50", sessions=50, keeps=True, fewest=400),
    Load("r10", sessions=10, recipients=10),
    Load("m1", sessions=10, octets=1_000_000, fewest=20),
    Load("m10", sessions=4, octets=10_000_000, fewest=8),
)
CELL_NAMES = tuple(load.name for load in CELLS)


def cell(name: str) -> Load:
    """Return the cell of this name."""
    return CELLS[CELL_NAMES.index(name)]
