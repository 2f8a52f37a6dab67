"""Published JSONPath conformance cases: what is valid gives what it should, what is not is refused when it is compiled.

`jsonpath_given.json` is data of the JSONPath Compliance Test Suite for RFC 9535.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from whenthen.schemas.errors import InvalidTemplate
from whenthen.templates import compile_path

CASES = json.loads((Path(__file__).parent / "jsonpath_given.json").read_text())
VALID = [case for case in CASES if not case.get("invalid_selector")]
INVALID = [case for case in CASES if case.get("invalid_selector")]


def typed(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def test_there_are_cases_of_both_kinds() -> None:
    assert (len(VALID), len(INVALID)) == (221, 131)


@pytest.mark.parametrize("case", VALID, ids=[case["name"] for case in VALID])
def test_valid_path_gives_its_matches(case: dict[str, Any]) -> None:
    found = compile_path(case["selector"]).find(case["document"])
    expected = case["results"] if "results" in case else [case["result"]]
    assert typed(found) in [typed(result) for result in expected]


@pytest.mark.parametrize("case", INVALID, ids=[case["name"] for case in INVALID])
def test_invalid_path_is_refused_with_its_column(case: dict[str, Any]) -> None:
    with pytest.raises(InvalidTemplate, match=r"^column [0-9]+: "):
        compile_path(case["selector"])
