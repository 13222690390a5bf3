"""Programs that a newcomer's machine may lack, as real peers: smtp-sink, smtp-source, Postfix, swaks, curl."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.process import answers, free_port, run, running

SBIN = "/usr/sbin"


def need(program: str, package: str) -> str:
    """Find a program, or skip the test with the name of the package that has it."""
    found = shutil.which(program) or shutil.which(program, path=SBIN)
    if found is None:
        pytest.skip(f"wants the package {package}")
    return found


@dataclass(frozen=True)
class Sink:
    """A running smtp-sink, and the file that it appends every message to."""

    port: int
    dump: Path

    def recipients(self) -> list[str]:
        """The recipients of all messages, in the order of their arrival."""
        lines = self.dump.read_text("latin-1").splitlines() if self.dump.exists() else []
        return [line.partition("<")[2].partition(">")[0] for line in lines if line.startswith("X-Rcpt-Args:")]


@asynccontextmanager
async def smtp_sink(directory: Path) -> AsyncIterator[Sink]:
    """Run Postfix's smtp-sink."""
    program = need("smtp-sink", "postfix")
    port = free_port()
    user = ["-u", "root"] if os.geteuid() == 0 else []
    dump = directory / "sink.dump"
    command = [program, *user, "-D", str(dump), f"127.0.0.1:{port}", "100"]
    async with running(*command, log=directory / "sink.log"):
        await eventually(lambda: answers(port))
        yield Sink(port, dump)


MAIN_CF = """
compatibility_level = 3.6
queue_directory = {home}/spool
data_directory = {home}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
shlib_directory = /usr/lib/postfix
meta_directory = {home}/etc
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = smarthost.example
mydestination =
mynetworks = 127.0.0.0/8
relay_domains =
relayhost = {relayhost}
disable_dns_lookups = yes
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = check_recipient_access texthash:{home}/etc/refused
maillog_file_prefixes = {home}
maillog_file = {home}/mail.log
message_size_limit = 52428800
in_flow_delay = 0
alias_maps =
alias_database =
local_recipient_maps =
smtp_tls_security_level = none
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
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


@asynccontextmanager
async def postfix(relay_port: int) -> AsyncIterator[int]:
    """Run a Postfix of the test's own that passes everything on to a port; give the port it listens on.

    It refuses one recipient, refused@verified.example.
    """
    program = need("postfix", "postfix")
    if os.geteuid() != 0:
        pytest.skip("Postfix wants to be started by root")
    port = free_port()
    home = Path(tempfile.mkdtemp(prefix="smtpguard-postfix-"))
    try:
        home.chmod(0o755)
        for name in ("etc", "spool", "data"):
            (home / name).mkdir()
        shutil.chown(home / "data", "postfix")
        (home / "etc/main.cf").write_text(MAIN_CF.format(home=home, relayhost=f"[127.0.0.1]:{relay_port}"))
        (home / "etc/refused").write_text("refused@verified.example 550 5.1.1 no such user\n")
        (home / "etc/master.cf").write_text(MASTER_CF.format(port=port))
        for name in ("postfix-files", "postfix-files.d", "dynamicmaps.cf", "dynamicmaps.cf.d"):
            source = Path("/etc/postfix") / name
            if source.is_dir():
                shutil.copytree(source, home / "etc" / name)
            elif source.exists():
                shutil.copy(source, home / "etc" / name)
        async with running(program, "-c", home / "etc", "start-fg", log=home / "start.log"):
            try:
                await eventually(lambda: answers(port), within=30)
                yield port
            finally:  # the master process leaves the process group that it was started in
                await run(program, "-c", home / "etc", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)
