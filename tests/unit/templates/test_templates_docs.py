"""docs/templates.md: its tables are true."""

from __future__ import annotations

import json
import re
from pathlib import Path

from whenthen.templates import compile_path, compile_text
from whenthen.templates.allowed_calls import FILTERS

PAGE = (Path(__file__).parents[3] / "docs" / "templates.md").read_text()


def _table(name: str) -> list[tuple[str, object]]:
    section = PAGE.partition(f"<!-- checked: {name} -->")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(.+)` \| `(.+)` \|$", section, re.MULTILINE)
    return [(left.replace("\\|", "|"), json.loads(right)) for left, right in rows]


def test_paths_of_the_page_give_what_it_says() -> None:
    root = {"a": {"b c": [1, 2]}, "x-id": "t", "rows": [{"n": 1}, {"n": 5}]}
    rows = _table("paths")
    assert len(rows) == 7
    for path, value in rows:
        assert compile_path(path).one(root) == value


def test_texts_of_the_page_give_what_it_says() -> None:
    context = {"event": {"payload": {"items": [3, 4], "who": "Ada"}}}
    rows = _table("texts")
    assert len(rows) == 7
    for template, text in rows:
        assert compile_text(template).render(context) == text


def test_page_lists_every_filter() -> None:
    listed = PAGE.partition("- Filters:")[2].partition("- Functions:")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == set(FILTERS)
