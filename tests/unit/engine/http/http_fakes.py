"""An `Api` that keeps everything in memory, and a client over it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson

from whenthen.engine.bus import Ack
from whenthen.engine.http import HttpApp, Page, create_app
from whenthen.engine.metrics import Metrics
from whenthen.schemas.errors import InvalidEvent, InvalidInput, NotFound, Refused
from whenthen.schemas.events import Event, new_event
from whenthen.sources import Request, Translation

NOW = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)


@dataclass
class FakeApi:
    """A webhook named `orders` (a token in a header); deployment `loader`."""

    stored: dict[str, Event] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    fail: dict[str, Exception] = field(default_factory=dict)  #: by event id, or "*"
    missing: list[str] = field(default_factory=list)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    registry: Metrics = field(default_factory=lambda: Metrics(version="1"))

    async def publish(self, event: Event) -> Ack:
        if error := self.fail.get(event.id) or self.fail.get("*"):
            raise error
        self.order.append(event.id)
        duplicate = event.id in self.stored
        self.stored.setdefault(event.id, event)
        return Ack(len(self.order), duplicate)

    def translate(self, webhook: str, request: Request) -> Translation:
        if request.headers.get("x-token") != "right":
            raise Refused("x-token does not hold the token", status=401)
        if request.query.get("crash"):
            raise RuntimeError("secret detail")
        if request.query.get("drop"):
            return Translation(dropped=["when: false"])
        try:
            data = orjson.loads(request.body)
        except orjson.JSONDecodeError as error:
            raise InvalidInput(f"the body is not JSON: {error}") from None
        if not isinstance(data, dict) or "number" not in data:
            raise InvalidEvent("body.number is missing", path=("resource", "id"))
        event = new_event(
            "order.created",
            resource={"id": f"order.{data['number']}"},
            now=NOW,
            source="webhook:orders",
            id=data.get("id"),
        )
        return Translation(events=[event])

    def hook_names(self) -> Collection[str]:
        return {"orders"}

    def cloudevents(self, data: Any) -> list[dict[str, Any]]:
        items = data if isinstance(data, list) else [data]
        return [{"event": item["type"], "id": item["id"], "resource": {"id": item["source"]}} for item in items]

    def ready(self) -> list[str]:
        return self.missing

    def metrics(self) -> bytes:
        return self.registry.text()

    async def status(self) -> dict[str, Any]:
        return {"revision": "r1"}

    async def reload_rules(self) -> dict[str, Any]:
        return {"taken": False, "revision": "r1", "problems": [{"file": "a.yaml"}] if self.missing else []}

    async def list_events(self, page: Page) -> list[dict[str, Any]]:
        self.calls.append(("list_events", page))
        return [event.data for event in self.stored.values()]

    async def get_event(self, event_id: str) -> dict[str, Any]:
        if event_id not in self.stored:
            raise NotFound(f"no event {event_id}")
        return self.stored[event_id].data

    async def run_deployment(
        self, name: str, parameters: dict[str, Any], *, key: str | None, delay_s: float
    ) -> dict[str, Any]:
        if name != "loader":
            raise NotFound(f'no deployment is named "{name}"; did you mean "loader"?')
        self.calls.append(("run", name, parameters, key, delay_s))
        return {"id": "run-1"}

    def __getattr__(self, name: str) -> Any:
        async def answer(*args: Any, **kwargs: Any) -> dict[str, Any]:
            self.calls.append((name, *args, kwargs))
            if args and args[0] == "broken":
                raise RuntimeError("secret detail")
            return {"called": name}

        if name.startswith("_"):
            raise AttributeError(name)
        return answer


def app_over(api: FakeApi, **options: Any) -> HttpApp:
    return create_app(api, metrics=api.registry, clock=lambda: NOW, **options)


def client_of(app: HttpApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")
