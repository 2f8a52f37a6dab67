"""What can not be stored sets its automation aside, and nothing else: the others go on, and it comes back when it is edited or
resumed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
import pytest

from tests.unit.engine.evaluation.driven_loop import DrivenLoop
from tests.unit.engine.evaluation.stored_rules import StoredRules
from tests.unit.engine.evaluation.virtual_time import now_us, run
from whenthen.engine.bus.records import Message
from whenthen.engine.bus.request_client import BusReason, refusal, unavailable
from whenthen.engine.evaluation.commits import automations_aside
from whenthen.engine.evaluation.commits.commit import FencedShardLog
from whenthen.engine.evaluation.commits.fenced_offset import SAME_REFUSALS
from whenthen.engine.evaluation.loop_ports import Observer
from whenthen.engine.evaluation.memory_log import MemoryConnection
from whenthen.engine.evaluation.memory_server import MemoryServer
from whenthen.engine.evaluation.shard_loop import ShardLoop
from whenthen.schemas.automations import Automation
from whenthen.schemas.events import Event, new_event
from whenthen.schemas.times import from_us
from whenthen.triggers import Aside, Evaluator, RuleSet

PAIR = {"expect": "order.paid", "threshold": 2, "within": "1h", "cooldown": "0s", "for_each": ["id"]}
SMALL = {"name": "small", "trigger": PAIR, "actions": ["do-nothing"]}
HUGE = {
    "name": "huge",
    "trigger": PAIR,
    "actions": [{"type": "emit-event", "event": "x", "payload": {"text": "x" * 600_000}}],
}


class Noting(Observer):
    def __init__(self) -> None:
        self.aside: dict[str, Aside] = {}

    def set_aside(self, shard: int, aside: Mapping[str, Aside]) -> None:
        self.aside = dict(aside)


def rules(*documents: dict[str, Any]) -> RuleSet:
    return RuleSet.compile([Automation.model_validate(document) for document in documents])


def event(number: int, id: str = "a") -> Event:
    return new_event("order.paid", id=f"e-{number}", resource={"id": id}, now=from_us(now_us()), source="test")


class Scene(DrivenLoop):
    """A server that takes messages of 512 KiB, and the loop that evaluates it."""

    def __init__(self, *documents: dict[str, Any]) -> None:
        self.server = MemoryServer(now_us, max_payload=512 << 10)
        self.rules = StoredRules(rules(*documents))
        self.start()

    def start(self) -> None:
        self.observer = Noting()
        self.evaluator = Evaluator(RuleSet([]))
        process = MemoryConnection(self.server)
        self.loop = ShardLoop(
            process.events,
            FencedShardLog(process.engine, 0),
            self.evaluator,
            observer=self.observer,
            wall_us=now_us,
            monotonic=asyncio.get_running_loop().time,
            revisions=self.rules,
        )
        self.task = asyncio.create_task(self.loop.run())

    async def publish(self, *events: Event) -> None:
        """Publish, and wait until all is committed."""
        seq = 0
        for each in events:
            seq = self.server.publish(each)
        await self.reach(seq)

    def fired(self) -> list[str]:
        found = [kept for kept in self.server.history if kept.subject.startswith("engine.firing.") and kept.data]
        return [orjson.loads(kept.data or b"")["automation"] for kept in found]

    def told(self) -> list[dict[str, Any]]:
        """The events that say that an automation was set aside."""
        return [orjson.loads(each.data) for each in self.server.events if each.subject == "events.automation.set-aside"]


def test_a_task_larger_than_a_message_sets_its_automation_aside_and_the_others_go_on() -> None:
    async def play() -> None:
        scene = Scene(HUGE, SMALL)
        await scene.publish(event(1), event(2))
        assert scene.fired() == ["small"]
        assert list(scene.observer.aside) == ["huge"]
        told = scene.told()
        assert [each["resource"]["name"] for each in told] == ["huge"]
        assert "would have" in told[0]["payload"]["detail"]
        await scene.publish(event(3), event(4))
        assert scene.fired() == ["small", "small"]
        assert len(scene.told()) == 1
        await scene.stop()

        scene.start()  # another process: it is still set aside
        await scene.publish(event(5), event(6))
        assert list(scene.observer.aside) == ["huge"]
        assert scene.fired() == ["small"] * 3
        await scene.stop()

    run(play())


def test_an_automation_that_was_set_aside_comes_back_when_its_actions_are_edited() -> None:
    async def play() -> None:
        scene = Scene(HUGE, SMALL)
        await scene.publish(event(1), event(2))
        scene.rules.publish(scene.server, rules({**HUGE, "actions": ["do-nothing"]}, SMALL))
        while scene.observer.aside:
            await asyncio.sleep(0.01)
        await scene.publish(event(3), event(4))
        assert sorted(scene.fired()) == ["huge", "small", "small"]
        await scene.stop()
        scene.start()
        await scene.publish(event(5))
        assert scene.observer.aside == {}
        await scene.stop()

    run(play())


def test_an_automation_that_was_set_aside_comes_back_on_request() -> None:
    async def play() -> None:
        scene = Scene(HUGE, SMALL)
        await scene.publish(event(1), event(2))
        scene.evaluator.resumed = {"huge": now_us() - 3_600_000_000}
        await scene.publish(event(3))
        assert list(scene.observer.aside) == ["huge"], "that was before"
        scene.evaluator.resumed = {"huge": now_us() + 1}
        while scene.observer.aside:
            await asyncio.sleep(0.01)
        await scene.publish(event(4), event(5), event(6))
        assert len(scene.told()) == 2, "it is evaluated again, and still too large"
        await scene.stop()

    run(play())


def test_a_window_beyond_all_sizes_is_dropped_and_its_automation_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(automations_aside, "MAX_WINDOW_BYTES", 2000)

    async def play() -> None:
        wide = {"name": "wide", "trigger": {**PAIR, "threshold": 1000, "for_each": []}, "actions": ["do-nothing"]}
        scene = Scene(wide, SMALL)
        for number in range(0, 200, 2):
            await scene.publish(event(number, f"k{number}"), event(number + 1, f"k{number}"))
        assert list(scene.observer.aside) == ["wide"]
        assert scene.fired() == ["small"] * 100
        assert "was dropped" in scene.told()[0]["payload"]["detail"]
        await scene.stop()

    run(play())


def refusing(server: MemoryServer, what: Callable[[Message], bool]) -> None:
    """Let the server refuse what it has no reason to refuse, by an error code of its own."""
    original = server.store

    def store(messages: Sequence[Message], **more: Any) -> int:
        if any(what(each) for each in messages):
            raise unavailable("not today (10999)", BusReason.REFUSED)
        return original(messages, **more)

    server.store = store  # type: ignore[method-assign]


def test_a_commit_that_the_server_refuses_again_and_again_sets_aside_whoever_is_at_fault() -> None:
    async def play() -> None:
        others = [{**SMALL, "name": f"small{number}"} for number in range(5)]
        poison = {**SMALL, "name": "poison", "tags": ["x"]}
        scene = Scene(*others[:3], poison, *others[3:])
        refusing(scene.server, lambda message: b'"automation":"poison"' in message.data)
        await scene.publish(event(1), event(2), event(3), event(4))
        assert sorted(scene.fired()) == sorted([f"small{number}" for number in range(5)] * 2)
        assert list(scene.observer.aside) == ["poison"]
        assert "10999" in scene.told()[0]["payload"]["detail"]
        await scene.stop()
        scene.start()
        await scene.publish(event(5))
        assert list(scene.observer.aside) == ["poison"], "stored with the commit that it was left out of"
        await scene.stop()

    run(play())


def test_a_server_that_refuses_everything_sets_nobody_aside() -> None:
    async def play() -> None:
        scene = Scene(SMALL)
        await scene.publish(event(1))
        down = True
        refusing(scene.server, lambda message: down)
        waiting = asyncio.create_task(scene.publish(event(2)))
        await asyncio.sleep(45)
        assert not waiting.done()
        assert scene.observer.aside == {}
        down = False
        await waiting
        assert scene.fired() == ["small"]
        await scene.stop()

    run(play())


def test_a_server_that_abandons_every_batch_as_its_disk_is_full_sets_nobody_aside() -> None:
    """nats-server stages a batch in a store of its own; where that has no room, single messages may still be stored."""

    async def play() -> None:
        scene = Scene(SMALL, {**SMALL, "name": "other"})
        scene.server.copies = 3  # each commit is a batch
        await scene.publish(event(1))
        original = scene.server.store
        full = True
        abandoned = 0

        def store(messages: Sequence[Message], **more: Any) -> int:
            nonlocal abandoned
            if full and len(messages) > 1:
                abandoned += 1
                raise refusal(
                    "commit refused", {"err_code": 10176, "description": "atomic publish batch is incomplete"}
                )
            return original(messages, **more)

        scene.server.store = store  # type: ignore[method-assign]
        waiting = asyncio.create_task(scene.publish(event(2)))
        await asyncio.sleep(45)
        assert abandoned > 2 * SAME_REFUSALS
        assert not waiting.done()
        assert scene.observer.aside == {}
        full = False
        await waiting
        assert scene.observer.aside == {}
        assert sorted(scene.fired()) == ["other", "small"]
        await scene.stop()

    run(play())


def test_what_the_server_refuses_in_batches_alone_is_nobodys_fault() -> None:
    async def play() -> None:
        scene = Scene(SMALL, {**SMALL, "name": "other"})
        scene.server.copies = 3
        await scene.publish(event(1))
        original = scene.server.store
        down = True

        def store(messages: Sequence[Message], **more: Any) -> int:
            if down and len(messages) > 1:
                raise unavailable("not today (10999)", BusReason.REFUSED)
            return original(messages, **more)

        scene.server.store = store  # type: ignore[method-assign]
        waiting = asyncio.create_task(scene.publish(event(2)))
        await asyncio.sleep(45)
        assert scene.observer.aside == {}
        down = False
        await waiting
        assert sorted(scene.fired()) == ["other", "small"]
        await scene.stop()

    run(play())


def stored_windows(scene: Scene) -> dict[str, bytes]:
    """The windows that the shard has now, by subject."""
    return {
        subject: data
        for subject, data in scene.server.stored().items()
        if ".window." in subject and data.partition(b"\n")[2]
    }


def spoil(scene: Scene, name: str, state: bytes) -> str:
    """Put `state` in place of the window of an automation; gives its subject."""
    (trigger,) = (leaf.id for leaf in scene.evaluator.rules.automations[name].leaves)
    (subject,) = (each for each, data in stored_windows(scene).items() if trigger.encode() in data)
    line = stored_windows(scene)[subject].partition(b"\n")[0]
    scene.server.store(
        [Message(subject, line + b"\n" + state if state != b"no line" else state)], subject=subject, expect=None
    )
    return subject


OTHER = {**SMALL, "name": "other"}


@pytest.mark.parametrize("state", [b"[12,", b"no json", b"[]", b'{"a": 1}', b"[null, null]", b"\x00\xff", b'"text"'])
def test_a_window_that_can_not_be_read_sets_its_automation_aside_and_is_put_away(state: bytes) -> None:
    async def play() -> None:
        scene = Scene(SMALL, OTHER)
        await scene.publish(event(1))
        await scene.stop()
        before = spoil(scene, "small", state)

        scene.start()
        await scene.publish(event(2))
        assert scene.fired() == ["other"]
        assert list(scene.observer.aside) == ["small"]
        (told,) = scene.told()
        assert told["resource"]["name"] == "small"
        assert "can not be read" in told["payload"]["detail"]
        assert before not in stored_windows(scene)
        (away,) = (kept for kept in scene.server.history if kept.subject.startswith("engine.unreadable."))
        assert away.subject == before.replace("engine.shard.0.window.", "engine.unreadable.0.")
        assert (away.data or b"").partition(b"\n")[2] == state
        assert away.subject in told["payload"]["detail"]
        await scene.stop()

        scene.start()  # it is loaded again without a word, and still aside
        await scene.publish(event(3), event(4))
        assert scene.fired() == ["other"] * 2
        assert len(scene.told()) == 1
        scene.evaluator.resumed = {"small": now_us() + 1}
        await scene.publish(event(5), event(6))
        await scene.publish(event(7), event(8))
        assert "small" in scene.fired()
        await scene.stop()

    run(play())


@pytest.mark.parametrize("line", [b"no line", b"[1]\n[1]", b"[[],[]]", b'{"parts": 1\n', b'{"some": 1}\n'])
def test_a_window_that_does_not_say_whose_it_is_is_passed_over(line: bytes) -> None:
    async def play() -> None:
        scene = Scene(SMALL, OTHER)
        await scene.publish(event(1))
        await scene.stop()
        scene.server.store(
            [Message("engine.shard.0.window.stray.key", line)], subject="engine.shard.0.window.stray.key", expect=None
        )
        scene.start()
        await scene.publish(event(2))
        assert sorted(scene.fired()) == ["other", "small"]
        assert scene.told() == []
        await scene.stop()

    run(play())
