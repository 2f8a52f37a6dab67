"""The worker of a run as a server: what `get_client` asks in a run. The paths are those of the HTTP API; the worker answers some of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from whenthen.flows.services.sync_or_awaited import asked

__all__ = ["WorkerServer"]


class WorkerServer:
    """Asks as `ServerAddress` does, over the run's socket: the code of a run needs no address and no token."""

    url = "worker:"

    def get(self, path: str, **query: Any) -> Any:
        return self._ask("GET", path, query, None)["value"]

    def listed(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        following: dict[str, Any] | None = query
        while following is not None:
            answer = self._ask("GET", path, following, None)
            yield from answer["value"]
            following = None if answer.get("following") is None else {**query, **answer["following"]}

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return self._ask("POST", path, {}, body)["value"]

    def _ask(self, method: str, path: str, query: dict[str, Any], body: dict[str, Any] | None) -> Any:
        given = {name: value for name, value in query.items() if value is not None}
        return asked("api", {"method": method, "path": path, "query": given, "body": body})
