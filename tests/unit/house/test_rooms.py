"""The layout that docs/architecture.md promises: faces of rooms, names of files, sizes of folders."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import whenthen

PACKAGE = Path(whenthen.__file__).parent
ARCHITECTURE = PACKAGE.parent / "docs" / "architecture.md"
MOST_FILES = 15
MOST_NAMES = 20  #: of a public face; a name may be a module
#: names of Prefect's modules: at the top of the package they show parts of the room `flows`
PREFECT = {
    "artifacts", "assets", "automations", "blocks", "cache_policies", "client", "concurrency", "context", "deployments",
    "docker", "events", "exceptions", "filesystems", "flow_runs", "futures", "infrastructure", "input", "locking", "logging",
    "plugins", "results", "runner", "runtime", "schedules", "serializers", "server", "settings", "states", "task_runners",
    "task_runs", "task_worker", "tasks", "testing", "transactions", "utilities", "variables", "workers",
}  # fmt: skip


@cache
def rooms() -> list[str]:
    """The rooms as dotted names, those of the engine one by one."""
    top = [path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists() and path.name not in PREFECT]
    inside = [f"engine.{path.name}" for path in (PACKAGE / "engine").iterdir() if (path / "__init__.py").exists()]
    return [*top, *inside]


@cache
def room_of(module: str) -> str | None:
    """The room that a module below `whenthen` belongs to; the innermost one."""
    if module == "__init__" or module.split(".")[0] in PREFECT:
        return "flows"
    found = [room for room in rooms() if module == room or module.startswith(room + ".")]
    return max(found, key=len, default=None)


@cache
def face(room: str) -> list[str]:
    """What a room shows to others: names, or modules of its own."""
    text = (PACKAGE / room.replace(".", "/") / "__init__.py").read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    return []


def imports(path: Path) -> list[tuple[int, str]]:
    """Line and module below `whenthen` of each import in a file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("whenthen."):
            found.append((node.lineno, str(node.module).removeprefix("whenthen.")))
        elif isinstance(node, ast.Import):
            found += [
                (node.lineno, name.name.removeprefix("whenthen."))
                for name in node.names
                if name.name.startswith("whenthen.")
            ]
    return found


def test_what_another_room_imports_comes_through_the_public_face() -> None:
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        own = room_of(".".join(path.relative_to(PACKAGE).with_suffix("").parts))
        for line, module in imports(path):
            room = room_of(module)
            shown = room is not None and module in {room, *(f"{room}.{name}" for name in face(room))}
            if room is not None and room != own and not shown and not f"{own}.".startswith(f"{room}."):
                wrong.append(f"{path.relative_to(PACKAGE)}:{line}: whenthen.{module}; import it from whenthen.{room}")
    assert wrong == []


def test_a_public_face_is_small_enough_to_be_read_at_once() -> None:
    assert {room: len(face(room)) for room in rooms() if len(face(room)) > MOST_NAMES} == {}


def test_every_room_says_which_question_it_answers() -> None:
    silent = []
    for room in rooms():
        text = ast.get_docstring(ast.parse((PACKAGE / room.replace(".", "/") / "__init__.py").read_text("utf-8"))) or ""
        if "?" not in text.split("\n\n")[0]:
            silent.append(room)
    assert silent == []


def test_no_two_files_have_one_name() -> None:
    places = defaultdict(list)
    for path in PACKAGE.rglob("*.py"):
        if path.name not in ("__init__.py", "__main__.py") and path not in prefects_modules():
            places[path.name].append(str(path.relative_to(PACKAGE)))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_a_folder_of_more_than_fifteen_files_has_its_reason_in_the_architecture_page() -> None:
    page = ARCHITECTURE.read_text(encoding="utf-8")
    crowded = []
    for folder in {path.parent for path in PACKAGE.rglob("*.py")}:
        files = len(list(folder.glob("*.py")))
        name = f"`{folder.relative_to(PACKAGE)}/`"
        if files > MOST_FILES and not re.search(re.escape(name) + r".*files", page):
            crowded.append(f"{name}: {files} files")
    assert crowded == []


def test_every_room_stands_in_the_architecture_page() -> None:
    page = ARCHITECTURE.read_text(encoding="utf-8")
    assert [room for room in rooms() if f"{room.split('.')[-1]}/" not in page] == []


@cache
def prefects_modules() -> list[Path]:
    """The files at the top of the package that bear names of Prefect's modules."""
    tops = [path for path in PACKAGE.iterdir() if path.stem in PREFECT]
    return [file for top in tops for file in ([top] if top.is_file() else sorted(top.rglob("*.py")))]


def test_a_module_with_a_name_of_prefects_shows_the_flow_sdk_and_does_nothing() -> None:
    wrong = []
    for path in prefects_modules():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            imported = (
                isinstance(node, ast.ImportFrom) and room_of(str(node.module).removeprefix("whenthen.")) == "flows"
            )
            named = isinstance(node, ast.Assign) and isinstance(node.value, (ast.Name, ast.List))
            said = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if not (imported or named or said):
                wrong.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)[:80]}")
    assert wrong == []
