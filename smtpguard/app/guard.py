"""The guard as it runs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from smtpguard.app.desks import Desks, days, desks_over
from smtpguard.app.sources import clock, new_transaction_id
from smtpguard.app.tasks import Spawn, task_group
from smtpguard.app.web import Web
from smtpguard.domain.application import Application
from smtpguard.domain.policy import Policy
from smtpguard.relay.smarthost import Smarthost
from smtpguard.service.accept import Acceptor
from smtpguard.service.housekeeping import Housekeeping
from smtpguard.service.logins import Logins
from smtpguard.service.metrics import Metrics
from smtpguard.service.owners import Owners
from smtpguard.service.rates import Rates
from smtpguard.service.renewal import Renewal
from smtpguard.settings import Settings
from smtpguard.smtp.connection import Connection
from smtpguard.smtp.context import Admission, SessionContext
from smtpguard.smtp.listener import SmtpServer
from smtpguard.smtp.sessions import Sessions
from smtpguard.smtp.tls import load_certificate
from smtpguard.sockets import Sockets, listen
from smtpguard.spool import Spool
from smtpguard.storage import current_revision, head_revision, is_embedded, open_store, upgrade
from smtpguard.telemetry import Event, Logger, get_logger

if TYPE_CHECKING:
    from smtpguard.web.office import Office


class Guard:
    """A guard that runs."""

    def __init__(self, settings: Settings, server: SmtpServer, web: Web, desks: Desks, sockets: Sockets) -> None:
        self.invitations = desks.invitations
        """The desk that takes the answers of recipients."""
        self.endpoints = tuple(each.endpoint for each in sockets.smtp)
        """Where applications deliver; those with TLS from the first octet come last."""
        self.web_endpoints = tuple(each.endpoint for each in sockets.web)
        """Where the API is."""
        self.page_endpoints = tuple(each.endpoint for each in sockets.pages)
        """Where the recipients' pages are."""
        self._settings = settings
        self._server = server
        self._web = web
        self._smarthost = desks.quarantine.smarthost

    async def reload(self, settings: Settings) -> tuple[str, ...]:
        """Take over the applications, the policy and all certificates; open sessions go on.

        Returns the sections that differ from those in force and want a restart. Raises SettingsError: nothing changed.
        """
        reloaded = self._settings.reloaded(settings)
        admission = _admission(reloaded)
        self._smarthost.load_tls()
        self._server.replace_admission(admission)
        self._web.replace_policies(_policies(reloaded))
        return self._settings.want_restart(settings)

    async def is_alive(self) -> bool:
        """Whether it does its work: it does if this can be asked."""
        return True


@asynccontextmanager
async def running_guard(
    settings: Settings,
    *,
    sockets: Sockets | None = None,
    rates: Rates | None = None,
    metrics: Metrics | None = None,
    logger: Logger | None = None,
    keeps_house: bool = True,
) -> AsyncIterator[Guard]:
    """Run the guard for as long as the block; the parts of it that have sockets are served.

    A worker brings the sockets, rates and metrics that it shares with others, and a logger that says which worker it
    is; one of them keeps house. At the end the guard listens no more, finishes what is past the end of data, and ends.
    Raises SchemaMismatch, StoreUnavailable, SettingsError.
    """
    logger, metrics = logger or get_logger(), metrics or Metrics()
    rates = rates or Rates(asyncio.get_running_loop().time)
    admission = _admission(settings)
    smarthost = Smarthost(settings.smarthost, hostname=settings.smtp.hostname)
    smarthost.load_tls()
    await asyncio.to_thread(_upgrade_embedded, settings.store.url, logger)
    async with open_store(settings.store.url) as store:
        try:
            async with (
                task_group(logger) as spawn,
                desks_over(
                    settings, store=store, smarthost=smarthost, spawn=spawn, logger=logger, metrics=metrics
                ) as desks,
            ):
                await asyncio.to_thread(desks.invitations.load_templates)
                sockets = sockets or listen(settings)
                sessions = _sessions(settings)
                acceptor = _acceptor(settings, desks, logger, metrics if sockets.web else None)
                context = SessionContext(settings.smtp, acceptor, admission, rates, sessions, spawn, logger)
                housekeeping = spawn(_housekeeping(settings, desks, logger, metrics).run()) if keeps_house else None
                try:
                    async with _serving(settings, desks, context, sockets, metrics) as guard:
                        yield guard
                finally:
                    if housekeeping is not None:
                        housekeeping.cancel()
        finally:
            await smarthost.close()


@asynccontextmanager
async def _serving(
    settings: Settings, desks: Desks, context: SessionContext, sockets: Sockets, metrics: Metrics
) -> AsyncIterator[Guard]:
    """Serve the parts that have sockets."""
    server, web = SmtpServer(context), Web(settings, context.spawn)
    sessions, logger = context.sessions, context.logger
    try:
        if sockets.web:
            metrics.begin(lambda: (sessions.number, sessions.opened))
            web.serve_api(_office(settings, desks, metrics, context.spawn, logger), sockets.web)
        if sockets.pages:
            web.serve_pages(desks.invitations, sockets.pages, logger)
        await server.start(sockets.smtp)
        yield Guard(settings, server, web, desks, sockets)
    finally:
        await asyncio.gather(server.close(), web.close())
        metrics.end()


def _office(settings: Settings, desks: Desks, metrics: Metrics, spawn: Spawn, logger: Logger) -> "Office":
    from smtpguard.web.office import Office  # noqa: PLC0415 - see Web

    return Office(
        store=desks.store,
        addresses=desks.addresses,
        invitations=desks.invitations,
        quarantine=desks.quarantine,
        tokens=desks.tokens,
        policies=_policies(settings),
        retention=days(settings.quarantine.retention),
        numbers=metrics.of_all,
        clock=clock,
        spawn=spawn,
        logger=logger,
    )


def _policies(settings: Settings) -> dict[str | None, Policy]:
    """Return the general policy, and those of the applications by their names."""
    return {None: settings.policy.policy(), **{each.name: each.policy for each in applications(settings)}}


def _admission(settings: Settings) -> Admission:
    admitted = applications(settings)
    return Admission(
        admitted,
        Logins(admitted, asyncio.get_running_loop().time),
        load_certificate(settings.tls),
        tls_required=settings.tls.required,
    )


def _sessions(settings: Settings) -> Sessions[Connection]:
    return Sessions(max_sessions=settings.smtp.max_sessions, max_per_network=settings.smtp.max_sessions_per_network)


def _acceptor(settings: Settings, desks: Desks, logger: Logger, metrics: Metrics | None) -> Acceptor:
    smtp = settings.smtp
    spool = Spool(
        max_buffered_bytes=smtp.max_buffered_bytes, spool_above=smtp.spool_above, directory=smtp.spool_directory
    )
    return Acceptor(
        desks.store,
        desks.quarantine.smarthost,
        spool,
        smtp.hostname,
        clock,
        new_transaction_id,
        logger,
        settings.verification.max_verification_mails_per_day,
        Owners(desks.store, clock, logger),
        on_kept=None if settings.lacking_for_invitations else desks.invitations.take_kept,
        metrics=metrics,
    )


def _housekeeping(settings: Settings, desks: Desks, logger: Logger, metrics: Metrics) -> Housekeeping:
    within = settings.verification.renews_within
    renewal = None
    if within is not None and not settings.lacking_for_invitations:
        renewal = Renewal(desks.store, desks.invitations.invite_again, within, clock, logger)
    return Housekeeping(desks.store, days(settings.quarantine.retention), clock, logger, metrics, renewal)


def applications(settings: Settings) -> tuple[Application, ...]:
    """Build the applications with their policies."""
    return tuple(
        Application(
            each.name,
            each.networks,
            settings.policy.policy(each),
            each.username,
            each.password_hash,
            each.max_messages_per_minute,
            frozenset(each.reverse_path_domains),
            each.may_verify,
        )
        for each in settings.applications()
    )


def _upgrade_embedded(url: str, logger: Logger) -> None:
    """Upgrade a store of our own; to upgrade a PostgreSQL is for its operator to say."""
    if not is_embedded(url):
        return
    current, head = current_revision(url), head_revision()
    if current != head:
        upgrade(url)
        logger.info(Event.SCHEMA_UPGRADED, from_revision=current, to_revision=head)
