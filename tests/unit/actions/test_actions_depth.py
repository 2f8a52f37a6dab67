"""What rules make of events is nested 200 deep at most: an event that can not be written would hold up all behind it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.actions.conftest import EVENT, World
from whenthen.schemas.base import MAX_MADE_DEPTH, is_deeper_than
from whenthen.schemas.errors import ActionError

pytestmark = pytest.mark.anyio


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"x": value}
    return value


@pytest.mark.parametrize("depth", [0, 1, 2, 99, 100, 101, 5_000])
def test_depth_is_counted_in_lists_and_objects(depth: int) -> None:
    assert not is_deeper_than(nested(depth), depth)
    assert depth == 0 or is_deeper_than(nested(depth), depth - 1)


def test_shared_parts_are_looked_at_once_a_level() -> None:
    value: Any = 1
    for _ in range(90):
        value = [value, value, {"x": value}]
    assert is_deeper_than(value, 100)


async def test_an_emitted_payload_may_be_200_deep(world: World) -> None:
    action = {"emit-event": "a", "resource": {"id": "r"}, "payload": {"x": "$.payload.deep"}}
    fits = {**EVENT, "payload": {"deep": nested(MAX_MADE_DEPTH - 1)}}
    await world.perform(action, event=fits)
    with pytest.raises(ActionError, match="payload: nested more than 200 deep") as caught:
        await world.perform(action, event={**EVENT, "payload": {"deep": nested(MAX_MADE_DEPTH)}})
    assert not caught.value.retryable
