"""Which streams and buckets do flow runs need besides those of `engine.bus`, and how much do they keep?

Called when a process starts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

import nats.js.errors
from nats.js import JetStreamContext, api

from whenthen.engine.bus.streams import DUPLICATE_WINDOW_S, ensure_stream, update_stream
from whenthen.schemas.errors import SetupError

__all__ = [
    "ARTIFACTS",
    "HEARTBEATS",
    "LOGS",
    "SLOTS",
    "TASK_RUNS",
    "TOLD_EVENTS",
    "VARIABLES",
    "FlowStoreSettings",
    "ensure_flow_stores",
]

HEARTBEATS = "WT_heartbeats"
SLOTS = "WT_slots"
VARIABLES = "WT_variables"
LOGS = "LOGS"
TASK_RUNS = "TASK_RUNS"
TOLD_EVENTS = "TOLD_EVENTS"
ARTIFACTS = "ARTIFACTS"

_VARIABLES_BYTES = 128 << 20  #: far above what the most variables have, whatever their values and tags
_STREAM_NOT_FOUND = 10059  #: JetStream's error code


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowStoreSettings:
    """How much is kept. -1 bytes means no limit but the disk's."""

    replicas: int = 1
    logs_max_age: timedelta = timedelta(days=14)
    logs_max_bytes: int = 2 << 30  #: the oldest lines make room
    task_runs_max_age: timedelta = timedelta(days=30)
    task_runs_max_bytes: int = 500_000_000  #: the oldest moves make room
    artifacts_max_age: timedelta = timedelta(days=30)
    artifacts_max_bytes: int = 500_000_000  #: the oldest make room
    told_events_max_bytes: int = (
        256 << 20
    )  #: that wait for being published; at it workers wait, and what runs tell them waits in files
    heartbeat_max_age: timedelta = timedelta(minutes=15)  #: far above the time after which a worker counts as gone
    queue_ack_wait: timedelta = timedelta(seconds=30)


async def ensure_flow_stores(js: JetStreamContext, settings: FlowStoreSettings | None = None) -> None:
    """Create what `streams.ensure_streams` does not: heartbeats, slots, variables, logs, task runs, artifacts and the queue of told
    events. Called again it changes nothing.

    Raises:
        SetupError: the server refuses one of them.
    """
    settings = settings or FlowStoreSettings()
    heartbeat_s = settings.heartbeat_max_age.total_seconds()
    try:
        for bucket in (
            api.KeyValueConfig(bucket=HEARTBEATS, ttl=heartbeat_s, replicas=settings.replicas),
            api.KeyValueConfig(bucket=SLOTS, replicas=settings.replicas),
        ):
            if not await _exists(js, f"KV_{bucket.bucket}"):
                await js.create_key_value(bucket)
        slots = (await js.stream_info(f"KV_{SLOTS}")).config
        if not slots.allow_msg_ttl:  # which leases need
            await update_stream(js, replace(slots, allow_msg_ttl=True))
        # a bucket, but for that records may be removed whole: a marker of each deletion would stay for ever
        variables = api.StreamConfig(
            name=f"KV_{VARIABLES}",
            subjects=[f"$KV.{VARIABLES}.>"],
            discard=api.DiscardPolicy.NEW,
            max_msgs_per_subject=1,
            max_bytes=_VARIABLES_BYTES,
            num_replicas=settings.replicas,
            storage=api.StorageType.FILE,
            allow_direct=True,
        )
        await ensure_stream(js, variables)
        logs = api.StreamConfig(
            name=LOGS,
            subjects=["logs.*"],
            discard=api.DiscardPolicy.OLD,
            max_age=settings.logs_max_age.total_seconds(),
            max_bytes=settings.logs_max_bytes,
            num_replicas=settings.replicas,
            storage=api.StorageType.FILE,
            allow_direct=True,
        )
        await ensure_stream(js, logs)
        task_runs = api.StreamConfig(
            name=TASK_RUNS,
            subjects=["task-runs.*"],
            discard=api.DiscardPolicy.OLD,
            max_age=settings.task_runs_max_age.total_seconds(),
            max_bytes=settings.task_runs_max_bytes,
            num_replicas=settings.replicas,
            storage=api.StorageType.FILE,
        )
        await ensure_stream(js, task_runs)
        artifacts = api.StreamConfig(
            name=ARTIFACTS,
            subjects=["artifacts.*.*.*"],
            discard=api.DiscardPolicy.OLD,
            max_msgs_per_subject=1,
            max_age=settings.artifacts_max_age.total_seconds(),
            max_bytes=settings.artifacts_max_bytes,
            num_replicas=settings.replicas,
            storage=api.StorageType.FILE,
            allow_direct=True,
        )
        await ensure_stream(js, artifacts)
        told_events = api.StreamConfig(
            name=TOLD_EVENTS,
            subjects=["told-events.*"],
            retention=api.RetentionPolicy.WORK_QUEUE,
            discard=api.DiscardPolicy.NEW,
            max_bytes=settings.told_events_max_bytes,
            duplicate_window=DUPLICATE_WINDOW_S,
            num_replicas=settings.replicas,
            storage=api.StorageType.FILE,
        )
        await ensure_stream(js, told_events)
    except nats.js.errors.APIError as error:
        raise SetupError(f"the NATS server refuses the stores of flow runs: {error.description}") from error


async def _exists(js: JetStreamContext, stream: str) -> bool:
    try:
        await js.stream_info(stream)
    except nats.js.errors.APIError as error:
        if error.err_code != _STREAM_NOT_FOUND:
            raise
        return False
    return True
