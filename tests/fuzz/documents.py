"""Targets for what is read from files and streams: rules, their tests, replayed lines, records of `ENGINE`."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import orjson

from fuzz.draws import Draws
from whenthen.engine.bus.records import (
    Message,
    Offset,
    Outcome,
    OutcomeState,
    decode_firing,
    decode_task,
    decode_window,
    encode_firing,
    encode_task,
    encode_window,
    pack,
    unpack,
)
from whenthen.rules import Rules, load_rules
from whenthen.rules.folder import check_rules
from whenthen.rules.replay import FORMATS, replay
from whenthen.rules.test_runner import junit, load_tests, run_tests
from whenthen.schemas.errors import InvalidInput, InvalidRules, Problem
from whenthen.schemas.firings import Firing, FiringState, Ref
from whenthen.triggers.rule_set import RuleSet

__all__ = ["records", "replays", "rules", "ruletests"]

RULES = """
automations:
  - name: pager
    trigger: {expect: job.failed, match: {team: "data-*"}, for_each: id, threshold: 2, within: 60s}
    actions:
      - emit-event: paged
        resource: {id: "{{ event.resource.id }}"}
        payload: {codes: "{{ events | length }}", last: $.payload.code}
  - name: silent
    trigger: {expect: beat, after: beat, posture: proactive, within: 10s, for_each: "$.payload.k", resolve_on: back}
    actions_on_resolve: [do-nothing]
  - name: both
    trigger: {type: compound, require: all, within: 1h, triggers: [{expect: "j*"}, {expect: beat, when: event.payload.n > 1}]}
  - name: slow
    trigger: {type: metric, expect: "*", aggregate: p90, value: $.payload.n, operator: ">", threshold: 1.5, within: 1m}
"""


@cache
def _folder() -> Path:
    """One folder for the life of the process; each input replaces the file in it."""
    folder = tempfile.TemporaryDirectory(prefix="whenthen-fuzz-")
    _KEPT.append(folder)
    return Path(folder.name)


_KEPT: list[Any] = []  #: removed when the process ends


def _check_problems(problems: list[Problem], data: bytes) -> None:
    lines = len(data.splitlines()) + 2
    for problem in problems:
        assert problem.detail
        assert 0 <= problem.line <= lines, str(problem)
        assert problem.column >= 0
        str(problem).encode("utf-8", "replace")


def rules(data: bytes) -> None:
    """A rules file: problems with places, or rules that compile."""
    file = _folder() / "rules.yaml"
    file.write_bytes(data)
    problems = check_rules(file)
    _check_problems(problems, data)
    assert problems == check_rules(file), "other problems the second time"
    if problems:
        return
    found = load_rules(file)
    compiled = RuleSet.compile(found.automations)
    assert set(compiled.automations) == {automation.name for automation in found.automations}


@cache
def _tested_rules() -> Rules:
    file = _folder() / "tested.yaml"
    file.write_text(RULES)
    return load_rules(file)


def ruletests(data: bytes) -> None:
    """A `*.test.yaml` file: problems with places, or a report with a result for each test."""
    known = _tested_rules()
    file = _folder() / "story.test.yaml"
    file.write_bytes(data)
    try:
        tests = load_tests(file)
    except InvalidRules as refused:
        _check_problems(refused.problems, data)
        return
    report = run_tests(known, tests)
    assert len(report.results) == sum(len(content.tests) for _, content in tests)
    assert run_tests(known, tests) == report
    ElementTree.fromstring(junit(report))


def replays(data: bytes) -> None:
    """A format, an end, and lines: what `replay` prints is the same each time, or the line at fault is named."""
    head, *lines = data.split(b"\n")
    format, _, until = head.decode("utf-8", "replace").partition(" ")
    chosen = format if format in FORMATS else FORMATS[len(format) % len(FORMATS)]
    printed = _replayed(chosen, until, lines)
    assert printed == _replayed(chosen, until, lines)


def _replayed(format: str, until: str, lines: list[bytes]) -> list[bytes]:
    printed: list[bytes] = []
    try:
        for each in replay(_tested_rules(), lines, until=until or None, format=format, decisions=True):
            printed.append(orjson.dumps(each))
    except InvalidInput as refused:
        printed.append(str(refused).encode("utf-8", "replace"))
    return printed


def records(data: bytes) -> None:
    """Records of `ENGINE`: what was written is read back, and garbage is an error that its reader expects."""
    draws = Draws(data)
    firing = Firing(
        id=draws.text(),
        automation=draws.text(),
        state=draws.pick(list(FiringState)),
        at=draws.text(),
        key={draws.text(): draws.json(2)},
        event=draws.pick((None, {"id": "e", "payload": draws.json()})),
        seq=draws.number(0, 60_000),
        refs=tuple(Ref(draws.text(), draws.byte(), draws.number(0, 60_000)) for _ in range(draws.number(0, 3))),
        depth=draws.byte(),
        automations=tuple(draws.text() for _ in range(draws.number(0, 2))),
        edge=draws.one_in(2),
    )
    event = None if firing.event is None else orjson.dumps(firing.event)
    large = event is not None and draws.one_in(8)
    if large:
        event = event + b" " * (1 << 16)  # type: ignore[operator]
    encoded = encode_firing(firing, event)
    task, seq = decode_task(encode_task(firing, encoded, 3, "do-nothing", draws.text(), {"attempts": draws.byte()}))
    by_seq = large and firing.seq > 0
    assert seq == (firing.seq if by_seq else 0)
    assert _plain(task.firing) == _plain(replace(firing, event=None) if by_seq else firing)
    assert task.key == f"{firing.id}.3"
    trigger, key, state = draws.text(), draws.text(), draws.bytes(draws.number(0, 20))
    assert decode_window(encode_window(trigger, key, state)) == (trigger, key, state)
    offset = Offset(seq=draws.byte(), clock_us=draws.number(0, 60_000), commit=draws.text(), revision=draws.byte())
    assert Offset.decode(offset.encode(), offset.revision) == offset
    outcome = Outcome(
        key=task.key,
        automation=firing.automation,
        firing=firing.id,
        action="do-nothing",
        state=draws.pick(list(OutcomeState)),
        attempt=draws.byte(),
        at=firing.at,
        error=draws.text(),
    )
    assert Outcome.decode(outcome.encode()) == outcome
    messages = [
        Message(draws.text(), draws.bytes(draws.number(0, 30)), draws.byte()) for _ in range(draws.number(0, 6))
    ]
    packs = list(pack(messages, max_bytes=64, max_messages=3))
    assert [message for each in packs for message in unpack(each)] == messages
    rest = draws.bytes(draws.left)
    with contextlib.suppress(ValueError, KeyError, TypeError):
        decode_task(rest)
    with contextlib.suppress(ValueError, KeyError, TypeError):
        decode_firing(orjson.loads(rest))


def _plain(firing: Firing) -> Any:
    """The firing as JSON keeps it."""
    return orjson.loads(orjson.dumps(firing))
