"""Postfix instances of the benchmark's own, on loopback, out of a private directory; the system's own is not touched.

One is a before-queue proxy filter: it passes on each session's mail as it comes, as the guard does. The other one
has a queue, and holds there what is for a recipient who is not in the map.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL
from tempfile import TemporaryDirectory

from benchmarks.processes import answers, end_process, free_port, last_line_of, run_command, wait_until

MAIN_CF = """
compatibility_level = 3.6
queue_directory = {home}/spool
data_directory = {home}/data
command_directory = /usr/sbin
daemon_directory = {daemons}
shlib_directory = {libraries}
meta_directory = {home}/etc
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = postfix.example.com
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:{sink_port}
disable_dns_lookups = yes
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
maillog_file_prefixes = {home}
maillog_file = {home}/mail.log
message_size_limit = 52428800
in_flow_delay = 0
smtpd_relay_restrictions = permit_mynetworks, reject
"""

PROXY_FILTER = """
smtpd_recipient_restrictions = check_recipient_access {map}, reject
smtpd_proxy_filter = 127.0.0.1:{sink_port}
"""

HOLD = """
smtpd_recipient_restrictions =
    check_recipient_access {map}, check_recipient_access static:{{HOLD not verified}}, permit_mynetworks, reject
"""

MASTER_CF = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""

CONFIGURATION = ("postfix-files", "postfix-files.d", "dynamicmaps.cf", "dynamicmaps.cf.d")
"""What an instance needs of the installed one."""

MAP_TYPES = ("lmdb", "cdb", "hash")
"""The best first."""


@dataclass(frozen=True)
class Postfix:
    """A running instance."""

    port: int
    pid: int
    spool: Path

    def held(self) -> int:
        """Return how many messages it holds."""
        return sum(1 for _ in (self.spool / "hold").iterdir())


def obstacle() -> str | None:
    """Return why Postfix cannot take part; None: it can."""
    if shutil.which("postfix") is None:
        return "there is no Postfix (Debian: postfix and postfix-lmdb)"
    return None if os.geteuid() == 0 else "only root can start Postfix"


def map_type() -> str:
    """Return the best kind of map that this Postfix has."""
    offered = run_tool("postconf", "-m").split()
    return next((each for each in MAP_TYPES if each in offered), "texthash")


def build_map(source: Path) -> None:
    """Build the map of a list of addresses."""
    if (kind := map_type()) != "texthash":
        run_tool("postmap", f"{kind}:{source}")


def run_tool(name: str, *arguments: str) -> str:
    """Run a tool of Postfix on no settings but its defaults; return what it said. Raises BenchmarkError."""
    with TemporaryDirectory() as settings:  # a Postfix that nobody has set up has none, and the tools end without
        (Path(settings) / "main.cf").touch()
        return run_command([name, "-c", settings, *arguments]).out


@contextmanager
def running_postfix(home: Path, flavour: str, *, map_name: str, sink_port: int) -> Iterator[Postfix]:
    """Run an instance, a PROXY_FILTER or a HOLD, for as long as the block; its directory is removed afterwards."""
    port = free_port()
    try:
        _configure(home, flavour, map_name=map_name, port=port, sink_port=sink_port)
        # What it says goes nowhere: the daemon keeps it open, and a pipe would never end.
        start = ["postfix", "-c", str(home / "etc"), "start"]
        subprocess.run(start, check=False, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True)
        wait_until(lambda: answers(port), f"Postfix listens; {_said(home)}", within=30)
        yield Postfix(port, _pid(home), home / "spool")
    finally:
        if _pid_file(home).exists():
            end_process(_pid(home))
        shutil.rmtree(home, ignore_errors=True)


def _pid_file(home: Path) -> Path:
    return home / "spool/pid/master.pid"


def _pid(home: Path) -> int:
    return int(_pid_file(home).read_text())


def _said(home: Path) -> str:
    log = home / "mail.log"
    return f"it said: {last_line_of(log)}" if log.exists() else "it wrote no log"


def _configure(home: Path, flavour: str, *, map_name: str, port: int, sink_port: int) -> None:
    for name in ("etc", "spool", "data"):
        (home / name).mkdir(parents=True)
    shutil.chown(home / "data", "postfix")
    daemons, libraries = (_installed(name) for name in ("daemon_directory", "shlib_directory"))
    main_cf = (MAIN_CF + flavour).format(
        home=home, map=map_name, sink_port=sink_port, daemons=daemons, libraries=libraries
    )
    (home / "etc/main.cf").write_text(main_cf)
    (home / "etc/master.cf").write_text(MASTER_CF.format(port=port))
    for name in CONFIGURATION:
        _copy(Path("/etc/postfix") / name, home / "etc" / name)


def _installed(parameter: str) -> str:
    return run_tool("postconf", "-dh", parameter).strip()


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.exists():
        shutil.copy(source, target)
