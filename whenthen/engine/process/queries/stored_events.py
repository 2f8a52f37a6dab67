"""Messages of `EVENTS` as events of the API. Other programs may publish there, too; messages that are not events are left out."""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import ValidationError

from whenthen.engine.bus.stream_pages import StoredMessage
from whenthen.engine.http import answer_models as answers

__all__ = ["event_fields", "stored_event"]


def event_fields(message: StoredMessage) -> dict[str, Any]:
    """What a message of `EVENTS` holds; nothing when it is no JSON object, as other programs may publish there, too."""
    try:
        event = orjson.loads(message.data)
    except orjson.JSONDecodeError:
        return {}
    return event if isinstance(event, dict) else {}


def stored_event(event: dict[str, Any], seq: int) -> answers.StoredEvent | None:
    """The event of these fields; None when they are none of an event."""
    try:
        return answers.StoredEvent.model_validate({**event, "seq": seq})
    except ValidationError:
        return None
