"""The running process: every part built, connected, started and stopped in order.

    async with Server(settings, rules_path, roles=Role.all()) as server:
        await server.stopped()

Called by `whenthen serve` and `whenthen worker`. What a part does is in its own module; this one says which parts there are,
what each gets, and in which order they come and go (docs/architecture.md, "The process").
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import nats.errors
import orjson

from whenthen import __version__
from whenthen.actions import AddressPolicy, ConnectionDefaults, Ports, Redactor, Secrets, open_http_client
from whenthen.cancellation import end_task
from whenthen.engine.bus import (
    ENGINE,
    Bus,
    DataDir,
    DiskRoom,
    EmbeddedServer,
    EmbeddedSettings,
    StoredMessage,
    StreamSettings,
    check_server,
    ensure_streams,
    newest,
)
from whenthen.engine.evaluation import (
    EvaluationSettings,
    LeaseSettings,
    NatsLeaseStore,
    ShardHolder,
    ShardLoop,
    ShardWork,
    nats_shard_loop,
)
from whenthen.engine.execution import (
    ActionMetrics,
    ActionRunner,
    CircuitBreakerSettings,
    DeadLetters,
    ExecutionSettings,
    Executor,
)
from whenthen.engine.flow_runs import FlowStoreSettings, RunEventPublisher, ensure_flow_stores, nats_stores
from whenthen.engine.http import HttpServer, create_app, listen
from whenthen.engine.metrics import Metrics
from whenthen.engine.process.api import ServerApi
from whenthen.engine.process.gc_tuning import loading, unfreeze
from whenthen.engine.process.maintenance import Maintenance
from whenthen.engine.process.observation import DecisionLog, Observation
from whenthen.engine.process.pauses import AutomationPauses
from whenthen.engine.process.roles import Role
from whenthen.engine.process.rule_registry import Compiled, RuleRegistry
from whenthen.engine.process.rule_reloading import RuleReloading
from whenthen.engine.process.settings import Settings
from whenthen.rules import Rules, load_rules
from whenthen.runs import BuiltInOrchestrator, Reaper, ReaperSettings, Scheduler, Stores, Worker, WorkerSettings
from whenthen.schemas import BusUnavailable, Event, SetupError, WhenthenError
from whenthen.triggers import Evaluator

__all__ = ["Server"]

log = logging.getLogger(__name__)

_RETRY_S = 1.0
_PATIENCE_S = 30.0  #: with a NATS server that goes away while the process starts

T = TypeVar("T")


class Server:
    """One process. Enter it to start; leaving it drains: no new requests, actions finish, the last commit is written."""

    def __init__(
        self,
        settings: Settings,
        rules: Path,
        *,
        roles: Iterable[Role] = tuple(Role),
        pools: Iterable[str] = (),
        redactor: Redactor | None = None,
    ) -> None:
        self.settings = settings
        self.roles = frozenset(roles)
        self.rules_path = rules
        self.metrics = Metrics(version=__version__)
        self.redactor = redactor or Redactor()
        self.started = time.time()
        self.address = ""  #: where HTTP listens; empty without the role
        self._pools = tuple(pools)
        self._stop = asyncio.Event()
        self._ready = False
        self._failure: BaseException | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._cleanup = contextlib.AsyncExitStack()
        self._workers: dict[str, Worker] = {}
        self._loops: dict[int, ShardLoop] = {}
        self._holder: ShardHolder | None = None
        self._executor: Executor | None = None
        self._http: HttpServer | None = None
        self.embedded: EmbeddedServer | None = None
        self._disk: DiskRoom | None = None

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
        self._stop.set()

    async def stopped(self) -> None:
        """Wait until `stop` was called.

        Raises:
            SetupError: a part can not go on.
        """
        await self._stop.wait()
        if self._failure is not None:
            raise self._failure

    def missing(self) -> list[str]:
        """What is not ready yet; empty when the process does its work."""
        if not self._ready:
            return ["starting"]
        waiting = []
        if not self.bus.connected:
            waiting.append("the connection to NATS")
        if self._holder is not None:
            waiting += [f"shard {shard}" for shard, loop in self._loops.items() if not loop.ready.is_set()]
            if self.embedded is not None:  # nobody else evaluates
                waiting += [f"shard {shard}" for shard in range(self.settings.shards) if shard not in self._loops]
        return waiting

    async def wait_until_ready(self, timeout_s: float = 120.0) -> None:
        """Wait until nothing is missing."""
        async with asyncio.timeout(timeout_s):
            while self.missing() and not self._stop.is_set():
                await asyncio.sleep(0.02)

    async def _start(self) -> None:
        settings = self.settings
        secrets = Secrets(self.redactor)
        self._cleanup.callback(unfreeze)
        with loading():
            rules = await asyncio.to_thread(load_rules, self.rules_path)
            await self._connect()
            self.rule_registry = RuleRegistry(rules, shards=settings.shards, resolve_secret=secrets.resolve)
            self.orchestrator = BuiltInOrchestrator(self.stores, self.rule_registry)
            self.pauses = AutomationPauses(self.stores.flags, self.rule_registry, changed=self._paused)
            self.observation = Observation(self.metrics, DecisionLog(settings.decisions_kept))
            self.dead_letters = DeadLetters(
                self.bus.client, outcome_ttl_s=int(settings.retain_outcomes.total_seconds())
            )
            self.rule_registry.on_change(self._took)
            self._took(self.rule_registry.now)
        await self._patiently(self.pauses.refresh)
        await self._patiently(self._seed)
        self._reloading = RuleReloading(self.rules_path, self.rule_registry, self.metrics)
        if Role.API in self.roles:
            await self._serve_http()
        if Role.EVALUATOR in self.roles:
            self._evaluate()
        if Role.EXECUTOR in self.roles:
            await self._execute(secrets)
        if Role.SCHEDULER in self.roles:
            self._keep("scheduler", Scheduler(self.stores, self.rule_registry, self.orchestrator).run)
            lost_after = self.settings.worker_lost_after
            watch = ReaperSettings(lost_after=lost_after, interval=min(timedelta(seconds=5), lost_after / 4))
            self._keep("reaper", Reaper(self.stores, settings=watch).run)
            self._keep("announcer", RunEventPublisher(self.bus.js, self.bus.publish).run)
        if Role.WORKER in self.roles:
            self._work(self.rule_registry.now.rules)
        self._keep("rules", lambda: self._reloading.run(self._stop))
        self._keep("pauses", self.pauses.run)
        maintenance = Maintenance(
            self.bus.js,
            self.bus.client,
            metrics=self.metrics,
            settings=self._stream_settings(),
            shards=settings.shards,
            dead_letters=self.dead_letters if Role.EXECUTOR in self.roles else None,
            automations=lambda: self.rule_registry.now.automations,
            disk=self._disk,
        )
        self._keep("maintenance", lambda: maintenance.run(self._stop))
        self._ready = True
        await self.wait_until_ready()

    async def _connect(self) -> None:
        settings = self.settings
        if settings.nats_url is None:
            data_dir = DataDir(settings.data_dir)
            data_dir.acquire()
            self._cleanup.callback(data_dir.release)
            self.embedded = EmbeddedServer(settings.data_dir, EmbeddedSettings(reserve_bytes=settings.disk_reserve))
            self._disk = DiskRoom(settings.data_dir, reserve_bytes=settings.disk_reserve, metrics=self.metrics)
            await self.embedded.start()
            self._cleanup.push_async_callback(self.embedded.stop)
            urls = [self.embedded.url]
        else:
            urls = [url.strip() for url in settings.nats_url.split(",") if url.strip()]
        options: dict[str, Any] = {}
        if settings.nats_credentials is not None:
            options["user_credentials"] = str(settings.nats_credentials)
        self.bus = Bus(urls, publish_timeout_s=settings.publish_timeout.total_seconds(), **options)
        await self.bus.connect()
        self._cleanup.push_async_callback(self.bus.close)
        self.bus.on_connection(lambda connected: self.metrics.bus_connected.set(int(connected)))
        self.metrics.bus_connected.set(1)
        self._start_task("NATS connection", self._connected())
        self.stores = await self._patiently(self._prepare_streams)

    async def _connected(self) -> None:
        """Last as long as the connection is there or is being restored.

        Raises:
            SetupError: it will not come back; the process has to start again.
        """
        await self.bus.closed.wait()
        why = self.bus.nc.last_error
        raise SetupError(f"NATS has ended the connection for good: {why}; see to the cause and start again")

    async def _prepare_streams(self) -> Stores:
        await check_server(self.bus.nc)
        await ensure_streams(self.bus.js, self._stream_settings())
        await ensure_flow_stores(self.bus.js, self._flow_settings())
        return await nats_stores(self.bus.js, self._flow_settings())

    async def _patiently(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do a step of the start that changes nothing when it is done again; NATS may go away and come back meanwhile.

        Raises:
            SetupError: it did not work for half a minute, or never will.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return await step()
            except (BusUnavailable, nats.errors.Error, TimeoutError, OSError) as error:
                if time.monotonic() > deadline:
                    raise SetupError(f"NATS does not answer while starting: {error or type(error).__name__}") from error
                log.info("NATS does not answer while starting, trying again: %r", error)
                await asyncio.sleep(_RETRY_S)

    def _stream_settings(self) -> StreamSettings:
        settings = self.settings
        return StreamSettings(
            replicas=settings.replicas,
            events_max_age=settings.retain_events,
            events_max_bytes=settings.retain_events_bytes,
            duplicate_window=settings.duplicate_window,
            engine_max_bytes=settings.engine_bytes,
            run_states_max_age=settings.retain_runs,
        )

    def _flow_settings(self) -> FlowStoreSettings:
        settings = self.settings
        return FlowStoreSettings(
            replicas=settings.replicas,
            logs_max_age=settings.retain_logs,
            logs_max_bytes=settings.retain_logs_bytes,
            queue_patience=min(timedelta(seconds=30), settings.worker_lost_after / 2),
        )

    async def _drain(self) -> None:
        """Stop in the order in which things depend on each other."""
        self._stop.set()
        grace = self.settings.drain_grace.total_seconds()
        if self._http is not None:
            self._http.should_exit = True
            await self._end("http", grace)
        for name in ("rules", "scheduler", "reaper"):
            await self._end(name, 0)
        for worker in self._workers.values():
            worker.stop()
        if self._executor is not None:
            self._executor.stop()
        if self._holder is not None:
            self._holder.stop()
        for name in [*(f"worker {pool}" for pool in self._workers), "executor", "evaluator"]:
            await self._end(name, grace + 15)
        if "announcer" in self._tasks:
            await self._announced()
        for name in list(self._tasks):
            await self._end(name, 0)
        await self._cleanup.aclose()

    async def _announced(self) -> None:
        """Give the announcer a moment for what the workers changed last; the rest waits for the next start."""
        with contextlib.suppress(WhenthenError, TimeoutError):
            async with asyncio.timeout(2):
                while (await self.bus.js.consumer_info("KV_WT_runs", "announcer")).num_pending:
                    await asyncio.sleep(0.05)

    async def _end(self, name: str, grace_s: float) -> None:
        task = self._tasks.pop(name, None)
        if task is None:
            return
        if grace_s:
            await asyncio.wait([task], timeout=grace_s)
        if not task.done():
            if grace_s:
                log.warning("%s did not stop within %g s and is cut off", name, grace_s)
            await end_task(task)
        if not task.cancelled() and (error := task.exception()) is not None and self._failure is None:
            log.error("%s ended with an error", name, exc_info=error)

    # -- parts

    def _start_task(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._ended(name, done))

    def _ended(self, name: str, done: asyncio.Task[None]) -> None:
        if self._stop.is_set() or done.cancelled():
            return
        error = done.exception()
        self._failure = error or SetupError(f"{name} ended by itself")
        log.critical("%s can not go on, the process stops: %s", name, self._failure)
        self._stop.set()

    def _keep(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run a part that must not end; one that fails is started again."""

        async def forever() -> None:
            while not self._stop.is_set():
                try:
                    await run()
                    return
                except SetupError:
                    raise
                except Exception:
                    log.exception("%s failed and starts again", name)
                    await asyncio.sleep(_RETRY_S)

        self._start_task(name, forever())

    async def _serve_http(self) -> None:
        settings = self.settings
        api = ServerApi(
            bus=self.bus,
            rule_registry=self.rule_registry,
            stores=self.stores,
            orchestrator=self.orchestrator,
            pauses=self.pauses,
            metrics=self.metrics,
            observation=self.observation,
            dead_letters=self.dead_letters,
            reload=self._reloading.reload,
            missing=self.missing,
            describe=self.describe,
            admit=self._disk.admit if self._disk is not None else None,
        )
        app = create_app(
            api,
            metrics=self.metrics,
            token=settings.token(),
            body_limit=settings.body_limit,
            events_per_request=settings.events_per_request,
            version=__version__,
        )
        listening, self.address = listen(settings.host, settings.port)
        self._http = HttpServer(app, drain_s=settings.drain_grace.total_seconds())
        self._start_task("http", self._http.serve(sockets=[listening]))

    def _evaluate(self) -> None:
        settings = self.settings
        self._holder = ShardHolder(
            NatsLeaseStore(self.bus),
            settings.shards,
            self._start_shard,
            # the lock of the data directory makes this process the only one: after a crash it takes its own lease back
            member="embedded" if self.embedded is not None else "",
            settings=LeaseSettings(lease_s=settings.lease.total_seconds()),
        )
        self._start_task("evaluator", self._holder.run())

    def _start_shard(self, shard: int) -> ShardWork:
        settings = self.settings
        evaluator = Evaluator(
            self.rule_registry.now.shards[shard],
            max_depth=settings.max_depth,
            follows_wait=settings.follows_wait,
        )
        evaluator.paused = self.pauses.paused
        loop = nats_shard_loop(
            self.bus,
            shard,
            evaluator,
            settings=EvaluationSettings(
                firing_ttl_s=int(settings.retain_firings.total_seconds()),
                task_ttl_s=max(int(settings.retain_firings.total_seconds()), 30 * 86400),
            ),
            observer=self.observation,
        )
        return _Shard(self._loops, shard, loop)

    async def _execute(self, secrets: Secrets) -> None:
        settings = self.settings
        http_client = await self._cleanup.enter_async_context(
            open_http_client(
                AddressPolicy(refuse_private=settings.refuse_private),
                defaults=ConnectionDefaults(proxy=settings.action_proxy, tls=settings.action_tls),
            )
        )
        ports = Ports(
            orchestrator=self.orchestrator,
            events=_Sink(self.bus),
            automations=self.pauses,
            notifiers=self.rule_registry,
            resolve_secret=secrets.resolve,
            redactor=self.redactor,
            http=http_client,
        )
        acting = ActionRunner(self.bus, ports, self.rule_registry.action)
        self._executor = Executor(
            self.bus,
            acting.perform,
            describe=acting.describe,
            target=acting.target,
            settings=ExecutionSettings(
                concurrency=settings.action_concurrency,
                targets=CircuitBreakerSettings(at_once=settings.target_concurrency),
                ack_wait_s=settings.executor_lost_after.total_seconds(),
                stop_s=settings.drain_grace.total_seconds(),
                outcome_ttl_s=int(settings.retain_outcomes.total_seconds()),
            ),
            observer=ActionMetrics(self.metrics),
        )
        self._start_task("executor", self._executor.run())

    def _work(self, rules: Rules) -> None:
        """One worker for each pool: those that were named, or all that the rules have."""
        pools = self._pools or {deployment.work_pool for deployment in rules.deployments}
        lost_after = self.settings.worker_lost_after
        for pool in pools:
            if pool in self._workers:
                continue
            worker = Worker(
                self.stores,
                self.rule_registry,
                root=rules.base.resolve(),
                pool=pool,
                settings=WorkerSettings(
                    concurrency=self.settings.worker_concurrency,
                    drain_grace=self.settings.drain_grace,
                    lost_after=lost_after,
                    heartbeat=min(timedelta(seconds=5), lost_after / 12),
                    kill_grace=min(timedelta(seconds=10), lost_after / 6),
                ),
                resolve=Secrets(self.redactor).resolve,
            )
            self._workers[pool] = worker
            self._keep(f"worker {pool}", worker.run)

    # -- rules

    def _took(self, compiled: Compiled) -> None:
        """Hand a set in force to whoever keeps a part of it."""
        rules = compiled.rules
        self.metrics.take_rules(
            {automation.name: automation.expected_every for automation in rules.automations},
            rules.counts(),
        )
        self._paused(self.pauses.paused)
        self.observation.decisions.keep_only(list(compiled.automations))
        for shard, loop in self._loops.items():
            loop.replace_rules(compiled.shards[shard])
        if self._ready and Role.WORKER in self.roles:
            self._work(rules)

    def _paused(self, paused: set[str]) -> None:
        for automation in self.rule_registry.now.rules.automations:
            off = automation.name in paused or not automation.enabled
            self.metrics.paused.labels(automation.name).set(int(off))

    # -- looking

    def describe(self) -> dict[str, Any]:
        """What runs here, for `GET /api/status`."""
        rules = self.rule_registry.now.rules
        return {
            "version": __version__,
            "pid": os.getpid(),
            "roles": sorted(self.roles),
            "address": self.address,
            "nats": self.embedded.url if self.embedded else self.settings.nats_url,
            "embedded": self.embedded is not None,
            "up_seconds": round(time.time() - self.started, 1),
            "missing": self.missing(),
            "rules": {
                "path": str(self.rules_path),
                "revision": rules.revision,
                "files": list(rules.files),
                **rules.counts(),
            },
            "problems": self._reloading.problems(),
            "shards": {str(shard): loop.seq for shard, loop in self._loops.items()},
            "pools": sorted(self._workers),
        }

    async def _seed(self) -> None:
        """Learn when automations fired last, before this process began."""

        def pick(kept: StoredMessage) -> tuple[str, str] | None:
            firing = orjson.loads(kept.data) if kept.data else {}
            return (firing["automation"], firing["at"]) if firing.get("state") == "Triggered" else None

        for automation, at in await newest(self.bus.client, ENGINE, "engine.firing.>", limit=2000, pick=pick):
            self.observation.seed(automation, at)


class _Shard:
    """A shard's loop, listed among the loops of the process for as long as it runs."""

    def __init__(self, loops: dict[int, ShardLoop], shard: int, loop: ShardLoop) -> None:
        self._loops = loops
        self._shard = shard
        self._loop = loop
        loops[shard] = loop

    async def run(self) -> None:
        try:
            await self._loop.run()
        finally:
            if self._loops.get(self._shard) is self._loop:
                del self._loops[self._shard]

    def stop(self) -> None:
        self._loop.stop()


class _Sink:
    """Where emitted events go."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def emit(self, event: Event) -> None:
        await self._bus.publish(event)
