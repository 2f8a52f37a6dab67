"""What `.map` and `.submit` make of arguments: futures found, results in their place, sequences taken apart."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from whenthen import allow_failure, quote, unmapped
from whenthen.exceptions import MappingLengthMismatch, MappingMissingIterable, UpstreamTaskError
from whenthen.flows.definitions.mapped_arguments import mapped
from whenthen.flows.definitions.parameters import Parameters
from whenthen.flows.execution.run_records import TaskRun
from whenthen.flows.futures.inputs import futures_in, resolved
from whenthen.futures import PrefectFuture
from whenthen.states import Completed, Failed, Pending, State
from whenthen.utilities.annotations import opaque


def ended(state: State[Any]) -> PrefectFuture[Any]:
    run = TaskRun(
        task_name="t",
        task_key="t",
        task_version=None,
        flow_run_id=None,
        id=uuid4(),
        name="t",
        parent=None,
        tags=[],
        state=state,
    )
    future: PrefectFuture[Any] = PrefectFuture(run)
    future.end()
    return future


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = 0


class Model(BaseModel):
    n: Any


class Pair(NamedTuple):
    a: Any
    b: Any


PLAIN = st.recursive(
    st.one_of(st.none(), st.integers(), st.text(), st.binary()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=3), inner, max_size=4),
        st.builds(Point, inner, inner),
        st.builds(Model, n=inner),
    ),
    max_leaves=12,
)


@given(PLAIN)
def test_values_without_futures_are_passed_as_they_are(value: object) -> None:
    assert futures_in(value) == []
    assert resolved(value) is value


@given(PLAIN)
def test_a_future_becomes_its_result_wherever_it_is(value: object) -> None:
    future = ended(Completed(data=value))
    places: list[Any] = [
        [future],
        (1, future),
        {"k": future},
        Point(future),
        Model(n=[future]),
        Pair(1, {"x": future}),
        {"a": [(future,)]},
    ]
    expected: list[Any] = [
        [value],
        (1, value),
        {"k": value},
        Point(value),
        Model(n=[value]),
        Pair(1, {"x": value}),
        {"a": [(value,)]},
    ]
    for place, result in zip(places, expected, strict=True):
        assert futures_in(place) == [future]
        assert resolved(place) == result
        assert type(resolved(place)) is type(result)


def test_a_container_that_holds_itself_is_no_endless_way() -> None:
    circle: list[Any] = [1]
    circle.append(circle)
    assert futures_in(circle) == []
    assert resolved(circle) is circle


def test_a_failed_future_is_refused_unless_it_may_fail() -> None:
    future = ended(Failed(data=ValueError("x")))
    with pytest.raises(UpstreamTaskError, match=r"did not reach a 'COMPLETED' state.*allow_failure"):
        resolved([future])
    (error,) = resolved([allow_failure(future)])
    assert isinstance(error, ValueError)
    assert [type(one) for one in resolved(allow_failure([future, ended(Pending(name="NotReady"))]))] == [
        ValueError,
        UpstreamTaskError,
    ]


def test_what_is_quoted_or_opaque_is_not_looked_into() -> None:
    inner, outer = ended(Completed(data=1)), ended(Completed(data={"f": 1}))
    assert futures_in(quote([inner])) == []
    assert resolved(quote([inner])) == [inner]
    assert resolved(opaque(outer)) == {"f": 1}
    assert resolved(opaque([inner])) == [inner]


def fits(fn: Any, /, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
    parameters = Parameters(fn)
    return list(mapped(parameters, parameters.bind(args, kwargs, defaults=False)))


def test_sequences_are_taken_apart_and_the_rest_goes_to_every_run() -> None:
    def fn(a: Any, b: Any = 7, *, c: Any = None, **more: Any) -> None: ...

    assert fits(fn, [1, 2], "xy", c=unmapped([0]), d=(3, 4)) == [
        {"a": 1, "b": "xy", "c": [0], "more": {"d": 3}},
        {"a": 2, "b": "xy", "c": [0], "more": {"d": 4}},
    ]
    assert fits(fn, ended(Completed(data=[1, 2]))) == [{"a": 1, "b": 7, "c": None}, {"a": 2, "b": 7, "c": None}]
    assert fits(fn, []) == []


def test_what_can_not_be_mapped_over_is_refused() -> None:
    def fn(a: Any, b: Any = 1) -> None: ...

    with pytest.raises(MappingMissingIterable, match=r"needs at least one; got a\. Use \.submit"):
        fits(fn, 1)
    with pytest.raises(MappingLengthMismatch, match=r"a: 2, b: 3\); wrap what every run is to get in unmapped"):
        fits(fn, [1, 2], [1, 2, 3])
    with pytest.raises(UpstreamTaskError):
        fits(fn, ended(Failed()))


@given(st.lists(st.integers(), max_size=20), st.integers())
def test_each_element_gets_one_run_in_order(elements: list[int], same: int) -> None:
    def fn(a: Any, b: Any) -> None: ...

    assert fits(fn, elements, same) == [{"a": one, "b": same} for one in elements]
