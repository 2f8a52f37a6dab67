"""Where an automation is written: the same is found in a small file, which is read as a whole, and in a large one, where its text is looked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from whenthen.engine.process.queries.pages.rule_places import RulePlaces

RULES = """\
variables: {x: 1}
automations:
- name: one
  trigger: {expect: a.b}
  actions:
  - name: inner
    type: do-nothing
  # a comment
- description: |
    - name: three
      is only text
  trigger: {expect: a.b}
  actions: [do-nothing]
  name: two

# another one
- {name: "four", trigger: {expect: x.y},
   actions: [do-nothing]}
- &anchor
  name: five
  trigger: &all {expect: a.b}
- name: six
  trigger: *all
- trigger: {expect: a.b}
  "name": 'seven'
- name: "eig\\u0068t"
webhooks:
- name: nine
deployments:
  - name: one
"""
MOST = 100_000  #: characters of a file that is read as a whole


def place(text: str, name: str) -> tuple[int, str] | None:
    file = SimpleNamespace(name="rules.yaml", raw=text.encode())
    rules = SimpleNamespace(revision="1", files_read=[file])
    registry: Any = SimpleNamespace(automation=lambda name: None, now=SimpleNamespace(rules=rules))
    found = anyio.run(RulePlaces(registry).rule_source, name)
    return None if found is None else (found.line, found.text)


@pytest.mark.parametrize("indent", ["", "  "])
@pytest.mark.parametrize("name", ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "inner"])
def test_an_automation_is_found_in_a_large_file_where_it_is_in_a_small_one(name: str, indent: str) -> None:
    lines = RULES.splitlines()
    begin, end = lines.index("automations:") + 1, lines.index("webhooks:")
    small = "\n".join([*lines[:begin], *(indent + line for line in lines[begin:end]), *lines[end:]])
    found = place(small, name)
    assert (found is None) == (name in ("three", "nine", "inner"))
    assert place(small + "\n" + "# much more\n" * (MOST // 10), name) == found
