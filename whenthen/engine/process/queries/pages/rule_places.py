"""Where an automation is written, and how: its file, its line, its text, of the rules in force."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import yaml

from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.rules import SourceFile

__all__ = ["RulePlaces"]

_LARGE = 100_000  #: bytes of a file that is composed only for what can not be found by its text
_MOST_TEXT = 20_000  #: characters of a rule that is shown


class RulePlaces:
    """Reads a file of the rules when something in it is asked for first, and keeps where its automations are until the file changes."""

    def __init__(self, rule_registry: RuleRegistry) -> None:
        self._rule_registry = rule_registry
        self._revision = ""
        self._files: dict[str, dict[str, tuple[int, int]]] = {}  #: first and last line of each automation, by file

    async def rule_source(self, name: str) -> answers.RuleSource | None:
        """Where the automation is written; None where that can not be told. Raises NotFound."""
        self._rule_registry.automation(name)
        rules = self._rule_registry.now.rules
        if rules.revision != self._revision:
            self._revision, self._files = rules.revision, {}
        for file in rules.files_read:
            if len(file.raw) > _LARGE and file.name not in self._files and (found := _plain_place(file, name)):
                return _source(file, *found)
        for file in rules.files_read:
            if file.name not in self._files:
                # a file of 10,000 automations takes a second, during which other pages wait for the interpreter
                self._files[file.name] = await asyncio.to_thread(_places, file)
            if (place := self._files[file.name].get(name)) is not None:
                return _source(file, *place)
        return None


def _places(file: SourceFile) -> dict[str, tuple[int, int]]:
    """Lines of each automation of a file, from 0 and without the last; empty where there is none."""
    try:
        root = yaml.compose(file.raw.decode(), Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        return {}
    found: dict[str, tuple[int, int]] = {}
    for item in _items(root):
        for key, value in item.value:
            if key.value == "name" and isinstance(value, yaml.ScalarNode):
                found[value.value] = (item.start_mark.line, item.end_mark.line + 1)
    return found


def _plain_place(file: SourceFile, name: str) -> tuple[int, int] | None:
    """The same of an automation whose item is found by its text, and read by itself: no other text of the file says what it is. None where that is not so."""
    named = re.compile(rf"""(?:^|[\s{{,]|- )["']?name["']?\s*:\s*["']?{re.escape(name)}""")
    lines = file.raw.decode("utf-8", "replace").splitlines()
    for number, line in enumerate(lines):
        if name not in line or not named.search(line):
            continue
        first = next((above for above in range(number, -1, -1) if lines[above].lstrip(" ").startswith("- ")), None)
        if first is None or not _in_automations(lines, first):
            continue
        end = next(
            (below for below in range(first + 1, len(lines)) if _starts_further_left(lines[below], lines[first])),
            len(lines),
        )
        try:
            root = yaml.compose("\n".join(lines[first:end]), Loader=yaml.CSafeLoader)
        except (yaml.YAMLError, RecursionError):  # such as of an alias
            continue
        item = root.value[0] if isinstance(root, yaml.SequenceNode) and len(root.value) == 1 else None
        if isinstance(item, yaml.MappingNode) and any(
            key.value == "name" and value.value == name for key, value in item.value
        ):
            return first, end
    return None


def _in_automations(lines: Sequence[str], first: int) -> bool:
    """Whether the item that begins there is one of the list of automations."""
    for line in reversed(lines[:first]):
        if line.lstrip(" ").startswith("- ") and _indent(line) == _indent(lines[first]):
            continue
        if line.strip() and not line.lstrip().startswith("#") and _starts_further_left(line, lines[first]):
            return re.match(r"""["']?automations["']?\s*:""", line) is not None
    return False


def _starts_further_left(line: str, item: str) -> bool:
    """Whether a line is none of an item, but follows it."""
    return bool(line.strip()) and not line.lstrip().startswith("#") and _indent(line) <= _indent(item)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _items(root: Any) -> list[yaml.MappingNode]:
    if not isinstance(root, yaml.MappingNode):
        return []
    for key, value in root.value:
        if key.value == "automations" and isinstance(value, yaml.SequenceNode):
            return [item for item in value.value if isinstance(item, yaml.MappingNode)]
    return []


def _source(file: SourceFile, first: int, end: int) -> answers.RuleSource:
    lines = file.raw.decode("utf-8", "replace").splitlines()[first:end]
    indent = len(lines[0]) - len(lines[0].lstrip(" -")) if lines else 0
    # what follows the item begins further left: comments, the next item, another list
    own = [lines[0]] if lines else []
    for line in lines[1:]:
        if line.strip() and len(line) - len(line.lstrip(" ")) < indent:
            break
        own.append(line)
    while own and (not own[-1].strip() or own[-1].lstrip().startswith("#")):
        own.pop()
    margin = len(own[0]) - len(own[0].lstrip(" ")) if own else 0
    text = "\n".join(line[margin:] for line in own)
    return answers.RuleSource(file=file.name, line=first + 1, text=text[:_MOST_TEXT])
