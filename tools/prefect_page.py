"""Writes the tables and the list of names of docs/prefect.md from the code: `python -m tools.prefect_page docs/prefect.md` (`make docs`).

A test compares the page with what this makes. Everything between two markers is replaced; the rest of the page is written by hand.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import whenthen
from whenthen.flows.unsupported import NEEDS_SERVER, NOT_SUPPORTED

__all__ = ["names_by_module", "with_tables"]

PACKAGE = Path(whenthen.__file__).parent
ROOMS = {"actions", "cli", "conditions", "engine", "flows", "history", "orchestrators", "rules", "runs", "schemas", "sources"} | {
    "supervision", "templates", "triggers", "ui",
}  # fmt: skip
#: files beside the modules of Prefect's that are none of them
HELPERS = {"__init__", "cancellation", "checkout", "machine_user", "noted_tokens", "python_syntax", "yaml_text"}


def names_by_module() -> dict[str, list[str]]:
    """The names that each module of Prefect's shows here, by its name below `whenthen`; those of the top under ''."""
    found = {"": sorted(whenthen.NAMES)}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        if (module.split(".")[0] in ROOMS and module != "flows") or module in HELPERS:
            continue
        if names := _shown(path):
            found[module] = names
    return found


def with_tables(page: str) -> str:
    """The page with its tables and its list of names as the code has them.

    Raises:
        ValueError: a marker is missing.
    """
    page = _between(page, "needs a server", _rows(("name", "what to do instead"), NEEDS_SERVER))
    page = _between(page, "not supported", _rows(("name", "what to do instead"), NOT_SUPPORTED))
    lines = [
        f"- `whenthen{module and '.'}{module}`: {', '.join(f'`{name}`' for name in names)}"
        for module, names in names_by_module().items()
    ]
    return _between(page, "names", "\n".join(lines))


def _shown(path: Path) -> list[str]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            return sorted(ast.literal_eval(node.value))
    return []


def _rows(head: tuple[str, str], table: dict[str, str]) -> str:
    rows = [f"| {head[0]} | {head[1]} |", "| --- | --- |"]
    return "\n".join([*rows, *(f"| `{name}` | {meaning} |" for name, meaning in table.items())])


def _between(page: str, name: str, text: str) -> str:
    begin, end = f"<!-- {name}: written by `make docs` -->", f"<!-- {name}: end -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"the page needs the lines {begin!r} and {end!r} once each")
    return re.sub(
        f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n\n{text}\n\n{end}", page, flags=re.DOTALL
    )


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(with_tables(target.read_text(encoding="utf-8")), encoding="utf-8")
