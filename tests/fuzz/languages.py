"""Targets for the languages inside rules: conditions, JSONPath, text templates, globs. Each must refuse or end soon."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import orjson

from fuzz.draws import Draws
from tests.compiled_conditions import compile_now
from whenthen.conditions import Condition, ConditionError, ConditionFailed, compile_condition
from whenthen.engine.bus.subjects import (
    ALL_EVENTS,
    escape_token,
    event_subject,
    filters_for,
    short_token,
    unescape_token,
    window_subject,
)
from whenthen.schemas.errors import InvalidInput, InvalidTemplate, RenderError
from whenthen.templates import compile_path, compile_value
from whenthen.triggers.matching.globs import compile_glob

__all__ = ["conditions", "paths", "subjects", "templates"]

SPLIT = b"\n===\n"  #: between the text and the JSON that it is used on


def _halves(data: bytes) -> tuple[str, Any]:
    text, _, rest = data.partition(SPLIT)
    try:
        value = orjson.loads(rest)
    except orjson.JSONDecodeError:
        value = Draws(rest).json(4)
    return text.decode("utf-8", "replace"), value


def conditions(data: bytes) -> None:
    """A condition and the payload: closures and the compiled function agree, and fail with `ConditionError` alone."""
    text, payload = _halves(data)
    variables = {"event": {"event": "e", "resource": {"id": "r"}, "related": [], "payload": payload}}
    for names in ({"event"}, None):
        try:
            condition = compile_condition(text, variables=names)
        except ConditionError as refused:
            assert str(refused)
            continue
        compile_now(condition)
        exact = _value(condition._exact, variables)
        compiled = _value(condition, variables)
        assert _alike(exact, compiled), f"{exact!r} and compiled {compiled!r}"
        holds = _value(condition.holds, variables)
        assert isinstance(holds, (bool, ConditionFailed))
        if isinstance(compiled, bool):
            assert holds is compiled
        _check_tests(condition, variables, holds)


def _check_tests(condition: Condition, variables: dict[str, Any], holds: Any) -> None:
    with contextlib.suppress(ConditionError):
        verdict = condition.explain(variables)
        assert str(verdict)
    if holds is not True:
        return
    for path, constant in condition.equalities:
        assert _at(variables, path) == constant, f"{path} is required to be {constant!r}"
    for path, constants in condition.memberships:
        assert _at(variables, path) in constants


def _at(value: Any, path: Any) -> Any:
    for step in path:
        value = value[step]
    return value


def _value(call: Any, variables: dict[str, Any]) -> Any:
    try:
        return call(variables)
    except ConditionFailed as failed:
        assert str(failed)
        return failed


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, ConditionFailed) or isinstance(other, ConditionFailed):
        return isinstance(one, ConditionFailed) and isinstance(other, ConditionFailed)
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return type(one) is type(other) and (one == other or repr(one) == repr(other))


def paths(data: bytes) -> None:
    """A path and the document: refused when it is compiled, or found; what is not there is `RenderError`."""
    text, root = _halves(data)
    try:
        path = compile_path(text)
    except InvalidTemplate as refused:
        assert str(refused)
        return
    found: list[Any] | None = None
    with contextlib.suppress(RenderError):
        found = path.find(root)
    with contextlib.suppress(RenderError):
        one = path.one(root)
        assert found is not None
        assert any(one == each or one != one for each in found) or one == found


def templates(data: bytes) -> None:
    """A value with templates and its context: refused, rendered to what JSON can hold, or `RenderError`; never a hang."""
    text, payload = _halves(data)
    context = {"event": {"event": "e", "payload": payload, "resource": {"id": "r"}}, "events": [1, 2], "x": payload}
    for spec in (text, {"a": [text, {"b": text}]}):
        try:
            value = compile_value(spec, path=("parameters",))
        except InvalidTemplate as refused:
            assert str(refused)
            return
        with contextlib.suppress(RenderError):
            rendered = value.render(context)
            if isinstance(spec, dict):
                with contextlib.suppress(TypeError):  # a lone surrogate, or deeper than can be written: refused later
                    orjson.dumps(rendered)
            elif value.names_used:
                assert isinstance(rendered, str)
                assert rendered == value.render(context), "rendered differently the second time"


def subjects(data: bytes) -> None:
    """Names and globs: subjects are legal, can be read back, and filters let through whatever a glob matches."""
    texts = [line.decode("utf-8", "surrogatepass" if _surrogates(line) else "replace") for line in data.split(b"\n")]
    for text in texts:
        subject = event_subject(text)
        assert ".".join(map(unescape_token, subject.removeprefix("events.").split("."))) == text
        token = escape_token(text)
        assert unescape_token(token) == text
        for part in [*subject.split("."), token, short_token(text)]:
            assert part, "an empty token"
            assert part.isascii()
            assert part.isprintable()
            assert not set(part) & set(" *>."), part
        assert len(window_subject(0, text, text)) < 1024
    name, globs = texts[0], texts[1:]
    filters = filters_for(globs) if globs else []
    for each in globs:
        try:
            glob = compile_glob(each)
        except InvalidInput:
            continue
        if glob.matches(name):
            assert any(_lets_through(one, event_subject(name)) for one in filters), (
                f"{each!r} matches, {filters} do not"
            )
    for one in filters:
        assert not any(other != one and _lets_through(other, one) for other in filters), f"{filters} overlap"


def _surrogates(line: bytes) -> bool:
    try:
        line.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def _lets_through(filter: str, subject: str) -> bool:
    if filter == ALL_EVENTS:
        return True
    if filter.endswith(".>"):
        return subject.startswith(filter[:-1]) and len(subject) > len(filter) - 1
    return subject == filter
