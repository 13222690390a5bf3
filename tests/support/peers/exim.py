"""Exim, unpacked beside Postfix: a mail server behind the guard, or an application before it."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.eventually import eventually
from tests.support.peers import need_root, need_unpacked
from tests.support.peers.mounts import FIRST_ID, in_own_mounts, with_users
from tests.support.peers.wanted import NO_SUCH_USER, NOT_THIS_MESSAGE, REFUSED, REFUSED_SENDER, Wanted
from tests.support.process import answers, free_port, running

SETTINGS = """
exim_path = {program}
spool_directory = {home}/spool
log_file_path = {home}/log/%slog
pid_file_path = {home}/log/pid
primary_hostname = smarthost.example
local_interfaces = <; [127.0.0.1]:{port}
disable_ipv6
keep_environment =
smtputf8_advertise_hosts = *
dsn_advertise_hosts = *
tls_advertise_hosts = {tls_hosts}
tls_certificate = {certificate_file}
acl_smtp_mail = check_login
acl_smtp_rcpt = check_recipient
acl_smtp_data = check_message

begin acl
check_login:
  {login_rule}
  accept
check_recipient:
  deny recipients = {refused}
       message = 5.1.1 {no_such_user}
  accept
check_message:
  deny senders = {refused_sender}
       message = 5.7.1 {not_this_message}
  accept

begin routers
onward:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = onward

begin transports
onward:
  driver = smtp
  port = {relay_port}
  allow_localhost

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_advertise_condition = ${{if def:tls_in_cipher}}
  server_prompts = :
  server_condition = ${{if and {{{{eq{{$auth2}}{{{username}}}}}{{eq{{$auth3}}{{{password}}}}}}}}}
  server_set_id = $auth2
"""


@asynccontextmanager
async def exim(wanted: Wanted) -> AsyncIterator[int]:
    """Run a server; give the port that it listens on."""
    program = need_unpacked("usr/sbin/exim4", "exim4-daemon-light")
    need_root("Exim")
    port = free_port()
    home = Path(tempfile.mkdtemp(prefix="smtpguard-exim-"))
    try:
        settings = _configure(home, program, port, wanted)
        users = with_users(home, "Debian-exim")
        command = in_own_mounts([program, "-C", settings, "-bdf"], users)
        async with running(*command, log=home / "start.log"):
            await eventually(lambda: answers(port), within=30)
            yield port
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _configure(home: Path, program: Path, port: int, wanted: Wanted) -> Path:
    home.chmod(0o755)
    for name in ("spool", "log"):
        (home / name).mkdir()
        os.chown(home / name, FIRST_ID, FIRST_ID)
    username, password = wanted.login or ("", "")
    settings = home / "exim.conf"
    settings.write_text(
        SETTINGS.format(
            program=program,
            home=home,
            port=port,
            relay_port=wanted.relay_port,
            tls_hosts="*" if wanted.certificate_file else "",
            certificate_file=_readable_copy(wanted.certificate_file, home) if wanted.certificate_file else "",
            login_rule="deny !authenticated = *" if wanted.login else "",
            username=username,
            password=password,
            refused=REFUSED,
            no_such_user=NO_SUCH_USER,
            refused_sender=REFUSED_SENDER,
            not_this_message=NOT_THIS_MESSAGE,
        )
    )
    return settings


def _readable_copy(file: Path, home: Path) -> Path:
    """Put a file where Exim's user can read it."""
    copy = home / file.name
    shutil.copyfile(file, copy)
    os.chown(copy, FIRST_ID, FIRST_ID)
    return copy
