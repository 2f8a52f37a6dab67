"""Servers whose data are backed up, and the commands that do it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests import forks
from tests.integration.served import TOKEN, environment

__all__ = ["command", "folder_of"]

RULES = """
automations:
  - name: every
    trigger: {expect: order.placed}
    actions: [{call-webhook: "http://127.0.0.1:PORT/"}]
  - name: pairs
    trigger: {expect: order.placed, for_each: id, threshold: 2, within: 1h, cooldown: 0s}
    actions: [{emit-event: pair.seen, resource: {id: "{{ event.resource.id }}"}}]
  - name: wide
    trigger: {expect: order.placed, threshold: 200, within: 1h, cooldown: 0s}
    actions: [{run-deployment: note}]
  - name: burst
    trigger: {expect: order.burst}
    actions: [do-nothing, do-nothing, do-nothing, do-nothing, do-nothing, do-nothing, do-nothing, do-nothing]
deployments:
  - {name: note, command: echo noted}
"""


def command(*words: str | Path, url: str = "") -> subprocess.CompletedProcess[str]:
    env = environment(WHENTHEN_API_TOKEN=TOKEN, WHENTHEN_URL=url, COLUMNS="300")
    return forks.run([str(word) for word in words], env=env, within_s=120)


def folder_of(base: Path, name: str, rules: str = RULES, port: int = 9) -> Path:
    folder = base / name
    (folder / "rules").mkdir(parents=True)
    (folder / "rules" / "rules.yaml").write_text(rules.replace("PORT", str(port)))
    return folder
