"""Text templates: what they give, what is missing, and what they can not do."""

from __future__ import annotations

import json

import pytest

from whenthen.schemas.errors import InvalidTemplate, RenderError
from whenthen.templates import compile_text

CONTEXT = {
    "event": {
        "event": "order.created",
        "resource": {"id": "order.17"},
        "payload": {"items": [1, 2, 3], "_id": "abc", "x.y": 1, "deep": {"a": 1}, "nothing": None},
    },
    "names": ["ada", "grace"],
}


def render(text: str, **extra: object) -> str:
    return compile_text(text).render({**CONTEXT, **extra})


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("ends with a line\n", "ends with a line\n"),
        ("{{ event.event }}: {{ event.resource.id }}", "order.created: order.17"),
        ("{{ event.payload._id }}", "abc"),
        ("{{ event.payload['x.y'] }}", "1"),
        ("{{ event.payload.items | length }}", "3"),
        ("{{ event.payload.items | sum }}", "6"),
        ("{{ event.payload.deep.items() | list | tojson }}", '[["a", 1]]'),
        ("{% for name in names %}{{ loop.index }}/{{ loop.length }}:{{ name }} {% endfor %}", "1/2:ada 2/2:grace "),
        ("{{ names | map('upper') | join(', ') }}", "ADA, GRACE"),
        ("{{ 'a <b> & \"c\" é' | tojson }}", '"a <b> & \\"c\\" é"'),
        ("{{ event.payload.deep | tojson }}", '{"a": 1}'),
        ("<b>{{ '<' }}</b>", "<b><</b>"),
        ("{{ event.payload.gone | default('-') }}", "-"),
        ("{% if event.payload.gone is defined %}yes{% else %}no{% endif %}", "no"),
        ("{{ 'v' ~ 1 ~ '.' ~ 2 }}", "v1.2"),
        ("{{ '%05.1f' % 3.14159 }} {{ '{:>6}'.format('x') }} {{ '%s-%s' | format(1, 2) }}", "003.1      x 1-2"),
        ("{{ 2 ** 10 }} {{ 'ab' * 3 }} {{ ([1] + [2]) | tojson }}", "1024 ababab [1, 2]"),
        ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(1) }}{{ m('a') }}", "<1><a>"),
        ("{% set ns = namespace(n=0) %}{% for i in range(5) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "10"),
        ("{% for g in [{'k': 1}, {'k': 2}] | groupby('k') %}{{ g.grouper }}{{ g.list | length }}{% endfor %}", "1121"),
        ("{% for x in [1, [2]] recursive %}{% if x is iterable %}{{ loop(x) }}{% else %}{{ x }}{% endif %}{% endfor %}",
         "12"),
        ("{{ names[:1] | join }} {{ names[-1] }} {{ 'ada' in names }}", "ada grace true"),
        ("{{ event.event.split('.')[0].upper() }}", "ORDER"),
    ],
)  # fmt: skip
def test_template_gives_its_text(template: str, text: str) -> None:
    assert render(template) == text


def test_key_of_the_data_wins_over_a_method_of_the_same_name() -> None:
    assert render("{{ event.payload.items | tojson }}") == "[1, 2, 3]"


@pytest.mark.parametrize(
    ("template", "parts"),
    [
        ("{{ event.payload.order }}", ["line 1", "event.payload.order", "items"]),
        ("\n\n{{ event.payload.deep.b.c }}", ["line 3", "event.payload.deep.b", "there are a"]),
        ("{{ event['payload']['gone'] }}", ["event['payload']['gone']"]),
        ("{{ evnt.id }}", ["evnt", "no variable"]),
        ("{% if event.payload.gone %}x{% endif %}", ["event.payload.gone"]),
        ("{% for x in event.payload.gone %}x{% endfor %}", ["event.payload.gone"]),
        ("{{ event.payload.gone ~ 'x' }}", ["event.payload.gone"]),
        ("{{ [event.payload.gone] }}", ["event.payload.gone"]),
        ("{{ event.payload.gone == 1 }}", ["event.payload.gone"]),
        ("{{ event.payload.gone | upper }}", ["event.payload.gone"]),
        ("{{ event.payload.gone | tojson }}", ["event.payload.gone"]),
        ("{{ {'a': event.payload.gone} | tojson }}", ["event.payload.gone"]),
        ("{{ 'x' if false }}", ["line 1"]),
        ("{{ event.payload.deep.items }}", ["parentheses"]),
        ("{{ names[5] }}", ["list of 2"]),
    ],
)
def test_missing_value_is_an_error_that_names_it(template: str, parts: list[str]) -> None:
    with pytest.raises(RenderError) as caught:
        render(template)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.takes(0.4)
@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) if false %}x{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{% macro f(n) %}{% if n > 0 %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(n) %}{% if n > 0 %}{{ caller() }}{{ caller() }}{% endif %}{% endmacro %}"
        "{% macro g(n) %}{% call f(n) %}{{ g(n - 1) }}{% endcall %}{% endmacro %}{{ g(80) }}",
        "{% for x in [1, 2] recursive %}{% if loop.depth0 < 60 %}{{ loop([1, 2]) }}{% endif %}{% endfor %}",
        "{{ 'a' * 10**9 }}",
        "{{ 10**9 * 'a' }}",
        "{{ [0] * 10**9 }}",
        "{{ 9**(9**9) }}",
        "{{ (9**999) * (9**999) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%.1000000000f' % 1 }}",
        "{{ '%*d' % (1000000000, 1) }}",
        "{{ '%1000000000s' | format('x') }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:{w}}'.format(1, w=1000000000) }}",
        "{{ 'x' | center(10**9) }}",
        "{{ 'x'.center(10**9) }}",
        "{{ 'x'.ljust(10**9) }}",
        "{{ 'x'.zfill(10**9) }}",
        "{{ 'x' | indent(10**9, true) }}",
        "{{ ('x\n' * 9999) | indent(9999) }}",
        "{{ [1] | batch(10**9, 'x') | list }}",
        "{{ [1] | slice(10**9) | list }}",
        "{{ 1.5 | round(10**9) }}",
        "{{ ('a' * 9999) | replace('a', 'b' * 9999) }}",
        "{{ ('a' * 9999).replace('', 'b' * 9999) }}",
        "{{ range(9999) | join('x' * 9999) }}",
        "{{ ('x' * 9999).join(['a'] * 9999) }}",
        "{{ ('%s' * 9999) % ((('x' * 9999),) * 9999) }}",
        "{{ [1] | tojson(indent=10**9) }}",
        "{{ 'a b c' | wordwrap(1, wrapstring='x' * 999999) }}",
        "{% set n = namespace(a='a') %}{% for i in range(99) %}{% set n.a = n.a + n.a %}{% endfor %}{{ n.a }}",
        "{% set n = namespace(a='a') %}{% for i in range(99) %}{% set n.a = n.a ~ n.a %}{% endfor %}{{ n.a }}",
        "{% set n = namespace(a='a') %}{% for i in range(99) %}{% set n.a = [n.a, n.a] %}{% endfor %}{{ n.a }}",
        "{% set n = namespace(a='a') %}{% for i in range(99) %}{% set n.a = {1: n.a, 2: n.a} %}{% endfor %}{{ n.a }}",
        "{% set n = namespace(a='a') %}{% for i in range(99) %}{% set n.a = dict(a=n.a, b=n.a) %}{% endfor %}{{ n.a }}",
        "{% set n = namespace(a=[1]) %}{% for i in range(99) %}{% set n.a = (n.a + n.a) | batch(2) | list %}{% endfor %}"
        "{{ n.a }}",
        "{% set n = namespace(a='a') %}{% for i in range(99) %}{% set n.a %}{{ n.a }}{{ n.a }}{% endset %}{% endfor %}",
        "{% set x = [-(10**9)] | map('budget spend') | list %}{% for i in range(99999) %}{% for j in range(99999) %}"
        "{% endfor %}{% endfor %}",
        "{% filter center(10**9) %}x{% endfilter %}",
        "{{ range(99999) | map('center', 9999) | list | length }}",
        "{% for i in range(9999) %}" + "x" * 9999 + "{% endfor %}",
        "{% set x %}{% for i in range(9999) %}" + "x" * 9999 + "{% endfor %}{% endset %}",
        "{% for i in range(99999) %}{{ ('x' * 999999)[1:] | length }}{% endfor %}",
        "{% for i in range(99999) %}{{ range(99999) | select | list | length }}{% endfor %}",
        "{% for i in range(99999) %}{{ range(99999) | list == range(99999) | list }}{% endfor %}",
    ],
)  # fmt: skip
def test_template_that_loops_or_grows_without_bound_ends_in_an_error(template: str) -> None:
    with pytest.raises(RenderError):
        render(template)


def test_budget_is_counted_and_gives_the_same_verdict_every_time() -> None:
    template = compile_text("{% for i in range(n) %}{{ i }}{% endfor %}")
    low, high = 1, 100_000
    assert template.render({"n": 10_000}).startswith("012")
    with pytest.raises(RenderError):
        compile_text("{% for j in range(99) %}{% for i in range(n) %}{{ i }}{% endfor %}{% endfor %}").render(
            {"n": high}
        )
    assert template.render({"n": low}) == template.render({"n": low})


def test_spent_budget_leaves_the_next_render_whole() -> None:
    template = compile_text("{% for i in range(n) %}{% for j in range(n) %}{% endfor %}{% endfor %}ok")
    with pytest.raises(RenderError):
        template.render({"n": 99_999})
    assert template.render({"n": 10}) == "ok"


def test_large_honest_template_fits_the_budget() -> None:
    rows = [{"id": index, "name": f"row {index}", "tags": ["a", "b"]} for index in range(5000)]
    text = compile_text(
        "{% for row in rows %}{{ row.id }}: {{ row.name | upper }}"
        "{% for tag in row.tags %} {{ tag }}{% endfor %}{% if not loop.last %};{% endif %} of {{ rows | length }}\n{% endfor %}"
    ).render({"rows": rows})
    assert text.count("\n") == 5000


def test_text_longer_than_a_megabyte_is_refused() -> None:
    template = compile_text("{{ a }}{{ a }}")
    assert len(template.render({"a": "x" * 400_000})) == 800_000
    with pytest.raises(RenderError, match="characters"):
        template.render({"a": "x" * 600_000})


@pytest.mark.parametrize(
    "template",
    [
        "{{ event.__class__ }}",
        "{{ event['__class__'] }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ names.__len__() }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ 'x'.format_map({}) }}",
        "{{ 'x'.encode() }}",
        "{{ names.append(1) }}",
        "{{ event.update(a=1) }}",
        "{{ event.pop('event') }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ joiner }}",
        "{{ self }}",
        "{{ self._TemplateReference__context }}",
        "{{ range.__self__ }}",
        "{{ names | map(attribute='__class__') | list }}",
        "{{ (1).to_bytes(10**9) }}",
        "{{ lipsum() }}",
        "{{ environ }}",
        "{{ 1 / 0 }}",
        "{{ 'a' + 1 }}",
        "{{ names() }}",
        "{{ '%c' % 55296 }}",
    ],
)
def test_template_reaches_only_data(template: str) -> None:
    with pytest.raises(RenderError):
        render(template)


@pytest.mark.parametrize(
    ("template", "parts"),
    [
        ("{{ x", ["line 1"]),
        ("\n\n{{ a b }}", ["line 3"]),
        ("{% for %}", ["line 1"]),
        ("{% if a %}", ["line 1"]),
        ("a\n{{ a | tojsn }}", ["line 2", "tojsn", "'tojson'"]),
        ("{{ a | random }}", ["random"]),
        ("{{ a | attr('b') }}", ["attr"]),
        ("{{ a is definde }}", ["'defined'"]),
        ("{% include '/etc/passwd' %}", ["stands alone"]),
        ("{% extends 'x' %}", ["stands alone"]),
        ("{% import 'x' as y %}", ["stands alone"]),
        ("{% from 'x' import y %}", ["stands alone"]),
        ("{% block a %}{% endblock %}", ["stands alone"]),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", ["nested too deep"]),
        ("{{ 1" + "+1" * 20_000 + " }}", ["nested too deep"]),
        ("{% for i in a %}" * 40 + "{% endfor %}" * 40, ["nested too deep"]),
        ("x" * 200_001, ["200000"]),
    ],
)
def test_template_that_does_not_compile_is_refused_with_its_line(template: str, parts: list[str]) -> None:
    with pytest.raises(InvalidTemplate) as caught:
        compile_text(template)
    for part in parts:
        assert part in str(caught.value)


def test_unknown_variable_is_refused_when_the_known_ones_are_given() -> None:
    text = "{% set local = event.id %}{% for x in names %}{{ x }}{{ local }}{% endfor %}{{ range(2) | list }}"
    assert compile_text(text, known={"event", "names"}).names_used == {"event", "names"}
    with pytest.raises(InvalidTemplate, match="line 2: unknown variable 'evnt'; did you mean 'event'"):
        compile_text("\n{{ evnt.id }}", known={"event", "firing"})


def test_rendering_leaves_the_context_unchanged() -> None:
    context = {"a": {"b": [1]}}
    compile_text("{% set a = 1 %}{% set c = 2 %}{{ a }}").render(context)
    assert context == {"a": {"b": [1]}}


def test_a_look_up_renders_the_same_before_and_after_it_failed_once() -> None:
    text = compile_text("one\n{{ event.payload.order }}")
    there = {"event": {"payload": {"order": "o-1"}}}
    assert text.render(there) == "one\no-1"
    for _ in range(2):
        with pytest.raises(RenderError, match=r"^line 2: event\.payload\.order: "):
            text.render({"event": {"payload": {}}})
    assert text.render(there) == "one\no-1"


@pytest.mark.parametrize("steps", [20, 21, 60])
def test_a_look_up_of_many_steps_is_followed(steps: int) -> None:
    value: object = "end"
    for _ in range(steps):
        value = {"a": value}
    assert compile_text("{{ x" + ".a" * steps + " }}").render({"x": value}) == "end"


def test_a_look_up_too_deep_for_jinja_is_refused_when_it_is_compiled() -> None:
    with pytest.raises(InvalidTemplate, match="nested too deep"):
        compile_text("{{ x" + ".a" * 5000 + " }}")


NO_TEXT = {"nothing": None, "list": [1, None], "object": {"a": 1}}
WRITERS = (
    "{{ x }}",
    "id-{{ x }}",
    "{{ x ~ '' }}",
    "{{ '' ~ x }}",
    "{% set y %}{{ x }}{% endset %}{{ y }}",
    "{% macro m(v) %}{{ v }}{% endmacro %}{{ m(x) }}",
    "{% for v in [x] %}{{ v }}{% endfor %}",
    "{{ [x] | join }}",
    "{{ [1, x] | join('-') }}",
    "{{ ['a', 'b'] | join(x) }}",
    "{{ [{'k': x}] | join('-', attribute='k') }}",
    "{{ [x] | map('string') | join }}",
    "{{ [x] | map('upper') | list | first }}",
    "{{ (['a'] | map('e') | first).join([x]) }}",
    "{{ ','.join([x]) }}",
    "{{ 'a' | replace('a', x) }}",
    "{{ 'a' | replace(x, 'b') }}",
    "{{ '%s' % (x,) }}",
    "{{ '%(k)s' % {'k': x} }}",
    "{{ '%r' | format(x) }}",
    "{{ '%(k)s' | format(k=x) }}",
    "{{ '{}'.format(x) }}",
    "{{ '{!s}'.format(x) }}",
    "{{ '{!r}'.format(x) }}",
    "{{ '{k}'.format(k=x) }}",
    "{{ '{0[k]}'.format({'k': x}) }}",
    "{{ {'k': x} | urlencode }}",
    "{{ [('k', x)] | urlencode }}",
    "{{ cycler(x).next() }}",
    "{% set j = joiner(x) %}{{ j() }}{{ j() }}",
    *(
        f"{{{{ x | {name} }}}}"
        for name in (
            "string", "upper", "lower", "capitalize", "title", "trim", "replace('a', 'b')", "center(9)", "indent",
            "truncate(5)", "wordwrap(5)", "wordcount", "e", "escape", "format",
        )
    ),
)  # fmt: skip


@pytest.mark.parametrize("template", WRITERS)
@pytest.mark.parametrize(("name", "kind"), [("nothing", "null"), ("list", "a list"), ("object", "an object")])
def test_null_lists_and_objects_have_no_text_wherever_text_is_made(template: str, name: str, kind: str) -> None:
    with pytest.raises(RenderError) as caught:
        render(template, x=NO_TEXT[name])
    assert f"{kind} has no text" in str(caught.value)


@pytest.mark.parametrize("template", WRITERS)
@pytest.mark.parametrize(("value", "text"), [(True, "true"), (False, "false"), (1.5, "1.5"), (10**18, "10" + "0" * 17)])
def test_scalars_are_written_as_json_writes_them_wherever_text_is_made(template: str, value: object, text: str) -> None:
    assert json.dumps(value) == text
    compiled = compile_text(template)
    of_text = compiled.render({"x": text}).replace("'", "")
    if ".join([x])" in template:  # the method takes text only
        with pytest.raises(RenderError, match="join takes texts"):
            compiled.render({"x": value})
    else:
        assert compiled.render({"x": value}) == of_text


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ event.payload.nothing | default('') }}", ""),
        ("{{ event.payload.nothing | d('-') }}", "-"),
        ("{{ event.payload.nothing | tojson }}", "null"),
        ("{{ event.payload.items | tojson }}", "[1, 2, 3]"),
        ("{{ {'a': none} | tojson }}", '{"a": null}'),
        ("{% if event.payload.nothing is none %}none{% endif %}", "none"),
        ("{{ event.payload.nothing == none }}", "true"),
        ("{{ '%d' % true }} {{ '{:d}'.format(true) }} {{ '{:>6}'.format(true) }}", "1 1   true"),
        ("{{ {'a': 1, 'b': true} | urlencode }}", "a=1&b=true"),
        ("{{ 'a b/c' | urlencode }}", "a%20b/c"),
    ],
)
def test_what_a_template_says_on_purpose_is_written(template: str, text: str) -> None:
    assert render(template) == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("id-{{ event.payload.nothing }}", "line 1: event.payload.nothing: null has no text; "),
        ("a\n{{ event['payload'].nothing | upper }}", "line 2: event['payload'].nothing: null has no text; "),
        ("{{ event.event }} {{ event.payload.items }}", "line 1: event.payload.items: a list has no text; "),
        ("{% for n in rows %}{{ n.id }}{% endfor %}", "line 1: n.id: null has no text; "),
        ("{{ event.payload.nothing }}{{ rows[0].id }}", "line 1: event.payload.nothing: null has no text; "),
        ("{{ 1e308 * 10 }}", "line 1: inf is no number that JSON can write"),
    ],
)
def test_error_names_the_look_up_that_found_nothing_to_write(template: str, message: str) -> None:
    with pytest.raises(RenderError) as caught:
        render(template, rows=[{"id": None}])
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("template", "value", "text"),
    [
        ("{{ (v | from_json).a[0] }}", '{"a": [7]}', "7"),
        ("x {{ v | from_json }}", "true", "x true"),
        ("{{ v | from_json | tojson }}", '{"n": 1.5, "big": 123456789012345678901234567890}',
         '{"n": 1.5, "big": "123456789012345678901234567890"}'),
        ("{{ v | from_json }}", "18446744073709551615", "18446744073709551615"),
        ('{{ v | parse_time("%d/%m/%Y") }}', "31/01/2026", "2026-01-31T00:00:00.000000Z"),
        ('{{ v | parse_time("%d/%m/%Y %H:%M", "Europe/Berlin") }}', "31/07/2026 10:00", "2026-07-31T08:00:00.000000Z"),
        ('{{ v | parse_time("%d/%m/%Y %H:%M %z", "Europe/Berlin") }}', "31/07/2026 10:00 +0000", "2026-07-31T10:00:00.000000Z"),
        ('{{ v | parse_time("%Y%m%d%H%M%S") }}', "20260131080000", "2026-01-31T08:00:00.000000Z"),
        ('{{ v | parse_time("%Y%m%d") }}', 20260131, "2026-01-31T00:00:00.000000Z"),
        ("{{ v | parse_time }}", "1769846400123", "2026-01-31T08:00:00.123000Z"),
        ("{{ v | parse_time }}", "2026-01-31 08:00:00 UTC", "2026-01-31T08:00:00.000000Z"),
        ('{{ v | parse_time(zone="Europe/Berlin") }}', "2026-01-31 09:00", "2026-01-31T08:00:00.000000Z"),
    ],
)  # fmt: skip
def test_json_and_times_inside_a_text_are_read(template: str, value: object, text: str) -> None:
    assert compile_text(template).render({"v": value}) == text


@pytest.mark.parametrize(
    ("template", "value", "message"),
    [
        ("{{ v | from_json }}", "[1", "from_json: not JSON at line 1, column 3"),
        ("{{ v | from_json }}", "", "from_json: not JSON at line 1"),
        ("{{ v | from_json }}", {"a": 1}, "from_json reads a text, found an object"),
        ("{{ v | from_json }}", None, "from_json reads a text, found null"),
        ("{{ v.x | from_json }}", {}, "v.x: no 'x'"),
        ("{{ v | from_json | tojson }}", '"\\ud800"', "from_json: not JSON"),
        ("{{ v | from_json | tojson }}", "[NaN]", "from_json: not JSON"),
        ("{{ v | from_json | tojson }}", "[" * 101 + "]" * 101, "nested more than 100 deep"),
        ("{{ v | from_json | tojson }}", "[" * 100_000 + "]" * 100_000, "from_json: not JSON"),
        ("{{ v | from_json | length }}", "[" + "1," * 500_000 + "1]", "at most 1000000"),
        ("{{ v | from_json | length }}", "[" + "[]," * 250_000 + "1]", "more than 500000 steps"),
        ("{% for i in range(99) %}{{ v | from_json | length }}{% endfor %}", '"' + "x" * 99_999 + '"', "more than 500000 steps"),
        ('{{ v | parse_time("%d/%m/%Y") }}', "2026-01-31", "'2026-01-31' does not match '%d/%m/%Y'"),
        ('{{ v | parse_time("%d/%m/%Y %Z") }}', "31/01/2026 CET", "%Z is not understood"),
        ('{{ v | parse_time("%d %") }}', "31", "% is not understood"),
        ('{{ v | parse_time("%Y%d%d") }}', "20263131", "redefinition"),
        ('{{ v | parse_time("%d/%m") }}', "31/01", "the format '%d/%m' names no year; add %Y"),
        ('{{ v | parse_time("%d" * 60) }}', "31", "1 to 100 characters"),
        ('{{ v | parse_time("%Y", "Europe/Nowhere") }}', "2026", "'Europe/Nowhere' is no time zone"),
        ('{{ v | parse_time("%Y", "../x") }}', "2026", "'../x' is no time zone"),
        ("{{ v | parse_time }}", "31/01/2026", "'31/01/2026' is not a time"),
        ("{{ v | parse_time }}", "2026-01-31 08:00", "has no time zone"),
        ("{{ v | parse_time }}", True, "reads a text or a number"),
        ("{{ v | parse_time }}", "9" * 201, "at most 200 are read"),
        ('{{ v | parse_time("%Y-%m-%d %z") }}', "0001-01-01 +1000", "out of range"),
    ],
)  # fmt: skip
def test_what_is_no_json_or_no_time_is_an_error_that_says_so(template: str, value: object, message: str) -> None:
    with pytest.raises(RenderError) as caught:
        compile_text(template).render({"v": value})
    assert message in str(caught.value)
