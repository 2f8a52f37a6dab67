"""The connection to NATS: an embedded server started or another one found, its streams and buckets made ready."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

import nats.errors

from whenthen.engine.bus.connection import ENVELOPE_BYTES, Bus
from whenthen.engine.bus.datadir import DataDir, find_login, read_login
from whenthen.engine.bus.disk import DiskRoom, StoreFolder
from whenthen.engine.bus.embedded import EmbeddedServer, EmbeddedSettings
from whenthen.engine.bus.streams import StreamSettings, check_server, ensure_streams
from whenthen.engine.flow_runs import FlowStoreSettings, ensure_flow_stores, nats_stores
from whenthen.engine.metrics import Metrics
from whenthen.engine.process.settings import Settings
from whenthen.engine.process.wiring.format_record import FormatWatch
from whenthen.runs import Stores
from whenthen.schemas.errors import BusUnavailable, SetupError

__all__ = ["NatsStart", "connected_bus", "retried", "start_nats", "stream_settings", "wait_until_closed"]

log = logging.getLogger(__name__)

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
RETRY_S = 1.0
RETRIED_FOR_S = 30.0  #: while a NATS server goes away and comes back as the process starts

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsStart:
    """What the connection gave. `embedded` and `disk` are None with a server of others."""

    bus: Bus
    stores: Stores
    embedded: EmbeddedServer | None
    disk: DiskRoom | None
    format_watch: FormatWatch


async def start_nats(
    settings: Settings, metrics: Metrics, cleanup: contextlib.AsyncExitStack, *, raises_format: bool = True
) -> NatsStart:
    """Connect, and create or update streams and buckets. `cleanup` closes and stops what was opened. `raises_format` is whether
    the process may raise the record of the data's format.

    Raises:
        SetupError: the data directory is in use, the server lacks something or does not answer, the data are of a newer format.
    """
    embedded: EmbeddedServer | None = None
    disk: DiskRoom | None = None
    if settings.nats_url is None:
        data_dir = DataDir(settings.data_dir)
        data_dir.acquire()
        cleanup.callback(data_dir.release)
        embedded = EmbeddedServer(settings.data_dir, EmbeddedSettings(reserve_bytes=settings.disk_reserve))
        await embedded.start()
        cleanup.push_async_callback(embedded.stop)
        store = StoreFolder(settings.data_dir)
        disk = DiskRoom(settings.data_dir, reserve_bytes=settings.disk_reserve, metrics=metrics, gone=store.gone)
    bus = await connected_bus(settings, None if embedded is None else embedded.client_url)
    cleanup.push_async_callback(bus.close)
    bus.on_connection(lambda connected: metrics.bus_connected.set(int(connected)))
    metrics.bus_connected.set(1)

    format_watch = FormatWatch(bus.client, may_write=raises_format)

    async def prepare() -> Stores:
        await check_server(bus.nc)
        await format_watch.check()
        _check_body_limit(settings, bus.nc.max_payload)
        await ensure_streams(bus.js, stream_settings(settings))
        await ensure_flow_stores(bus.js, flow_store_settings(settings))
        await format_watch.claim()
        return nats_stores(bus.client, flow_store_settings(settings))

    stores = await retried(prepare)
    return NatsStart(bus=bus, stores=stores, embedded=embedded, disk=disk, format_watch=format_watch)


async def connected_bus(settings: Settings, embedded_url: str | None) -> Bus:
    """The connection to the embedded server, whose address has the login, or else to those that `nats_url` names.

    Raises:
        SetupError: none of them answers, or the file with the login can not be read.
    """
    if embedded_url is not None:
        urls, options = [embedded_url], {}
    else:
        urls = [url.strip() for url in (settings.nats_url or "").split(",") if url.strip()]
        options = _credentials(settings, urls)
    bus = Bus(urls, publish_timeout_s=settings.publish_timeout.total_seconds(), **options)
    await bus.connect()
    return bus


def _credentials(settings: Settings, urls: list[str]) -> dict[str, Any]:
    """By what a server of others, or the embedded one of another process, admits this one.

    Raises:
        SetupError: the file that is named can not be read.
    """
    file = settings.nats_credentials
    if file is not None:
        try:
            with file.open("rb") as opened:
                ours = opened.read(64).lstrip().startswith(b"{")
        except OSError as error:
            raise SetupError(f"nats_credentials: {file} can not be read: {error.strerror}") from None
        return {"login": read_login(file)} if ours else {"user_credentials": str(file)}
    for url in urls:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        if parts.username is None and parts.hostname in _LOOPBACK:
            login = find_login(settings.data_dir, parts.port)
            if login is not None:
                return {"login": login}
    return {}


def _check_body_limit(settings: Settings, max_payload: int) -> None:
    """Refuse a limit that somebody set and that a body of one event can not reach; the default holds for lists of events."""
    most = max_payload - ENVELOPE_BYTES
    if "body_limit" in settings.model_fields_set and settings.body_limit > most:
        raise SetupError(
            f"body_limit is {settings.body_limit} bytes, and the NATS server takes {most} of an event "
            f"(max_payload {max_payload}); lower body_limit, or raise max_payload of the NATS server"
        )


async def wait_until_closed(bus: Bus) -> None:
    """Last as long as the connection is there or is being restored.

    Raises:
        SetupError: it will not come back; the process has to start again.
    """
    await bus.closed.wait()
    why = bus.nc.last_error
    raise SetupError(f"NATS has ended the connection for good: {why}; mend the cause and start again")


async def retried(step: Callable[[], Awaitable[T]]) -> T:
    """Do a step of the start that changes nothing when it is done again; NATS may go away and come back meanwhile.

    Raises:
        SetupError: it did not work for half a minute, or never will.
    """
    deadline = time.monotonic() + RETRIED_FOR_S
    while True:
        try:
            return await step()
        except (BusUnavailable, nats.errors.Error, TimeoutError, OSError) as error:
            if time.monotonic() > deadline:
                raise SetupError(f"NATS does not answer while starting: {error or type(error).__name__}") from error
            log.info("NATS does not answer while starting, trying again: %r", error)
            await asyncio.sleep(RETRY_S)


def stream_settings(settings: Settings) -> StreamSettings:
    """What `settings` say of the streams of events and of the engine."""
    return StreamSettings(
        replicas=settings.replicas,
        events_max_age=settings.retain_events,
        events_max_bytes=settings.retain_events_bytes,
        duplicate_window=settings.duplicate_window,
        engine_max_bytes=settings.engine_bytes,
        rules_max_bytes=settings.rules_bytes,
        run_states_max_age=settings.retain_runs,
        decisions_max_age=settings.retain_decisions,
        decisions_max_bytes=settings.retain_decisions_bytes,
    )


def flow_store_settings(settings: Settings) -> FlowStoreSettings:
    """What `settings` say of the stores of flow runs."""
    return FlowStoreSettings(
        replicas=settings.replicas,
        logs_max_age=settings.retain_logs,
        logs_max_bytes=settings.retain_logs_bytes,
        task_runs_max_age=settings.retain_runs,
        task_runs_max_bytes=settings.retain_task_runs_bytes,
        artifacts_max_age=settings.retain_runs,
        artifacts_max_bytes=settings.retain_artifacts_bytes,
        queue_ack_wait=min(timedelta(seconds=30), settings.worker_lost_after / 2),
    )
