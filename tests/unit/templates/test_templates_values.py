"""Values with templates: types kept, escapes, limits, messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whenthen.schemas.errors import InvalidTemplate, RenderError
from whenthen.templates import compile_value

EVENT = {"event": "a", "resource": {"id": "r"}, "payload": {"rows": [1, 2], "ok": True, "big": 2.5, "none": None}}
CONTEXT = {"event": EVENT, "automation": "load"}


def test_path_keeps_the_type_and_text_is_text() -> None:
    value = compile_value(
        {
            "rows": "$.payload.rows",
            "ok": "$.payload.ok",
            "none": "$.payload.none",
            "all": "$.payload.rows[*]",
            "whole": "$",
            "text": "{{ automation }}: {{ event.payload.big }}",
            "list": ["$.resource.id", {"x": "{% if event %}y{% endif %}"}, 5, None, False],
        }
    )
    assert value.names_used == {"automation", "event"}
    assert value.steps_used == {"payload", "resource"}
    assert value.render(CONTEXT, EVENT) == {
        "rows": [1, 2],
        "ok": True,
        "none": None,
        "all": [1, 2],
        "whole": EVENT,
        "text": "load: 2.5",
        "list": ["r", {"x": "y"}, 5, None, False],
    }


def test_context_is_the_root_when_none_is_given() -> None:
    assert compile_value("$.event.resource.id").render(CONTEXT) == "r"
    assert compile_value("$").render(CONTEXT, None) is None


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("$$", "$"),
        ("$$.payload", "$.payload"),
        ("$$['a']", "$['a']"),
        ("$$$.a", "$$.a"),
        ("$5.00", "$5.00"),
        ("$HOME/x", "$HOME/x"),
        ("$$5", "$$5"),
        ("a $.b", "a $.b"),
        ("", ""),
    ],
)
def test_dollar_signs_that_are_text_stay_text(spec: str, text: str) -> None:
    value = compile_value(spec)
    assert value.render({}) == text


def test_escaped_text_may_hold_a_template() -> None:
    assert compile_value("$$.{{ a }}").render({"a": 1}) == "$.1"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("abc.[]$ 1", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(json_values)
def test_escaped_data_renders_to_itself(data: object) -> None:
    def escape(value: object) -> object:
        if isinstance(value, dict):
            return {key: escape(item) for key, item in value.items()}
        if isinstance(value, list):
            return [escape(item) for item in value]
        return (
            f"${value}" if isinstance(value, str) and (value.startswith(("$.", "$[", "$$")) or value == "$") else value
        )

    def is_escapable(value: object) -> bool:
        if isinstance(value, dict):
            return all(map(is_escapable, value.values()))
        if isinstance(value, list):
            return all(map(is_escapable, value))
        return not (isinstance(value, str) and value.startswith("$$") and value.lstrip("$")[:1] not in ("", ".", "["))

    if is_escapable(data):
        assert compile_value(escape(data)).render({}) == data


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"path": "$.payload.gone"}, "parameters.path: $.payload.gone: no 'gone' in $.payload"),
        ({"a": [{"b": "x{{ event.gone }}"}]}, "parameters.a[0].b: line 1: event.gone"),
    ],
)
def test_render_error_starts_with_the_path_of_the_field(spec: object, message: str) -> None:
    with pytest.raises(RenderError) as caught:
        compile_value(spec, path=("parameters",)).render(CONTEXT, EVENT)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"a": "$.x["}, "parameters.a: column"),
        ({"a": "{{ x"}, "parameters.a: line 1"),
        ({"a": "{{ evnt.id }}"}, "parameters.a: line 1: unknown variable 'evnt'; did you mean 'event'?"),
        ({"a": "$.evnt.id"}, "parameters.a: column 2: '$.evnt.id' starts with an unknown name; did you mean $.event?"),
    ],
)
def test_wrong_template_is_refused_at_load_with_the_path_of_the_field(spec: object, message: str) -> None:
    with pytest.raises(InvalidTemplate) as caught:
        compile_value(spec, path=("parameters",), known={"event"}, known_steps={"event"})
    assert str(caught.value).startswith(message)


def test_value_that_is_too_deep_or_too_large_is_refused() -> None:
    deep: object = 1
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(InvalidTemplate, match="64 levels"):
        compile_value(deep)
    with pytest.raises(InvalidTemplate, match="10000 items"):
        compile_value([0] * 10_001)


def test_all_texts_of_a_value_share_one_budget() -> None:
    text = "{% for i in range(90000) %}{% endfor %}"
    assert compile_value([text] * 2).render({}) == ["", ""]
    with pytest.raises(RenderError, match="steps"):
        compile_value([text] * 20).render({})


def test_json_inside_a_text_keeps_its_type_when_it_is_all_that_a_template_gives() -> None:
    context = {"body": {"Message": '{"n": [1, null, {"deep": true}]}', "count": "5"}}
    message = {"n": [1, None, {"deep": True}]}
    spec = {
        "all": "{{ body.Message | from_json }}",
        "spaced": "\n  {{ body.Message | from_json }}\n",
        "part": "{{ (body.Message | from_json).n[0] }}",
        "number": "{{ body.count | from_json }}",
        "text": "{{ body.Message | from_json | tojson }}",
        "list": ["{{ '[1]' | from_json }}"],
    }
    assert compile_value(spec).render(context) == {
        "all": message,
        "spaced": message,
        "part": "1",
        "number": 5,
        "text": '{"n": [1, null, {"deep": true}]}',
        "list": [[1]],
    }
    with pytest.raises(RenderError, match=r"a\.b: line 1: body\.gone: no 'gone'"):
        compile_value({"a": {"b": "{{ body.gone | from_json }}"}}).render(context)


def test_text_beside_json_stays_text() -> None:
    with pytest.raises(RenderError, match="an object has no text"):
        compile_value("x {{ body | from_json }}").render({"body": "{}"})
    with pytest.raises(InvalidTemplate, match="end of print statement"):
        compile_value("{{ body | keep value }}")
