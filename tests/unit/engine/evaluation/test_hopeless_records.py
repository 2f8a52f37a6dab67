"""What can never be published or read does not hold up a shard."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from whenthen.engine.evaluation.commits.batch_storing import BatchStoring
from whenthen.engine.evaluation.leases import _holder
from whenthen.schemas.errors import InvalidInput
from whenthen.schemas.events import Event, new_event

pytestmark = pytest.mark.anyio
NOTICE = new_event("automation.loop-stopped", resource={"id": "r"}, now=datetime(2026, 1, 31, tzinfo=UTC), source="t")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize(
    "error", [InvalidInput("larger than the server accepts"), TypeError("Recursion limit reached")]
)
async def test_a_notice_that_can_not_be_published_is_left_out(error: Exception) -> None:
    tries: list[Event] = []

    async def publish(event: Event) -> None:
        tries.append(event)
        raise error

    storing = SimpleNamespace(_shard=0, _events=SimpleNamespace(publish=publish))
    await BatchStoring.publish_notice(storing, NOTICE)  # type: ignore[arg-type]
    assert tries == [NOTICE]


@pytest.mark.parametrize(
    ("value", "holder"),
    [(b'{"holder": "m"}', "m"), (b"", ""), (b"\xff", ""), (b"{}", ""), (b"[1]", ""), (b'{"holder": null}', "")],
)
def test_a_lease_that_can_not_be_read_is_held_by_nobody(value: bytes, holder: str) -> None:
    assert _holder(value) == holder
