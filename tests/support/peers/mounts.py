"""Programs of unpacked packages, each in mounts of its own: it finds its users and its files where it was built to.

Nothing is written to the machine, and several can run at once.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.peers import need_mounts

FIRST_ID = 64_900
"""Users of a mail server, and their groups, have ids from here on."""


def in_own_mounts(command: Sequence[str | Path], mounts: Mapping[str, Path]) -> list[str]:
    """Return the command that runs ``command`` where each path of ``mounts`` shows another one."""
    steps = [f'mount --bind "{source}" "{target}"' for target, source in mounts.items()]
    script = " && ".join([*steps, 'exec "$@"'])
    return [need_mounts(), "--mount", "--propagation", "private", "sh", "-c", script, "sh", *map(str, command)]


def with_users(directory: Path, *names: str) -> dict[str, Path]:
    """Add users to copies of the machine's lists; return the mounts that show these."""
    passwd, group = directory / "passwd", directory / "group"
    shutil.copy("/etc/passwd", passwd)
    shutil.copy("/etc/group", group)
    for number, name in enumerate(names, start=FIRST_ID):
        with passwd.open("a") as users, group.open("a") as groups:
            users.write(f"{name}:x:{number}:{number}::/nonexistent:/usr/sbin/nologin\n")
            groups.write(f"{name}:x:{number}:\n")
    return {"/etc/passwd": passwd, "/etc/group": group}
