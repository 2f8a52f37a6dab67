"""`whenthen watch` against a real server that ends and comes back."""

from __future__ import annotations

import signal
from pathlib import Path

import orjson
import pytest

from tests import forks
from tests.integration.served import TOKEN, Served, environment
from tests.patience import eventually, limit

pytestmark = [pytest.mark.requires("nats-server"), pytest.mark.takes(20)]

RULES = "automations:\n  - {name: ship, trigger: {expect: order.paid}, actions: [do-nothing]}\n"


def test_it_goes_on_by_itself_when_the_server_was_started_again(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "rules.yaml").write_text(RULES)
    served = Served(tmp_path)
    served.wait_until_ready()
    port = served.url.rpartition(":")[2]
    out = tmp_path / "watched"
    with out.open("wb") as written, (tmp_path / "errors").open("wb") as errors:
        watching = forks.start(
            ["watch", "--json", "--kind", "events", "--event", "order.*", "--url", served.url],
            env=environment(WHENTHEN_API_TOKEN=TOKEN, XDG_STATE_HOME=str(tmp_path / "state")),
            cwd=tmp_path,
            stdout=written,
            stderr=errors,
        )
    try:
        eventually(lambda: "whenthen_stream_clients 1.0" in served.http.get("/metrics").text)
        served.emit("order.paid", id="first")
        served.emit("other", id="other")
        eventually(lambda: out.read_bytes().count(b"\n") == 1)
        served.stop()
        served = Served(tmp_path, port=int(port))
        served.wait_until_ready()
        served.emit("order.paid", id="second")
        eventually(lambda: out.read_bytes().count(b"\n") == 2)
        items = [orjson.loads(line) for line in out.read_bytes().splitlines()]
        assert [(item["of"], item["id"]) for item in items] == [("events", "first"), ("events", "second")]
        assert items[1]["last_id"].startswith("t")
        watching.send_signal(signal.SIGINT)
        assert watching.wait(limit(10)) == 0
    finally:
        if watching.poll() is None:
            watching.kill()
        served.stop()


def test_what_no_server_can_be_asked_is_refused_at_once(tmp_path: Path) -> None:
    for word, text in (("autmation=x", "did you mean 'automation'"), ("x", "not of the form name=value")):
        with (tmp_path / "errors").open("wb") as errors:
            process = forks.start(["watch", word], env=environment(), cwd=tmp_path, stdout=errors, stderr=errors)
        assert process.wait(limit(20)) == 2
        assert text in (tmp_path / "errors").read_text()
