"""Postfix instances of the test's own: a mail server behind the guard, or an application before it."""

import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.eventually import eventually
from tests.support.peers import need, need_root
from tests.support.peers.wanted import NO_SUCH_USER, NOT_THIS_MESSAGE, REFUSED, REFUSED_SENDER, Wanted
from tests.support.process import answers, free_port, run, running

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
relayhost = [127.0.0.1]:{relay_port}
disable_dns_lookups = yes
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = check_recipient_access texthash:{home}/etc/refused
smtpd_end_of_data_restrictions = check_sender_access texthash:{home}/etc/refused
maillog_file_prefixes = {home}
maillog_file = {home}/mail.log
message_size_limit = 52428800
in_flow_delay = 0
alias_maps =
alias_database =
local_recipient_maps =
"""

TLS = """
smtpd_tls_security_level = may
smtpd_tls_chain_files = {certificate_file}
smtpd_tls_received_header = yes
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

CONFIGURATION = ("postfix-files", "postfix-files.d", "dynamicmaps.cf", "dynamicmaps.cf.d")
"""What an instance needs of the installed one."""

STATUS = re.compile(r" to=<(?P<recipient>[^>]+)>,.* status=(?P<status>[a-z]+) \((?P<said>.*)\)$", re.MULTILINE)


@dataclass(frozen=True)
class Postfix:
    """A running instance."""

    port: int
    log: Path

    def outcomes(self) -> dict[str, str]:
        """What became of the message to each recipient so far, with the words of the next server if it refused."""
        entries = STATUS.finditer(self.log.read_text("utf-8") if self.log.exists() else "")
        return {
            entry["recipient"]: entry["status"] if entry["status"] == "sent" else f"{entry['status']}: {entry['said']}"
            for entry in entries
        }


@asynccontextmanager
async def postfix(wanted: Wanted, *, more: str = "") -> AsyncIterator[Postfix]:
    """Run an instance; ``more`` are lines for its main.cf."""
    program = need("postfix", "postfix")
    need_root("Postfix")
    port = free_port()
    home = Path(tempfile.mkdtemp(prefix="smtpguard-postfix-"))
    try:
        _configure(home, port, wanted, more)
        async with running(program, "-c", home / "etc", "start-fg", log=home / "start.log"):
            try:
                await eventually(lambda: answers(port), within=30)
                yield Postfix(port, home / "mail.log")
            finally:  # the master process leaves the process group that it was started in
                await run(program, "-c", home / "etc", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _configure(home: Path, port: int, wanted: Wanted, more: str) -> None:
    home.chmod(0o755)
    for name in ("etc", "spool", "data"):
        (home / name).mkdir()
    shutil.chown(home / "data", "postfix")
    settings = MAIN_CF.format(home=home, relay_port=wanted.relay_port)
    if wanted.certificate_file:
        settings += TLS.format(certificate_file=wanted.certificate_file)
    (home / "etc/main.cf").write_text(settings + more)
    (home / "etc/master.cf").write_text(MASTER_CF.format(port=port))
    (home / "etc/refused").write_text(
        f"{REFUSED} 550 5.1.1 {NO_SUCH_USER}\n{REFUSED_SENDER} 550 5.7.1 {NOT_THIS_MESSAGE}\n"
    )
    for name in CONFIGURATION:
        source = Path("/etc/postfix") / name
        if source.is_dir():
            shutil.copytree(source, home / "etc" / name)
        elif source.exists():
            shutil.copy(source, home / "etc" / name)
