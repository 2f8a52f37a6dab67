"""The budget of templates: texts, numbers and lists are charged by their size, and bounded where they are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from whenthen.schemas.base import MAX_MADE_DEPTH
from whenthen.schemas.errors import InvalidTemplate, RenderError
from whenthen.templates.bounded_text import MAX_BITS
from whenthen.templates.budget import CHARS_PER_STEP, MAX_CHARS, MAX_STEPS, MAX_VISITS, SEARCHED_PER_STEP, Budget
from whenthen.templates.path_parser import MAX_PARTS, MAX_PATH
from whenthen.templates.path_parser import MAX_STEPS as MAX_STEPS_OF_A_PATH
from whenthen.templates.path_query import MAX_MATCHES
from whenthen.templates.text import compile_text

MANY = 100_000
TAGS = [f"tag-{number}" for number in range(MANY)]
TEXT = "x" * 2_000_000
WIDE = {"tags": TAGS, "text": TEXT, "half": "x" * 900_000, "other": list(range(MANY)), "same": list(range(MANY))}


def steps(template: str, **variables: Any) -> int:
    budget = Budget()
    compile_text(template).render(variables, budget=budget)
    return MAX_STEPS - budget.steps


@pytest.mark.parametrize(
    "template",
    [
        "{% for t in tags %}{% if t in text %}x{% endif %}{% endfor %}",
        "{% for t in tags %}{% if t not in text %}{% else %}x{% endif %}{% endfor %}",
        "{% for t in tags %}{% if half == half ~ '' %}x{% endif %}{% endfor %}",
        "{% for t in tags %}{% if text < text %}x{% endif %}{% endfor %}",
        "{% for t in tags %}{% if t in tags %}{% endif %}{% endfor %}",
        "{% for t in tags %}{% if t is in(text) %}x{% endif %}{% endfor %}",
        "{% for t in tags %}{% if text is eq(text) %}{% endif %}{% endfor %}",
        "{{ tags | select('in', text) | list | length }}",
        "{% for t in tags %}{% if text.find(t) > 0 %}x{% endif %}{% endfor %}",
        "{% for t in tags %}{% if text.count('q') %}x{% endif %}{% endfor %}",
        "{% for t in tags %}{% if text.startswith(text) %}{% endif %}{% endfor %}",
        "{% for t in tags %}{% set a = text.split('q') %}{% endfor %}",
        "{% for t in tags %}{% set a = half.split('x') %}{% endfor %}",
        "{% for t in tags %}{% set a = half.replace('q', '') %}{% endfor %}",
        "{% for t in tags %}{% set a = half | replace('q', '') %}{% endfor %}",
        "{% for t in tags %}{% set a = half.strip(half) %}{% endfor %}",
        "{{ half | trim(half) }}",
        "{% for t in tags %}{% set a = half | title %}{% endfor %}",
        "{% for t in tags %}{% set a = half | wordcount %}{% endfor %}",
        "{% for t in tags %}{% set a = half | urlencode %}{% endfor %}",
        "{% for t in tags %}{% if (half | e).find('q') > 0 %}{% endif %}{% endfor %}",
        "{% for t in tags %}{% if loop.changed(other) %}{% endif %}{% if loop.changed(same) %}{% endif %}{% endfor %}",
        "{% for t in tags %}{% if t in range(100000) %}{% endif %}{% endfor %}",
        "{% for t in tags %}{% if t in {'a': other}.values() %}{% endif %}{% endfor %}",
        "{% for t in tags %}{% set a = other + other %}{% endfor %}",
        "{% for t in tags %}{% set a = '{0}'.format(half) %}{% endfor %}",
        "{% for t in tags %}{% set a = '%s' % half %}{% endfor %}",
        "{{ ([other] * 1000) | map('default') | sort | length }}",
        "{{ ([other] * 1000) | map('default') | max }}",
        "{% macro m(x) %}{{ x in text }}{% endmacro %}{% for t in tags %}{% set a = m(t) %}{% endfor %}",
    ],
)
def test_work_in_loops_is_charged_by_the_size_of_what_it_touches(template: str) -> None:
    with pytest.raises(RenderError, match="needs more than 500000 steps"):
        compile_text(template).render(WIDE)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ ''.join(([half] * 1000) | map('default', '')) }}", "at most 1000000 are allowed"),
        ("{{ 'x'.join([half, half]) }}", "at most 1000000 are allowed"),
        ("{{ ''.join([half, half, half] | map('upper')) }}", "at most 1000000 are allowed"),
        ("{{ ''.join([half, half, half] | select) }}", "at most 1000000 are allowed"),
        ("{{ ''.join([half, half, half] | reverse) }}", "at most 1000000 are allowed"),
        ("{{ ''.join([half, half, half] | reject('none')) }}", "at most 1000000 are allowed"),
        ("{{ '%(a())999999999d' % {'a()': 1} }}", "has a width above 10000"),
        ("{{ '%(a(b(c))d)999999999d' | format(a=1) }}", "has a width above 10000"),
        ("{{ '%.999999999f' % 1.5 }}", "has a width above 10000"),
        ("{{ '%*d' % (999999999, 1) }}", "has a width above 10000"),
        ("{{ ('%9999d' * 1000) % tags[:1] }}", "at most 1000000 are allowed"),
        ("{{ ('%(a)s' * 1000) % {'a': half} }}", "at most 1000000 are allowed"),
        ("{{ ('%(a)f' * 100000) % {'a': 1e308} }}", "at most 1000000 are allowed"),
        ("{{ ('{0:9999}' * 1000).format(1) }}", "at most 1000000 are allowed"),
        ("{{ ('{0}' * 1000).format(half) }}", None),
        ("{{ '%9999999d' is odd }}", "takes numbers, found str"),
        ("{{ '%9999999d' is even }}", "takes numbers, found str"),
        ("{{ '%(a())9999999d' is divisibleby({'a()': 1}) }}", "takes numbers, found str"),
        ("{{ 'x' | round(9, 'ceil') }}", "takes numbers, found str"),
        ("{{ [1] | round(9, 'floor') }}", "takes numbers, found list"),
        ("{{ ([[[[[1] * 40000]]]]) | tojson(indent=16) }}", "at most 1000000 are allowed"),
        ("{{ [1] * 2000000 }}", "a list would have 2000000 items"),
        ("{{ (1, 2) * 600000 }}", "a list would have 1200000 items"),
    ],
)
def test_a_result_is_bounded_before_it_is_made(template: str, said: str | None) -> None:
    with pytest.raises(RenderError, match=said):
        compile_text(template).render(WIDE)


BIG = "(2 ** 4000)"


@pytest.mark.parametrize(
    "template",
    [
        f"{{{{ {BIG} * {BIG} }}}}",
        f"{{{{ {BIG} ** 2 }}}}",
        f"{{% set n = {BIG} * 2 ** 90 %}}{{{{ n + n + n + n + n + n + n + n + n + n + n + n + n + n + n + n + n + n * 64 }}}}",
        "{{ ('f' * 2000) | int(base=16) }}",
        "{{ ('f' * 1100) | int(base=16) }}",
        "{{ ('9' * 1300) | int }}",
        "{{ ('9' * 2000) | int }}",
        "{{ ('9' * 2000) | float }}",
        "{{ ('9' * 2000) | filesizeformat }}",
        "{{ huge // 3 }}",
        "{{ 3 // huge }}",
        "{{ huge % 7 }}",
        "{{ 7 - huge }}",
        "{{ 1 + huge }}",
        "{{ huge is divisibleby(3) }}",
        "{{ huge is odd }}",
        "{{ huge | abs }}",
        "{{ huge | round }}",
        "{{ [huge, 1] | sum }}",
        f"{{{{ ([{BIG}] * 200000) | sum(start={BIG}) }}}}{{{{ [{BIG} * 2 ** 95] * 3 | sum }}}}",
    ],
)
def test_whole_numbers_have_at_most_4096_bits(template: str) -> None:
    with pytest.raises(RenderError):
        compile_text(template).render({"huge": 1 << 5_000})


@pytest.mark.parametrize("number", ["0x" + "f" * 2_000, "0b" + "1" * 5_000, "9" * 1_300])
def test_a_literal_has_at_most_4096_bits(number: str) -> None:
    with pytest.raises(InvalidTemplate, match=r"line 1: a number of [0-9]+ bits; at most 4096 are allowed"):
        compile_text(f"{{{{ {number} // 3 }}}}")


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ 2 ** 4000 // 2 ** 3999 }}", "2"),
        ("{{ 7 % 4 }} {{ 7 // 2 }} {{ 7 - 9 }} {{ 7 / 2 }}", "3 3 -2 3.5"),
        ("{{ 'ff' | int(base=16) }} {{ '1.5' | float }} {{ 'x' | int(7) }}", "255 1.5 7"),
        ("{{ '%(a())s|%(b)5.1f|%%|%(b)d' % {'a()': 'x', 'b': 1.25} }}", "x|  1.2|%|1"),
        ("{{ '%s-%s' | format('a', 1) }} {{ '{:>4}|{a}'.format(1, a='b') }}", "a-1    1|b"),
        ("{{ ', '.join(['a', 'b'] | map('upper')) }} {{ '-'.join('abc') }}", "A, B a-b-c"),
        ("{{ 'b' in 'abc' }} {{ 2 in [1, 2] }} {{ 'k' in {'k': 1} }} {{ 3 is odd }}", "true true true true"),
        ("{{ 'a b c'.split() | length }} {{ 'a,b'.split(',') | last }} {{ ' x '.strip() }}", "3 b x"),
        ("{{ [3, 1, 2] | sort | join }} {{ [2.5, 3] | sum }} {{ 2.567 | round(1, 'floor') }}", "123 5.5 2.5"),
    ],
)
def test_ordinary_operations_give_what_they_gave(template: str, text: str) -> None:
    assert compile_text(template).render({}) == text


def test_steps_of_an_operation() -> None:
    long = {"text": TEXT[:640_000], "list": list(range(16_000))}
    assert steps("{{ 'q' in text }}", **long) == 20_000
    assert steps("{{ text == 'q' }}", **long) == 10_000
    assert steps("{{ 5 in list }}", **long) == 16_001
    assert steps("{% set a = list + list %}", **long) == 4_000
    assert steps("{{ text.find('q') }}", **long) == 8 + 10_000 + 20_000


def test_a_large_text_is_searched_within_the_budget() -> None:
    assert compile_text("{% if 'ERROR' in text or 'FATAL' in text %}x{% else %}fine{% endif %}").render(WIDE) == "fine"


def test_the_limits_are_those_of_the_docs() -> None:
    page = (Path(__file__).parents[3] / "docs" / "templates.md").read_text()
    table = page.split("## Budget")[1]
    for limit, value in (
        ("64 characters that are compared or copied, or 32 that are searched", MAX_STEPS),
        ("values that the paths of one value may visit", MAX_VISITS),
        ("matches of a path", MAX_MATCHES),
        ("characters of a rendered text", MAX_CHARS),
        ("items of a list that `+` or `*` makes", MAX_CHARS),
        ("bits of a whole number", MAX_BITS),
        ("levels of nesting of what `emit-event` publishes", MAX_MADE_DEPTH),
    ):
        row = next(line for line in table.splitlines() if limit in line)
        assert row.endswith(f"| {value:,} |")
    assert (CHARS_PER_STEP, SEARCHED_PER_STEP) == (64, 32)
    assert f"{MAX_PATH:,}, {MAX_STEPS_OF_A_PATH} and {MAX_PARTS}" in table
