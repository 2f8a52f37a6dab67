"""Errors: a path, a detail, one place that makes a message of the two, and one tree."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import re
import time
from pathlib import Path

import pytest

import whenthen
from whenthen.conditions import ConditionError, compile_condition
from whenthen.exceptions import NotSupported
from whenthen.schemas import errors as tree
from whenthen.schemas.errors import (
    ActionError,
    InvalidEvent,
    InvalidInput,
    NotFound,
    Problem,
    RenderError,
    WhenthenError,
    near_names,
    path_text,
)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("event",), "event"),
        (("automations", 2, "trigger", "expct"), "automations[2].trigger.expct"),
        ((3, "resource", "id"), "[3].resource.id"),
        (("headers", "x-github-event"), "headers.x-github-event"),
        (("a", 0, 1), "a[0][1]"),
        (("k" * 300,), "k" * 100),
    ],
)
def test_a_path_has_one_spelling(path: tuple[str | int, ...], text: str) -> None:
    assert path_text(path) == text


def test_the_message_is_the_path_and_the_detail() -> None:
    error = InvalidEvent("missing; every resource has an id", path=("resource", "id"))
    assert (error.path, error.detail, error.field) == (
        ("resource", "id"),
        "missing; every resource has an id",
        "resource.id",
    )
    assert str(error) == "resource.id: missing; every resource has an id"
    assert str(NotFound("there is no automation 'x'")) == "there is no automation 'x'"
    assert str(ActionError("is no URL", path=("url",), retryable=False)) == "url: is no URL"


def test_a_detail_that_looks_like_a_path_stays_a_detail() -> None:
    error = RenderError("event.payload: no 'a' in it", path=("body",)).below("actions", 0)
    assert (error.field, error.detail) == ("actions[0].body", "event.payload: no 'a' in it")


def test_an_error_keeps_its_kind_and_what_it_carries_when_its_path_grows() -> None:
    error = ActionError("is no URL", path=("url",), retryable=False, reason="refused_url")
    assert error.below("actions", 1) is error
    assert (error.path, error.retryable, error.reason) == (("actions", 1, "url"), False, "refused_url")


def test_a_condition_says_its_place_behind_the_path() -> None:
    with pytest.raises(ConditionError) as caught:
        compile_condition("event.a ==")
    message = str(caught.value)
    assert str(caught.value.below("trigger", "when")) == f"trigger.when: {message}"
    assert isinstance(caught.value, InvalidInput)


def test_a_problem_is_told_with_its_place_in_the_file() -> None:
    problem = Problem(file="a.yaml", line=14, column=11, path=("automations", 2, "name"), detail="missing")
    assert str(problem) == "a.yaml:14:11: automations[2].name: missing"
    assert str(Problem(file="a.yaml", line=0, column=0, path=(), detail="can not be read")) == "a.yaml: can not be read"


def every_error() -> list[type[WhenthenError]]:
    for module in pkgutil.walk_packages(whenthen.__path__, "whenthen."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(NotSupported):  # names of Prefect's whose import says what to do instead
                importlib.import_module(module.name)
    found: list[type[WhenthenError]] = [WhenthenError]
    for error in found:
        found += [below for below in error.__subclasses__() if below not in found]
    return [error for error in found if error.__module__.startswith("whenthen.")]


def test_every_error_of_the_package_is_in_the_tree() -> None:
    drawn = set(re.findall(r"^[│ ]*[├└]── (\w+)", tree.__doc__ or "", re.MULTILINE)) | {"WhenthenError"}
    assert drawn == {error.__name__ for error in every_error()}


def test_no_two_errors_have_the_same_reason() -> None:
    reasons = [error.reason for error in every_error() if "reason" in error.__dict__]
    assert len(reasons) == len(set(reasons))
    assert all(re.fullmatch(r"[a-z_]+", reason) for reason in reasons)


def test_looking_for_near_names_is_bounded_whatever_the_word_and_the_names() -> None:
    started = time.process_time()
    assert near_names("x" * 4_000_000, ["xx"]) == []
    assert near_names("ab" * 40, (f"{'ba' * 40}{number}" for number in range(1_000_000))) == []
    assert near_names("x", ["y" * 4_000_000]) == []
    assert near_names("nightly-99999", [f"nightly-{number}" for number in range(20_000)])
    assert time.process_time() - started < 2


def test_no_part_of_the_engine_compares_texts_without_that_bound() -> None:
    package = Path(whenthen.__file__).parent
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if "get_close_matches" in path.read_text("utf-8")
    }
    assert found == {"schemas/errors.py", "runs/runner.py"}  # the runner imports nothing of ours
