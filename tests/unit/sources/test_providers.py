"""Every provider of the package: its samples become its events, by each of its proofs; and providers of rules. `test_provider_bad_input` has what is wrong.

The cases come from the data: a new file of `whenthen/sources/providers/` is tested here without a line of its own.
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from provider_requests import NOW, PROVIDERS, SECRETS, hook, request_of, time_of_sample, typical

import whenthen.sources
from whenthen.rules.jsonschema import providers_schema
from whenthen.schemas.errors import InvalidEvent, InvalidInput
from whenthen.schemas.providers import Provider, Sample
from whenthen.schemas.times import parse_time
from whenthen.schemas.webhooks import Webhook
from whenthen.sources import Request, WebhookTranslator, builtin_names

FOLDER = Path(whenthen.sources.__file__).parent / "providers"
SAMPLES = [
    pytest.param(name, sample, id=f"{name}-{sample.name}")
    for name, each in PROVIDERS.items()
    for sample in each.samples
]


#: each provider with each of its ways to prove itself
RECIPES = [
    pytest.param(name, recipe, id=f"{name}-{recipe.header}")
    for name, provider in PROVIDERS.items()
    for recipe in provider.verify
]


@pytest.mark.parametrize("name", builtin_names())
def test_file_fits_the_schema_and_says_where_its_facts_are_from(name: str) -> None:
    written = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    jsonschema.validate(written, providers_schema())
    provider = PROVIDERS[name]
    assert provider.name == name
    assert provider.facts
    assert provider.title
    assert typical(name).events


@pytest.mark.parametrize(("name", "sample"), SAMPLES)
def test_sample_becomes_its_events_or_its_answer(name: str, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    if sample.secret is not None:
        monkeypatch.setitem(SECRETS, "env:MINE", sample.secret)
    now = time_of_sample(sample)
    translator = hook(name)
    request = request_of(PROVIDERS[name], sample)
    translator.check_head(request, now)
    result = translator.translate(request, now)
    if sample.answer is not None or sample.answer_headers:
        assert result.answer is not None
        body = result.answer.body
        answered = (json.loads(body) if "json" in result.answer.content_type else body.decode()) if body else None
        assert answered == sample.answer
        assert sample.answer_headers.items() <= dict(result.answer.headers).items()
        assert result.events == []
        return
    assert [event.name for event in result.events] == [expected["event"] for expected in sample.events]
    for event, expected in zip(result.events, sample.events, strict=True):
        assert expected.get("resource", {}).items() <= event.resource.items()
        if "id" in expected:
            assert event.id == f"hook/{expected['id']}"
        if "occurred" in expected:
            assert event.occurred == parse_time(expected["occurred"])
        if "payload" in expected:
            assert event.payload == expected["payload"]
        for related in expected.get("related", []):
            assert any(related.items() <= found.items() for found in event.related), related
    again = translator.translate(request, now + timedelta(seconds=1)).events
    if PROVIDERS[name].id is not None and any("id" in expected for expected in sample.events):
        assert [event.id for event in again] == [event.id for event in result.events]


@pytest.mark.parametrize(("name", "recipe"), RECIPES)
def test_each_way_of_proof_is_accepted(name: str, recipe: Any) -> None:
    request = request_of(PROVIDERS[name], typical(name), recipe=recipe)
    assert hook(name).translate(request, NOW).events
    assert hook(name, secret=["env:OTHER", "env:MINE"]).translate(request, NOW).events


@pytest.mark.parametrize("name", builtin_names())
def test_webhook_adds_labels_resources_and_a_condition_to_its_preset(name: str) -> None:
    added: Any = {
        "labels": {"team": "data", "agent": "$.headers.user-agent", "gone": "$.body.no.such"},
        "related": [{"id": "team.data", "role": "team"}, {"id": "$.body.no.such"}],
    }
    request = request_of(PROVIDERS[name], typical(name))
    request.headers = {**request.headers, "user-agent": "x/1"}
    for event in hook(name, **added).translate(request, NOW).events:
        assert {"team": "data", "agent": "x/1"}.items() <= event.resource.items()
        assert "gone" not in event.resource
        assert {"id": "team.data", "role": "team"} in event.related
    kept = hook(name, when="event.resource.team == 'data'", **added).translate(request, NOW)
    other = hook(name, when="event.resource.team == 'web'", **added).translate(request, NOW)
    assert kept.events
    assert (other.events, len(other.dropped)) == ([], len(kept.events))


OWN: dict[str, Any] = {
    "name": "acme",
    "event": ["acme", "$.body.kind"],
    "resource": {"id": "acme.{{ body.number }}", "state": "$.body.state"},
    "verify": [{"type": "hmac", "header": "X-Acme"}],
    "id": "$.body.delivery",
}


def own_hook(*providers: dict[str, Any], **fields: Any) -> WebhookTranslator:
    found = {each["name"]: Provider.model_validate(each) for each in providers}
    webhook = Webhook.model_validate({"name": "hook", "preset": providers[-1]["name"], "verify": "none", **fields})
    return WebhookTranslator(webhook, resolve_secret=SECRETS.__getitem__, providers=found)


def send(translator: WebhookTranslator, body: Any, **options: Any) -> Any:
    request = Request.of(headers={"content-type": "application/json"}, body=json.dumps(body).encode(), **options)
    return translator.translate(request, NOW)


def test_provider_of_the_rules_is_used_extended_and_wins_over_the_package() -> None:
    [event] = send(own_hook(OWN), {"kind": "made", "number": 7, "state": "new"}).events
    assert (event.name, event.resource) == ("acme.made", {"id": "acme.7", "state": "new"})
    longer = {
        "name": "acme-2",
        "extends": "acme",
        "resource": {"site": "$.body.site"},
        "event": ["acme2", "$.body.kind"],
    }
    [event] = send(own_hook(OWN, longer), {"kind": "made", "number": 7, "state": "new", "site": "a"}).events
    assert (event.name, event.resource) == ("acme2.made", {"id": "acme.7", "state": "new", "site": "a"})
    github = {"name": "github", "extends": "github", "resource": {"stars": "$.body.repository.stargazers_count"}}
    body = {"repository": {"full_name": "a/b", "stargazers_count": 3}}
    request = Request.of(headers={"x-github-event": "star"}, body=json.dumps(body).encode())
    [event] = own_hook(github).translate(request, NOW).events
    assert (event.name, event.resource["stars"], event.resource["repository"]) == ("github.star", "3", "a/b")


@pytest.mark.parametrize(
    ("providers", "fields", "message"),
    [
        ([], {"preset": "gitlb"}, "no provider is named 'gitlb'; did you mean 'gitlab'"),
        ([{**OWN, "extends": "acme"}], {}, "no provider is named 'acme'"),
        ([{"name": "a", "extends": "b"}, {"name": "b", "extends": "a"}], {}, "extends itself"),
        ([{**OWN, "event": ["acme", "$.bdy.kind"]}], {}, "did you mean"),
        ([{**OWN, "when": "body.kind =="}], {}, "when"),
        ([OWN], {"labels": {"x": "{{ nobody.x }}"}}, "labels.x"),
        ([OWN], {"each": "$.nobody"}, "each"),
        ([OWN], {"verify": None, "secret": "env:MINE", "when": "nobody.x"}, "when"),
        ([{**OWN, "verify": []}], {"verify": None, "secret": "env:MINE"}, "knows no proof of its own"),
        ([{**OWN, "event": ["flow-run", "$.body.kind"]}], {}, "engine's own"),
    ],
)
def test_wrong_provider_or_preset_is_refused_with_the_place(
    providers: Any, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message.replace(".", r"\.")):
        own_hook(*(providers or [OWN]), **fields)


def test_event_of_the_engines_own_name_made_by_a_request_is_refused() -> None:
    translator = own_hook({**OWN, "event": ["$.body.kind", "$.body.state"]})
    with pytest.raises(InvalidEvent, match="flow-run"):
        send(translator, {"kind": "flow-run", "state": "Failed", "number": 1})


def test_each_of_a_webhook_makes_an_event_of_every_item() -> None:
    translator = own_hook(OWN, each="$.body.rows", labels={"row": "$.item.name"})
    result = send(translator, {"kind": "made", "number": 1, "delivery": "d", "rows": [{"name": "a"}, {"name": "b"}]})
    assert [(event.id, event.resource["row"], event.payload) for event in result.events] == [
        ("hook/d-0", "a", {"name": "a"}),
        ("hook/d-1", "b", {"name": "b"}),
    ]
    with pytest.raises(InvalidInput, match="at most 1000"):
        send(translator, {"kind": "made", "number": 1, "rows": [{}] * 1001})


def test_payloads_that_repeat_the_body_for_every_item_are_bounded() -> None:
    translator = own_hook({**OWN, "each": "$.body.rows", "payload": "$.body"})
    with pytest.raises(InvalidInput, match="take more than 16000000 bytes"):
        send(translator, {"kind": "made", "number": 1, "rows": [{}] * 1000, "filler": "x" * 100_000})


def test_handshakes_by_other_methods_need_no_proof_where_the_provider_says_so_and_become_no_event() -> None:
    handshake = {
        "method": "OPTIONS", "proof": False, "when": "'webhook-request-origin' in headers",
        "headers": {"WebHook-Allowed-Origin": "$.headers.webhook-request-origin"},
    }  # fmt: skip
    translator = own_hook({**OWN, "handshakes": [handshake]}, verify=None, secret="env:MINE")
    assert translator.methods == {"POST", "OPTIONS"}

    def ask(headers: dict[str, str]) -> Any:
        request = Request.of(method="OPTIONS", headers=headers)
        translator.check_head(request, NOW)
        return translator.translate(request, NOW)

    answer = ask({"WebHook-Request-Origin": "eventemitter.example.com"}).answer
    assert (answer.status, answer.body, answer.headers) == (
        200, b"", (("WebHook-Allowed-Origin", "eventemitter.example.com"),),
    )  # fmt: skip
    with pytest.raises(InvalidInput, match="not a handshake"):
        ask({})
    for wrong in ("a\r\nset-cookie: x=1", "x" * 2000, "é"):
        with pytest.raises(InvalidEvent, match="its answer's header"):
            ask({"WebHook-Request-Origin": wrong})


def test_request_by_get_is_an_event_where_the_provider_says_so_and_its_query_is_read() -> None:
    translator = own_hook(
        {
            **OWN,
            "methods": ["POST", "GET"],
            "event": ["acme", "$.query.kind"],
            "resource": {"id": "acme.{{ query.number }}"},
        }
    )
    request = Request.of(method="GET", query={"kind": "called", "number": "5"})
    [event] = translator.translate(request, NOW).events
    assert (event.name, event.resource["id"], event.payload) == ("acme.called", "acme.5", {})


def test_header_that_names_the_event_must_not_come_twice() -> None:
    request = Request.of(headers={"x-github-event": "push"}, body=b"{}")
    request.repeated = frozenset({"x-github-event"})
    with pytest.raises(InvalidEvent, match=r"headers\.x-github-event: is there several times"):
        hook("github", verify="none").translate(request, NOW)
