"""Spans over OTLP to a real receiver, which decodes the protobuf: one trace from the sender to the last run, and nothing lost without it."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests import forks
from tests.integration.served import TOKEN, Served, environment
from tests.patience import eventually

pytestmark = pytest.mark.takes(20)

TRACE_ID, SENDER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
RULES = """
automations:
  - name: order
    trigger: {expect: order.created, when: event.payload.total > 1}
    actions: [{run-deployment: load}, {call-webhook: "http://127.0.0.1:9/", retry: {attempts: 2, delay: 10ms}}]
  - name: other
    trigger: {expect: order.*, for_each: id, threshold: 3, within: 1h}
    actions: do-nothing
deployments:
  - {name: load, command: "true"}
"""


class Receiver:
    """Takes what an exporter sends to `/v1/traces`."""

    def __init__(self) -> None:
        self.spans: dict[str, Any] = {}  #: by id
        self.resources: set[tuple[str, str]] = set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                request = ExportTraceServiceRequest()
                request.ParseFromString(self.rfile.read(int(self.headers["content-length"])))
                receiver.take(request)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            self.resources |= {(each.key, each.value.string_value) for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans |= {span.span_id.hex(): span for span in scope.spans}

    def named(self, name: str) -> Any:
        return next((span for span in self.spans.values() if span.name == name), None)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def served(folder: Path, **settings: str) -> Iterator[Served]:
    (folder / "rules").mkdir()
    (folder / "rules" / "rules.yaml").write_text(RULES)
    server = Served(folder, {"OTEL_BSP_SCHEDULE_DELAY": "100", "WHENTHEN_LOG_FORMAT": "json", **settings})
    try:
        server.wait_until_ready()
        yield server
    finally:
        if server._process.poll() is None:
            server.kill()


def order(server: Served, number: str, headers: dict[str, str] | None = None) -> None:
    event = {"id": number, "event": "order.created", "resource": {"id": "o"}, "payload": {"total": 5}}
    server.http.post("/api/events", json=event, headers=headers or {}).raise_for_status()


def way_up(receiver: Receiver, span: Any) -> list[str]:
    """Names of the spans from one up to the first."""
    names = [span.name]
    while (above := receiver.spans.get(span.parent_span_id.hex())) is not None:
        names.append(above.name)
        span = above
    return names


def ended(server: Served) -> bool:
    states = {each["state"] for each in server.get("/api/actions?limit=100")}
    runs = server.get("/api/runs")
    return "dead" in states and bool(runs) and runs[0]["state"] == "Completed"


def test_one_trace_leads_from_the_sender_to_the_last_run(tmp_path: Path) -> None:
    receiver = Receiver()
    with served(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url) as server:
        order(server, "one", {"traceparent": f"00-{TRACE_ID}-{SENDER}-01"})
        eventually(
            lambda: receiver.named("run load") is not None and receiver.named("action call-webhook"), within_s=60
        )
        run, call = receiver.named("run load"), receiver.named("action call-webhook")
        eventually(lambda: len(way_up(receiver, run)) == 6)
        way = ["fire order", "evaluate order.created", "publish order.created", "POST /api/events"]
        assert way_up(receiver, run) == ["run load", "action run-deployment", *way]
        assert way_up(receiver, call) == ["action call-webhook", *way]
        assert receiver.named("POST /api/events").parent_span_id.hex() == SENDER
        assert {receiver.named(name).trace_id.hex() for name in (*way, "run load")} == {TRACE_ID}
        assert ("service.name", "whenthen") in receiver.resources

        attempts = [span for span in receiver.spans.values() if span.name == "attempt call-webhook"]
        assert len(attempts) == 2
        assert all(span.status.code == 2 and span.parent_span_id == call.span_id for span in attempts)
        evaluation = receiver.named("evaluate order.created")
        reasons = {
            (note.name, value.value.string_value)
            for span in receiver.spans.values()
            if span.name == evaluation.name
            for note in span.events
            for value in note.attributes
            if value.key == "whenthen.automation"
        }
        assert reasons == {("fired", "order"), ("below_threshold", "other")}

        # the same id finds everything at the server, and marks its log lines
        words = ["trace", TRACE_ID, "--url", server.url, "--json"]
        told = forks.run(words, env=environment(WHENTHEN_API_TOKEN=TOKEN), within_s=60)
        kinds = {item["kind"] for item in orjson.loads(told.stdout)["items"]}
        assert kinds == {"event", "decision", "firing", "action", "run"}
        assert orjson.loads(told.stdout)["id"] == f"trace:{TRACE_ID}"
        lines = [orjson.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
        assert {line["logger"] for line in lines if line.get("trace") == TRACE_ID} >= {
            "whenthen.engine.process.observation",
            "whenthen.engine.execution.action_runner",
        }
        assert server.stop() == 0
    receiver.close()


def test_a_request_without_a_trace_begins_one(tmp_path: Path) -> None:
    receiver = Receiver()
    with served(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url) as server:
        order(server, "one")
        eventually(lambda: receiver.named("run load") is not None, within_s=60)
        eventually(lambda: len(way_up(receiver, receiver.named("run load"))) == 6)
        assert receiver.named("POST /api/events").parent_span_id == b""
        (event,) = server.get("/api/events?event=order.created")
        assert event["trace"]["id"] == receiver.named("run load").trace_id.hex()
        order(server, "unsampled", {"traceparent": f"00-{TRACE_ID}-{SENDER}-00"})
        eventually(lambda: server.fired()["order"] == 2)
        # whoever began the trace wants none of it recorded; what is sent at the end is everything
        assert server.stop() == 0
        assert TRACE_ID not in {span.trace_id.hex() for span in receiver.spans.values()}
    receiver.close()


def test_a_receiver_that_is_away_costs_nothing_of_ours(tmp_path: Path) -> None:
    with socket.socket() as silent:  # takes connections and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with served(
            tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_BSP_MAX_QUEUE_SIZE="4", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="2"
        ) as server:
            for number in range(20):
                order(server, f"order-{number}")
            eventually(lambda: server.fired()["order"] == 20, within_s=60)
            eventually(
                lambda: len([run for run in server.get("/api/runs") if run["state"] == "Completed"]) == 20, within_s=60
            )
            assert server.stop() == 0
            lines = [line for line in server.log.read_text().splitlines() if '"logger":"opentelemetry' in line]
            assert len(lines) < 10


def test_without_opentelemetrys_variables_nothing_of_it_is_imported(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "import whenthen.engine.process.server\n"
        "from whenthen.engine.spans import open_spans\n"
        "assert not open_spans({}).on\n"
        "assert not open_spans({'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://x', 'OTEL_SDK_DISABLED': 'true'}).on\n"
        "assert not open_spans({'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://x', 'OTEL_EXPORTER_OTLP_PROTOCOL': 'grpc'}).on\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry.sdk') or name.startswith('opentelemetry.exporter')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    assert done.stdout == "[]\n"
    assert "speaks http/protobuf alone" in done.stderr
