"""Every provider of the package: its samples become its events, and bad input of each kind is refused, told apart, or taken as it is.

The cases come from the data: a new file of `whenthen/sources/providers/` is tested here without a line of its own.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from provider_requests import BASE64_SECRET, NOW, PROVIDERS, SECRETS, hook, request_of, time_of_sample

import whenthen.sources
from whenthen.rules.jsonschema import providers_schema
from whenthen.schemas.errors import InvalidEvent, InvalidInput, InvalidJson, Unproven, UnsupportedMediaType
from whenthen.schemas.providers import Provider, Sample
from whenthen.schemas.times import parse_time
from whenthen.schemas.webhooks import HmacRecipe, Webhook
from whenthen.sources import Request, WebhookTranslator, builtin_names
from whenthen.sources.picks import CompiledPick
from whenthen.sources.provider_mapping import VARIABLES

FOLDER = Path(whenthen.sources.__file__).parent / "providers"
SAMPLES = [
    pytest.param(name, sample, id=f"{name}-{sample.name}")
    for name, each in PROVIDERS.items()
    for sample in each.samples
]


def typical(name: str) -> Sample:
    """A sample that becomes events and is signed here; of a form its fields as JSON, which is read alike."""
    found = next(sample for sample in PROVIDERS[name].samples if sample.events and sample.secret is None)
    return found if found.form is None else found.model_copy(update={"body": found.form, "form": None})


#: each provider with each of its ways to prove itself
RECIPES = [
    pytest.param(name, recipe, id=f"{name}-{recipe.header}")
    for name, provider in PROVIDERS.items()
    for recipe in provider.verify
]
SIGNATURES = [case for case in RECIPES if isinstance(case.values[1], HmacRecipe)]
TIMED = [case for case in SIGNATURES if case.values[1].time is not None]  # type: ignore[union-attr]


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


def refusal(name: str, request: Request, now: Any = NOW, **fields: Any) -> Unproven:
    with pytest.raises(Unproven) as caught:
        hook(name, **fields).translate(request, now)
    assert BASE64_SECRET not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(("name", "recipe"), SIGNATURES)
def test_body_that_differs_by_one_byte_is_refused(name: str, recipe: Any) -> None:
    request = request_of(PROVIDERS[name], typical(name), recipe=recipe)
    for place in (0, len(request.body) // 2, len(request.body) - 1):
        changed = bytearray(request.body)
        changed[place] ^= 1
        other = Request(headers=request.headers, body=bytes(changed))
        assert refusal(name, other).reason == "proof_wrong"
    assert refusal(name, Request(headers=request.headers, body=request.body + b"\n")).reason == "proof_wrong"


@pytest.mark.parametrize(("name", "recipe"), RECIPES)
def test_other_secret_is_refused(name: str, recipe: Any) -> None:
    found = refusal(name, request_of(PROVIDERS[name], typical(name), recipe=recipe, secret=SECRETS["env:OTHER"]))
    assert (found.reason, found.status) == ("proof_wrong", 403)


@pytest.mark.parametrize(("name", "recipe"), TIMED)
@pytest.mark.parametrize("away", [timedelta(minutes=6), timedelta(minutes=-6), timedelta(days=400)])
def test_old_request_is_refused_as_skew_also_before_its_body_is_there(name: str, recipe: Any, away: timedelta) -> None:
    request = request_of(PROVIDERS[name], typical(name), recipe=recipe)
    assert refusal(name, request, NOW + away).reason == "clock_skew"
    if recipe.time.body is None:
        with pytest.raises(Unproven, match="check both clocks"):
            hook(name).check_head(request, NOW + away)


@pytest.mark.parametrize(("name", "recipe"), RECIPES)
def test_missing_and_doubled_headers_are_refused(name: str, recipe: Any) -> None:
    request = request_of(PROVIDERS[name], typical(name), recipe=recipe)
    header = recipe.header.lower()
    bare = Request(headers={key: value for key, value in request.headers.items() if key != header}, body=request.body)
    found = refusal(name, bare)
    assert (found.reason, found.status) == ("proof_missing", 401)
    with pytest.raises(Unproven):
        hook(name).check_head(bare, NOW)
    doubled = Request(headers=request.headers, body=request.body, repeated=frozenset({header}))
    assert refusal(name, doubled).reason == "proof_repeated"


@pytest.mark.parametrize(("name", "recipe"), SIGNATURES)
def test_signature_in_another_encoding_or_cut_is_refused(name: str, recipe: Any) -> None:
    request = request_of(PROVIDERS[name], typical(name), recipe=recipe)
    other = recipe.model_copy(update={"encoding": "base64" if recipe.encoding == "hex" else "hex"})
    assert refusal(name, request_of(PROVIDERS[name], typical(name), recipe=other)).reason == "proof_wrong"
    header = recipe.header.lower()
    for value in (request.headers[header][:-1], request.headers[header] + "é", "x", recipe.prefix or "y"):
        changed = Request(headers={**request.headers, header: value}, body=request.body)
        assert refusal(name, changed).reason in ("proof_wrong", "proof_malformed")


FILLER = "x" * 25_000_000


@pytest.mark.takes(0.3)
@pytest.mark.parametrize("name", builtin_names())
def test_genuine_body_of_25_megabytes_is_read_where_its_webhook_allows_that(name: str) -> None:
    sample = typical(name)
    body = copy.deepcopy(sample.body)
    (body[0] if isinstance(body, list) else body)["filler"] = FILLER
    translator = hook(name, limits={"body": 26_000_000})
    request = request_of(PROVIDERS[name], sample.model_copy(update={"body": body}))
    assert translator.body_limit == 26_000_000
    made = translator.translate(request, NOW)
    assert [event.name for event in made.events] == [expected["event"] for expected in sample.events]
    changed = Request(headers=request.headers, body=request.body[:-2] + b" }")
    if any(isinstance(each, HmacRecipe) for each in PROVIDERS[name].verify[:1]):
        assert refusal(name, changed).reason == "proof_wrong"


@pytest.mark.parametrize("name", builtin_names())
@pytest.mark.parametrize(
    ("body", "content_type", "error"),
    [
        (b"", "application/json", InvalidJson),
        (b"{", "application/json", InvalidJson),
        (b"\xff\xfe{}", "application/json", InvalidJson),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "application/json", InvalidJson),
        (b'"text"', "application/json", InvalidEvent),
        (b"5", "application/json", InvalidEvent),
        (b"<a/>", "application/xml", UnsupportedMediaType),
        (b"{}", "image/png", UnsupportedMediaType),
        (b"{}", "text/html", InvalidInput),
        (b"{}", "application/x-www-form-urlencoded", InvalidInput),
        (b"{}", "application/json; charset=utf-16", None),
    ],
)
def test_genuine_request_with_a_wrong_body_or_type_is_refused_with_its_reason(
    name: str, body: bytes, content_type: str, error: type[Exception] | None
) -> None:
    sample = typical(name)
    sample = sample.model_copy(update={"headers": {**sample.headers, "Content-Type": content_type}})
    timed_by_body = any(
        isinstance(each, HmacRecipe) and each.time is not None and each.time.body for each in PROVIDERS[name].verify
    )
    fields: dict[str, Any] = {"verify": "none"} if timed_by_body else {}
    request = request_of(
        PROVIDERS[name] if not fields else PROVIDERS[name].model_copy(update={"verify": []}), sample, body=body
    )
    if PROVIDERS[name].body == "json" and error in (UnsupportedMediaType, InvalidInput):
        error = None
    if error is None:  # the type says nothing; whatever comes of it is an event or a refusal with a field
        assert all(map(bool, fields_of_refusals(hook(name, **fields), request)))
        return
    with pytest.raises(error):
        hook(name, **fields).translate(request, NOW)


def fields_of_refusals(translator: WebhookTranslator, request: Request) -> list[str]:
    """The field that a refusal names; empty when the request is taken."""
    try:
        translator.translate(request, NOW)
    except InvalidInput as refused:
        return [refused.field]
    return []


def _paths(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        yield (*path, key)
        if len(path) < 4:
            yield from _paths(value, (*path, key))


def _replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(document)
    parent = changed
    for key in path[:-1]:
        parent = parent[key]
    if value is KeyError:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return changed


@pytest.mark.parametrize("name", builtin_names())
@pytest.mark.parametrize("instead", [KeyError, None, 5, "text", "", [], {}, True], ids=str)
def test_no_part_of_a_payload_is_trusted(name: str, instead: Any) -> None:
    sample = typical(name)
    translator = hook(name, verify="none")
    bare = PROVIDERS[name].model_copy(update={"verify": []})
    for path in _paths(sample.body):
        body = _replaced(sample.body, path, instead)
        request = request_of(bare, sample, body=json.dumps(body).encode())
        assert all(map(bool, fields_of_refusals(translator, request))), path


@pytest.mark.parametrize("name", [name for name, provider in PROVIDERS.items() if provider.code is None])
def test_labels_that_are_missing_are_left_out(name: str) -> None:
    """Everything goes but what names the event, its resource and the list of its items."""
    provider, sample = PROVIDERS[name], typical(name)
    known = (*VARIABLES, "item")
    needed = [CompiledPick(part, known, ()).path for part in (*provider.event, provider.resource["id"])]
    needed += [tuple(str(provider.each).removeprefix("$.").split("."))] if provider.each else []
    kept = {".".join(map(str, path)) for path in needed}

    def strip(document: Any, path: tuple[Any, ...]) -> Any:
        if isinstance(document, list):
            return (
                [strip(item, ("item",)) for item in document]
                if ".".join(path) in kept or path == ("body",)
                else document
            )
        if not isinstance(document, dict):
            return document
        return {
            key: strip(value, (*path, key))
            for key, value in document.items()
            if any(f"{each}.".startswith(".".join((*path, key)) + ".") for each in kept)
            or any(".".join((*path, key)) in text for pick in provider.resource["id"] for text in [str(pick)])
        }

    body = strip(sample.body, ("body",))
    bare = provider.model_copy(update={"verify": []})
    result = hook(name, verify="none").translate(request_of(bare, sample, body=json.dumps(body).encode()), NOW)
    assert [event.name for event in result.events] == [expected["event"] for expected in sample.events]


@pytest.mark.parametrize("name", [name for name, provider in PROVIDERS.items() if provider.code is None])
def test_kind_that_nobody_knows_is_an_event_with_its_name(name: str) -> None:
    provider, sample = PROVIDERS[name], typical(name)
    picks = [CompiledPick(part, (*VARIABLES, "item"), ()) for part in provider.event]
    path = next(pick.path for pick in picks if pick.constant is None)
    bare = provider.model_copy(update={"verify": []})
    headers, body = dict(sample.headers), copy.deepcopy(sample.body)
    if path[0] == "headers":
        headers = {key: "brand_new.kind" if key.lower() == path[1] else value for key, value in headers.items()}
    else:
        targets = [body] if path[0] == "body" else _items_of(body, str(provider.each))
        for target in targets:
            for key in path[1:-1]:
                target = target[key]
            target[path[-1]] = "brand_new.kind"
    sample = sample.model_copy(update={"headers": headers, "body": body})
    for event in hook(name, verify="none").translate(request_of(bare, sample), NOW).events:
        assert "brand_new.kind" in event.name


def _items_of(body: Any, each: str) -> list[Any]:
    for key in each.split(".")[2:]:
        body = body[key]
    return body if isinstance(body, list) else [body]


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
