"""Subjects: any text is a legal token and can be read back, and filters let everything through that a glob matches."""

from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from whenthen.engine.bus import subjects
from whenthen.engine.bus.subjects import (
    action_subject,
    dead_subject,
    dead_subjects,
    firing_prefix,
    header_id,
    legal_key,
    log_subject,
    outcome_subject,
    pool_consumer,
    pool_subject,
    queued_run_subject,
    run_key,
    short_token,
    window_subject,
)
from whenthen.schemas.errors import InvalidInput

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


RUN = "0123456789abcdef" * 2
NO_RUNS = [">", "*", "", "$", "a.b", "*" * 32, RUN + "\n", RUN.upper(), RUN[:-1], RUN + "0", f"{RUN}.>", "０" * 32]


@pytest.mark.parametrize("text", NO_RUNS)
def test_what_is_no_id_of_a_run_never_becomes_a_subject(text: str) -> None:
    for subject in (run_key, log_subject, lambda run: queued_run_subject("pool", "deployment", run)):
        with pytest.raises(InvalidInput, match="is no id of a flow run"):
            subject(text)


@given(st.text())
def test_only_ids_of_runs_become_keys(text: str) -> None:
    try:
        key = run_key(text)
    except InvalidInput:
        assert not re.fullmatch(r"[0-9a-f]{32}", text)
    else:
        assert key == text
        assert re.fullmatch(r"[0-9a-f]{32}", text)


ANY = st.text(st.characters()).map(lambda text: text[:300])
TOKEN = re.compile(r"[^\s.*>\x00-\x20\x7f-\U0010ffff]+")


@given(ANY, ANY, ANY, st.integers(0, 1000))
def test_any_names_make_subjects_with_a_fixed_number_of_legal_tokens(a: str, b: str, c: str, number: int) -> None:
    subjects = {
        action_subject(a, b, number): 5,
        outcome_subject(a, b, number): 5,
        dead_subject(a, b, number): 5,
        firing_prefix(a) + short_token(b): 4,
        window_subject(number, a, b): 6,
        queued_run_subject(a, b, RUN): 4,
        log_subject(RUN): 2,
    }
    for subject, tokens in subjects.items():
        assert len(subject) < 1000
        assert len(subject.split(".")) == tokens
        assert all(TOKEN.fullmatch(token) for token in subject.split("."))
    assert pool_subject(a) == queued_run_subject(a, b, RUN).rsplit(".", 2)[0] + ".>"
    assert dead_subjects(b, number).replace("*", short_token(a), 1) == dead_subject(a, b, number)


@given(st.lists(ANY, min_size=2, max_size=2, unique=True))
def test_two_texts_never_share_a_key_or_a_consumer(texts: list[str]) -> None:
    keys = [legal_key(text) for text in texts]
    assert keys[0] != keys[1]
    assert all(re.fullmatch(r"[A-Za-z0-9_=-]{1,160}", key) for key in keys)
    assert pool_consumer(texts[0]) != pool_consumer(texts[1])


@given(ANY, ANY)
def test_a_message_id_is_one_line_of_plain_ascii_that_no_other_text_has(a: str, b: str) -> None:
    assert re.fullmatch(r"[!-~]*", header_id(a))
    assert (header_id(a) == header_id(b)) == (a == b)
