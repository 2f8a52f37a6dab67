"""The metrics of a process."""

from __future__ import annotations

from datetime import timedelta

from prometheus_client.parser import text_string_to_metric_families

from whenthen.engine.metrics import Metrics
from whenthen.engine.process.observation import DecisionLog, Observation
from whenthen.schemas.firings import Reason


def lines(metrics: Metrics) -> list[str]:
    return [line for line in metrics.text().decode().splitlines() if not line.startswith("#")]


def test_silence_is_counted_from_the_last_firing_or_from_loading() -> None:
    now = 1000.0
    metrics = Metrics(version="1", clock=lambda: now)
    metrics.take_rules({"a": timedelta(hours=1), "b": None}, {"automations": 2})
    now = 1060.0
    metrics.fire("a")
    now = 1070.0
    assert 'whenthen_automation_silent_seconds{automation="a"} 10.0' in lines(metrics)
    assert 'whenthen_automation_silent_seconds{automation="b"} 70.0' in lines(metrics)
    assert 'whenthen_automation_expected_every_seconds{automation="a"} 3600.0' in lines(metrics)
    assert 'whenthen_automation_fired_total{automation="a"} 1.0' in lines(metrics)
    assert 'whenthen_rules_loaded{kind="automations"} 2.0' in lines(metrics)


def test_a_reload_keeps_counts_and_drops_series_of_what_is_gone() -> None:
    metrics = Metrics(version="1", clock=lambda: 50.0)
    metrics.take_rules({"a": timedelta(hours=1), "b": None}, {})
    metrics.fire("a")
    metrics.fire("b")
    metrics.acted("b", "do-nothing", "executed", 0.1)
    metrics.dead_letters.labels("b").set(1)
    metrics.take_rules({"a": None}, {})
    metrics.fire("b")
    assert 'whenthen_automation_fired_total{automation="a"} 1.0' in lines(metrics)
    assert not any('automation="b"' in line for line in lines(metrics))
    assert not any("expected_every" in line for line in lines(metrics))


def test_a_refused_set_is_counted_and_shown_until_one_is_taken() -> None:
    metrics = Metrics(version="1")
    metrics.refuse_rules()
    assert "whenthen_rules_refused 1.0" in lines(metrics)
    metrics.take_rules({}, {})
    assert "whenthen_rules_refused 0.0" in lines(metrics)
    assert "whenthen_rules_rejected_total 1.0" in lines(metrics)


def test_every_reason_is_there_from_the_start() -> None:
    metrics = Metrics(version="1")
    metrics.decide({Reason.COOLDOWN: 3})
    assert 'whenthen_decisions_total{reason="cooldown"} 3.0' in lines(metrics)
    assert sum(line.startswith("whenthen_decisions_total") for line in lines(metrics)) == len(Reason)


def test_names_start_with_ours_but_for_those_of_the_process() -> None:
    metrics = Metrics(version="1")
    metrics.set_stream("EVENTS", messages=1, size=10, limit=-1)
    for family in text_string_to_metric_families(metrics.text().decode()):
        assert family.name.startswith(("whenthen_", "process_", "python_")), family.name
    assert not any("limit_bytes{" in line for line in lines(metrics))


def test_two_processes_in_one_interpreter_do_not_share() -> None:
    first, second = Metrics(version="1"), Metrics(version="1")
    first.received("api")
    assert 'whenthen_events_received_total{source="api"} 1.0' not in lines(second)


def test_messages_that_the_evaluator_skipped_are_counted() -> None:
    metrics = Metrics(version="1")
    observation = Observation(metrics, DecisionLog(1))
    observation.unreadable(0, 7, ValueError("no event"))
    assert 'whenthen_skipped_messages_total{shard="0"} 1.0' in lines(metrics)
