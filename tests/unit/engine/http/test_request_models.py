"""What requests hold is checked, in a time that grows with their size and no faster."""

from __future__ import annotations

import time

import pytest

from tests.patience import limit
from whenthen.engine.http.answers import HttpError
from whenthen.engine.http.models.request_models import Page, read_rule_set
from whenthen.schemas.errors import InvalidInput


def test_a_name_that_comes_twice_among_very_many_is_found_at_once() -> None:
    names = [f"f{number}.yaml" for number in range(60_000)]
    began = time.process_time()
    with pytest.raises(HttpError, match=r"two files have the name 'f59999\.yaml'"):
        read_rule_set({"files": [{"name": name, "text": ""} for name in [*names, names[-1]]]})
    assert time.process_time() - began < limit(3)


def test_a_filter_that_is_one_of_some_words_is_taken_in_any_case_and_refused_otherwise() -> None:
    words = ["waiting", "dead"]
    assert Page().choice("outcome", words) is None
    assert Page(filters={"outcome": "Dead"}).choice("outcome", words) == "dead"
    with pytest.raises(InvalidInput, match="'waitng' is none of waiting, dead; did you mean 'waiting'") as refused:
        Page(filters={"outcome": "waitng"}).choice("outcome", words)
    assert refused.value.path == ("outcome",)
