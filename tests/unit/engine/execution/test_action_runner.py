"""Which compiled action a task is performed with, and what it is given of the events that led to it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from whenthen.actions import CompiledActions, encode_spec, spec_digest
from whenthen.actions.secrets import Redactor
from whenthen.engine.execution import action_runner
from whenthen.engine.execution.action_runner import ActionRunner
from whenthen.schemas.automations import Automation
from whenthen.schemas.errors import ActionError
from whenthen.schemas.events import Event
from whenthen.schemas.firings import ActionTask, Firing, FiringState, Ref


class Stream:
    """Remembers which positions were asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def event_at(self, seq: int) -> Event:
        self.asked.append(seq)
        return Event({"id": f"e{seq}", "event": "order.paid", "payload": {"n": seq}}, seq)


FIRING = Firing(
    id="f",
    automation="a",
    state=FiringState.TRIGGERED,
    at="2026-01-01T00:00:00.000000Z",
    key={},
    event={"id": "e3", "event": "order.paid", "resource": {"id": "order"}, "payload": {"n": 3}},
    seq=3,
    refs=tuple(Ref(f"e{seq}", seq, seq) for seq in (1, 2, 3)),
)


def automation(*actions: Any, **more: Any) -> Automation:
    return Automation.model_validate({"name": "a", "trigger": {"expect": "x"}, "actions": list(actions), **more})


def task(rule: Automation, index: int = 0, *, digest: bool = True) -> ActionTask:
    """As the evaluator makes it; without `digest` as versions before made it."""
    spec = encode_spec(rule.actions[index])
    return ActionTask(
        key=f"f.{index}",
        index=index,
        firing=FIRING,
        action=orjson.loads(spec),
        digest=spec_digest(spec) if digest else "",
    )


class Sink:
    def __init__(self) -> None:
        self.events: list[Event] = []

    async def publish(self, event: Event) -> None:
        self.events.append(event)


class Rules:
    """The rules in force: one automation, or none."""

    def __init__(self, rule: Automation | None) -> None:
        self.actions = None if rule is None else CompiledActions.compile(rule)

    def find(self, firing: Firing, index: int) -> Any:
        return None if self.actions is None else self.actions.find(firing, index)


def emit(payload: Any) -> dict[str, Any]:
    return {"type": "emit-event", "event": "order.seen", "resource": {"id": "order"}, "payload": payload}


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def compiled_anew(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the runner compiled itself."""
    seen: list[Any] = []
    compile_action = action_runner.compile_action

    def watched(action: Any) -> Any:
        seen.append(action)
        return compile_action(action)

    monkeypatch.setattr(action_runner, "compile_action", watched)
    return seen


def runner(
    sink: Sink, in_force: Automation | None, stream: Stream | None = None, *, published: Iterable[Automation] = ()
) -> ActionRunner:
    ports = SimpleNamespace(events=sink, redactor=Redactor())
    specs = {spec_digest(spec): spec for rule in published for spec in map(encode_spec, rule.actions)}

    async def find(digest: str) -> bytes | None:
        return specs.get(digest)

    return ActionRunner(stream or Stream(), ports, Rules(in_force).find, find)  # type: ignore[arg-type]


async def act(acting: ActionRunner, task: ActionTask) -> None:
    await acting.perform(await acting.resolve(task))


@pytest.mark.parametrize(
    "payload",
    [{"all": "$.events"}, {"ids": "{{ events | map(attribute='id') | join(',') }}"}, {"second": "$['events'][1]"}],
)
def test_an_action_that_names_events_is_given_all_of_them(sink: Sink, payload: Any) -> None:
    stream, rule = Stream(), automation(emit(payload))
    asyncio.run(act(runner(sink, rule, stream), task(rule)))
    assert stream.asked == [1, 2]
    assert "e2" in str(sink.events[0].payload)


def test_an_action_that_names_no_events_costs_no_look_up(sink: Sink) -> None:
    stream, rule = Stream(), automation(emit({"n": "$.payload.n", "of": "{{ event.id }}", "word": "all events"}))
    asyncio.run(act(runner(sink, rule, stream), task(rule)))
    assert stream.asked == []
    assert sink.events[0].payload == {"n": 3, "of": "e3", "word": "all events"}


@pytest.mark.parametrize("digest", [True, False], ids=["digest", "task-of-an-earlier-version"])
def test_what_the_rules_in_force_have_is_not_compiled_again(sink: Sink, compiled_anew: list[Any], digest: bool) -> None:
    rule = automation("do-nothing", emit({"n": "$.payload.n", "half": 0.5}))
    asyncio.run(act(runner(sink, rule), task(rule, 1, digest=digest)))
    assert sink.events[0].payload == {"n": 3, "half": 0.5}
    assert compiled_anew == []


def changed(payload: str) -> Automation:
    return automation(emit({"rule": payload}))


@pytest.mark.parametrize("digest", [True, False], ids=["digest", "task-of-an-earlier-version"])
@pytest.mark.parametrize(
    "in_force",
    [
        pytest.param(None, id="removed"),
        pytest.param(changed("new"), id="changed"),
        pytest.param(automation(), id="without actions"),
        pytest.param(automation("do-nothing", emit({"rule": "old"})), id="moved"),
    ],
)
def test_a_task_is_performed_as_it_was_asked_whatever_became_of_its_rule(
    sink: Sink, compiled_anew: list[Any], in_force: Automation | None, digest: bool
) -> None:
    acting = runner(sink, in_force, published=[changed("old")])
    for _ in range(2):
        asyncio.run(act(acting, task(changed("old"), digest=digest)))
    assert [event.payload for event in sink.events] == [{"rule": "old"}] * 2
    assert len(compiled_anew) == 1, "the second task is performed with what the first one had compiled"


def test_other_actions_than_those_in_force_are_kept_up_to_a_bound(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action_runner, "MAX_KNOWN", 2)
    rules = [changed(str(number)) for number in range(5)]
    acting = runner(sink, None, published=rules)
    for rule in rules:
        asyncio.run(act(acting, task(rule)))
    assert len(acting._known) == 2
    assert len(sink.events) == 5


def test_a_task_of_another_version_that_this_one_can_not_perform_is_refused_for_good(sink: Sink) -> None:
    async def find(digest: str) -> bytes:
        return b'{"type":"launch-rocket"}'

    odd = dataclasses.replace(task(changed("old")), action={"type": "launch-rocket"}, digest="0" * 24)
    ports = SimpleNamespace(events=sink, redactor=Redactor())
    acting = ActionRunner(Stream(), ports, Rules(None).find, find)  # type: ignore[arg-type]
    with pytest.raises(ActionError, match="this version can not perform the action") as refused:
        asyncio.run(acting.resolve(odd))
    assert not refused.value.retryable


@pytest.mark.parametrize("digest", [True, False], ids=["digest", "task-of-an-earlier-version"])
@pytest.mark.parametrize("in_force", [None, changed("new")], ids=["removed", "changed"])
def test_a_task_whose_action_nobody_published_is_refused_for_good(
    sink: Sink, compiled_anew: list[Any], in_force: Automation | None, digest: bool
) -> None:
    acting = runner(sink, in_force, published=[changed("other")])
    with pytest.raises(ActionError, match="refused") as refused:
        asyncio.run(act(acting, task(changed("old"), digest=digest)))
    assert (refused.value.retryable, refused.value.reason) == (False, "unknown_action")
    assert sink.events == []
    assert compiled_anew == []


def test_the_actions_of_an_edge_are_found_behind_those_of_every_firing() -> None:
    rule = automation("do-nothing", actions_on_trigger=[emit("up")], actions_on_resolve=[emit("down"), "do-nothing"])
    compiled = CompiledActions.compile(rule)
    resolved = dataclasses.replace(FIRING, state=FiringState.RESOLVED)
    again = dataclasses.replace(FIRING, edge=False)

    def types(firing: Firing) -> list[Any]:
        found = [compiled.find(firing, index) for index in range(4)]
        return [None if item is None else getattr(item.action, "payload", item.type) for item in found]

    assert types(FIRING) == ["do-nothing", "up", None, None]
    assert types(resolved) == ["do-nothing", "down", "do-nothing", None]
    assert types(again) == ["do-nothing", None, None, None]
