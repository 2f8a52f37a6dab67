"""Variables, secrets and JSON values; artifacts and events: with a server and without."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.unit.flows.asking import connected
from whenthen import flow, task
from whenthen.artifacts import (
    Artifact,
    ImageArtifact,
    LinkArtifact,
    MarkdownArtifact,
    ProgressArtifact,
    TableArtifact,
    acreate_markdown_artifact,
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from whenthen.blocks.system import JSON, Secret
from whenthen.concurrency.sync import concurrency
from whenthen.events import Event, Resource, emit_event
from whenthen.exceptions import BlockNotFound, ConfigurationError, InvalidNameError, NeedsServer
from whenthen.runtime import deployment, flow_run
from whenthen.variables import Variable

# Variables


def test_without_a_server_a_variable_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHENTHEN_VARIABLE_REGION", "eu")
    monkeypatch.setenv("WHENTHEN_VARIABLE_MAX_ROWS", '{"orders": 3}')
    assert (Variable.get("region"), Variable.get("max-rows"), Variable.get("max_rows")["orders"]) == (
        "eu",
        {"orders": 3},
        3,
    )
    assert Variable.get("none", default=7) == 7
    assert Variable.get("none", default=None) is None
    with pytest.raises(NeedsServer, match="set WHENTHEN_VARIABLE_NONE for 'none'"):
        Variable.get("none")
    with pytest.raises(NeedsServer, match=r"Variable.set needs a server.*set WHENTHEN_VARIABLE_REGION"):
        Variable.set("region", "us")
    with pytest.raises(NeedsServer):
        Variable.unset("region")


def test_a_server_keeps_variables() -> None:
    kept: dict[str, Any] = {}

    def put(body: dict[str, Any]) -> None:
        kept[body["name"]] = body

    with connected(variable_get=lambda body: kept.get(body["name"]), variable_set=put, variable_unset=True) as server:
        assert Variable.get("region", default="eu") == "eu"
        assert Variable.get("region") is None
        assert Variable.set("region", ["us"], tags=["t"], overwrite=True) == Variable(
            name="region", value=["us"], tags=["t"]
        )
        assert Variable.get("region") == ["us"]
        assert Variable.unset("region") is True
    assert server.requests[2] == (
        "variable.set",
        {"name": "region", "value": ["us"], "tags": ["t"], "overwrite": True},
    )


@pytest.mark.parametrize("name", ["", "Region", "a b", "ä", "x" * 256, None, 3])
def test_a_name_that_can_be_no_variables_is_refused(name: Any) -> None:
    with pytest.raises(InvalidNameError, match="lowercase letters, numbers"):
        Variable.get(name)


@pytest.mark.parametrize(("value", "said"), [(object(), "is no JSON"), ("x" * 5000, "5,002 characters")])
def test_a_value_that_can_be_no_variables_is_refused(value: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Variable.set("region", value)


def test_in_async_runs_all_of_it_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHENTHEN_VARIABLE_REGION", "eu")
    monkeypatch.setenv("WHENTHEN_SECRET_KEY", "k")
    monkeypatch.setenv("WHENTHEN_JSON_CONFIG", "[1]")

    @flow
    async def main() -> list[Any]:
        made = await MarkdownArtifact(markdown="x").create()
        return [
            await Variable.get("region"),
            await Variable.aget("region"),
            (await Secret.load("key")).get(),
            (await Secret.aload("key")).get(),
            (await JSON.load("config")).value,
            isinstance(await create_markdown_artifact("x"), UUID),
            isinstance(await acreate_markdown_artifact("x"), UUID),
            made.data,
        ]

    assert asyncio.run(main()) == ["eu", "eu", "k", "k", [1], True, True, "x"]


# Secrets and JSON


def test_a_secret_comes_from_the_environment_itself_or_by_reference(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("of a file\n")
    monkeypatch.setenv("WHENTHEN_SECRET_API_KEY", f"file:{tmp_path / 'key'}")
    assert Secret.load("api-key").get() == "of a file"
    monkeypatch.setenv("WHENTHEN_SECRET_API_KEY", "env:MY_KEY")
    monkeypatch.setenv("MY_KEY", "of another")
    assert Secret.load("api-key").get() == "of another"
    monkeypatch.setenv("WHENTHEN_SECRET_API_KEY", '{"user": "a"}')
    assert Secret.load("api-key").get() == {"user": "a"}
    monkeypatch.setenv("WHENTHEN_JSON_CONFIG", '{"rows": 3}')
    assert JSON.load("config").value == {"rows": 3}


def test_with_a_server_it_is_asked_for_what_the_environment_has_not() -> None:
    with connected(secret_get="s3cret", json_get={"rows": 3}) as server:
        assert Secret.load("key").get() == "s3cret"
        assert JSON.load("config").value == {"rows": 3}
    assert server.requests == [("secret.get", {"name": "key"}), ("json.get", {"name": "config"})]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("file:/nowhere/key", r"file:/nowhere/key can not be read: No such file or directory"),
        ("env:NOWHERE", "env:NOWHERE is empty or not set"),
        ("", "WHENTHEN_SECRET_KEY is empty; give secret 'key' a value"),
    ],
)
def test_a_secret_that_is_not_there_says_where_it_was_looked_for(
    written: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BlockNotFound, match="set WHENTHEN_SECRET_KEY for 'key'"):
        Secret.load("key")
    with pytest.raises(ValueError):
        Secret.load("key")
    monkeypatch.setenv("WHENTHEN_SECRET_KEY", written)
    with pytest.raises(ConfigurationError, match=said):
        Secret.load("key")
    monkeypatch.setenv("WHENTHEN_JSON_CONFIG", "{")
    with pytest.raises(ConfigurationError, match="WHENTHEN_JSON_CONFIG is no JSON"):
        JSON.load("config")
    for save in (Secret(value="x").save, JSON(value=1).save):
        with pytest.raises(NeedsServer, match=r"WHENTHEN_(SECRET|JSON)_KEY"):
            save("key")


def test_a_file_of_a_secret_has_a_bound_and_is_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WHENTHEN_SECRET_KEY", f"file:{tmp_path / 'key'}")
    for content, said in ((b"s" * 65537, "larger than 65536 bytes"), (b"\xff", "no UTF-8 text")):
        (tmp_path / "key").write_bytes(content)
        with pytest.raises(ConfigurationError, match=said):
            Secret.load("key")


def test_a_secret_shows_itself_to_nobody_who_does_not_ask() -> None:
    secret = Secret(value="hunter2")
    shown = [repr(secret), str(secret), f"{secret} {secret.value}", repr([secret]), repr(vars(secret))]
    try:
        raise ValueError(secret)
    except ValueError:
        shown.append(traceback.format_exc().replace('Secret(value="hunter2")', ""))
    assert not [text for text in shown if "hunter2" in text]
    assert repr(secret) == "Secret(value=Secret('**********'))"
    assert secret.value.get_secret_value() == "hunter2"
    assert Secret(value=secret.value) == secret == pickle.loads(pickle.dumps(secret)) == copy.copy(secret)
    assert Secret(value={"a": 1}).get() == {"a": 1}


# Artifacts


def test_without_a_server_an_artifact_is_a_line_of_its_run(caplog: pytest.LogCaptureFixture) -> None:
    @task
    def show() -> UUID:
        made: UUID = create_table_artifact(key="rows", table=[{"a": float("nan")}], description="d")
        return made

    @flow
    def report() -> UUID:
        create_markdown_artifact("# Head\n" + "x" * 500, key="text")
        return show()

    assert isinstance(report(), UUID)
    by_text = {record.getMessage()[:10]: record for record in caplog.records}
    assert by_text["artifact r"].getMessage() == 'artifact rows (table): [{"a": null}]'
    assert by_text["artifact r"].name == "whenthen.task_runs"
    assert by_text["artifact t"].getMessage().endswith("xxx... (507 characters)")
    assert by_text["artifact t"].name == "whenthen.flow_runs"


def test_a_server_hears_of_artifacts_with_their_runs() -> None:
    @task
    def show() -> str:
        create_link_artifact("http://x", "t", key="a-link")
        create_image_artifact("http://i")
        half = create_progress_artifact(50.0, key="p")
        update_progress_artifact(half, 75.0)
        return str(half)

    @flow
    def report() -> tuple[str, str]:
        return show(), str(flow_run.id)

    with connected() as server:
        half, run = report()
    assert [(one.type, one.data) for one in server.artifacts] == [
        ("markdown", "[t](http://x)"),
        ("image", "http://i"),
        ("progress", 50.0),
        ("progress", 75.0),
    ]
    assert {str(one.flow_run_id) for one in server.artifacts} == {run}
    assert None not in {one.task_run_id for one in server.artifacts}
    assert [str(one.id) for one in server.artifacts[2:]] == [half, half]


def test_artifacts_are_kept_as_prefect_keeps_them(caplog: pytest.LogCaptureFixture) -> None:
    assert LinkArtifact(link="http://x").format() == "[http://x](http://x)"
    assert ImageArtifact(image_url="http://x").format() == "http://x"
    assert json.loads(TableArtifact(table={"a": [1, float("inf")], "b": [datetime(2026, 1, 1)]}).format()) == {
        "a": [1, None],
        "b": ["2026-01-01 00:00:00"],
    }
    assert ProgressArtifact(progress=150).format() == 100.0
    assert "progress 150 lies outside of 0 to 100; taken as 100.0" in caplog.text
    for wrong in (lambda: MarkdownArtifact(markdown="x", key="Bad Key"), lambda: TableArtifact(table="x")):  # type: ignore[arg-type]
        with pytest.raises(ValueError):
            wrong()
    for ask in (lambda: Artifact.get("k"), lambda: Artifact.get_or_create(key="k")):
        with pytest.raises(NeedsServer, match="artifacts are kept by a server"):
            ask()


# Events


def test_an_event_has_what_was_given_and_both_spellings_of_labels() -> None:
    with connected() as server:
        event = emit_event(
            "order.paid",
            resource={"prefect.resource.id": "order.1", "prefect.resource.name": "first", "colour": "red"},
            related=[{"id": "customer.7", "role": "buyer"}],
            payload={"n": 1},
        )
    assert isinstance(event, Event)
    assert server.events == [event]
    assert (event.resource.id, event.resource.name, event.resource["colour"]) == ("order.1", "first", "red")
    assert (event.related[0].id, event.related[0].role) == ("customer.7", "buyer")
    assert (event.payload, event.follows) == ({"n": 1}, None)
    assert [
        event.find_resource_label(name) for name in ("colour", "related:buyer:id", "related:seller:id", "none")
    ] == [
        "red",
        "customer.7",
        None,
        None,
    ]
    shown = event.model_dump(mode="json")
    assert json.loads(json.dumps(shown)) == shown
    assert shown["related"] == [{"id": "customer.7", "role": "buyer"}]
    assert isinstance(event.id, UUID)
    assert emit_event("a", resource={"id": "x"}).payload == {}  # type: ignore[union-attr]


def test_an_event_follows_another_that_is_near() -> None:
    first = emit_event("a", resource={"id": "x"}, occurred=datetime(2026, 1, 1))
    assert first is not None
    assert first.occurred.tzinfo is UTC
    for minutes, expected in ((4, first.id), (5, None)):
        at = first.occurred + timedelta(minutes=minutes)
        later = emit_event("b", resource={"id": "x"}, occurred=at, follows=first)
        assert later is not None
        assert later.follows == expected


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"resource": {"name": "x"}}, 'a resource needs the label "prefect.resource.id"'),
        ({"resource": {"id": ""}}, "that is not empty"),
        ({"resource": {"id": "x", "n": 2}}, "labels of a resource are texts; found 'n': 2"),
        ({"resource": {"id": "x"}, "related": [{"id": "y"}]}, 'needs the label "prefect.resource.role"'),
        ({"resource": {"id": "x"}, "payload": [1]}, "the payload of an event is a mapping"),
        ({"resource": {f"l{n}": "x" for n in range(501)}}, "a resource has 501 labels; the most are 500"),
        ({"resource": {"id": "x"}, "related": [{"id": "y", "role": "r"}] * 501}, "501 related resources"),
        ({"event": 3, "resource": {"id": "x"}}, "the name of an event is a text"),
    ],
)
def test_a_wrong_event_ends_no_run_and_is_logged(
    given: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert emit_event(**{"event": "a", **given}) is None
    assert said in caplog.text


def test_a_reporter_that_raises_ends_no_run(caplog: pytest.LogCaptureFixture) -> None:
    with connected() as server:
        server.events = None  # type: ignore[assignment]
        assert emit_event("a", resource={"id": "x"}) is None
    assert "event 'a' was not emitted" in caplog.text
    assert Resource({"id": "x"}).name is None


# Limits of a server, and what a deployed run knows of itself


def test_a_server_gives_slots_and_gets_them_back() -> None:
    with connected(concurrency_acquire=lambda body: {"lease": body["names"]}, concurrency_release=None) as server:
        with concurrency(["db", "api"], occupy=2, timeout_seconds=3):
            assert [kind for kind, _ in server.requests] == ["concurrency.acquire"]
        assert server.requests[1] == ("concurrency.release", {"lease": {"lease": ["db", "api"]}})
    with connected(concurrency_acquire={"timed_out": True}), pytest.raises(TimeoutError), concurrency("db"):
        raise AssertionError


def test_a_run_of_a_deployment_knows_it_and_so_do_its_subflows() -> None:
    @flow
    def inner() -> tuple[Any, ...]:
        return deployment.name, deployment.id, deployment.parameters, deployment.flow_run_id

    @flow
    def outer(x: int) -> tuple[Any, ...]:
        from whenthen.context import FlowRunContext

        context = FlowRunContext.get()
        assert context is not None
        context.flow_run.deployment_id, context.flow_run.deployment_name = uuid, "prod"
        return (*inner(), flow_run.id)

    uuid = uuid4()
    name, found, parameters, run, own = outer(3)
    assert (name, found, parameters, run) == ("prod", str(uuid), {"x": 3}, own)
    assert inner() == (None, None, {}, None)
    assert deployment.parameters == {}


def test_nothing_of_it_logs_where_nobody_listens() -> None:
    logging.getLogger("whenthen.flows")  # no handler is put on it
    assert logging.getLogger("whenthen.flows").handlers == []
