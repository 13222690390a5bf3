"""The mail clients of the field: each submits one message and tells what it was told.

A client is a coroutine of a Submission and a directory of its own. Each checks the certificate and the name in it.
"""

import asyncio
import re
import smtplib
import ssl
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import aiosmtplib

from tests.support.eventually import eventually
from tests.support.peers import need, need_file
from tests.support.peers.postfix import postfix
from tests.support.peers.submission import Report, Submission
from tests.support.peers.wanted import Wanted
from tests.support.process import run

Client = Callable[[Submission, Path], Awaitable[Report]]

HERE = Path(__file__).parent
JARS = ("usr/share/java/jakarta-mail.jar", "usr/share/java/jakarta-activation.jar")
JAVA_SOURCE = HERE / "JakartaMail.java"
QUICK_JAVA = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")
QUICK_JAVAC = ("-J-XX:TieredStopAtLevel=1", "-J-XX:+UseSerialGC", "--release", "17")


async def by_smtplib(submission: Submission, _: Path) -> Report:
    """Python's own client."""
    return await asyncio.to_thread(_send_by_smtplib, submission)


def _send_by_smtplib(submission: Submission) -> Report:
    try:
        with _connect_by_smtplib(submission) as client:
            if submission.security == "starttls":
                client.starttls(context=_context(submission))
            if submission.username:
                client.login(submission.username, submission.password)
            refused = client.sendmail(submission.sender, submission.recipients, submission.message)
    except (smtplib.SMTPException, OSError) as error:
        return Report(accepted=False, said=repr(error))
    return Report(accepted=True, said=repr(refused))


def _connect_by_smtplib(submission: Submission) -> smtplib.SMTP:
    if submission.security == "implicit":
        return smtplib.SMTP_SSL(submission.host, submission.port, timeout=30, context=_context(submission))
    return smtplib.SMTP(submission.host, submission.port, timeout=30)


def _context(submission: Submission) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(submission.ca_file)
    return context


def extensions(port: int) -> set[str]:
    """What a server offers at EHLO."""
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.ehlo()
        return {keyword.upper() for keyword in client.esmtp_features}


async def by_aiosmtplib(submission: Submission, _: Path) -> Report:
    """Python's client for asyncio."""
    client = aiosmtplib.SMTP(
        hostname=submission.host,
        port=submission.port,
        timeout=30,
        use_tls=submission.security == "implicit",
        start_tls=submission.security == "starttls",
        username=submission.username or None,
        password=submission.password or None,
        tls_context=None if submission.security == "none" else _context(submission),
    )
    try:
        async with client:
            refused, _ = await client.sendmail(submission.sender, list(submission.recipients), submission.message)
    except (aiosmtplib.SMTPException, OSError) as error:
        return Report(accepted=False, said=repr(error))
    return Report(accepted=True, said=repr(refused))


async def by_swaks(submission: Submission, directory: Path) -> Report:
    """The Swiss army knife for SMTP."""
    if submission.security != "none":
        need_file("usr/lib/*/perl5/*/Net/SSLeay.pm", "libnet-ssleay-perl")
    security = {
        "none": [],
        "starttls": ["--tls", "--tls-verify", "--tls-ca-path", submission.ca_file],
        "implicit": ["--tlsc", "--tls-verify", "--tls-ca-path", submission.ca_file],
    }[submission.security]
    login = ["--auth", "LOGIN", "--auth-user", submission.username, "--auth-password", submission.password]
    code, out, _ = await run(
        need("swaks", "swaks"), "--server", f"{submission.host}:{submission.port}", "--from", submission.sender,
        "--to", ",".join(submission.recipients), "--data", f"@{_message_file(submission, directory)}",
        *security, *(login if submission.username else []),
    )  # fmt: skip
    refusals = [line for line in out.splitlines() if line.startswith(("<** ", "<~* "))]
    return Report(accepted=code == 0, said="\n".join(refusals))


async def by_curl(submission: Submission, directory: Path) -> Report:
    """Curl; it gives up where one recipient is refused."""
    scheme = "smtps" if submission.security == "implicit" else "smtp"
    security = [] if submission.security == "none" else ["--ssl-reqd", "--cacert", submission.ca_file]
    login = ["--user", f"{submission.username}:{submission.password}"] if submission.username else []
    recipients = [word for recipient in submission.recipients for word in ("--mail-rcpt", recipient)]
    code, _, err = await run(
        need("curl", "curl"), "--silent", "--show-error", "--url", f"{scheme}://{submission.host}:{submission.port}",
        "--mail-from", submission.sender, *recipients, *security, *login,
        "--upload-file", _message_file(submission, directory),
    )  # fmt: skip
    return Report(accepted=code == 0, said=err)


async def by_msmtp(submission: Submission, _: Path) -> Report:
    """A sendmail command without a queue; it gives up where one recipient is refused."""
    security = [
        f"--tls={'off' if submission.security == 'none' else 'on'}",
        f"--tls-starttls={'on' if submission.security == 'starttls' else 'off'}",
        f"--tls-trust-file={submission.ca_file or ''}",
    ]
    login = ["--auth=plain", f"--user={submission.username}", f"--passwordeval=echo {submission.password}"]
    code, _, err = await run(
        need("msmtp", "msmtp"), "--file=/dev/null", f"--host={submission.host}", f"--port={submission.port}",
        f"--from={submission.sender}", *security, *(login if submission.username else []), "--",
        *submission.recipients, stdin=submission.message.replace(b"\r\n", b"\n"),
    )  # fmt: skip
    return Report(accepted=code == 0, said=err)


async def by_django(submission: Submission, _: Path) -> Report:
    """Django's mail backend; it says nothing of a refused recipient as long as another one is taken."""
    return await _by_program([sys.executable, HERE / "django_mail.py"], submission)


async def by_nodemailer(submission: Submission, _: Path) -> Report:
    """The client of Node.js."""
    modules = str(need_file("usr/share/nodejs/nodemailer", "node-nodemailer").parent)
    return await _by_program([need("node", "nodejs"), HERE / "nodemailer.js"], submission, NODE_PATH=modules)


async def by_jakarta_mail(submission: Submission, _: Path) -> Report:
    """The client of Java."""
    return await _by_java(submission, "-1")


async def by_jakarta_mail_in_chunks(submission: Submission, _: Path) -> Report:
    """The client of Java, with BDAT in place of DATA (RFC 3030); it doubles a dot that begins a line even there."""
    return await _by_java(submission, "200")


async def _by_java(submission: Submission, chunk_size: str) -> Report:
    java = need("java", "default-jdk-headless")
    jars = [str(need_file(jar, "libjakarta-mail-java")) for jar in JARS]
    classes = str(await _compiled(jars))
    command = [java, *QUICK_JAVA, "-cp", ":".join([*jars, classes]), JAVA_SOURCE.stem]
    return await _by_program(command, submission, chunk_size)


async def _compiled(jars: list[str]) -> Path:
    """Where the program lies compiled, beside those of Python; to compile takes four times as long as to send."""
    javac = need("javac", "default-jdk-headless")
    place = HERE / "__pycache__"
    compiled = place / f"{JAVA_SOURCE.stem}.class"
    if not compiled.exists() or compiled.stat().st_mtime < JAVA_SOURCE.stat().st_mtime:
        place.mkdir(exist_ok=True)
        with TemporaryDirectory(dir=place) as directory:
            code, _, err = await run(javac, *QUICK_JAVAC, "-cp", ":".join(jars), "-d", directory, JAVA_SOURCE)
            assert code == 0, err
            (Path(directory) / compiled.name).replace(compiled)  # whole, whoever else compiles it at this moment
    return place


async def _by_program(command: list[str | Path], submission: Submission, *more: str, **environment: str) -> Report:
    """Run a program of ours around a library; the message is on its standard input."""
    trusted = str(submission.ca_file) if submission.ca_file else ""
    code, out, err = await run(
        *command, submission.host, str(submission.port), submission.security, submission.username, submission.password,
        submission.sender, ",".join(submission.recipients), *more,
        stdin=submission.message, env={"SSL_CERT_FILE": trusted, "NODE_EXTRA_CA_CERTS": trusted} | environment,
    )  # fmt: skip
    assert not err, err
    return Report(accepted=code == 0, said=out)


async def by_postfix(submission: Submission, directory: Path) -> Report:
    """A mail server on the application's machine, whose relayhost is the next one; it tells its log."""
    if submission.username:
        need_file("usr/lib/*/sasl2/libplain.so", "libsasl2-modules")
    security = "none" if submission.security == "none" else "secure"
    wrapped = "yes" if submission.security == "implicit" else "no"
    login = directory / "login"
    login.write_text(f"[127.0.0.1]:{submission.port} {submission.username}:{submission.password}\n")
    (directory / "untraced").write_text("/^Received:/ IGNORE\n")
    more = f"""
smtp_header_checks = regexp:{directory}/untraced
smtp_tls_security_level = {security}
smtp_tls_wrappermode = {wrapped}
smtp_tls_CAfile = {submission.ca_file or ""}
smtp_tls_secure_cert_match = {submission.host}
smtp_sasl_auth_enable = {"yes" if submission.username else "no"}
smtp_sasl_password_maps = texthash:{login}
smtp_sasl_security_options = noanonymous
"""
    async with postfix(Wanted(submission.port), more=more) as instance:
        direct = Submission(instance.port, submission.recipients, sender=submission.sender, message=submission.message)
        assert (await by_smtplib(direct, directory)).accepted
        await eventually(lambda: set(submission.recipients) <= instance.outcomes().keys(), within=60)
        outcomes = [instance.outcomes()[recipient] for recipient in submission.recipients]
    return Report(accepted=set(outcomes) == {"sent"}, said="\n".join(outcomes))


CLIENTS: dict[str, Client] = {
    "smtplib": by_smtplib,
    "aiosmtplib": by_aiosmtplib,
    "swaks": by_swaks,
    "curl": by_curl,
    "msmtp": by_msmtp,
    "nodemailer": by_nodemailer,
    "django": by_django,
    "jakarta-mail": by_jakarta_mail,
    "postfix": by_postfix,
}


def _message_file(submission: Submission, directory: Path) -> Path:
    file = directory / "message"
    file.write_bytes(submission.message)
    return file


def comparable(report: Report) -> Report:
    """The report without what differs each time: the port, and the id in the reply to a message that was taken."""
    said = re.sub(r":[0-9]{4,5}\b", ":PORT", report.said)
    return Report(accepted=report.accepted, said=re.sub(r"250 2\.0\.0 .*", "250 2.0.0", said))
