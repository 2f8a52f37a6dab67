"""The role `api`: the HTTP server over the queries and commands."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from whenthen import __version__
from whenthen.engine.access import AccessControl, nats_access_store
from whenthen.engine.backup import Backups
from whenthen.engine.http import (
    ConnectionGate,
    ConnectionLimits,
    HttpServer,
    Listening,
    RequestOrigin,
    ServerTls,
    create_app,
)
from whenthen.engine.http import answer_models as answers
from whenthen.engine.live import LiveFeed
from whenthen.engine.process.api import ServerApi
from whenthen.engine.process.commands.registration_commands import RegistrationCommands
from whenthen.engine.process.commands.rule_set_commands import RuleSetCommands
from whenthen.engine.process.queries.shard_records import open_windows
from whenthen.engine.process.revisions.rules_in_force import RulesInForce
from whenthen.engine.process.revisions.setting_checks import setting_checks
from whenthen.engine.process.rule_reloading import RuleReloading
from whenthen.engine.process.wiring.process_parts import ProcessParts

__all__ = ["ApiRole"]

TASK = "http"


class ApiRole:
    """Serves at `listening` once it is built; `address` says where."""

    def __init__(
        self,
        parts: ProcessParts,
        reloading: RuleReloading,
        in_force: RulesInForce,
        *,
        path: Path | None,
        listening: Listening,
        missing: Callable[[], list[str]],
        describe: Callable[[], answers.Status],
    ) -> None:
        settings = parts.settings
        self._live = LiveFeed(
            parts.bus,
            shards=settings.shards,
            most_clients=settings.stream_clients,
            kept=min(settings.retain_firings, settings.retain_outcomes),
            counted=parts.metrics.stream_clients.set,
            dropped=lambda kind, count: parts.metrics.stream_dropped.labels(kind).inc(count),
        )
        rule_sets = RuleSetCommands(
            in_force,
            parts.revision_store,
            parts.rule_registry,
            path=path,
            from_api=settings.rules_from_api(files=path is not None),
            also=setting_checks(settings),
            open_windows=partial(open_windows, parts.bus.client),
        )
        api = ServerApi(
            bus=parts.bus,
            rule_registry=parts.rule_registry,
            stores=parts.stores,
            orchestrator=parts.orchestrator,
            pauses=parts.pauses,
            metrics=parts.metrics,
            observation=parts.observation,
            dead_letters=parts.dead_letters,
            reloading=reloading,
            rule_sets=rule_sets,
            registrations=RegistrationCommands(
                in_force,
                parts.stores,
                lambda: datetime.now(UTC),
                check_allowed=rule_sets.check_from_api,
                lost_after=settings.worker_lost_after,
            ),
            notes=in_force.notes,
            missing=missing,
            describe=describe,
            revisions=parts.revisions,
            max_depth=settings.max_depth,
            shards=settings.shards,
            live=self._live,
            worker_lost_after=settings.worker_lost_after,
            audit=parts.audit,
            redact=parts.redactor.text,
            backups=Backups(parts.embedded, parts.bus.client),
            disk=parts.disk,
        )
        tls = None
        if settings.tls_certificate is not None:
            tls = ServerTls(settings.tls_certificate, settings.tls_key)
        self.address, self.port = listening.address, listening.port
        self._public_urls = settings.public_urls
        origin = RequestOrigin(
            host=settings.host,
            port=self.port,
            secure=tls is not None,
            public_urls=settings.public_urls,
        )
        limits = ConnectionLimits(
            connections=settings.connections,
            head_s=settings.head_timeout.total_seconds(),
            body_s=settings.body_timeout.total_seconds(),
            keep_alive_s=settings.keep_alive.total_seconds(),
        )
        gate = ConnectionGate(limits, metrics=parts.metrics)
        self._access = AccessControl(
            nats_access_store(parts.bus.client),
            token=settings.token(),
            note=parts.audit.note,
            session_lasts=settings.session_lasts,
        )
        app = create_app(
            api,
            metrics=parts.metrics,
            access=self._access,
            origin=origin,
            body_limit=settings.body_limit,
            proxies=settings.proxy_networks,
            bodies_limit=settings.bodies_limit,
            events_per_request=settings.events_per_request,
            allow_reserved_names=settings.allow_reserved_names,
            version=__version__,
            at_hand=parts.at_hand,
            redact=parts.redactor.text,
            spans=parts.spans,
        )
        self._supervisor = parts.supervisor
        self._grace_s = settings.drain_grace.total_seconds()
        self._server = HttpServer(app, drain_s=self._grace_s, gate=gate, tls=tls)
        stopping = self._supervisor.stopping
        self._supervisor.start_restarting("senders", lambda: api.senders.run(stopping))
        self._supervisor.start(TASK, self._server.serve(sockets=[listening.sock]))

    async def login_address(self) -> str:
        """Where a browser logs in once with the server's own token; empty where no token is needed. Raises `BusUnavailable`."""
        if self._access.open:
            return ""
        base = next(iter(self._public_urls), self.address).rstrip("/")
        return f"{base}/login?once={await self._access.new_address(self._access.own)}"

    async def drain(self) -> None:
        """Take no new requests and finish those that are there."""
        self._server.should_exit = True
        await self._live.close()  # its answers have no end of their own
        await self._supervisor.end(TASK, self._grace_s)
