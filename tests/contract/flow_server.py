"""The flow stores on a nats-server of the tests' own."""

from __future__ import annotations

from datetime import timedelta

from tests.integration.conftest import NatsServer
from tests.patience import limit
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.streams import StreamSettings, ensure_streams
from whenthen.engine.flow_runs.flow_streams import FlowStoreSettings, ensure_flow_stores
from whenthen.engine.flow_runs.nats_stores import nats_stores
from whenthen.runs.stores import Stores

PATIENCE = timedelta(seconds=limit(1))


async def connect(server: NatsServer) -> Bus:
    bus = Bus(server.url)
    await bus.connect()
    return bus


async def open_stores(bus: Bus) -> Stores:
    await ensure_streams(bus.js, StreamSettings())
    settings = FlowStoreSettings(queue_ack_wait=PATIENCE)
    await ensure_flow_stores(bus.js, settings)
    return nats_stores(bus.client, settings)
