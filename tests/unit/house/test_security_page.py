"""docs/security.md: every test that it names exists, and every line of what is enforced has one."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def enforced() -> list[list[str]]:
    """The cells of the lines below `tried`."""
    found = []
    for table in PAGE.split("| tried |")[1:]:
        lines = table.splitlines()[2:]
        for line in lines[: next((at for at, line in enumerate(lines) if not line.startswith("|")), len(lines))]:
            found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found


def test_every_test_that_the_page_names_exists() -> None:
    missing = []
    for path, name in NAMED.findall(PAGE):
        file = ROOT / path
        if not file.is_file() or not re.search(
            rf"^(async )?def {name}\(", file.read_text(encoding="utf-8"), re.MULTILINE
        ):
            missing.append(f"{path}::{name}")
    assert missing == []


def test_every_line_of_what_is_enforced_has_a_test() -> None:
    lines = enforced()
    assert len(lines) > 40
    assert [line for line in lines if len(line) != 3] == []
    assert [line[0] for line in lines if not NAMED.search(line[2])] == []
