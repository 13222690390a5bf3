"""OpenSMTPD, unpacked beside Postfix: a mail server behind the guard that offers neither PIPELINING nor SMTPUTF8.

Without TLS: the one of Debian 12 does not get on with OpenSSL 3 (OpenSMTPD issue 1171).
"""

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.eventually import eventually
from tests.support.peers import need_root, need_unpacked
from tests.support.peers.mounts import in_own_mounts, with_users
from tests.support.peers.wanted import NO_SUCH_USER, NOT_THIS_MESSAGE, REFUSED, REFUSED_SENDER, Wanted
from tests.support.process import answers, free_port, running

SETTINGS = """
filter "recipients" phase rcpt-to match rcpt-to {{ "{refused}" }} reject "550 5.1.1 {no_such_user}"
filter "messages" phase commit match mail-from {{ "{refused_sender}" }} reject "550 5.7.1 {not_this_message}"
filter "all" chain {{ "recipients", "messages" }}
listen on 127.0.0.1 port {port} hostname smarthost.example filter "all"
action "onward" relay host "smtp://127.0.0.1:{relay_port}"
match from any for any action "onward"
"""


@asynccontextmanager
async def opensmtpd(wanted: Wanted) -> AsyncIterator[int]:
    """Run a server; give the port that it listens on."""
    program = need_unpacked("usr/sbin/smtpd", "opensmtpd")
    need_root("OpenSMTPD")
    port = free_port()
    home = Path(tempfile.mkdtemp(prefix="smtpguard-opensmtpd-"))
    try:
        settings = _configure(home, port, wanted)
        command = in_own_mounts(["smtpd", "-F", "-f", settings], _mounts(home, program))
        async with running(*command, log=home / "start.log"):
            await eventually(lambda: answers(port), within=30)
            yield port
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _mounts(home: Path, program: Path) -> dict[str, Path]:
    """What it was built to find under these paths."""
    for name in ("run", "lib/opensmtpd/empty", "spool/smtpd"):
        (home / name).mkdir(parents=True)
        (home / name).chmod(0o711)
    unpacked = program.parents[1]
    return with_users(home, "opensmtpd", "opensmtpq") | {
        "/run": home / "run",
        "/var/lib": home / "lib",
        "/var/spool": home / "spool",
        "/usr/libexec": unpacked / "libexec",
        "/usr/sbin": unpacked / "sbin",
    }


def _configure(home: Path, port: int, wanted: Wanted) -> Path:
    home.chmod(0o755)
    settings = home / "smtpd.conf"
    settings.write_text(
        SETTINGS.format(
            port=port,
            relay_port=wanted.relay_port,
            refused=REFUSED,
            no_such_user=NO_SUCH_USER,
            refused_sender=REFUSED_SENDER,
            not_this_message=NOT_THIS_MESSAGE,
        )
    )
    return settings
