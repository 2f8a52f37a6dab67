"""The running process: every part built, connected, started and stopped in order.

    async with Server(settings, rules_path, roles=Role.all()) as server:
        await server.stopped()

Called by `whenthen serve` and `whenthen worker`. What a part does is in its own module, what a role consists of in `wiring`;
this one says in which order they come and go (docs/architecture.md, "The process").
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from whenthen import __version__
from whenthen.actions.secrets import Redactor
from whenthen.engine.audit import AuditLog
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.embedded import EmbeddedServer
from whenthen.engine.evaluation import NatsEngineStore, read_offset
from whenthen.engine.execution import SpecStore
from whenthen.engine.http import Listening, listen
from whenthen.engine.http import answer_models as answers
from whenthen.engine.metrics import Metrics
from whenthen.engine.process.gc_tuning import loading, unfreeze
from whenthen.engine.process.maintenance import Maintenance
from whenthen.engine.process.revisions.rule_publishing import PUBLISHING, RulePublisher
from whenthen.engine.process.revisions.rules_at_start import StartingRules, rules_at_start
from whenthen.engine.process.revisions.rules_in_force import RulesInForce
from whenthen.engine.process.revisions.setting_checks import setting_checks
from whenthen.engine.process.roles import Role
from whenthen.engine.process.rule_registry import Compiled, RuleRegistry
from whenthen.engine.process.rule_reloading import RuleReloading, report_refused
from whenthen.engine.process.settings import Settings
from whenthen.engine.process.supervisor import Supervisor
from whenthen.engine.process.webhook_secrets import WebhookSecrets
from whenthen.engine.process.wiring.api_role import ApiRole
from whenthen.engine.process.wiring.hang_note import note_hang
from whenthen.engine.process.wiring.history.history_process import HistoryProcess
from whenthen.engine.process.wiring.last_firings import read_last_firings
from whenthen.engine.process.wiring.monitoring_server import MonitoringServer
from whenthen.engine.process.wiring.nats_start import NatsStart, retried, start_nats, stream_settings, wait_until_closed
from whenthen.engine.process.wiring.process_parts import ProcessParts, build_parts
from whenthen.engine.process.wiring.process_status import process_status
from whenthen.engine.process.wiring.running_roles import RunningRoles
from whenthen.engine.rule_sets import RevisionStore
from whenthen.engine.spans import open_spans
from whenthen.rules import Rules, load_rules
from whenthen.schemas.errors import InvalidRules, SetupError
from whenthen.supervision import SharedPage, Watchdog

__all__ = ["Server"]

log = logging.getLogger(__name__)

_SPANS_S = 3.0  #: that a stopping process waits for the receiver of its last spans


class Server:
    """One process. Enter it to start; leaving it drains: no new requests, actions finish, the last commit is written.

    Without `rules`, a folder or file, it has the rules that another process published.
    """

    def __init__(
        self,
        settings: Settings,
        rules: Path | None,
        *,
        roles: Iterable[Role] = tuple(Role),
        pools: Iterable[str] = (),
        redactor: Redactor | None = None,
        page: SharedPage | None = None,
        history: HistoryProcess | None = None,
    ) -> None:
        self.settings = settings
        self.roles = frozenset(roles)
        self.rules_path = rules
        self.metrics = Metrics(version=__version__, roles=self.roles)
        self.redactor = redactor or Redactor()
        self.started = time.time()
        #: when the rules in force were published, if they are older ones because the files were refused at the start
        self.kept_since: str | None = None
        self._pools = tuple(pools)
        self._page = page or SharedPage()
        self._watchdog = Watchdog(
            self._page,
            hang_after_s=settings.hang_after.total_seconds(),
            suspect=self._suspect,
        )
        self._supervisor = Supervisor()
        self._cleanup = contextlib.AsyncExitStack()
        self._ready = False
        self._parts: ProcessParts | None = None
        self._spans = open_spans(os.environ)
        self._reloading: RuleReloading | None = None
        self._rules_in_force: RulesInForce | None = None
        self._monitoring: MonitoringServer | None = None
        self._webhook_secrets: WebhookSecrets | None = None
        self._running = RunningRoles(self._supervisor, self._cleanup, history)

    # -- life

    async def __aenter__(self) -> Server:
        try:
            await self._start()
        except BaseException:
            await self._drain()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._drain()

    def stop(self) -> None:
        """Ask the process to drain and end."""
        self._supervisor.stopping.set()

    def hurry(self) -> None:
        """Ask the process to end at once: what is at hand is handed back, and nothing is waited for."""
        self.stop()
        self._supervisor.hurry.set()
        self._running.hurry()

    async def stopped(self) -> None:
        """Wait until `stop` was called.

        Raises:
            SetupError: a part can not go on.
        """
        await self._supervisor.stopped()

    def missing(self) -> list[str]:
        """What is not ready yet; empty when the process does its work."""
        if not self._ready:
            return ["starting"]
        connection = [] if self.bus.connected else ["the connection to NATS"]
        disk = self._started().disk
        if disk is not None:
            disk.look()
        if disk is not None and disk.gone:
            connection.append(f"the data directory: {disk.gone}")
        return connection + self._running.missing()

    def notes(self) -> list[str]:
        """What people should know, and what does not keep the process from its work."""
        rules = self._rules_in_force.notes() if self._rules_in_force is not None else []
        return [*rules, *self._running.notes()]

    async def wait_until_ready(self, timeout_s: float = 120.0) -> None:
        """Wait until nothing is missing.

        Raises:
            SetupError: something still is after `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while (missing := self.missing()) and not self._supervisor.stopping.is_set():
            if self._running.stalled:
                return  # only other rules, or another version of this program, change that
            if time.monotonic() > deadline:
                raise SetupError(
                    f"not ready within {timeout_s:g} s; still missing: {', '.join(missing)}; the log says why, or NATS and "
                    "this machine are too busy. Start it again"
                )
            await asyncio.sleep(0.02)

    async def _start(self) -> None:
        self._cleanup.callback(unfreeze)
        listening = self._listen() if Role.API in self.roles else None
        if Role.API not in self.roles or self.settings.monitoring_port is not None:
            self._monitoring = MonitoringServer(
                self.settings, self._supervisor, self.metrics, missing=self.missing, notes=self.notes
            )
        with loading():
            files = await asyncio.to_thread(self._load_files)
            # those that have a right to it in deploy/nats/users.conf; the others wait for one of them
            raises_format = not self.roles.isdisjoint({Role.API, Role.EVALUATOR})
            nats = await start_nats(self.settings, self.metrics, self._cleanup, raises_format=raises_format)
            self._supervisor.start("NATS connection", wait_until_closed(nats.bus))
            self._supervisor.start_restarting("format", nats.format_watch.run)
            specs = SpecStore(nats.bus.client)
            audit = AuditLog(nats.bus, process=f"{socket.gethostname()}:{os.getpid()}")
            publisher = None
            if self.roles & PUBLISHING:
                publisher = RulePublisher(RevisionStore(nats.bus), specs, path=self.rules_path, audit=audit)
            start = await self._starting_rules(nats, files, publisher)
            parts = build_parts(
                self.settings,
                self._supervisor,
                self.metrics,
                self.redactor,
                start.rules,
                nats,
                roles=self.roles,
                number=start.number,
                base=start.rules.base if self.rules_path is not None else None,
                specs=specs,
                audit=audit,
                spans=self._spans,
                at_hand=self._page.at_hand,
            )
            self._parts = parts
            parts.rule_registry.on_change(self._apply_rules)
            self._apply_rules(parts.rule_registry.now)
            self.kept_since = start.kept_since
            if start.refused:
                instead = f"those of {start.kept_since} (revision {start.number}, digest {start.rules.revision}) are in force instead"
                report_refused(start.refused, self.metrics, f"rules at {self.rules_path}; {instead}", audit)
            parts.rule_registry.on_change(self._take_new_rules)
        # loading a large set of rules may take the event loop for longer than an event ever should
        self._watchdog.start(asyncio.get_running_loop())
        self._cleanup.callback(self._watchdog.stop)
        await retried(lambda: note_hang(parts.hangs, self._page))
        await retried(parts.pauses.refresh)
        try:
            await retried(parts.pauses.settle)
        except SetupError as error:  # as when the stream of events is full; it is tried again each second
            log.warning("the stream of events does not know of all pauses of automations yet: %s", error)
        if self.roles != {Role.WORKER}:  # a worker alone may read runs and nothing else
            await retried(lambda: read_last_firings(parts))
        self._rules_in_force = in_force = RulesInForce(
            parts.revision_store,
            parts.revisions,
            parts.rule_registry,
            self.metrics,
            publisher=publisher,
            files=start.files,
            path=self.rules_path,
            needed_from=self._oldest_rules,
        )
        self._reloading = reloading = RuleReloading(
            self.rules_path if publisher is not None else None,
            parts.rule_registry,
            self.metrics,
            in_force.take_files,
            files=start.files,
            grace_s=self.settings.rules_file_grace.total_seconds(),
            problems=start.refused,
            also=setting_checks(self.settings),
            audit=audit,
        )
        stopping = self._supervisor.stopping
        self._supervisor.start_restarting("audit", lambda: audit.run(stopping))
        if listening is not None:
            self._webhook_secrets = secrets = WebhookSecrets(parts.rule_registry, self.metrics)
            await secrets.look()
            self._supervisor.start_restarting("secrets of webhooks", secrets.run)
            self._running.api = ApiRole(
                parts,
                reloading,
                in_force,
                path=self.rules_path,
                listening=listening,
                missing=self.missing,
                describe=self.describe,
            )
        await self._running.start(parts, self.roles, pools=self._pools)
        self._supervisor.start_restarting("rules", lambda: reloading.run(stopping))
        self._supervisor.start_restarting("revisions", lambda: in_force.run(stopping))
        self._supervisor.start_restarting("pauses", parts.pauses.run)
        if not self.roles <= {Role.WORKER, Role.HISTORY}:  # which may purge nothing
            maintenance = self._maintenance(parts)
            self._supervisor.start_restarting("maintenance", lambda: maintenance.run(stopping))
        self._ready = True
        await self.wait_until_ready()

    def _listen(self) -> Listening:
        """The address of the HTTP server, before anything is started or published."""
        listening = listen(self.settings.host, self.settings.port, secure=self.settings.tls_certificate is not None)
        self._cleanup.callback(listening.sock.close)
        return listening

    def _load_files(self) -> Rules | InvalidRules | None:
        """The rules on disk, or why they are refused."""
        if self.rules_path is None:
            return None
        try:
            # who only follows takes what others have checked
            return load_rules(self.rules_path, also=setting_checks(self.settings) if self.roles & PUBLISHING else ())
        except InvalidRules as error:
            return error

    async def _starting_rules(
        self, nats: NatsStart, files: Rules | InvalidRules | None, publisher: RulePublisher | None
    ) -> StartingRules:
        store = RevisionStore(nats.bus)
        return await retried(
            lambda: rules_at_start(
                store,
                files,
                path=self.rules_path,
                publisher=publisher,
                own_path_only=nats.embedded is not None,
            )
        )

    async def _oldest_rules(self) -> int:
        """The oldest revision that a shard is evaluated with; 0 when that of one is not known."""
        engine = NatsEngineStore(self.bus.client)
        return min([(await read_offset(engine, shard)).rules for shard in range(self.settings.shards)])

    def _take_new_rules(self, _compiled: Compiled) -> None:
        self.kept_since = None

    async def _drain(self) -> None:
        """Stop in the order in which things depend on each other: what brings work first, what does it last."""
        self.stop()
        await self._running.drain_requests()
        for name in ("rules", "revisions"):
            await self._supervisor.end(name)
        await self._running.drain_work(self.settings.drain_grace.total_seconds())
        if self._monitoring is not None:
            await self._monitoring.stop()
        await self._supervisor.end_all()
        await self._cleanup.aclose()
        await self._spans.close(0.0 if self._supervisor.hurry.is_set() else _SPANS_S)

    # -- parts

    @property
    def address(self) -> str:
        """Where HTTP listens; empty without the role."""
        return self._running.api.address if self._running.api is not None else ""

    @property
    def port(self) -> int:
        """The port of `address`; 0 without the role."""
        return self._running.api.port if self._running.api is not None else 0

    async def login_address(self) -> str:
        """Where a browser logs in once with the server's own token; empty without the role `api`, and where no token is needed.

        Raises:
            BusUnavailable: it can not be kept at the moment.
        """
        return await self._running.api.login_address() if self._running.api is not None else ""

    @property
    def monitoring_address(self) -> str:
        """Where metrics and probes are served beside `address`; empty where they are not."""
        return self._monitoring.address if self._monitoring is not None else ""

    @property
    def monitoring_port(self) -> int:
        """The port of `monitoring_address`; 0 without it."""
        return self._monitoring.port if self._monitoring is not None else 0

    @property
    def bus(self) -> Bus:
        return self._started().bus

    @property
    def embedded(self) -> EmbeddedServer | None:
        return self._started().embedded

    @property
    def rule_registry(self) -> RuleRegistry:
        return self._started().rule_registry

    def describe(self) -> answers.Status:
        """What runs here, for `GET /api/status`."""
        return process_status(
            self._started(),
            self._running,
            self._reloading,
            roles=self.roles,
            rules_path=self.rules_path,
            started=self.started,
            missing=self.missing(),
            notes=self.notes(),
            kept_since=self.kept_since,
            restarts=self._page.restarts,
            secrets_missing=self._webhook_secrets.missing if self._webhook_secrets is not None else {},
        )

    def _suspect(self, shard: int) -> str:
        """What the shard was deciding when the event loop was found hanging."""
        return self._running.evaluator.suspect(shard) if self._running.evaluator is not None else ""

    def _started(self) -> ProcessParts:
        if self._parts is None:
            raise RuntimeError("the server is not connected yet; enter it first")
        return self._parts

    def _maintenance(self, parts: ProcessParts) -> Maintenance:
        return Maintenance(
            parts.bus.js,
            parts.bus.client,
            metrics=self.metrics,
            settings=stream_settings(self.settings),
            shards=self.settings.shards,
            dead_letters=parts.dead_letters if Role.EXECUTOR in self.roles else None,
            automations=lambda: parts.rule_registry.now.automations,
            disk=parts.disk,
        )

    def _apply_rules(self, compiled: Compiled) -> None:
        """Hand a set that is in force now to whoever has a part of it."""
        parts, rules = self._started(), compiled.rules
        self.metrics.take_rules(
            {automation.name: automation.expected_every for automation in rules.automations},
            rules.counts(),
            actions={
                automation.name: {action.type for action in automation.all_actions} for automation in rules.automations
            },
            webhooks=[webhook.name for webhook in rules.webhooks],
            sources=[source.name for source in rules.sources],
            deployments=[deployment.name for deployment in rules.deployments],
        )
        parts.pauses.report()
        self._running.replace_rules(rules)
