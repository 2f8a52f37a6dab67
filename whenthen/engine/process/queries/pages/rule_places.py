"""Where an automation is written, and how: its file, its line, its text, of the rules in force."""

from __future__ import annotations

import asyncio
from typing import Any

import yaml

from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.rules import SourceFile

__all__ = ["RulePlaces"]

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
            if file.name not in self._files:
                # a file of 10,000 automations takes a second
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
