"""What probes and Prometheus ask of a process that has no other HTTP server: `/metrics`, `/healthz`, `/readyz`.

Built by `engine.process.wiring.monitoring_server`, at an address of its own. Plain ASGI: nothing here reads a body, a query or a secret. The
answers are those of the same paths of the API (`state_routes`).
"""

from __future__ import annotations

from collections.abc import Callable

from whenthen.engine.http.answers import Answer, HttpError, Receive, Scope, Send, answer_of, send_answer
from whenthen.engine.http.models import answer_models as answers
from whenthen.engine.http.request_origin import RequestOrigin

__all__ = ["METRICS_TYPE", "PROBES", "MonitoringApp", "answer_probe"]

PROBES = ("/healthz", "/readyz")
METRICS_TYPE = "text/plain; version=1.0.0; charset=utf-8"


class MonitoringApp:
    """The ASGI application. `missing` says what keeps the process from its work, `notes` what people should know besides."""

    def __init__(
        self,
        *,
        metrics: Callable[[], bytes],
        missing: Callable[[], list[str]],
        notes: Callable[[], list[str]],
        origin: RequestOrigin,
    ) -> None:
        self._metrics = metrics
        self._missing = missing
        self._notes = notes
        self._origin = origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._answer(scope)
        # the body of a request is not read
        await send_answer(send, answer, close=answer.status >= 400)

    def _answer(self, scope: Scope) -> Answer:
        try:
            self._origin.check(scope)
            path = scope["path"]
            if path not in ("/metrics", *PROBES):
                raise HttpError(404, "not_found", "here are /metrics, /healthz and /readyz, and nothing else")
            if scope["method"] not in ("GET", "HEAD"):
                raise HttpError(405, "method_not_allowed", f"{path} is asked for with GET", (b"allow", b"GET, HEAD"))
        except HttpError as error:
            return answer_of(error)
        if path == "/metrics":
            return Answer(200, self._metrics(), ((b"content-type", METRICS_TYPE.encode()),))
        return answer_probe(path, missing=self._missing, notes=self._notes)


def answer_probe(path: str, *, missing: Callable[[], list[str]], notes: Callable[[], list[str]]) -> Answer:
    """The answer to one of `PROBES`."""
    if path == "/healthz":
        return _json(200, answers.Health(ok=True))
    lacks = missing()
    return _json(503 if lacks else 200, answers.Readiness(ready=not lacks, missing=lacks, notes=notes()))


def _json(status: int, answer: answers.Health | answers.Readiness) -> Answer:
    return Answer(status, answer.model_dump_json().encode())
