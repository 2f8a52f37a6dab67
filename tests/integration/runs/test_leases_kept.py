"""What stays of leases of slots in a real server: nothing of those that were given back, and those of the dead for a time."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest
from nats.js.api import KeyValueConfig

from tests.contract.flow_server import connect
from tests.deployment_set import DeploymentSet
from tests.integration.conftest import NatsServer
from tests.patience import until
from whenthen.engine.bus.streams import StreamSettings, ensure_streams
from whenthen.engine.flow_runs.flow_streams import SLOTS, FlowStoreSettings, ensure_flow_stores
from whenthen.engine.flow_runs.nats_stores import nats_stores
from whenthen.runs.shared.named_limits import Lease, NamedLimits, Rate, Wanted
from whenthen.schemas.work_pools import NamedLimit

pytestmark = pytest.mark.anyio

STREAM = f"KV_{SLOTS}"


async def test_questions_for_slots_leave_nothing_behind(nats_server: NatsServer) -> None:
    bus = await connect(nats_server)
    try:
        # as a version has it whose leases stayed
        await bus.js.create_key_value(KeyValueConfig(bucket=SLOTS))
        await ensure_streams(bus.js, StreamSettings())
        settings = FlowStoreSettings()
        await ensure_flow_stores(bus.js, settings)
        deployments = DeploymentSet()
        deployments.limits = [NamedLimit(name="db", slots=1)]
        limits = NamedLimits(nats_stores(bus.client, settings), deployments, clock=lambda: datetime.now(UTC))
        wanted = Wanted(names=("db",), occupy=1, mode="concurrency")
        held = await limits.lease(wanted, 60)
        assert isinstance(held, Lease)
        for _ in range(5):  # as a program does that waits
            assert isinstance(await limits.lease(wanted, 60), float)

        async def subjects() -> set[str]:
            info = await bus.js.stream_info(STREAM, subjects_filter=">")
            return set(info.state.subjects or {})

        lease = f"$KV.{SLOTS}.lease.{held.id}"

        async def only_it_is_left() -> bool:
            return {each for each in await subjects() if ".lease." in each} == {lease}

        await until(only_it_is_left, what="the record of the lease alone")
        kept = await bus.js.get_last_msg(STREAM, lease)
        assert (kept.headers or {})["Nats-TTL"] == "3660s"  # of one that nobody gives back
        # as a later version writes it, which says more of it
        await bus.js.publish(lease, orjson.dumps({**orjson.loads(kept.data or b""), "of_a_later_version": 1}))
        assert isinstance(await limits.renew(held.id), Lease)
        await limits.release(held.id)
        rate = f"$KV.{SLOTS}.rate.later"
        await bus.js.publish(rate, orjson.dumps({"taken": 2.0, "at_s": 1.0, "of_a_later_version": 1}))
        found = await nats_stores(bus.client, settings).slots.rate("later")
        assert found is not None
        assert found[0] == Rate(taken=2.0, at_s=1.0)

        async def nothing_is_left() -> bool:
            return len(await subjects() - {rate}) == 1  # who holds slots of the limit: nobody

        await until(nothing_is_left, what="no record of any lease")
    finally:
        await bus.close()
