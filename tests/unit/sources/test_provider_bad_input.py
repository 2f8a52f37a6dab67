"""Bad input of each kind for every provider of the package: refused and told apart, or taken as it is. `KINDS` says what is tried where.

Providers without a proof of their own are tried with a signature and a token that their webhook asks for; `test_public_proofs` has SNS,
tokens of a key set, Twilio and proxies.
"""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from provider_requests import BASE64_SECRET, NOW, PROVIDERS, SECRETS, hook, request_of, typical

from whenthen.schemas.errors import (
    InvalidEvent,
    InvalidInput,
    InvalidJson,
    Unproven,
    UnsupportedMediaType,
)
from whenthen.schemas.providers import BearerRecipe
from whenthen.schemas.webhooks import HmacRecipe
from whenthen.sources import Request, WebhookTranslator, builtin_names
from whenthen.sources.picks import CompiledPick
from whenthen.sources.provider_mapping import VARIABLES

#: how a webhook has those prove themselves whose senders know nothing
ASKED = (
    HmacRecipe.model_validate({"type": "hmac", "header": "X-Asked-Signature", "timestamp_header": "X-Asked-Time"}),
    BearerRecipe.model_validate({"type": "bearer", "header": "X-Asked-Token"}),
)
#: each provider with each of its ways to prove itself
RECIPES = [
    pytest.param(name, recipe, id=f"{name}-{recipe.header}")
    for name, provider in PROVIDERS.items()
    for recipe in provider.verify or ASKED
]
SIGNATURES = [case for case in RECIPES if isinstance(case.values[1], HmacRecipe)]
TOKENS = [case for case in RECIPES if case not in SIGNATURES]
TIMED = [case for case in SIGNATURES if case.values[1].time is not None]  # type: ignore[union-attr]
TIMELESS = [case for case in RECIPES if case not in TIMED]


def proven(name: str, recipe: Any) -> WebhookTranslator:
    """A webhook that wants this proof."""
    if PROVIDERS[name].verify:
        return hook(name)
    secret = "secret" if isinstance(recipe, HmacRecipe) else "token"
    return hook(name, verify={**recipe.model_dump(mode="json", exclude_unset=True), secret: "env:MINE"})


def refusal(translator: WebhookTranslator, request: Request, now: Any = NOW) -> Unproven:
    with pytest.raises(Unproven) as caught:
        translator.translate(request, now)
    assert BASE64_SECRET not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(("name", "recipe"), SIGNATURES)
def test_body_that_differs_by_one_byte_is_refused(name: str, recipe: Any) -> None:
    request = request_of(PROVIDERS[name], typical(name), recipe=recipe)
    for place in (0, len(request.body) // 2, len(request.body) - 1):
        changed = bytearray(request.body)
        changed[place] ^= 1
        other = Request(headers=request.headers, body=bytes(changed))
        assert refusal(proven(name, recipe), other).reason == "proof_wrong"
    assert (
        refusal(proven(name, recipe), Request(headers=request.headers, body=request.body + b"\n")).reason
        == "proof_wrong"
    )


@pytest.mark.parametrize(("name", "recipe"), TOKENS)
def test_body_beside_a_token_proves_nothing_and_is_taken_or_refused_with_a_field(name: str, recipe: Any) -> None:
    request = request_of(PROVIDERS[name], typical(name), recipe=recipe)
    for place in range(0, len(request.body), 7):
        changed = bytearray(request.body)
        changed[place] ^= 1
        other = Request(headers=request.headers, body=bytes(changed))
        assert all(map(bool, fields_of_refusals(proven(name, recipe), other))), place


@pytest.mark.parametrize(("name", "recipe"), RECIPES)
def test_other_secret_is_refused(name: str, recipe: Any) -> None:
    found = refusal(
        proven(name, recipe), request_of(PROVIDERS[name], typical(name), recipe=recipe, secret=SECRETS["env:OTHER"])
    )
    assert (found.reason, found.status) == ("proof_wrong", 403)


@pytest.mark.parametrize(("name", "recipe"), TIMED)
@pytest.mark.parametrize("away", [timedelta(minutes=6), timedelta(minutes=-6), timedelta(days=400)])
def test_old_request_is_refused_as_skew_also_before_its_body_is_there(name: str, recipe: Any, away: timedelta) -> None:
    request = request_of(PROVIDERS[name], typical(name), recipe=recipe)
    assert refusal(proven(name, recipe), request, NOW + away).reason == "clock_skew"
    if recipe.time.body is None:
        with pytest.raises(Unproven, match="check both clocks"):
            proven(name, recipe).check_head(request, NOW + away)


@pytest.mark.parametrize(("name", "recipe"), TIMELESS)
def test_old_request_is_taken_where_no_time_is_signed(name: str, recipe: Any) -> None:
    request = request_of(PROVIDERS[name], typical(name), recipe=recipe)
    assert proven(name, recipe).translate(request, NOW + timedelta(days=400)).events


@pytest.mark.parametrize(("name", "recipe"), RECIPES)
def test_missing_and_doubled_headers_are_refused(name: str, recipe: Any) -> None:
    request = request_of(PROVIDERS[name], typical(name), recipe=recipe)
    header = recipe.header.lower()
    bare = Request(headers={key: value for key, value in request.headers.items() if key != header}, body=request.body)
    found = refusal(proven(name, recipe), bare)
    assert (found.reason, found.status) == ("proof_missing", 401)
    with pytest.raises(Unproven):
        proven(name, recipe).check_head(bare, NOW)
    doubled = Request(headers=request.headers, body=request.body, repeated=frozenset({header}))
    assert refusal(proven(name, recipe), doubled).reason == "proof_repeated"


@pytest.mark.parametrize(("name", "recipe"), SIGNATURES)
def test_signature_in_another_encoding_or_cut_is_refused(name: str, recipe: Any) -> None:
    request = request_of(PROVIDERS[name], typical(name), recipe=recipe)
    other = recipe.model_copy(update={"encoding": "base64" if recipe.encoding == "hex" else "hex"})
    assert (
        refusal(proven(name, recipe), request_of(PROVIDERS[name], typical(name), recipe=other)).reason == "proof_wrong"
    )
    header = recipe.header.lower()
    for value in (request.headers[header][:-1], request.headers[header] + "é", "x", recipe.prefix or "y"):
        changed = Request(headers={**request.headers, header: value}, body=request.body)
        assert refusal(proven(name, recipe), changed).reason in ("proof_wrong", "proof_malformed")


@pytest.mark.parametrize(("name", "recipe"), TOKENS)
def test_token_in_another_encoding_or_cut_is_refused(name: str, recipe: Any) -> None:
    request = request_of(PROVIDERS[name], typical(name), recipe=recipe)
    header = recipe.header.lower()
    right = request.headers[header]
    encoded = base64.b64encode(BASE64_SECRET.encode()).decode()
    for value in (right[:-1], right + "é", right.upper(), encoded, f"Bearer {encoded}", "Bearer", "x"):
        changed = Request(headers={**request.headers, header: value}, body=request.body)
        assert refusal(proven(name, recipe), changed).reason in ("proof_wrong", "proof_malformed")


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
        assert refusal(translator, changed).reason == "proof_wrong"


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


#: of those that are read by code: where a notification says what happened, and one without anything that may be left out
CODED: dict[str, tuple[tuple[Any, ...], Any]] = {
    "azure-blob": (
        (0, "eventType"),
        [{"eventType": "Microsoft.Storage.BlobCreated", "subject": "/blobServices/default/containers/raw/blobs/a.csv"}],
    ),
    "google-cloud-storage": (
        ("message", "attributes", "eventType"),
        {"message": {"attributes": {"eventType": "OBJECT_FINALIZE", "bucketId": "raw", "objectId": "a.csv"}}},
    ),
    "s3": (
        ("Records", 0, "eventName"),
        {
            "Records": [
                {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "raw"}, "object": {"key": "a.csv"}}}
            ]
        },
    ),
}


@pytest.mark.parametrize("name", CODED)
def test_notification_that_says_little_or_an_unknown_kind_is_an_event_of_its_object(name: str) -> None:
    path, body = CODED[name]
    bare = PROVIDERS[name].model_copy(update={"verify": []})
    sample = typical(name).model_copy(update={"headers": {}, "body": body})
    translator = hook(name, verify="none")
    [event] = translator.translate(request_of(bare, sample), NOW).events
    assert event.name.endswith(".file.uploaded")
    assert (event.resource["bucket"], event.resource["key"]) == ("raw", "a.csv")
    kind = "Microsoft.Storage.BrandNew" if name == "azure-blob" else "BRAND_NEW"
    unknown = sample.model_copy(update={"body": _replaced(body, path, kind)})
    [event] = translator.translate(request_of(bare, unknown), NOW).events
    assert event.name.endswith(".file.other")
    assert event.resource["operation"] == kind.rpartition(".")[2]


#: what is tried, and by which tests; together they have every provider
KINDS: dict[str, tuple[Any, ...]] = {
    "a body changed by one byte": (
        test_body_that_differs_by_one_byte_is_refused,
        test_body_beside_a_token_proves_nothing_and_is_taken_or_refused_with_a_field,
    ),
    "another secret": (test_other_secret_is_refused,),
    "an old time": (
        test_old_request_is_refused_as_skew_also_before_its_body_is_there,
        test_old_request_is_taken_where_no_time_is_signed,
    ),
    "a missing header": (test_missing_and_doubled_headers_are_refused,),
    "a doubled header": (test_missing_and_doubled_headers_are_refused,),
    "a wrong encoding of the proof": (
        test_signature_in_another_encoding_or_cut_is_refused,
        test_token_in_another_encoding_or_cut_is_refused,
    ),
    "a wrong encoding of the body, none, a wrong type, a deep one": (
        test_genuine_request_with_a_wrong_body_or_type_is_refused_with_its_reason,
    ),
    "a body of 25 MB": (test_genuine_body_of_25_megabytes_is_read_where_its_webhook_allows_that,),
    "parts of another kind": (test_no_part_of_a_payload_is_trusted,),
    "a kind that nobody knows": (
        test_kind_that_nobody_knows_is_an_event_with_its_name,
        test_notification_that_says_little_or_an_unknown_kind_is_an_event_of_its_object,
    ),
    "labels that are missing": (
        test_labels_that_are_missing_are_left_out,
        test_notification_that_says_little_or_an_unknown_kind_is_an_event_of_its_object,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_bad_input_is_tried_with_every_provider(kind: str) -> None:
    tried = {name for test in KINDS[kind] for name in _providers_of(test)}
    assert tried == set(builtin_names())


def _providers_of(test: Any) -> Iterator[str]:
    for mark in test.pytestmark:
        if mark.name == "parametrize" and "name" in (mark.args[0], mark.args[0][0]):
            for case in mark.args[1]:
                yield case if isinstance(case, str) else case.values[0]
