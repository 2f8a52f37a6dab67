"""W3C trace context: what is taken from headers, kept and sent on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whenthen.schemas.trace_context import (
    child_trace,
    derived_trace,
    read_trace,
    trace_headers,
    valid_trace,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
HEADER = f"00-{TRACE}-{PARENT}-01"


def test_a_traceparent_is_taken_apart_and_written_again() -> None:
    trace = read_trace([HEADER], ["congo=t61rcWkgMzE, rojo=00f067aa0ba902b7"])
    assert trace == {"id": TRACE, "parent": PARENT, "flags": "01", "state": "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"}
    assert trace_headers(trace) == {"traceparent": HEADER, "tracestate": "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"}


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{TRACE}-{PARENT}",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"01-{TRACE}-{PARENT}-01more",
        f"0-{TRACE}-{PARENT}-01",
        f"00_{TRACE}_{PARENT}_01",
        f"00-{TRACE[:-1]}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-0g",
        "x" * 100_000,
    ],
)
def test_a_malformed_traceparent_is_no_trace(header: str) -> None:
    assert read_trace([header], ["a=1"]) is None


def test_two_traceparents_are_no_trace() -> None:
    assert read_trace([HEADER, HEADER], []) is None


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    trace = read_trace([f"cc-{TRACE}-{PARENT}-ff-what-else"], [])
    assert trace == {"id": TRACE, "parent": PARENT, "flags": "03"}
    assert trace_headers(trace)["traceparent"] == f"00-{TRACE}-{PARENT}-03"


@pytest.mark.parametrize(
    "states",
    [
        ["a"],
        ["A=1"],
        ["a=1,a=2"],
        ["a=1", "a=2"],
        [",".join(f"k{i}=v" for i in range(33))],
        ["a=\x01"],
        ["a=é"],
        ["a=1=2"],
    ],
)
def test_a_malformed_tracestate_is_left_out_alone(states: list[str]) -> None:
    assert read_trace([HEADER], states) == {"id": TRACE, "parent": PARENT, "flags": "01"}


def test_several_tracestates_are_one_list_and_empty_members_are_none() -> None:
    trace = read_trace([HEADER], ["a=1, ,", "", "t@v=2"])
    assert trace is not None
    assert trace["state"] == "a=1,t@v=2"


def test_a_tracestate_that_is_too_long_loses_whole_members_the_long_ones_first() -> None:
    long = "long=" + "x" * 200
    members = [f"k{i:02}=" + "y" * 30 for i in range(20)]
    trace = read_trace([HEADER], [",".join([long, *members])])
    assert trace is not None
    kept = trace["state"].split(",")
    assert len(trace["state"]) <= 512
    assert kept == members[: len(kept)]
    assert len(",".join(members[: len(kept) + 1])) > 512


def test_a_tracestate_of_512_characters_is_kept_whole() -> None:
    state = ",".join(f"k{i}=" + "y" * 124 for i in range(4))
    state += "y" * (512 - len(state))
    assert len(state) == 512
    trace = read_trace([HEADER], [state])
    assert trace is not None
    assert trace["state"] == state


def test_a_firing_without_a_trace_gets_one_from_its_id_each_time_the_same() -> None:
    firing = "0123456789abcdef0123456789abcdef"
    assert derived_trace(firing) == derived_trace(firing)
    assert derived_trace(firing)["id"] == firing
    assert valid_trace(derived_trace("any text")) == derived_trace("any text")


def test_the_parent_of_a_child_is_made_of_its_name() -> None:
    trace = derived_trace("f")
    first, second = child_trace(trace, "f.0"), child_trace(trace, "f.1")
    assert first == child_trace(trace, "f.0")
    assert first["id"] == second["id"] == trace["id"]
    assert len({first["parent"], second["parent"], trace["parent"]}) == 3


@pytest.mark.parametrize(
    "value",
    [None, "x", [], {}, {"id": TRACE}, {"id": TRACE, "parent": PARENT, "flags": 1}, {"id": 1, "parent": 2, "flags": 3}],
)
def test_what_another_program_wrote_as_a_trace_is_checked(value: object) -> None:
    assert valid_trace(value) is None


@given(st.lists(st.text(max_size=80), max_size=2), st.lists(st.text(max_size=300), max_size=3))
def test_no_headers_are_an_error(parents: list[str], states: list[str]) -> None:
    trace = read_trace(parents, states)
    assert trace is None or read_trace([trace_headers(trace)["traceparent"]], []) is not None
