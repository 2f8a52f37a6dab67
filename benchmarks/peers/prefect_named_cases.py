"""Hand-written trigger cases in Prefect's format, one behaviour each; `note` says what a case is about.

Standard library only. Printed one JSON object a line, to be answered by `prefect_evaluator.py`; together
with random ones from `prefect_cases.py` they make `tests/conformance/prefect_recorded.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from prefect_cases import ID, NAME, ROLE, Case, Stream, rule

__all__ = ["named_cases"]

REACTIVE = {"posture": "Reactive", "expect": ["a"]}
WATCH = {"posture": "Proactive", "after": ["start"], "expect": ["end"], "for_each": [ID], "within": 30}
BEAT = {"posture": "Proactive", "after": ["beat"], "expect": ["beat", "done"], "for_each": [ID], "within": 30}

Line = tuple[Any, ...]


def case(name: str, note: str, trigger: Case | list[Case], *lines: Line, sweep: str = "exact") -> Case:
    """`lines` are (event name, seconds[, resource[, more]]) or ("tick", seconds)."""
    stream = Stream(0)
    for line in lines:
        if line[0] == "tick":
            stream.tick(line[1])
        else:
            more = line[3] if len(line) > 3 else {}
            stream.event(line[0], line[1], line[2] if len(line) > 2 else "r", **more)
    triggers = trigger if isinstance(trigger, list) else [trigger]
    rules = [rule(f"rule-{number}", one) for number, one in enumerate(triggers)]
    found = {"name": name, "class": "named", "note": note, "automations": rules, "events": stream.lines}
    return found if sweep == "exact" else {**found, "sweep": sweep}


def every(*seconds: float, name: str = "a", resource: str = "r") -> list[Line]:
    return [(name, at, resource) for at in seconds]


def composite(kind: str, within: float | None, *triggers: Case, **more: Any) -> Case:
    return {"type": kind, "within": within, "triggers": list(triggers), **more}


def on(*names: str, **more: Any) -> Case:
    return {"type": "event", "posture": "Reactive", "expect": list(names), **more}


def buckets() -> Iterator[Case]:
    yield case(
        "immediate-fires-each",
        "threshold 1 and no within: every event, rapid fire included",
        REACTIVE,
        *every(0, 0, 0, 1),
    )
    yield case(
        "quiet-rest-of-bucket",
        "after a firing the next bucket starts at the fired bucket's end, not before",
        {**REACTIVE, "within": 10},
        *every(0, 0, 3, 9, 9.999999, 10),
    )
    yield case(
        "two-firings-a-second-apart",
        "quiet is the rest of a bucket, not a span after the firing",
        {**REACTIVE, "within": 10},
        *every(0, 19, 20, 39, 40),
    )
    yield case(
        "bucket-restarts-at-event",
        "an event past the bucket's end opens the next bucket at its own time",
        {**REACTIVE, "within": 10},
        *every(0, 25, 34, 35),
    )
    yield case(
        "bucket-end-exclusive",
        "an event at the very end belongs to the next bucket",
        {**REACTIVE, "threshold": 2, "within": 10},
        *every(0, 10, 19, 20),
    )
    yield case(
        "tumbling-not-sliding",
        "two events six seconds apart on both sides of a bucket end do not fire",
        {**REACTIVE, "threshold": 2, "within": 10},
        *every(0, 5, 15, 21, 22),
    )
    yield case(
        "count-starts-over-after-firing",
        "events of the quiet span count for nothing",
        {**REACTIVE, "threshold": 3, "within": 10},
        *every(0, 1, 2, 3, 4, 5, 10, 11, 12, 19, 20, 21, 22),
    )
    yield case(
        "first-bucket-looks-back",
        "the first bucket begins 15 minutes before its first event",
        {**REACTIVE, "threshold": 2, "within": 10},
        *every(1000, 100),
        *every(1011),
    )
    yield case(
        "look-back-is-inclusive",
        "an event exactly 15 minutes earlier counts, one second more does not",
        {**REACTIVE, "threshold": 3, "within": 10},
        *every(1000, 99, 100, 1001),
    )
    yield case(
        "later-buckets-do-not-look-back",
        "after a firing events older than the bucket are ignored",
        {**REACTIVE, "within": 10},
        *every(1000, 1009, 999, 1010, 1009),
    )
    yield case(
        "late-into-restarted-bucket",
        "a bucket opened by an event past the end takes no earlier event",
        {**REACTIVE, "threshold": 2, "within": 10},
        *every(1000, 1020, 1019, 1021),
    )
    yield case(
        "forgotten-bucket-looks-back-again",
        "60 s after its end a bucket is forgotten; the next is a first one",
        {**REACTIVE, "within": 10},
        *every(0),
        *every(80, 75, 71),
        *every(90),
    )
    yield case(
        "not-yet-forgotten",
        "one second before the 60 s are over the bucket is still there",
        {**REACTIVE, "within": 10},
        *every(0),
        *every(79, 75, 71),
        *every(89),
    )
    yield case(
        "zero-within-counts-for-a-minute",
        "threshold 2 with no within: each second event, until forgotten",
        {**REACTIVE, "threshold": 2},
        *every(0, 30, 59, 118, 119, 200, 260),
    )
    yield case(
        "zero-within-late",
        "no within: an event older than 15 minutes before the first is ignored",
        {**REACTIVE, "threshold": 2},
        *every(1000, 99),
        *every(1001, 1002, 101),
    )
    yield case(
        "threshold-zero",
        "threshold 0 fires as if it were 1",
        {**REACTIVE, "threshold": 0, "within": 5},
        *every(0, 1, 5),
    )
    yield case(
        "fraction-of-a-second",
        "windows are exact to the microsecond",
        {**REACTIVE, "threshold": 2, "within": 0.5},
        *every(0, 0.499999, 1, 1.5, 1.999999),
    )
    yield case(
        "far-future-event",
        "an event that occurred in the future moves the bucket with it",
        {**REACTIVE, "within": 10},
        *every(0, 1000, 12, 1010),
    )
    yield case(
        "same-id-twice",
        "an id that was seen within 30 minutes is dropped",
        REACTIVE,
        ("a", 0, "r", {"id": "00000000-0000-0000-0000-00000000000a"}),
        ("a", 5, "r", {"id": "00000000-0000-0000-0000-00000000000a"}),
        ("tick", 1801),
        ("a", 1802, "r", {"id": "00000000-0000-0000-0000-00000000000a"}),
    )


def opened() -> Iterator[Case]:
    after = {**REACTIVE, "after": ["s"], "within": 10}
    yield case(
        "after-then-expect",
        "nothing before the opening event; fires once, then needs another",
        after,
        ("a", 0),
        ("s", 1),
        ("a", 2),
        ("a", 3),
        ("s", 20),
        ("a", 30),
        ("a", 31),
    )
    yield case(
        "after-does-not-move",
        "a second opening event leaves the window where it is",
        after,
        ("s", 0),
        ("s", 8),
        ("a", 12),
    )
    yield case(
        "expired-window-swallows-after",
        "an opening event that meets an ended window is lost",
        after,
        ("s", 0),
        ("s", 12),
        ("a", 13),
        ("s", 14),
        ("a", 15),
    )
    yield case(
        "forgotten-window-reopens",
        "once the ended window was forgotten the opening event counts again",
        after,
        ("s", 0),
        ("s", 70),
        ("a", 71),
    )
    yield case(
        "after-no-within",
        "no within: the first expected event after, for as long as the window is remembered",
        {**after, "within": 0},
        ("s", 0),
        ("a", 59),
        ("a", 59.5),
        ("s", 100),
        ("a", 160),
        ("s", 200),
        ("a", 200),
    )
    yield case(
        "expect-before-after-by-time",
        "an expected event that occurred before the opening one is ignored",
        after,
        ("s", 100),
        ("a", 99),
        ("a", 100),
    )
    yield case(
        "same-event-both",
        "the event that opens the window does not count itself",
        {**after, "after": ["a"]},
        *every(0, 5, 6, 7, 18, 19, 40, 49),
    )
    yield case(
        "same-event-both-threshold-2",
        "opening event plus two",
        {**after, "after": ["a"], "threshold": 2},
        *every(0, 1, 2, 3, 4, 5, 20, 31, 32),
    )
    yield case(
        "same-event-both-no-within",
        "no within: never fires; each event opens a window that ends at once",
        {**after, "after": ["a"], "within": 0},
        *every(0, 0, 1, 2, 3),
    )
    yield case(
        "after-matches-expect-empty",
        "an empty expect takes any event, the opening one too",
        {**after, "expect": []},
        ("x", 0),
        ("s", 1),
        ("x", 2),
        ("x", 3),
    )
    yield case(
        "after-labels",
        "match and for_each apply to the opening event as well",
        {**after, "match": {ID: "p.*"}, "for_each": [ID]},
        ("s", 0, "p.1"),
        ("a", 1, "p.2"),
        ("s", 2, "q.1"),
        ("a", 3, "q.1"),
        ("a", 4, "p.1"),
    )


def absences() -> Iterator[Case]:
    yield case(
        "absence-fires-at-end",
        "fires when the window ends, with the opening event",
        WATCH,
        ("start", 0),
        ("tick", 29),
        ("tick", 30),
        ("tick", 90),
    )
    yield case(
        "absence-satisfied",
        "an expected event inside the window ends the watch",
        WATCH,
        ("start", 0),
        ("end", 29.999999),
        ("tick", 90),
    )
    yield case(
        "absence-end-exclusive",
        "an expected event at the very end is too late",
        WATCH,
        ("start", 0),
        ("end", 30),
        ("tick", 90),
    )
    yield case(
        "absence-per-key",
        "each key has its own window",
        WATCH,
        ("start", 0, "r1"),
        ("start", 5, "r2"),
        ("end", 10, "r1"),
        ("tick", 100),
    )
    yield case(
        "absence-restart-does-not-extend",
        "a second opening event does not move the end",
        WATCH,
        ("start", 0),
        ("start", 20),
        ("tick", 100),
    )
    yield case(
        "absence-satisfied-window-swallows-after",
        "a satisfied window hides the next opening event until swept",
        WATCH,
        ("start", 0),
        ("end", 5),
        ("start", 6),
        ("tick", 100),
        ("start", 101),
        ("tick", 200),
    )
    yield case(
        "absence-threshold-2",
        "one of two expected events is not enough; it is the firing's event",
        {**WATCH, "threshold": 2},
        ("start", 0),
        ("end", 5),
        ("tick", 60),
        ("start", 61),
        ("end", 62),
        ("end", 63),
        ("tick", 120),
    )
    yield case(
        "absence-late-expected",
        "an expected event that occurred in the window but came after its end",
        WATCH,
        ("start", 0),
        ("tick", 30),
        ("end", 29),
        ("tick", 60),
    )
    yield case(
        "absence-swept-late",
        "with no sweep in between, the late expected event itself fires the absence",
        WATCH,
        ("start", 0),
        ("end", 31),
        ("tick", 40),
        sweep="tick",
    )
    yield case(
        "absence-lost-after-60s",
        "sweeps two minutes apart: the absence still fires before it is forgotten",
        WATCH,
        ("tick", 0),
        ("start", 1),
        ("tick", 121),
        ("tick", 130),
        sweep="tick",
    )
    yield case(
        "absence-held-back-by-lag",
        "an event that occurred long before the clock holds absences back",
        WATCH,
        ("start", 0, "r1"),
        ("tick", 25),
        ("start", 5, "r2"),
        ("tick", 35),
        ("tick", 49),
        ("tick", 50),
        ("tick", 54),
        ("tick", 55),
        ("start", 56, "r3"),
        ("tick", 90),
    )
    yield case("absence-least-within", "within below 10 s is refused", {**WATCH, "within": 9.5}, ("start", 0))
    yield case(
        "absence-no-within",
        "no within means 10 s",
        {key: WATCH[key] for key in WATCH if key != "within"},
        ("start", 0),
        ("tick", 9),
        ("tick", 10),
    )
    yield case(
        "heartbeat",
        "each heartbeat restarts the window; silence fires once",
        BEAT,
        ("beat", 0),
        ("beat", 20),
        ("beat", 49),
        ("beat", 78),
        ("tick", 200),
    )
    yield case(
        "heartbeat-at-end",
        "a heartbeat at the very end is too late, and opens the next watch",
        BEAT,
        ("beat", 0),
        ("beat", 30),
        ("tick", 61),
    )
    yield case(
        "heartbeat-done",
        "the terminal event ends the watch",
        BEAT,
        ("beat", 0),
        ("beat", 20),
        ("done", 30),
        ("tick", 200),
    )
    yield case(
        "heartbeat-late",
        "an older heartbeat changes no window, yet becomes the firing's event",
        BEAT,
        ("beat", 10),
        ("beat", 20),
        ("beat", 15),
        ("tick", 100),
    )
    yield case(
        "heartbeat-first-is-free",
        "the first heartbeat opens the window and does not satisfy it",
        BEAT,
        ("beat", 0, "r1"),
        ("beat", 0, "r2"),
        ("beat", 1, "r2"),
        ("tick", 30),
        ("tick", 31),
    )
    yield case(
        "heartbeat-threshold-2",
        "two more heartbeats are needed in each window",
        {**BEAT, "threshold": 2},
        ("beat", 0),
        ("beat", 10),
        ("beat", 20),
        ("beat", 30),
        ("tick", 100),
    )
    silence = {"posture": "Proactive", "expect": ["a"], "within": 30}
    yield case(
        "silence-repeats",
        "with no opening event and no key a window follows the other, from the start",
        silence,
        ("tick", 0),
        ("tick", 100),
    )
    yield case(
        "silence-after-event",
        "a satisfied window is dropped at its sweep, and the next opens one window later",
        silence,
        ("tick", 0),
        ("a", 5),
        ("tick", 200),
    )
    yield case(
        "silence-event-first",
        "the event comes before the first sweep",
        silence,
        ("a", 0),
        ("tick", 1),
        ("tick", 120),
        sweep="tick",
    )
    yield case(
        "silence-per-key-never-fires",
        "per key with threshold 1 a window is opened satisfied: never an absence",
        {**silence, "for_each": [ID]},
        ("a", 0, "r1"),
        ("a", 10, "r2"),
        ("tick", 300),
    )
    yield case(
        "silence-per-key-threshold-2",
        "per key with threshold 2 it fires for every window for ever",
        {**silence, "for_each": [ID], "threshold": 2},
        ("a", 0, "r1"),
        ("a", 10, "r2"),
        ("tick", 100),
    )
    yield case(
        "unkeyed-absence-opens-itself",
        "with an opening event but no for_each, windows open without it",
        {**WATCH, "for_each": []},
        ("tick", 0),
        ("tick", 100),
    )
    yield case(
        "threshold-zero-proactive",
        "threshold 0 never fires",
        {**WATCH, "threshold": 0},
        ("start", 0),
        ("tick", 90),
    )


def matching() -> Iterator[Case]:
    def match(spec: Case) -> Case:
        return {**REACTIVE, "match": spec}

    yield case(
        "match-globs",
        "star, question mark and classes in any place; case counts; exact otherwise",
        [match({ID: g}) for g in ("s3.*", "*.csv", "s?.a.*", "s[34].*", "s[!3].*", "S3.*", "s3", "*", "")],
        ("a", 0, "s3.a.csv"),
        ("a", 1, "s4.a.csv"),
        ("a", 2, "s3"),
    )
    yield case(
        "match-not",
        "a negation needs the label to be there; only the first mark negates",
        [match({"team": g}) for g in ("!red", "!r*", "!", "!!red", "!*")],
        ("a", 0, {ID: "r", "team": "red"}),
        ("a", 1, {ID: "r", "team": "blue"}),
        ("a", 2, "r"),
        ("a", 3, {ID: "r", "team": ""}),
        ("a", 4, {ID: "r", "team": "!red"}),
    )
    yield case(
        "match-lists",
        "a list is an or, negations included; an empty list matches nothing",
        [match({"team": g}) for g in (["red", "b*"], ["!red", "!blue"], [], ["!red"])],
        ("a", 0, {ID: "r", "team": "red"}),
        ("a", 1, {ID: "r", "team": "blue"}),
        ("a", 2, "r"),
    )
    yield case(
        "match-labels-are-and",
        "all labels must match; an empty mapping matches everything",
        [match({ID: "r*", "team": "red"}), match({})],
        ("a", 0, {ID: "r1", "team": "red"}),
        ("a", 1, {ID: "r1"}),
        ("a", 2, {ID: "q", "team": "red"}),
    )
    flow = {ID: "f.1", ROLE: "flow", "env": "prod"}
    owner = {ID: "o.1", ROLE: "owner", "env": "dev"}

    def related(spec: Any) -> Case:
        return {**REACTIVE, "match_related": spec}

    yield case(
        "related-one-mapping",
        "one related resource must carry all labels of a mapping",
        [
            related({ROLE: "flow", "env": "prod"}),
            related({ROLE: "flow", "env": "dev"}),
            related({}),
            related({ROLE: "!flow"}),
        ],
        ("a", 0, "r", {"related": [flow, owner]}),
        ("a", 1, "r", {"related": [flow]}),
        ("a", 2, "r"),
    )
    yield case(
        "related-list",
        "each mapping of a list needs some related resource, maybe the same; none is no condition",
        [
            related([{ROLE: "flow"}, {ROLE: "owner"}]),
            related([{ROLE: "flow"}, {"env": "prod"}]),
            related([]),
            related([{}]),
            related([{ROLE: "flow"}, {}]),
        ],
        ("a", 0, "r", {"related": [flow, owner]}),
        ("a", 1, "r", {"related": [flow]}),
        ("a", 2, "r"),
    )
    yield case(
        "related-not-the-resource",
        "match_related does not look at the resource itself",
        [related({ID: "r"})],
        ("a", 0, "r"),
        ("a", 1, "q", {"related": [{ID: "r", ROLE: "x"}]}),
    )
    yield case(
        "name-globs",
        "a star in an event name needs at least one character; other marks are literal; no negation",
        [on(g) for g in ("flow.run.*", "*.Failed", "flow.*.Failed", "flow.ru?", "flow.ru[n]", "!flow.*", "*")],
        ("flow.run.", 0),
        ("flow.run.Failed", 1),
        ("flow.run", 2),
        ("flow.ru?", 3),
        (".Failed", 4),
        ("flow.x.y.Failed", 5),
        ("FLOW.run.Failed", 6),
    )
    yield case(
        "name-prefix-quirk",
        "two patterns may combine: one by glob, another as a prefix",
        [on("a", "a.?"), on("a.?"), on("ab", "a")],
        ("a.x", 0),
        ("a", 1),
        ("abc", 2),
        ("a.?", 3),
    )
    yield case("name-empty-expect", "an empty expect takes any event", [on()], ("a", 0), ("b.c", 1))
    yield case(
        "for-each-labels",
        "one bucket for each combination; a missing label counts as empty",
        on("a", for_each=["team", ID], threshold=2, within=60),
        ("a", 0, {ID: "1", "team": "x"}),
        ("a", 1, {ID: "2", "team": "x"}),
        ("a", 2, {ID: "1"}),
        ("a", 3, {ID: "1", "team": ""}),
        ("a", 4, {ID: "1", "team": "x"}),
    )
    yield case(
        "for-each-related",
        "the first related resource of the role; lacking it, or its label, counts as empty",
        on("a", for_each=["related:flow:env"], threshold=2, within=60),
        ("a", 0, "r", {"related": [flow, {ID: "f.2", ROLE: "flow", "env": "dev"}]}),
        ("a", 1, "r", {"related": [{ID: "f.2", ROLE: "flow", "env": "dev"}, flow]}),
        ("a", 2, "r", {"related": [owner, flow]}),
        ("a", 3, "r"),
        ("a", 4, "r", {"related": [{ID: "f.3", ROLE: "flow"}, flow]}),
    )
    yield case(
        "for-each-colon",
        "a label with a colon is looked up as it stands",
        on("a", for_each=["k8s:ns"], threshold=2, within=60),
        ("a", 0, {ID: "1", "k8s:ns": "x"}),
        ("a", 1, {ID: "2", "k8s:ns": "y"}),
        ("a", 2, {ID: "3", "k8s:ns": "x"}),
    )
    yield case(
        "resource-name",
        "a name label is a label like others",
        match({NAME: "orders"}),
        ("a", 0, {ID: "1", NAME: "orders"}),
        ("a", 1, "orders"),
    )


def composites() -> Iterator[Case]:
    a, b, c = on("a"), on("b"), on("c")
    yield case(
        "compound-any",
        "fires for each child, keeps nothing",
        composite("compound", 10, a, b, require="any"),
        ("a", 0),
        ("b", 1),
        ("b", 2),
    )
    yield case(
        "compound-all",
        "both children, in any order; a firing uses them up",
        composite("compound", None, a, b, require="all"),
        ("b", 0),
        ("b", 1),
        ("a", 2),
        ("a", 3),
        ("b", 4),
    )
    yield case(
        "compound-within-inclusive",
        "children exactly within apart still count",
        composite("compound", 10, a, b, require="all"),
        ("a", 0),
        ("b", 10),
        ("a", 20),
        ("b", 31),
        ("a", 41),
    )
    yield case(
        "compound-within-is-processing-time",
        "the window counts when a child fired, not when its event occurred",
        composite("compound", 10, a, b, require="all"),
        ("a", 100),
        ("tick", 105),
        ("b", 50),
        ("a", 200),
        ("tick", 220),
        ("b", 205),
    )
    yield case(
        "compound-no-within",
        "no within: for ever",
        composite("compound", None, a, b, require="all"),
        ("a", 0),
        ("b", 86400),
    )
    yield case(
        "compound-within-zero",
        "within 0: the same instant only",
        composite("compound", 0, a, b, require="all"),
        ("a", 0),
        ("b", 0),
        ("a", 1),
        ("b", 2),
    )
    yield case(
        "compound-two-of-three",
        "N of the children; the rest starts over",
        composite("compound", 20, a, b, c, require=2),
        ("a", 0),
        ("a", 1),
        ("c", 2),
        ("b", 3),
        ("c", 4),
        ("a", 30),
    )
    yield case(
        "compound-latest-child-counts",
        "a child that fires again replaces its earlier firing",
        composite("compound", 10, a, b, require="all"),
        ("a", 0),
        ("a", 8),
        ("b", 15),
    )
    yield case(
        "compound-mixes-keys",
        "children with for_each do not correlate: yesterday's order meets today's",
        composite("compound", 60, on("a", for_each=[ID]), on("b", for_each=[ID]), require="all"),
        ("a", 0, "order-1"),
        ("b", 1, "order-2"),
        ("b", 2, "order-1"),
    )
    yield case(
        "compound-children-windows",
        "children keep their own buckets and thresholds",
        composite("compound", 60, on("a", threshold=2, within=10), b, require="all"),
        ("a", 0),
        ("b", 1),
        ("a", 12),
        ("a", 13),
        ("a", 14),
        ("b", 15),
    )
    yield case(
        "compound-same-event",
        "one event may fire every child; which events count depends on which child comes first",
        composite("compound", 10, on("a"), on("a", "b"), require="all"),
        ("b", 0),
        ("a", 1),
        ("a", 2),
    )
    yield case(
        "compound-of-one",
        "all of one fires at once",
        composite("compound", 10, a, require="all"),
        ("a", 0),
        ("a", 1),
    )
    yield case(
        "compound-too-many",
        "requiring more children than there are is refused",
        composite("compound", 10, a, b, require=3),
        ("a", 0),
    )
    yield case(
        "sequence-order",
        "in order only; a wrong order is mended by what comes next",
        composite("sequence", None, a, b),
        ("b", 0),
        ("a", 1),
        ("b", 2),
        ("a", 3),
        ("b", 4),
    )
    yield case(
        "sequence-of-three",
        "each child's latest firing counts",
        composite("sequence", None, a, b, c),
        ("a", 0),
        ("b", 1),
        ("a", 2),
        ("c", 3),
        ("b", 4),
        ("c", 5),
        ("a", 6),
        ("b", 7),
        ("c", 8),
    )
    yield case(
        "sequence-expiry",
        "the whole sequence within the span, end included",
        composite("sequence", 10, a, b, c),
        ("a", 0),
        ("b", 5),
        ("c", 10),
        ("a", 20),
        ("b", 25),
        ("c", 31),
        ("c", 32),
    )
    yield case(
        "sequence-late-event",
        "order is the order of processing, not of occurrence",
        composite("sequence", 60, a, b),
        ("a", 100),
        ("tick", 101),
        ("b", 50),
        ("b", 110),
        ("tick", 111),
        ("a", 105),
        ("b", 112),
    )
    yield case("sequence-of-one", "fires each time", composite("sequence", 5, a), ("a", 0), ("a", 1))
    yield case(
        "sequence-mixes-keys",
        "no correlation between steps",
        composite("sequence", 60, on("a", for_each=[ID]), on("b", for_each=[ID])),
        ("a", 0, "x"),
        ("b", 1, "y"),
    )
    yield case(
        "nested-any-in-sequence",
        "a or b, then c",
        composite("sequence", 60, composite("compound", None, a, b, require="any"), c),
        ("c", 0),
        ("b", 1),
        ("c", 2),
        ("a", 3),
        ("b", 4),
        ("c", 5),
    )
    yield case(
        "nested-sequences",
        "two sequences inside an all",
        composite(
            "compound",
            30,
            composite("sequence", 10, a, b),
            composite("sequence", 10, c, on("d")),
            require="all",
        ),
        ("a", 0),
        ("c", 1),
        ("b", 2),
        ("d", 3),
        ("a", 40),
        ("b", 41),
        ("c", 71),
        ("d", 72),
        ("a", 73),
        ("b", 74),
    )
    yield case(
        "nested-deep",
        "three levels with expiry at each",
        composite(
            "sequence",
            60,
            composite("compound", 20, composite("sequence", 5, a, b), c, require="all"),
            on("d"),
        ),
        ("a", 0),
        ("b", 5),
        ("c", 25),
        ("d", 85),
        ("a", 100),
        ("b", 106),
        ("c", 107),
        ("a", 108),
        ("b", 110),
        ("d", 111),
    )
    yield case(
        "composite-with-absence",
        "an absence as a step; the watch fires at its end",
        composite("sequence", 60, on("a"), {"type": "event", **WATCH}),
        ("a", 0),
        ("start", 10),
        ("tick", 60),
        ("start", 61),
        ("end", 62),
        ("tick", 200),
    )


def causality() -> Iterator[Case]:
    first, second = "00000000-0000-0000-0000-0000000000a1", "00000000-0000-0000-0000-0000000000a2"
    third = "00000000-0000-0000-0000-0000000000a3"
    pair = on("b", after=["a"], within=10)
    yield case(
        "follows-waits",
        "an event waits for the one it follows, and is handled right after it",
        pair,
        ("b", 1, "r", {"id": second, "follows": first}),
        ("tick", 5),
        ("a", 0, "r", {"id": first}),
    )
    yield case(
        "follows-chain",
        "a chain in reverse order",
        on("*"),
        ("c", 2, "r", {"id": third, "follows": second}),
        ("b", 1, "r", {"id": second, "follows": first}),
        ("a", 0, "r", {"id": first}),
    )
    yield case(
        "follows-lost",
        "after 15 minutes an event is handled without its leader",
        on("*"),
        ("b", 1, "r", {"id": second, "follows": first}),
        ("tick", 900),
        ("tick", 901),
        ("tick", 902),
        ("a", 903, "r", {"id": first}),
    )
    yield case(
        "follows-itself",
        "an event that follows itself does not wait",
        on("*"),
        ("a", 0, "r", {"id": first, "follows": first}),
    )


def named_cases() -> list[Case]:
    groups = (buckets, opened, absences, matching, composites, causality)
    return [one for group in groups for one in group()]


if __name__ == "__main__":
    for one in named_cases():
        print(json.dumps(one, separators=(",", ":")))
