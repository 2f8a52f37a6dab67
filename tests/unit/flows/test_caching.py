"""Kept results: keys, files, expiry, and what happens to files that are damaged."""

from __future__ import annotations

import dataclasses
import enum
import json
import pickle
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whenthen import flow, task
from whenthen.cache_policies import DEFAULT, FLOW_PARAMETERS, INPUTS, NO_CACHE, RUN_ID, TASK_SOURCE, CachePolicy, Inputs
from whenthen.exceptions import ConfigurationError, HashError, SerializationError
from whenthen.flows.caching import result_store
from whenthen.flows.caching.result_store import ResultStore
from whenthen.flows.caching.value_hash import hash_objects, stable_hash
from whenthen.tasks import task_input_hash

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary(), st.dates()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=4), st.tuples(inner)
    ),
    max_leaves=10,
)


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Point:
    x: int


@given(JSON)
def test_equal_values_have_one_hash(value: Any) -> None:
    assert stable_hash(value) == stable_hash(pickle.loads(pickle.dumps(value)))


@given(JSON, JSON)
def test_different_values_have_different_hashes(one: Any, other: Any) -> None:
    if repr(one) != repr(other):
        assert stable_hash([one, other]) != stable_hash([other, one])
        assert (stable_hash(one) == stable_hash(other)) == (one == other and repr(sorted_(one)) == repr(sorted_(other)))


def sorted_(value: Any) -> Any:
    if isinstance(value, dict):
        return sorted((key, sorted_(inner)) for key, inner in value.items()) if value else {}
    if isinstance(value, (list, tuple)):
        return type(value)(sorted_(one) for one in value)
    return value


def test_a_hash_is_the_same_in_another_process() -> None:
    program = (
        "import datetime;from whenthen.flows.caching.value_hash import stable_hash;"
        "print(stable_hash({'b': {3, 1, 'x'}, 'a': [1.5, None, b'q', datetime.date(2026, 1, 2)]}))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    assert found == stable_hash({"a": [1.5, None, b"q", date(2026, 1, 2)], "b": {"x", 1, 3}})


def test_classes_are_told_apart() -> None:
    values = [1, True, 1.0, "1", b"1", [1], (1,), {1}, {1: 1}, Colour.RED, Point(1), Colour, None]
    assert len({stable_hash(value) for value in values}) == len(values)


def test_what_has_no_content_has_no_hash() -> None:
    with pytest.raises(HashError, match=r"lock can not be part of a cache key.*NO_CACHE"):
        stable_hash({"a": threading.Lock()})
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(HashError, match="holds itself"):
        stable_hash(circle)
    assert hash_objects(threading.Lock()) is None


def test_policies_are_combined() -> None:
    assert (INPUTS - "a" - "b").exclude == ("a", "b")  # type: ignore[attr-defined]
    assert INPUTS + NO_CACHE == INPUTS
    assert NO_CACHE + INPUTS == INPUTS
    assert TASK_SOURCE - "a" == TASK_SOURCE
    together = (INPUTS + TASK_SOURCE) - "a"
    assert Inputs(exclude=("a",)) in together.policies  # type: ignore[attr-defined]
    assert RUN_ID in DEFAULT.policies
    with pytest.raises(TypeError, match="by name"):
        INPUTS - 3  # type: ignore[operator]
    with pytest.raises(ValueError, match="different key_storage"):
        INPUTS.configure(key_storage="a") + TASK_SOURCE.configure(key_storage="b")


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=12))
def test_a_kept_result_equals_a_computed_one(calls: list[tuple[int, int]]) -> None:
    ran: list[tuple[int, int]] = []
    tag = str(uuid.uuid4())

    @task(cache_policy=INPUTS, persist_result=True)
    def area(a: int, b: int, tag: str) -> dict[str, int]:
        ran.append((a, b))
        return {"area": a * b}

    @flow
    def areas() -> list[dict[str, int]]:
        return [area(a, b, tag) for a, b in calls]

    assert areas() == [{"area": a * b} for a, b in calls]
    assert ran == list(dict.fromkeys(calls))


def test_a_method_is_kept_for_its_instance() -> None:
    @dataclasses.dataclass
    class Table:
        factor: int

        @task(cache_policy=INPUTS)
        def times(self, n: int) -> int:
            return self.factor * n

    assert [Table(2).times(3), Table(5).times(3), Table(2).times(3)] == [6, 15, 6]


@pytest.mark.parametrize("serializer", ["pickle", "json", "compressed/pickle", "compressed/json"])
def test_a_value_is_read_as_it_was_written(results: Path, serializer: str) -> None:
    store = ResultStore(serializer=serializer)
    path = store.path("k/../../x")
    assert path.parent == results
    assert store.read(path) is None
    store.write(path, {"a": [1, None]})
    assert (store.read(path), store.exists(path)) == (({"a": [1, None]},), True)
    assert [file.name for file in results.iterdir()] == [path.name]


def test_an_expired_result_is_none(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ResultStore()
    at = datetime(2026, 1, 1, tzinfo=UTC)
    store.write(store.path("k"), 1, expires=at + timedelta(seconds=10))
    for seconds, expected in [(0, (1,)), (9, (1,)), (10, None), (-3600, (1,)), (3600, None)]:
        monkeypatch.setattr(result_store, "utc_now", lambda seconds=seconds: at + timedelta(seconds=seconds))
        assert store.read(store.path("k")) == expected
        assert store.exists(store.path("k")) == (expected is not None)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-3],
        lambda data: b"\0" * len(data),
        lambda data: data.replace(b'"format": 1', b'"format": 2'),
        lambda data: data.replace(b"value_that", b"value_shot"),
        lambda data: b"[]\n" + data,
    ],
)
def test_a_damaged_file_is_no_result_and_the_task_runs(results: Path, damage: Callable[[bytes], bytes]) -> None:
    ran = []

    @task(cache_key_fn=lambda context, parameters: "key")
    def compute() -> Any:
        ran.append(1)
        return json.JSONDecodeError

    assert [compute() for _ in range(2)] == [json.JSONDecodeError] * 2
    assert len(ran) == 1
    (file,) = results.iterdir()
    changed = damage(file.read_bytes())
    if changed == file.read_bytes():
        changed = changed.replace(b"JSONDecodeError", b"JSONDecodeErroR")
    file.write_bytes(changed)
    assert compute() is json.JSONDecodeError
    assert len(ran) == 2
    assert compute() is json.JSONDecodeError
    assert len(ran) == 2


def test_what_can_not_be_written_leaves_nothing_behind(results: Path) -> None:
    store = ResultStore()
    with pytest.raises(SerializationError, match=r"lock can not be written as pickle.*persist_result=False"):
        store.write(store.path("k"), threading.Lock())
    with pytest.raises(SerializationError, match="set can not be written as json"):
        ResultStore(serializer="json").write(store.path("k"), {1})
    assert list(results.iterdir()) == []


def test_places_that_are_none_are_refused(results: Path) -> None:
    with pytest.raises(ConfigurationError, match="is no folder"):
        ResultStore(3)
    with pytest.raises(ConfigurationError, match="none of pickle, json"):
        ResultStore(serializer="yaml")
    with pytest.raises(ConfigurationError, match="leaves the folder"):
        ResultStore().named_path("../../etc/passwd")


def test_keys_of_users_are_safe_names(results: Path) -> None:
    store = ResultStore()
    for key in ["../x", "a/b", "", ".", "x" * 300, "\ud800", "ä"]:
        assert store.path(key).parent == results
        assert len(store.path(key).name) <= 100


@pytest.mark.parametrize("storage", ["/proc/none/such", "/dev/null/x"])
def test_a_folder_that_can_not_be_written_ends_no_run(storage: str) -> None:
    @task(cache_policy=INPUTS, result_storage=storage)
    def compute(n: int) -> int:
        return n

    assert compute(3) == 3
    assert compute(3, return_state=True).name == "Completed"


def test_results_have_their_place(results: Path, tmp_path: Path) -> None:
    @task(cache_policy=INPUTS, result_storage=tmp_path / "own")
    def own(n: int) -> int:
        return n

    @task(cache_policy=INPUTS.configure(key_storage=str(tmp_path / "keys")))
    def keyed(n: int) -> int:
        return n

    @task(persist_result=True)
    def of_flow(n: int) -> int:
        return n

    @task(result_storage_key="{task_run.task_name}-{parameters[n]}.pickle")
    def named(n: int) -> int:
        return n

    @flow(result_storage=tmp_path / "flow")
    def keep() -> None:
        own(1), keyed(1), of_flow(1), named(1)

    keep()
    assert not results.exists()
    assert len(list((tmp_path / "own").iterdir())) == 1
    assert len(list((tmp_path / "keys").iterdir())) == 1
    assert len(list((tmp_path / "flow").iterdir())) == 3
    assert (tmp_path / "flow" / "named-1.pickle").is_file()


def test_nothing_is_written_that_was_not_asked_for(results: Path) -> None:
    @task
    def plain(n: int) -> int:
        return n

    @flow
    def run() -> list[int]:
        return plain.map([1, 2]).result()

    assert run() == [1, 2]
    assert not results.exists()


def test_a_key_function_that_raises_or_gives_none_keeps_nothing(results: Path) -> None:
    def boom(context: Any, parameters: dict[str, Any]) -> str:
        raise RuntimeError

    for key_fn in (boom, lambda context, parameters: None):

        @task(cache_key_fn=key_fn)
        def compute() -> int:
            return 1

        assert (compute(), compute(return_state=True).name) == (1, "Completed")
    assert not results.exists()


def test_two_tasks_of_one_source_share_inputs_alone() -> None:
    made = [task(cache_policy=policy)(lambda n: object.__name__) for policy in (INPUTS, FLOW_PARAMETERS)]
    assert [isinstance(one.cache_policy, CachePolicy) for one in made] == [True, True]
    assert all(one.persist_result for one in made)


def test_a_hash_of_inputs_needs_inputs_that_can_be_hashed() -> None:
    @task(cache_key_fn=task_input_hash)
    def use(lock: Any) -> int:
        return 1

    assert use(threading.Lock(), return_state=True).name == "Completed"


def test_equal_runs_wait_for_each_other_when_serializable() -> None:
    ran = []

    @task(cache_policy=INPUTS.configure(isolation_level="SERIALIZABLE"))
    def compute(n: int) -> int:
        ran.append(n)
        threading.Event().wait(0.05)
        return n

    @flow
    def run() -> list[int]:
        return compute.map([7] * 8).result()

    assert run() == [7] * 8
    assert ran == [7]
