"""What probes and Prometheus get from a process without the API."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import httpx
import pytest

from whenthen.engine.http import MonitoringApp, RequestOrigin


@dataclass
class Process:
    missing: list[str] = field(default_factory=list)

    def ask(self, method: str, path: str, **headers: str) -> httpx.Response:
        app = MonitoringApp(
            metrics=lambda: b"whenthen_bus_connected 1.0\n",
            missing=lambda: self.missing,
            notes=lambda: ["a note"],
            origin=RequestOrigin(host="127.0.0.1", port=4281, public_urls=("http://worker:4281",)),
        )

        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:4281") as client:
                return await client.request(method, path, headers=headers)

        return asyncio.run(asked())


def test_metrics_are_served_as_prometheus_text() -> None:
    answer = Process().ask("GET", "/metrics", host="worker:4281")
    assert (answer.status_code, answer.text) == (200, "whenthen_bus_connected 1.0\n")
    assert answer.headers["content-type"].startswith("text/plain; version=1.0.0")


def test_a_process_that_runs_is_healthy_and_ready_when_nothing_is_missing() -> None:
    process = Process(["the connection to NATS"])
    assert process.ask("GET", "/healthz").json() == {"ok": True}
    answer = process.ask("GET", "/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "missing": ["the connection to NATS"], "notes": ["a note"]}
    process.missing = []
    assert process.ask("GET", "/readyz").status_code == 200
    assert process.ask("HEAD", "/readyz").status_code == 200


@pytest.mark.parametrize("path", ["/", "/api/status", "/hooks/orders", "/openapi.json", "/metrics/", "/healthz/x"])
def test_nothing_else_is_there(path: str) -> None:
    answer = Process().ask("GET", path)
    assert (answer.status_code, answer.json()["error"]["reason"]) == (404, "not_found")


def test_nothing_can_be_sent() -> None:
    answer = Process().ask("POST", "/metrics")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


def test_pages_of_other_sites_and_names_that_point_here_are_refused() -> None:
    assert Process().ask("GET", "/metrics", host="evil.example:4281").status_code == 403
    assert Process().ask("GET", "/metrics", origin="http://evil.example").status_code == 403
