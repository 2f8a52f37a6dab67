"""Subjects: any text is a legal token and can be read back, and filters let everything through that a glob matches."""

from __future__ import annotations

import fnmatch
import re

from hypothesis import example, given
from hypothesis import strategies as st

from whenthen.engine.bus import subjects

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40)
NAMES = st.text(alphabet="ab.*>% \t\x00é", max_size=12)
LEGAL = re.compile(r"[!-)+-=?-~]+", re.ASCII)


def legal(subject: str) -> bool:
    return all(LEGAL.fullmatch(token) and "." not in token for token in subject.split("."))


def lets_through(pattern: str, subject: str) -> bool:
    """What the server does with a filter."""
    return subject.startswith(pattern[:-1]) if pattern.endswith(".>") else subject == pattern


@given(TEXT | NAMES)
@example("")
@example(".")
@example(".a..b.")
@example("a b*c>d%20")
def test_any_event_name_is_a_legal_subject_and_reads_back(name: str) -> None:
    subject = subjects.event_subject(name)
    assert legal(subject)
    tokens = subject.removeprefix("events.").split(".")
    assert ".".join(map(subjects.unescape_token, tokens)) == name


@given(TEXT | NAMES)
def test_any_text_is_one_legal_token_and_reads_back(text: str) -> None:
    token = subjects.escape_token(text)
    assert legal(token)
    assert "." not in token
    assert subjects.unescape_token(token) == text


@given(st.lists(TEXT | NAMES, min_size=2, max_size=2, unique=True))
def test_two_texts_never_share_a_token(texts: list[str]) -> None:
    assert subjects.short_token(texts[0]) != subjects.short_token(texts[1])


def test_a_long_text_gets_a_token_of_bounded_length_that_depends_on_all_of_it() -> None:
    one, two = subjects.short_token("k" * 5000 + "1"), subjects.short_token("k" * 5000 + "2")
    assert one != two
    assert max(len(one), len(two)) <= subjects.MAX_TOKEN_CHARS
    assert legal(one)


@given(
    st.lists(st.text(alphabet="ab.*!", max_size=8), max_size=5),
    NAMES | st.text(alphabet="ab.!", max_size=8),
    st.integers(1, 4),
)
def test_what_a_glob_matches_passes_one_filter_exactly(patterns: list[str], name: str, limit: int) -> None:
    filters = subjects.filters_for(patterns, limit=limit)
    passing = [pattern for pattern in filters if lets_through(pattern, subjects.event_subject(name))]
    assert len(passing) <= 1, "filters overlap; the server would refuse the consumer"
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
        assert passing
    assert len(filters) <= limit


def test_filters_are_as_narrow_as_the_literal_tokens_allow() -> None:
    assert subjects.filters_for(["s3.file.*", "s3.file.uploaded", "github.pu*", "order.created"]) == [
        "events.github.>",
        "events.order.created",
        "events.s3.file.>",
    ]
    assert subjects.filters_for(["a", "a.*", "a.b.*"]) == ["events.a", "events.a.>"]
    assert subjects.filters_for(["a.b", "*.deleted"]) == ["events.>"]
    assert subjects.filters_for([]) == []
    assert subjects.filters_for([f"n{i}" for i in range(300)]) == ["events.>"]


def test_a_message_id_survives_the_trimming_of_header_values() -> None:
    assert subjects.header_id(" a") != subjects.header_id("a")
    assert subjects.header_id("a\u00a0") != subjects.header_id("a")
    assert subjects.header_id("github-72d3162e") == "github-72d3162e"
