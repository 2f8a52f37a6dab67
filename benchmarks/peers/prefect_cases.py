"""Random trigger rules and event streams in Prefect's format, for `prefect_evaluator.py`.

Standard library only; same seed, same output. Each case belongs to a class (`CLASSES`), one per behaviour:
what varies is chosen near the edges at which evaluators differ (the last second of a window, the same
second twice, an event that is a little late). Streams keep clear of what Prefect leaves to wall time:
clocks move strictly where composite triggers order their children by processing time, children of one
composite have event names of their own, and late events never follow a tick beyond the last `occurred`
where an absence is watched (Prefect would take that for lag and hold absences back).

    prefect_cases.py --seed 1 --count 300 [--class NAME] > cases.jsonl

Called by the differential test and by hand; named cases are in `prefect_named_cases.py`.
"""

from __future__ import annotations

import argparse
import json
import random
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

__all__ = ["CLASSES", "Stream", "generate", "rule"]

BASE = datetime(2026, 1, 1, tzinfo=UTC)
ROLE = "prefect.resource.role"
ID = "prefect.resource.id"
NAME = "prefect.resource.name"

Case = dict[str, Any]


def rule(name: str, trigger: dict[str, Any]) -> Case:
    """An automation with one action that does nothing."""
    return {"name": name, "trigger": trigger, "actions": [{"type": "do-nothing"}]}


class Stream:
    """The lines of a case; times are seconds after BASE, ids count up."""

    def __init__(self, namespace: int = 0) -> None:
        self.lines: list[Case] = []
        self._namespace = namespace

    def tick(self, at: float) -> None:
        self.lines.append({"tick": stamp(at)})

    def event(
        self,
        name: str,
        at: float,
        resource: str | Case = "r",
        *,
        related: list[Case] | None = None,
        follows: str | None = None,
        id: str | None = None,
    ) -> str:
        """Append an event and return its id."""
        id = id or self.id(len(self.lines) + 1)
        labels = {ID: resource} if isinstance(resource, str) else resource
        line: Case = {"id": id, "event": name, "occurred": stamp(at), "resource": labels}
        if related:
            line["related"] = related
        if follows:
            line["follows"] = follows
        self.lines.append(line)
        return id

    def id(self, number: int) -> str:
        return str(uuid.UUID(int=(self._namespace << 32) + number))


def stamp(at: float) -> str:
    return (BASE + timedelta(seconds=at)).isoformat().replace("+00:00", "Z")


def step(r: random.Random, within: int) -> int:
    """Seconds to the next event: nothing, a little, or about a window."""
    return max(
        0,
        r.choice([0, 1, 1, 2, 3, within // 2, within - 1, within, within + 1, r.randint(0, 2 * within + 2)]),
    )


def reactive(r: random.Random) -> tuple[Case, int]:
    within = r.choice([0, 0, 1, 5, 10, 10, 30, 60])
    return {"posture": "Reactive", "expect": ["a"], "threshold": r.randint(1, 4), "within": within}, within


def rapid(r: random.Random, s: Stream) -> list[Case]:
    """One reactive rule, events in order."""
    trigger, within = reactive(r)
    at = 0
    for _ in range(r.randint(6, 14)):
        s.event(r.choice(["a", "a", "a", "a", "b"]), at)
        at += step(r, within)
    return [rule("rapid", trigger)]


def late(r: random.Random, s: Stream) -> list[Case]:
    """One reactive rule, events some of which occurred before those already seen."""
    trigger, within = reactive(r)
    at = 1000
    for _ in range(r.randint(6, 14)):
        s.event("a", at - (r.choice([1, 2, within, within + 1, 30, 899, 900, 901]) if r.random() < 0.35 else 0))
        at += step(r, within)
    return [rule("late", trigger)]


def forgotten(r: random.Random, s: Stream) -> list[Case]:
    """One reactive rule, gaps around the 60 s after which Prefect forgets an ended bucket."""
    trigger, within = reactive(r)
    at = 1000
    for _ in range(r.randint(5, 10)):
        s.event("a", at - (r.choice([1, 5, 20]) if r.random() < 0.3 else 0))
        at += r.choice([0, 1, within, within + 59, within + 60, within + 61, 2 * within + 60, 2 * within + 61])
    return [rule("forgotten", trigger)]


def after(r: random.Random, s: Stream) -> list[Case]:
    """A reactive rule that needs an opening event, which may count too."""
    trigger, within = reactive(r)
    trigger.update(after=["s"], expect=r.choice([["a"], ["a", "s"], ["a", "c"]]), threshold=r.randint(1, 3))
    at = 0
    for _ in range(r.randint(7, 14)):
        s.event(r.choice(["s", "s", "a", "a", "c"]), at)
        at += r.choice([0, 1, 1, 2, step(r, within)])
    return [rule("after", trigger)]


def both(r: random.Random, s: Stream) -> list[Case]:
    """A reactive rule whose opening event is the expected event."""
    trigger, within = reactive(r)
    trigger.update(after=["a"], threshold=r.randint(1, 3))
    at = 100
    for _ in range(r.randint(7, 14)):
        s.event("a", at - (r.choice([1, 2, within]) if r.random() < 0.2 else 0))
        at += step(r, within)
    return [rule("both", trigger)]


def heartbeat(r: random.Random, s: Stream) -> list[Case]:
    """Absence of the next heartbeat, per resource: one event opens the window and satisfies the last one."""
    within = r.choice([10, 15, 30])
    trigger = {
        "posture": "Proactive",
        "after": ["beat"],
        "expect": ["beat", "done"],
        "for_each": [ID],
        "threshold": r.choice([1, 1, 2]),
        "within": within,
    }
    at = 0
    for _ in range(r.randint(7, 12)):
        s.event(r.choice(["beat", "beat", "beat", "done"]), at, r.choice(["r1", "r2"]))
        at += r.choice([0, 1, within // 2, within - 1, within, within + 1])
    s.tick(at + 3 * within)
    return [rule("heartbeat", trigger)]


def absence(r: random.Random, s: Stream) -> list[Case]:
    """Absence after an opening event, per resource."""
    within = r.choice([10, 20, 60])
    trigger = {
        "posture": "Proactive",
        "after": ["start"],
        "expect": ["end"],
        "for_each": [ID],
        "threshold": r.choice([1, 1, 1, 2]),
        "within": within,
    }
    at = 0
    for _ in range(r.randint(7, 12)):
        s.event(r.choice(["start", "start", "end"]), at, r.choice(["r1", "r2", "r3"]))
        at += r.choice([0, 1, 2, within // 2, within - 1, within, within + 1])
        if r.random() < 0.2:
            s.tick(at)
    s.tick(at + within)
    return [rule("absence", trigger)]


def absence_late(r: random.Random, s: Stream) -> list[Case]:
    """Absence after an opening event, with events that are a little late."""
    within = r.choice([10, 20, 30])
    trigger = {
        "posture": "Proactive",
        "after": ["start"],
        "expect": ["end"],
        "for_each": [ID],
        "within": within,
    }
    at = 100
    for _ in range(r.randint(7, 12)):
        s.event(
            r.choice(["start", "end"]),
            at - (r.choice([1, 2, 5, 9]) if r.random() < 0.3 else 0),
            r.choice(["r1", "r2"]),
        )
        at += r.choice([0, 1, within // 2, within])
    s.tick(at + 2 * within)
    return [rule("absence-late", trigger)]


def silence(r: random.Random, s: Stream) -> list[Case]:
    """Absence with no opening event; with and without a key."""
    within = r.choice([10, 20, 30])
    trigger = {
        "posture": "Proactive",
        "expect": ["a"],
        "threshold": r.randint(1, 3),
        "within": within,
        "for_each": r.choice([[], [], [ID]]),
    }
    at = 0
    s.tick(at)
    for _ in range(r.randint(4, 8)):
        at += r.choice([0, 1, within // 2, within - 1, within, within + 1, 2 * within])
        if r.random() < 0.25:
            s.tick(at)
        else:
            s.event("a", at, r.choice(["r1", "r2"]))
    s.tick(at + 3 * within)
    return [rule("silence", trigger)]


def unkeyed_absence(r: random.Random, s: Stream) -> list[Case]:
    """Absence after an opening event without for_each: Prefect opens windows by itself."""
    within = r.choice([10, 20])
    trigger = {"posture": "Proactive", "after": ["start"], "expect": ["end"], "within": within}
    at = 0
    for _ in range(r.randint(4, 8)):
        at += r.choice([1, within // 2, within - 1, within, within + 1])
        if r.random() < 0.25:
            s.tick(at)
        else:
            s.event(r.choice(["start", "end"]), at)
    s.tick(at + 2 * within)
    return [rule("unkeyed", trigger)]


def keyed(r: random.Random, s: Stream) -> list[Case]:
    """A reactive rule per label, per label of a related resource, or both; labels may be missing."""
    trigger, within = reactive(r)
    trigger["for_each"] = r.choice(
        [
            [ID],
            ["team"],
            ["related:flow:prefect.resource.id"],
            ["related:flow:env", "team"],
            [ID, "related:owner:env"],
        ]
    )
    trigger["threshold"] = r.randint(1, 3)
    at = 0
    for _ in range(r.randint(8, 14)):
        s.event("a", at, labels(r), related=relateds(r))
        at += r.choice([0, 1, 1, within // 2, within])
    return [rule("keyed", trigger)]


def labels(r: random.Random) -> Case:
    found = {ID: r.choice(["prod.orders", "prod.users", "dev.orders", "dev.users.eu"])}
    if r.random() < 0.7:
        found["team"] = r.choice(["red", "blue", ""])
    if r.random() < 0.5:
        found[NAME] = r.choice(["orders", "users", "a*b", "[x]", "!x"])
    return found


def relateds(r: random.Random) -> list[Case]:
    found = []
    for _ in range(r.randint(0, 3)):
        one = {ID: r.choice(["f.1", "f.2", "o.1"]), ROLE: r.choice(["flow", "flow", "owner", "tag"])}
        if r.random() < 0.5:
            one["env"] = r.choice(["prod", "dev"])
        found.append(one)
    return found


def pattern(r: random.Random, label: str) -> str | list[str]:
    choices = {
        ID: [
            "prod.*",
            "*.orders",
            "*",
            "prod.orders",
            "!dev.*",
            "!prod.users",
            "dev.?sers.*",
            "[pd]*.users*",
            "",
        ],
        NAME: ["orders", "*s", "!orders", "a[*]b", "[[]x]", "!!x", "?*", "ORDERS"],
        "team": ["red", "b*", "!red", "", "!", "*", "?*"],
        "env": ["prod", "!prod", "*", "d?v"],
        ROLE: ["flow", "owner", "!flow", "*", "tag*"],
    }[label]
    if r.random() < 0.35:
        return r.sample(choices, r.randint(0, 3))
    return r.choice(choices)


def specification(r: random.Random, names: list[str]) -> Case:
    return {label: pattern(r, label) for label in r.sample(names, r.randint(0, min(2, len(names))))}


def matched(r: random.Random, s: Stream) -> list[Case]:
    """Several rules, each with its own match; every event is offered to all."""
    rules = [
        rule(
            f"match-{i}",
            {"posture": "Reactive", "expect": ["a"], "match": specification(r, [ID, NAME, "team"])},
        )
        for i in range(r.randint(3, 5))
    ]
    for at in range(r.randint(6, 9)):
        s.event("a", at, labels(r))
    return rules


def matched_related(r: random.Random, s: Stream) -> list[Case]:
    """Several rules, each with its own match_related: a mapping, or a list of mappings."""
    rules = []
    for i in range(r.randint(3, 5)):
        wanted: Any = specification(r, [ID, ROLE, "env"])
        if r.random() < 0.5:
            wanted = [specification(r, [ID, ROLE, "env"]) for _ in range(r.randint(0, 3))]
        rules.append(rule(f"related-{i}", {"posture": "Reactive", "expect": ["a"], "match_related": wanted}))
    for at in range(r.randint(6, 9)):
        s.event("a", at, labels(r), related=relateds(r))
    return rules


def named(r: random.Random, s: Stream) -> list[Case]:
    """Several rules with globs for event names."""
    names = [
        "flow.run.Completed",
        "flow.run.Failed",
        "flow.run.",
        "flow.run",
        "flow.runs",
        "flow.",
        "task.run.Failed",
        "flow.run.Completed.late",
        "flow.ru?",
        "a",
        "ab",
    ]
    globs = [
        "flow.run.*",
        "flow.*",
        "*.Failed",
        "*",
        "flow.*.Failed",
        "flow.run",
        "flow.run.Completed",
        "a",
        "a*",
        "flow.ru?",
        "flow.run[s.]",
        "!flow.*",
        "**",
    ]
    rules = []
    for i in range(r.randint(3, 5)):
        trigger: Case = {"posture": "Reactive", "expect": r.sample(globs, r.randint(0, 3))}
        if r.random() < 0.2:
            trigger.update(after=[r.choice(globs)], within=60)
        rules.append(rule(f"named-{i}", trigger))
    for at in range(r.randint(6, 9)):
        s.event(r.choice(names), at)
    return rules


def leaf(r: random.Random, name: str, *, keys: bool = False) -> Case:
    trigger: Case = {"type": "event", "posture": "Reactive", "expect": [name]}
    if r.random() < 0.3:
        trigger.update(threshold=r.randint(1, 2), within=r.choice([0, 5, 20]))
    if keys and r.random() < 0.5:
        trigger["for_each"] = [ID]
    return trigger


def composite_stream(r: random.Random, s: Stream, names: str, within: int | None) -> None:
    """Events in strictly growing clock time; one that is late comes after a tick of its own."""
    at = 100
    for _ in range(r.randint(9, 15)):
        at += r.choice([1, 1, 2, 3, within or 5, (within or 5) + 1, max(1, (within or 5) - 1)])
        if r.random() < 0.15:
            s.tick(at)
            s.event(r.choice(names), at - r.choice([1, 2, 10]), r.choice(["r1", "r2"]))
        else:
            s.event(r.choice(names), at, r.choice(["r1", "r2"]))


def compound(r: random.Random, s: Stream) -> list[Case]:
    """any, all or N of two to four event triggers."""
    names = "abcd"[: r.randint(2, 4)]
    within = r.choice([None, 0, 5, 10, 30])
    require = r.choice(["any", "all", "all", r.randint(1, len(names))])
    composite_stream(r, s, names + "z", within)
    return [
        rule(
            "compound",
            {
                "type": "compound",
                "require": require,
                "within": within,
                "triggers": [leaf(r, name, keys=True) for name in names],
            },
        )
    ]


def sequence(r: random.Random, s: Stream) -> list[Case]:
    """A sequence of one to three event triggers, with and without expiry."""
    names = "abc"[: r.choice([1, 2, 2, 2, 3, 3])]
    within = r.choice([None, 2, 5, 10, 30])
    composite_stream(r, s, names, within)
    return [
        rule(
            "sequence",
            {"type": "sequence", "within": within, "triggers": [leaf(r, name, keys=True) for name in names]},
        )
    ]


def nested(r: random.Random, s: Stream) -> list[Case]:
    """Composites of composites, two or three levels deep."""
    names = list("abcdefgh")
    used: list[str] = []

    def grow(depth: int) -> Case:
        if depth == 0 or r.random() < 0.35:
            used.append(names.pop(0))
            return leaf(r, used[-1])
        children = [grow(depth - 1) for _ in range(min(2, len(names)))]
        within = r.choice([None, 10, 20])
        if r.random() < 0.4:
            return {"type": "sequence", "within": within, "triggers": children}
        return {
            "type": "compound",
            "require": r.choice(["any", "all", "all", len(children)]),
            "within": within,
            "triggers": children,
        }

    trees = [grow(2), grow(1)]
    kind = r.choice([{"type": "sequence"}, {"type": "compound", "require": "all"}])
    composite_stream(r, s, "".join(used), r.choice([None, 10]))
    return [rule("nested", {**kind, "within": r.choice([None, 20, 40]), "triggers": trees})]


def composite_absence(r: random.Random, s: Stream) -> list[Case]:
    """A composite in which one child is an absence after an opening event."""
    within = r.choice([10, 15])
    gone = {
        "type": "event",
        "posture": "Proactive",
        "after": ["start"],
        "expect": ["end"],
        "for_each": [ID],
        "within": within,
    }
    children = [gone, leaf(r, "a")]
    r.shuffle(children)
    kind = r.choice([{"type": "sequence"}, {"type": "compound", "require": "all"}])
    at = 0
    for _ in range(r.randint(8, 12)):
        at += r.choice([1, 2, 7, within - 1, within + 1])
        s.event(r.choice(["start", "start", "end", "a"]), at, "r1")
    s.tick(at + within + 1)
    return [rule("composite-absence", {**kind, "within": r.choice([None, 10, 30]), "triggers": children})]


def causal(r: random.Random, s: Stream) -> list[Case]:
    """Events that name their predecessor and arrive in any order; ids that arrive twice."""
    trigger, _ = reactive(r)
    trigger.update(within=r.choice([0, 10, 30]), threshold=r.randint(1, 2))
    chain: list[tuple[str, int, str | None]] = []
    for i in range(r.randint(5, 9)):
        leader = chain[-1][0] if chain and r.random() < 0.6 else None
        chain.append((s.id(1000 + i), 100 + 3 * i, leader))
    for i in range(len(chain) - 1):
        if r.random() < 0.4:
            chain[i], chain[i + 1] = chain[i + 1], chain[i]
    for id, at, leader in chain:
        s.event("a", at, follows=leader, id=id)
        if r.random() < 0.15:
            s.event("a", at, follows=leader, id=id)
    return [rule("causal", trigger)]


def many(r: random.Random, s: Stream) -> list[Case]:
    """Several rules of different kinds over one stream, one of them disabled at times."""
    rules = []
    for i in range(r.randint(2, 4)):
        trigger, _ = reactive(r)
        trigger.update(expect=r.choice([["a"], ["b"], ["a", "b"], ["*"], []]), for_each=r.choice([[], [ID]]))
        rules.append({**rule(f"many-{i}", trigger), "enabled": r.random() < 0.85})
    rules.append(
        rule(
            "pair",
            {
                "type": "compound",
                "require": "all",
                "within": r.choice([None, 10]),
                "triggers": [leaf(r, "a"), leaf(r, "b")],
            },
        )
    )
    at = 0
    for _ in range(r.randint(8, 12)):
        s.event(r.choice("abc"), at, r.choice(["r1", "r2"]))
        at += r.choice([1, 1, 2, 5, 10])
    return rules


CLASSES: dict[str, Callable[[random.Random, Stream], list[Case]]] = {
    "rapid": rapid,
    "late": late,
    "forgotten": forgotten,
    "after": after,
    "both": both,
    "heartbeat": heartbeat,
    "absence": absence,
    "absence-late": absence_late,
    "silence": silence,
    "unkeyed-absence": unkeyed_absence,
    "keyed": keyed,
    "matched": matched,
    "matched-related": matched_related,
    "named": named,
    "compound": compound,
    "sequence": sequence,
    "nested": nested,
    "composite-absence": composite_absence,
    "causal": causal,
    "many": many,
}


def generate(seed: int, count: int, only: str | None = None) -> Iterator[Case]:
    """`count` cases, the classes in turn. A case depends on its seed, number and class alone."""
    classes = [only] if only else list(CLASSES)
    for number in range(count):
        name = classes[number % len(classes)]
        stream = Stream(number + 1)
        automations = CLASSES[name](random.Random(f"{seed}/{number}/{name}"), stream)
        yield {
            "name": f"{name}-{seed}-{number}",
            "class": name,
            "automations": automations,
            "events": stream.lines,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description="Random rules and events in Prefect's format, one case a line.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--class", dest="only", choices=sorted(CLASSES))
    options = parser.parse_args()
    for case in generate(options.seed, options.count, options.only):
        print(json.dumps(case, separators=(",", ":")))


if __name__ == "__main__":
    main()
