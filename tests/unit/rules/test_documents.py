"""YAML as it is read for rules: values, places, and what is refused."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from whenthen.rules.reading.documents import MAX_DEPTH, Places, read_document


def faults(text: str | bytes) -> list[str]:
    raw = text if isinstance(text, bytes) else text.encode()
    return [f"{fault.line}:{fault.column}: {fault.detail}" for fault in read_document(raw, Places()).faults]


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(max_size=20)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.takes(2)
@given(PLAIN)
def test_what_pyyaml_writes_reads_back_the_same(value: object) -> None:
    text = yaml.safe_dump(value)
    document = read_document(text.encode())
    assert document.faults == ()
    assert document.data == value


@given(st.text() | st.binary())
def test_any_text_or_bytes_give_a_document_or_faults(raw: str | bytes) -> None:
    data = raw if isinstance(raw, bytes) else raw.encode("utf-8", "surrogatepass")
    with_places = read_document(data, Places())
    assert with_places.data == read_document(data).data
    assert len(with_places.faults) == len(read_document(data).faults)


@given(st.text(alphabet="ab:-[]{}&*!|>'\"\n #<,?%@~0.1", max_size=60))
def test_any_soup_of_yaml_signs_gives_a_document_or_faults(text: str) -> None:
    document = read_document(text.encode(), Places())
    assert not document.broken or document.faults


def test_words_of_yaml_1_1_are_booleans_and_base_60_and_dates_stay_text() -> None:
    text = "[on, off, yes, NO, 'on', 1:30, 2026-01-31, 0x10, 0o17, 1e3, 1.5e+3, .5, 1_000, -7, 089, ~]"
    expected = [
        True,
        False,
        True,
        False,
        "on",
        "1:30",
        "2026-01-31",
        16,
        "0o17",
        "1e3",
        1500.0,
        0.5,
        1000,
        -7,
        "089",
        None,
    ]
    assert read_document(text.encode()).data == expected


def test_places_tell_keys_values_and_spelling() -> None:
    places = Places()
    read_document(b"a:\n  - b: on\n    c: {d: 1}\n", places)
    assert places.key(("a", 0, "b")) == (2, 5)
    assert places.value(("a", 0, "b")) == (2, 8)
    assert places.spelling[("a", 0, "b")] == "on"
    assert places.value(("a", 0, "c", "d")) == (3, 12)
    assert places.value(("a", 0, "nothing")) == (2, 5)


def test_merge_keys_fill_in_what_is_not_given() -> None:
    text = "base: &base {a: 1, b: 2}\nother: &other {c: 3, a: 9}\nx: {<<: [*base, *other], b: 5}\n"
    assert read_document(text.encode()).data["x"] == {"a": 1, "b": 5, "c": 3}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", "3:1: the key a comes twice in this mapping (first in line 1); remove one"),
        ("on: 1\n", "1:1: the key on reads as true; put it in quotes"),
        ("1: x\n", "1:1: the key 1 reads as the number 1; put it in quotes"),
        ("? [a]\n: 1\n", "1:3: a list or mapping can not be a key; keys are text"),
        ("a:\n\tb: 1\n", "2:1: not YAML: a tab; indent with spaces"),
        ("a: &x [*x]\n", "1:8: *x contains itself; write the values out"),
        ("a: *y\n", "1:4: *y names no anchor; put &y before the value meant"),
        (
            "a: !!python/name:os.system x\n",
            "1:4: the tag !!python/name:os.system is not used here; remove it, and put text in quotes",
        ),
        (
            "a: 1\n---\nb: 2\n",
            "2:1: a second document starts here; a rules file has one, put the rest into another file",
        ),
        (
            "a: 0123\n",
            "1:4: 0123 is octal to some YAML readers and decimal to others; put it in quotes, or drop the zero",
        ),
        ("a: .nan\n", "1:4: .nan is no number in JSON; write a finite one"),
        (
            "a: 99999999999999999999\n",
            "1:4: the number 99999999999999999999 does not fit into 64 bits; put it in quotes to make it text",
        ),
        ("a: 1.0e+999\n", "1:4: the number 1.0e+999 is too large; put it in quotes to make it text"),
        (b"a: b\nc: \xff\n", "2:4: byte 0xff is not UTF-8; save the file as UTF-8"),
        ("a: \x07\n", "1:4: control character U+0007 is not allowed in YAML; remove it"),
        ("{<<: 1}", "1:2: `<<` takes a mapping or a list of mappings, as in `<<: *defaults`"),
    ],
)
def test_what_is_refused_is_told_with_place_and_remedy(text: str | bytes, expected: str) -> None:
    assert faults(text) == [expected]


def test_syntax_errors_have_a_place() -> None:
    assert faults("a: b\nc: d: e\n")[0].startswith("2:5: not YAML: mapping values are not allowed")
    assert faults("a: 'open\n")[0].startswith("2:1: not YAML:")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "{expect: [x}",
            "1:12: not YAML: the [ of line 1, column 10 is not closed before this }; "
            "write ], or put text that contains a bracket in quotes",
        ),
        (
            "a:\n  b: [1, {c: 2]\n",
            "2:15: not YAML: the { of line 2, column 10 is not closed before this ]; "
            "write }, or put text that contains a bracket in quotes",
        ),
        (
            "a: [1, 2\nb: 3\n",
            "2:2: not YAML: the [ of line 1, column 4 is not closed here; write ], or a comma between two values",
        ),
        (
            "a: {b: 1",
            "2:1: not YAML: the { of line 1, column 4 is not closed here; write }, or a comma between two values",
        ),
        (
            "a: [b]]\n",
            "1:7: not YAML: there is nothing open that this ] closes; remove it, or put text that contains it in quotes",
        ),
        (
            "a: [@b]\n",
            "1:5: not YAML: found character that cannot start any token, at @; "
            "text that starts or contains such a character needs quotes",
        ),
        (
            "a: {b: c{d}\n",
            "1:9: not YAML: did not find expected ',' or '}', at {; "
            "text that starts or contains such a character needs quotes",
        ),
    ],
)
def test_brackets_that_do_not_fit_are_told_with_the_one_that_is_open(text: str, expected: str) -> None:
    assert faults(text) == [expected]


def test_nesting_is_bounded_however_it_is_written() -> None:
    assert faults("[" * MAX_DEPTH + "]" * MAX_DEPTH) == []
    for text in ("[" * 100_000, "- " * 10_000, "{a: " * 5_000, "\n".join(" " * i + "a:" for i in range(2_000))):
        (message,) = faults(text)
        assert "nested more than 100 deep" in message


def test_aliases_that_nest_each_other_count_as_deep_as_they_are() -> None:
    text = "- &a0 [x]\n" + "".join(f"- &a{i + 1} [[[[[[[[[[*a{i}]]]]]]]]]]\n" for i in range(20))
    assert "nests more than 100 deep" in faults(text)[0]


def test_an_alias_bomb_is_refused_before_it_is_expanded() -> None:
    text = "- &a0 [x,x,x,x,x,x,x,x,x,x]\n"
    text += "".join(f"- &a{i + 1} [{','.join([f'*a{i}'] * 10)}]\n" for i in range(12))
    (message,) = faults(text)
    assert "aliases stand for more than 100000 values" in message


def test_several_problems_of_the_text_are_told_together() -> None:
    assert len(faults("a: 1\na: 2\non: 3\nb: !x 1\nb: 0777\n")) == 5


def test_an_empty_file_and_one_with_comments_only_say_nothing() -> None:
    assert read_document(b"").data is None
    assert read_document(b"# nothing\n").data is None
    assert read_document(b"\xef\xbb\xbfa: 1\n").data == {"a": 1}
