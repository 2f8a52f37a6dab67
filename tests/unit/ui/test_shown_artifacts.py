"""Artifacts in a page: what their code wrote is text, and leads nowhere but to web addresses."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from whenthen.ui.shown_artifacts import MOST_CHARS, MOST_ROWS, ShownArtifact, shown_artifacts


def shown(type: str, data: Any) -> ShownArtifact:
    artifact = SimpleNamespace(
        id="0" * 32, key="k", type=type, description="", updated="2026-03-01T00:00:00Z", data=data
    )
    (found,) = shown_artifacts([artifact])
    return found


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "JaVaScRiPt:alert(1)",
        "vbscript:x",
        "file:///etc/passwd",
        "//x",
        "http://[",
        "",
    ],
)
def test_nothing_of_an_artifact_is_markup_and_no_link_executes_anything(address: str) -> None:
    assert shown("markdown", f"[click]({address})").href == ""
    assert shown("image", address).href == ""
    assert shown("markdown", f"[a](https://x.org)[b]({address})").href == ""
    assert shown("markdown", "<script>alert(1)</script>").text == "<script>alert(1)</script>"  # escaped by the template


def test_a_link_and_an_image_lead_to_web_addresses() -> None:
    link = shown("markdown", "[the site](https://example.org/a?b=c)")
    assert (link.text, link.href) == ("the site", "https://example.org/a?b=c")
    assert shown("markdown", "[](https://example.org/)").text == "https://example.org/"
    assert shown("image", "https://example.org/x.png").href == "https://example.org/x.png"


@pytest.mark.parametrize(
    ("table", "columns", "rows"),
    [
        ([{"a": 1}, {"b": "x"}], ["a", "b"], [["1", ""], ["", "x"]]),
        ({"a": [1, 2], "b": [None]}, ["a", "b"], [["1", ""], ["2", ""]]),
        ([[1, "x"], [2]], [], [["1", "x"], ["2"]]),
    ],
)
def test_tables_in_each_form_have_columns_and_rows(table: Any, columns: list[str], rows: list[list[str]]) -> None:
    for data in (json.dumps(table), table):
        found = shown("table", data)
        assert (list(found.columns), [list(row) for row in found.rows]) == (columns, rows)


@pytest.mark.parametrize("data", ["no json", "3", "[]", "{}", "[1, 2]", '{"a": 1}', '[{"a": 1}, 2]'])
def test_what_is_no_table_is_a_text(data: str) -> None:
    found = shown("table", data)
    assert (found.rows, found.text) == ((), data)


def test_a_progress_lies_between_0_and_100() -> None:
    assert [shown("progress", data).percent for data in (-1, 0.5, 1e300)] == [0.0, 0.5, 100.0]
    assert shown("progress", "half").percent is None
    assert shown("progress", True).percent is None


def test_large_ones_are_cut_and_say_how_much_is_left_out() -> None:
    assert shown("markdown", "x" * (MOST_CHARS + 7)).left_out == 7
    table = shown("table", json.dumps([{"a": "y" * 1000}] * (MOST_ROWS + 3)))
    assert (len(table.rows), table.left_out) == (MOST_ROWS, 3)
    assert len(table.rows[0][0]) < 400


@pytest.mark.parametrize("data", [[[1]] * 5000, [{"a": 1}] * 5000, {"a": [1] * 5000}])
def test_no_more_of_a_table_is_written_out_than_is_shown(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Any] = []

    def counted(value: Any) -> str:
        written.append(value)
        return "1"

    monkeypatch.setattr(sys.modules[ShownArtifact.__module__], "_cell", counted)
    table = shown("table", json.dumps(data))
    assert (len(table.rows), table.left_out) == (MOST_ROWS, 5000 - MOST_ROWS)
    assert len(written) == MOST_ROWS
