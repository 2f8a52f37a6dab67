"""Texts of words and look-ups mean without Jinja what they mean with it."""

from __future__ import annotations

from collections import OrderedDict
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import nodes
from jinja2.runtime import Undefined
from markupsafe import Markup

from whenthen.schemas.errors import InvalidTemplate, RenderError
from whenthen.templates import budget as budgets
from whenthen.templates.budget import Budget
from whenthen.templates.environment import Rewriter, Sandbox
from whenthen.templates.lookups import join_pieces, pieces_of
from whenthen.templates.text import Text, compile_text


def outcome(text: Text, context: Any) -> tuple[str, str, int, int]:
    budget = Budget()
    try:
        result = ("text", text.render(context, budget=budget))
    except RenderError as error:
        result = ("error", str(error))
    return (*result, budget.written, budget.steps)


def without_pieces(text: Text) -> Text:
    return Text(text.text, text._template, text.names_used)


NAMES = st.sampled_from(
    ["body", "a", "b", "items", "get", "_x", "self", "range", "loop", "none", "true", "x y", "größe"]
)
WORDS = st.text(alphabet="ab {}%#'\"\n\r\t.<&é\ud800", max_size=8)
IDENTIFIERS = NAMES.filter(str.isidentifier)
STEPS = st.one_of(
    IDENTIFIERS.map(lambda name: f".{name}"),
    NAMES.map(lambda name: f"['{name}']"),
    st.sampled_from(["[0]", ".0", "[-1]", "[1:]", "|upper", "()", "[a]"]),
)
LOOKUPS = st.builds(
    lambda name, steps, left, right: f"{{{{{left}{name}{''.join(steps)}{right}}}}}",
    IDENTIFIERS,
    st.lists(STEPS, max_size=3),
    st.sampled_from(["", " ", "- "]),
    st.sampled_from(["", " ", " -"]),
)
OTHER = st.sampled_from(["{# note #}", "{{ 'word' }}", "{{ 1 }}", "{% if a %}x{% endif %}", "{% raw %}{{{% endraw %}"])
TEMPLATES = st.lists(st.one_of(WORDS, LOOKUPS, LOOKUPS, OTHER), max_size=5).map("".join)
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=6),
    st.builds(Markup, st.text(alphabet="<b>&", max_size=4)),
    st.builds(Undefined, name=st.just("gone")),
    st.just("\ud800"),
    st.just(b"bytes"),
    st.builds(object),
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(NAMES, inner, max_size=4),
        st.dictionaries(NAMES, inner, max_size=4).map(MappingProxyType),
        st.dictionaries(NAMES, inner, max_size=4).map(OrderedDict),
    ),
    max_leaves=8,
)
CONTEXTS = st.fixed_dictionaries({}, optional=dict.fromkeys(["body", "a", "b", "range", "self", "loop"], VALUES))


@pytest.mark.takes(2)
@given(template=TEMPLATES, context=CONTEXTS)
def test_look_ups_agree_with_jinja_on_text_error_and_cost(template: str, context: dict[str, Any]) -> None:
    try:
        text = compile_text(template)
    except InvalidTemplate:
        return
    assert outcome(text, context) == outcome(without_pieces(text), context)
    read_only = MappingProxyType(context)
    assert outcome(text, read_only) == outcome(without_pieces(text), read_only)


@given(name=IDENTIFIERS, steps=st.lists(IDENTIFIERS, max_size=2), value=VALUES, words=st.text("ab \n", max_size=4))
def test_a_value_that_is_there_is_written_as_jinja_writes_it(
    name: str, steps: list[str], value: Any, words: str
) -> None:
    text = compile_text(f"{words}{{{{ {'.'.join([name, *steps])} }}}}{words}")
    for step in reversed([name, *steps]):
        value = {step: value}
    assert outcome(text, value) == outcome(without_pieces(text), value)


@pytest.mark.parametrize(
    ("template", "pieces"),
    [
        ("order.{{ body.number }}", ("order.", ("body", "number"))),
        ("{{ headers['x-id'] }}{# note #}!", (("headers", "x-id"), "!")),
        ("{{ name -}}  end", (("name",), "end")),
        ("", ()),
        ("{{ body.items[0] }}", None),
        ("{{ body | upper }}", None),
        ("{{ body.number + 1 }}", None),
        ("{% set a = 1 %}{{ a }}", None),
        ("{{ range }}", None),
        ("{{ self.x }}", None),
    ],
)
def test_words_and_look_ups_are_told_from_everything_else(template: str, pieces: Any) -> None:
    sandbox = Sandbox()
    tree = Rewriter(sandbox).rewrite(sandbox.parse(template))
    assert isinstance(tree, nodes.Template)
    assert pieces_of(tree, sandbox.globals) == pieces


def test_what_is_there_needs_no_jinja_and_what_is_not_leaves_the_budget_alone() -> None:
    budget = Budget()
    assert join_pieces(("n ", ("a", "b")), {"a": {"b": "text"}}, budget) == "n text"
    assert budget.written == budgets.MAX_WRITTEN - 4
    assert join_pieces((("a",), ("b",)), {"a": "text"}, budget) is None
    assert budget.written == budgets.MAX_WRITTEN - 4


def test_a_number_too_long_for_text_is_the_same_error_without_jinja_as_with_it() -> None:
    text = compile_text("{{ a }}")
    context = {"a": 10**5000}
    assert outcome(text, context) == outcome(without_pieces(text), context)
    assert outcome(text, context)[0] == "error"


def test_written_text_is_limited_without_jinja_as_with_it() -> None:
    text = compile_text("{{ a }}{{ a }}{{ a }}{{ a }}{{ a }}")
    context = {"a": "x" * (budgets.MAX_CHARS - 1)}
    assert outcome(text, context) == outcome(without_pieces(text), context)
    assert outcome(text, context)[0] == "error"
