"""The routes for the command line, probes and the OpenAPI document."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import timedelta
from typing import Any

import httpx
import pytest
from http_fakes import ANSWERS, RUN, FakeApi, app_over, client_of, shared_app_over

from whenthen.engine.http import Listing, RequestOrigin, bounded
from whenthen.engine.http import answer_models as answers
from whenthen.schemas.errors import BusUnavailable, InvalidInput
from whenthen.schemas.events import Event

SIGNED = {"x-token": "right"}
PROBLEM = {"file": "a.yaml", "line": 1, "column": 2, "field": "automations", "message": "wrong"}


def call(api: FakeApi, method: str, path: str, **request: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        async with client_of(shared_app_over(api)) as client:
            return await client.request(method, path, **request)

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("method", "path", "called"),
    [
        ("GET", "/api/automations?after=b", ("list_automations", "b", {})),
        ("GET", "/api/automations/a%20b", ("get_automation", "a b", {})),
        ("POST", "/api/automations/a/pause", ("pause_automation", "a", {"for": None, "reason": "", "by": ""})),
        ("POST", "/api/automations/a/resume", ("resume_automation", "a", {})),
        ("GET", "/api/deployments", ("list_deployments", None, {})),
        ("POST", "/api/deployments/d/pause?schedule=s", ("pause_deployment", "d", "s", {})),
        ("POST", "/api/deployments/d/resume", ("resume_deployment", "d", None, {})),
        ("GET", "/api/runs/r", ("get_run", "r", {})),
        ("GET", "/api/runs/r/logs?after=5", ("run_logs", "r", {"after": 5, "limit": 1000})),
        ("GET", "/api/runs/r/logs?tail=5", ("run_log_end", "r", {"limit": 5})),
        ("POST", "/api/runs/r/cancel", ("cancel_run", "r", {})),
        ("GET", "/api/actions/dead/count?automation=a", ("count_dead", "a", {})),
        ("POST", "/api/actions/k.0/redrive", ("redrive_action", "k.0", {"new_key": False})),
        ("POST", "/api/actions/k.0/redrive?new_key=true", ("redrive_action", "k.0", {"new_key": True})),
        ("POST", "/api/actions/k.0/drop", ("drop_action", "k.0", {})),
    ],
)
def test_a_route_asks_for_one_thing(method: str, path: str, called: tuple[Any, ...]) -> None:
    api = FakeApi()
    response = call(api, method, path)
    assert response.status_code == 200
    answer = ANSWERS[called[0]]
    assert response.json() == (answer if isinstance(answer, list) else answer.model_dump(exclude_unset=True))
    assert api.calls == [called]


def test_an_automation_is_paused_for_a_time_with_a_reason() -> None:
    api = FakeApi()
    body = {"for": "2h", "reason": "the sender floods us", "by": "me"}
    assert call(api, "POST", "/api/automations/a/pause", json=body).status_code == 200
    assert api.calls == [("pause_automation", "a", {**body, "for": timedelta(hours=2)})]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"for": "soon"}, "for"),
        ({"for": 0}, "for"),
        ({"for": "11000d"}, "for"),
        ({"reason": 7}, "reason"),
        ({"reason": "x" * 1001}, "reason"),
        ({"by": "x" * 201}, "by"),
        ({"until": "2h"}, "until"),
    ],
)
def test_a_bad_request_for_a_pause_is_refused_with_its_field(body: Any, field: str) -> None:
    api = FakeApi()
    response = call(api, "POST", "/api/automations/a/pause", json=body)
    assert (response.status_code, response.json()["error"]["field"]) == (400, field)
    assert api.calls == []


def test_filters_and_limits_of_a_list_are_handed_on() -> None:
    api = FakeApi()
    call(api, "GET", "/api/runs?limit=5&before=x&state=Failed")
    (_, page, _) = api.calls[0]
    assert (page.limit, page.before, page.filters) == (5, "x", {"state": "Failed"})


@pytest.mark.parametrize("query", ["limit=0", "limit=100000", "limit=x"])
def test_a_bad_parameter_is_400_in_the_one_form(query: str) -> None:
    response = call(FakeApi(), "GET", f"/api/events?{query}")
    assert response.status_code == 400
    assert response.json()["error"]["field"] == "limit"


def test_a_run_is_started_with_parameters_and_key() -> None:
    api = FakeApi()
    response = call(api, "POST", "/api/deployments/loader/run", json={"parameters": {"a": 1}, "key": "k", "delay": 2})
    assert (response.status_code, response.json()) == (201, RUN.model_dump(mode="json", exclude_defaults=True))
    assert api.calls == [("run", "loader", {"a": 1}, "k", 2.0)]
    assert call(api, "POST", "/api/deployments/loader/run").status_code == 201


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], None),
        ({"parameters": []}, "parameters"),
        ({"key": ""}, "key"),
        ({"key": "x" * 513}, "key"),
        ({"delay": -1}, "delay"),
        ({"delay": 1e9}, "delay"),
        ({"delay": True}, "delay"),
        ({"delay": "5"}, "delay"),
        ({"delay": None}, "delay"),
        ({"paramters": {}}, "paramters"),
    ],
)
def test_a_bad_request_for_a_run_is_400_with_the_field(body: Any, field: str | None) -> None:
    api = FakeApi()
    response = call(api, "POST", "/api/deployments/loader/run", json=body)
    assert (response.status_code, response.json()["error"]["field"]) == (400, field)
    assert api.calls == []


def test_what_does_not_exist_is_404_with_the_nearest() -> None:
    response = call(FakeApi(), "POST", "/api/deployments/loadr/run")
    assert response.status_code == 404
    assert 'did you mean "loader"?' in response.json()["error"]["message"]
    assert call(FakeApi(), "GET", "/api/nothing").json()["error"]["reason"] == "not_found"
    assert call(FakeApi(), "GET", "/api/events/e1").status_code == 404


@pytest.mark.parametrize("path", ["shop/17", "shop%2F17"])
def test_an_event_whose_id_has_a_slash_is_found(path: str) -> None:
    api = FakeApi()
    api.stored["shop/17"] = Event(
        {"id": "shop/17", "event": "e", "occurred": "2026-01-31T07:00:00Z", "resource": {"id": "r"}}
    )
    response = call(api, "GET", f"/api/events/{path}")
    assert (response.status_code, response.json()["id"]) == (200, "shop/17")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/api/events", "GET, POST"),
        ("GET", "/api/automations/a/pause", "POST"),
        ("POST", "/healthz", "GET"),
        ("PUT", "/api/runs", "GET"),
    ],
)
def test_another_method_is_405_with_all_that_are_allowed(method: str, path: str, allow: str) -> None:
    response = call(FakeApi(), method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == allow
    assert response.json()["error"]["reason"] == "method_not_allowed"


def test_readiness_names_what_is_missing() -> None:
    assert call(FakeApi(), "GET", "/readyz").json() == {"ready": True, "missing": [], "notes": []}
    response = call(FakeApi(missing=["NATS is not connected"]), "GET", "/readyz")
    assert (response.status_code, response.json()["missing"]) == (503, ["NATS is not connected"])
    assert call(FakeApi(missing=["x"]), "GET", "/healthz").status_code == 200


def test_probes_do_not_wait_for_the_other_routes_to_be_made() -> None:
    app = app_over(FakeApi())

    async def ask() -> list[int]:
        async with client_of(app) as client:
            return [(await client.get(path)).status_code for path in ("/healthz", "/readyz")]

    assert asyncio.run(ask()) == [200, 200]
    assert "rest" not in vars(app)


def test_metrics_are_prometheus_text() -> None:
    response = call(FakeApi(), "GET", "/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert "whenthen_build_info" in response.text


def test_a_refused_reload_is_400_with_the_problems() -> None:
    assert call(FakeApi(), "POST", "/api/rules/reload").status_code == 200
    response = call(FakeApi(missing=["x"]), "POST", "/api/rules/reload")
    assert (response.status_code, response.json()["problems"]) == (400, [PROBLEM])


def test_an_unexpected_failure_is_500_and_says_nothing_of_the_inside() -> None:
    response = call(FakeApi(), "GET", "/api/automations/broken")
    assert response.status_code == 500
    assert "secret" not in response.text


def test_an_answer_that_is_not_of_its_model_is_500_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Wrong(FakeApi):
        async def get_run(self, run_id: str) -> Any:
            return {"id": run_id}

    assert call(Wrong(), "GET", "/api/runs/r").status_code == 500
    assert "a request failed for an unexpected reason" in caplog.text


def test_a_list_while_the_bus_is_away_is_503() -> None:
    class Away(FakeApi):
        async def status(self) -> answers.Status:
            raise BusUnavailable("no answer")

    response = call(Away(), "GET", "/api/status")
    assert response.status_code == 503
    assert "retry-after" in response.headers


def test_the_openapi_document_names_every_route_and_the_one_form_of_errors() -> None:
    document = call(FakeApi(), "GET", "/openapi.json").json()
    assert {"get", "post"} == set(document["paths"]["/api/events"])
    assert "post" in document["paths"]["/hooks/{name}"]
    assert "422" not in str(document["paths"])
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation.get("summary"), (method, path)
            assert any(status.startswith("2") for status in operation["responses"])


def test_every_reference_of_the_openapi_document_leads_somewhere_and_every_schema_is_used() -> None:
    document = call(FakeApi(), "GET", "/openapi.json").json()
    used = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert used == set(document["components"]["schemas"])


def test_the_openapi_document_says_which_answers_are_lists_and_which_objects() -> None:
    document = call(FakeApi(), "GET", "/openapi.json").json()
    paths = document["paths"]

    def answered(path: str, method: str = "get", status: str = "200") -> str:
        schema = paths[path][method]["responses"][status]["content"]["application/json"]["schema"]
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        kind: str = schema["type"]
        return kind

    assert answered("/api/automations") == answered("/api/events") == answered("/api/actions") == "array"
    assert answered("/healthz") == answered("/api/status") == answered("/api/runs/{run_id}/logs") == "object"
    assert answered("/api/deployments/{name}/run", "post", "201") == "object"
    assert answered("/api/rules/reload", "post", "400") == answered("/readyz", status="503") == "object"


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"content-type": ""}, b"{}", 415),
        ({}, b"{}", 415),
        ({"content-type": "text/plain"}, b"{}", 415),
        ({"content-type": "application/x-www-form-urlencoded"}, b"", 415),
        ({"content-type": "multipart/form-data; boundary=x"}, b"--x--", 415),
        ({"content-type": "application/json"}, b"{}", 200),
        ({"content-type": "Application/JSON; charset=utf-8"}, b"", 200),
        ({}, b"", 200),
    ],
)
@pytest.mark.parametrize("path", ["/api/automations/a/pause", "/api/runs/r/cancel", "/api/actions/k.0/redrive"])
def test_a_command_is_taken_without_a_body_or_with_json(
    path: str, headers: dict[str, str], content: bytes, status: int
) -> None:
    api = FakeApi()
    assert call(api, "POST", path, headers=headers, content=content).status_code == status
    assert bool(api.calls) == (status == 200)


@pytest.mark.parametrize("path", ["/api/status", "/api/events", "/metrics", "/openapi.json", "/healthz", "/nothing"])
def test_a_page_of_another_site_is_refused_everywhere_but_at_webhooks(path: str) -> None:
    origin = RequestOrigin(host="127.0.0.1", port=4280)
    ours = {"host": "localhost:4280"}

    async def run() -> None:
        api = FakeApi()
        async with client_of(app_over(api, origin=origin)) as client:
            assert (await client.get(path, headers=ours)).status_code in (200, 404)
            for headers, reason in (
                ({"host": "evil.example:4280"}, "foreign_host"),
                (ours | {"origin": "https://evil.example"}, "foreign_origin"),
                (ours | {"sec-fetch-site": "cross-site"}, "foreign_origin"),
            ):
                refused = await client.get(path, headers=headers)
                assert (refused.status_code, refused.json()["error"]["reason"]) == (403, reason)
                hook = await client.post("/hooks/orders", json={"number": 1}, headers=SIGNED | headers)
                assert hook.status_code == 202

    asyncio.run(run())


def test_a_run_that_is_asked_for_is_part_of_the_trace_of_the_request() -> None:
    api = FakeApi()
    parent = f"00-{'1' * 32}-{'2' * 16}-01"
    for headers in ({"traceparent": parent}, {}, {"traceparent": "wrong"}):
        assert call(api, "POST", "/api/deployments/loader/run", headers=headers).status_code == 201
    assert api.traces == [{"id": "1" * 32, "parent": "2" * 16, "flags": "01"}, None, None]


@pytest.mark.parametrize("path", ["/api/automations", "/api/deployments?x=1", "/api/runs?state=Failed"])
def test_a_list_that_was_cut_has_a_link_to_what_follows(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    listing: Listing[Any] = Listing()
    listing.following = {"after": "a/b c"}
    for name in ("list_automations", "list_deployments", "list_runs"):
        monkeypatch.setitem(ANSWERS, name, listing)
    link = call(FakeApi(), "GET", path).headers["link"]
    route, _, query = path.partition("?")
    assert link == f'<{route}?{query + "&" if query else ""}after=a%2Fb+c>; rel="next"'


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/api/events?sorce=x", "no parameter 'sorce'; did you mean 'source'"),
        ("/api/firings?automaton=x", "did you mean 'automation'?"),
        ("/api/automations/a/decisions?reasn=x", "did you mean 'reason'?"),
        ("/api/history/events?nme=x", "did you mean 'name'?"),
        ("/api/stream?automaton=x", "did you mean 'automation'?"),
        ("/api/stream?label=x", "'x' is not of the form name=value"),
        ("/api/runs?<script>=1", "it has limit, before, deployment"),
    ],
)
def test_a_filter_that_is_misspelt_is_refused_with_the_near_ones(path: str, named: str) -> None:
    refused = call(FakeApi(), "GET", path)
    assert refused.status_code == 400
    assert named in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/api/events?event=a&event=b", "event is given 2 times and holds one value; give it once"),
        ("/api/events?limit=5&limit=5", "limit is given 2 times"),
        ("/api/runs?state=RUNNING&limit=5&state=FAILED&state=x", "state is given 3 times"),
        ("/api/automations?after=a&after=b", "after is given 2 times"),
        ("/api/history/events?name=a&name=b", "name is given 2 times"),
        ("/api/history/events/counts?by=name&by=name", "by is given 2 times"),
        ("/api/stream?id=abcd&id=abce", "id is given 2 times"),
        ("/api/why?automation=a&automation=b&event=e", "automation is given 2 times"),
        ("/api/sources/refused?source=a&source=b", "source is given 2 times"),
        ("/events?text=a&text=b", "text is given 2 times"),
        ("/login?next=/a&next=/b", "next is given 2 times"),
    ],
)
def test_a_parameter_that_holds_one_value_and_is_given_twice_is_refused(path: str, named: str) -> None:
    refused = call(FakeApi(), "GET", path)
    assert refused.status_code == 400
    assert named in refused.text


def test_a_parameter_that_holds_several_values_is_given_several_times() -> None:
    assert call(FakeApi(), "GET", "/api/events?label=id=a&label=kind=b").status_code == 200
    assert call(FakeApi(), "GET", "/api/why?automation=a&key=id=a&key=kind=b").status_code == 200


def test_what_is_to_be_said_of_a_list_is_in_its_head(monkeypatch: pytest.MonkeyPatch) -> None:
    listing: Listing[Any] = Listing()
    listing.notes = ["one", "two, of 'ä\r\n'"]
    monkeypatch.setitem(ANSWERS, "list_firings", listing)
    notes = call(FakeApi(), "GET", "/api/firings").headers.get_list("whenthen-note")
    assert notes == ["one", "two, of '\\xe4\\r\\n'"]


def test_a_list_of_names_is_cut_by_bytes_and_goes_on_behind_the_last_one() -> None:
    names = [f"n{number}" for number in range(7)]

    def make(name: str) -> answers.AutomationState:
        return answers.AutomationState(name=name, state="active")

    size = len(make("n0").model_dump_json())
    seen: list[str] = []
    after = None
    while True:
        page = bounded(names, make, after=after, most_bytes=3 * size)
        seen += [item.name for item in page]
        if page.following is None:
            break
        assert len(page) == 3
        after = page.following["after"]
    assert seen == names
    assert [item.name for item in bounded(names, make, after=None, most_bytes=1)] == ["n0"]
    with pytest.raises(InvalidInput, match="begin with the first page"):
        bounded(names, make, after="gone")
