"""Time after an outage: the evaluator was away for an hour while events were stored, or a producer's clock was set.

The stream's timestamps go on while nobody evaluates; whoever comes back reads the backlog at those times.
"""

from __future__ import annotations

from trigger_samples import evaluator, event, us

from whenthen.schemas.firings import Firing, Reason
from whenthen.triggers.evaluator import Evaluator

HOUR = 3600.0
HEARTBEATS = {"expect": "beat", "after": "beat", "for_each": "id", "posture": "proactive", "within": 300}
JOBS = {"after": "started", "expect": "done", "for_each": "id", "posture": "proactive", "within": 60}


def brought_back(engine: Evaluator, *triggers: dict[str, object]) -> Evaluator:
    """Another process that loads what this one has stored."""
    other = evaluator(*triggers)
    other.clock_us = engine.clock_us
    for trigger, key, state in engine.drain():
        if state is not None:
            assert other.restore(trigger, key, state)
    assert not other.drop_outlived()
    return other


def keys(firings: list[Firing]) -> list[str]:
    return sorted(str(firing.key["id"]) for firing in firings)


def test_after_an_hour_away_nothing_that_is_in_the_backlog_is_absent_and_what_is_not_fires_once() -> None:
    alive, silent = ["a", "b", "c"], ["x", "y"]
    first = evaluator(HEARTBEATS)
    for key in [*alive, *silent]:
        assert not first.process(event("beat", 0, labels={"id": key}), us(0)).firings
    engine = brought_back(first, HEARTBEATS)
    fired: list[Firing] = []
    for minute in range(1, 61):
        for key in alive:
            fired += engine.process(event("beat", minute * 60, labels={"id": key}), us(minute * 60)).firings
    fired += engine.advance(us(HOUR + 1)).firings
    assert keys(fired) == silent
    assert len({firing.at for firing in fired}) == 1, "both at the end of the same window"


def test_what_became_due_while_nothing_was_stored_fires_once_each_on_the_way_up() -> None:
    first = evaluator(JOBS)
    for number in range(50):
        first.process(event("started", number, labels={"id": f"job-{number:02}"}), us(number))
    engine = brought_back(first, JOBS)
    fired = engine.advance(us(HOUR)).firings
    assert keys(fired) == [f"job-{number:02}" for number in range(50)]
    engine = brought_back(engine, JOBS)
    assert not engine.advance(us(2 * HOUR)).firings


def test_an_hour_of_backlog_gives_what_was_given_without_the_outage() -> None:
    triggers = [HEARTBEATS, JOBS, {"expect": "beat", "for_each": "id", "threshold": 3, "within": 150}]
    stream = [
        event(name, at + number / 10, labels={"id": f"k{number}"})
        for at in range(0, 3600, 45)
        for number in range(4)
        for name in ("beat", "started", "done")
        if (at // 45 + number) % 7 or name == "started"
    ]

    def through(cuts: set[int]) -> list[str]:
        engine, ids = evaluator(*triggers), []
        kept: dict[tuple[str, str], bytes] = {}
        for position, each in enumerate(stream):
            ids += [firing.id for firing in engine.process(each, each.time_us).firings]
            for trigger, key, state in engine.drain():
                kept.pop((trigger, key), None) if state is None else kept.__setitem__((trigger, key), state)
            if position in cuts:
                clock_us, engine = engine.clock_us, evaluator(*triggers)
                engine.clock_us = clock_us
                for (trigger, key), state in kept.items():
                    engine.restore(trigger, key, state)
        return ids + [firing.id for firing in engine.advance(us(2 * HOUR)).firings]

    whole = through(set())
    assert len(whole) == len(set(whole)) > 40
    assert through({10, 11, 200}) == whole


def test_a_producer_whose_clock_jumps_an_hour_ahead_does_not_silence_its_key() -> None:
    engine = evaluator(HEARTBEATS)
    engine.process(event("beat", 0, labels={"id": "a"}), us(0))
    engine.process(event("beat", HOUR, received=60, labels={"id": "a"}), us(60))
    assert not engine.advance(us(359)).firings
    assert keys(engine.advance(us(361)).firings) == ["a"], "300 s after it was received, not an hour later"


def test_a_producer_whose_clock_jumps_an_hour_back_loses_no_other_firing_and_doubles_none() -> None:
    engine = evaluator({"expect": "error", "for_each": "id", "threshold": 3, "within": 60, "cooldown": 0})
    fired: list[Firing] = []
    for number in range(9):
        at = number * 5.0
        occurred = at - HOUR if number == 4 else at
        fired += engine.process(event("error", occurred, received=at, labels={"id": "a"}), us(at)).firings
    named = [ref.id for firing in fired for ref in firing.refs]
    assert len(fired) == 2
    assert len(named) == len(set(named)), "no event counts twice"


def test_a_stream_whose_clock_is_set_back_moves_no_deadline() -> None:
    engine = evaluator(JOBS)
    engine.process(event("started", 0, labels={"id": "a"}), us(0))
    engine.advance(us(30))
    outcome = engine.process(event("started", 31, received=31, labels={"id": "b"}), us(-HOUR))
    assert not outcome.firings
    assert engine.clock_us == us(30)
    assert keys(engine.advance(us(61)).firings) == ["a"]
    assert keys(engine.advance(us(92)).firings) == ["b"]


def test_a_late_event_is_told_apart_and_opens_nothing() -> None:
    engine = evaluator(JOBS)
    engine.advance(us(HOUR))
    outcome = engine.process(event("done", 0, received=HOUR, labels={"id": "a"}), us(HOUR))
    assert not outcome.firings
    assert outcome.decisions
    assert outcome.decisions[0].reason is not Reason.FIRED
