"""Which stores do flow runs have over NATS? All of them on one connection (`runs.stores.Stores`)."""

from __future__ import annotations

from whenthen.engine.bus.request_client import RequestClient
from whenthen.engine.flow_runs.flag_store import NatsFlagStore
from whenthen.engine.flow_runs.flow_streams import FlowStoreSettings
from whenthen.engine.flow_runs.heartbeat_store import NatsHeartbeats
from whenthen.engine.flow_runs.log_store import NatsLogStore
from whenthen.engine.flow_runs.run_queue import NatsRunQueue
from whenthen.engine.flow_runs.run_store import NatsRunStore
from whenthen.engine.flow_runs.shared.artifact_store import NatsArtifactStore
from whenthen.engine.flow_runs.shared.variable_store import NatsVariableStore
from whenthen.engine.flow_runs.slot_store import NatsSlotStore
from whenthen.engine.flow_runs.task_run_store import NatsTaskRunStore
from whenthen.engine.flow_runs.told_events import NatsToldEvents
from whenthen.engine.flow_runs.worker_store import NatsWorkerStore
from whenthen.runs import Stores

__all__ = ["nats_stores"]


def nats_stores(client: RequestClient, settings: FlowStoreSettings | None = None) -> Stores:
    """The stores on this connection. The streams and buckets exist (`ensure_streams`, `ensure_flow_stores`)."""
    settings = settings or FlowStoreSettings()
    return Stores(
        runs=NatsRunStore(client),
        flags=NatsFlagStore(client),
        logs=NatsLogStore(client),
        task_runs=NatsTaskRunStore(client),
        told_events=NatsToldEvents(client),
        artifacts=NatsArtifactStore(client),
        variables=NatsVariableStore(client),
        queue=NatsRunQueue(client, settings.queue_ack_wait),
        heartbeats=NatsHeartbeats(client),
        slots=NatsSlotStore(client),
        workers=NatsWorkerStore(client),
    )
