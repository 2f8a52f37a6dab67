"""The metrics of a process."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from whenthen.engine import http, metric_series
from whenthen.engine import metrics as module
from whenthen.engine.bus.request_client import BusReason
from whenthen.engine.metrics import REFUSALS, Metrics
from whenthen.engine.process.observation import Observation
from whenthen.schemas import errors
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


def test_an_exposition_that_takes_long_is_given_again_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now, took, made = 100.0, 1.0, 0

    def generate(_: object) -> bytes:
        nonlocal now, made
        now += took
        made += 1
        return b"%d" % made

    monkeypatch.setattr(module, "generate_latest", generate)
    metrics = Metrics(version="1", monotonic=lambda: now)
    assert [metrics.text() for _ in range(3)] == [b"1"] * 3
    now += 8.9
    assert metrics.text() == b"1"
    now += 0.1
    assert metrics.text() == b"2"
    now, took = now + 10, 0.09
    assert [metrics.text() for _ in range(3)] == [b"3", b"4", b"5"]


def test_a_start_ends_no_silence() -> None:
    metrics = Metrics(version="1", clock=lambda: 1000.0)
    metrics.take_rules({"a": None, "b": None}, {})
    for at in (400.0, 300.0):  # newest first, as they are read
        metrics.fired_before("a", at)
    metrics.fired_before("gone", 900.0)
    assert 'whenthen_automation_silent_seconds{automation="a"} 600.0' in lines(metrics)
    assert 'whenthen_automation_silent_seconds{automation="b"} 0.0' in lines(metrics)
    metrics.fire("a")
    assert 'whenthen_automation_silent_seconds{automation="a"} 0.0' in lines(metrics)
    assert not any('"gone"' in line for line in lines(metrics))


def test_a_large_set_of_rules_that_goes_takes_a_moment() -> None:
    metrics = Metrics(version="1")
    names = [f"a{number}" for number in range(3000)]
    metrics.take_rules(dict.fromkeys(names), {}, actions={name: {"do-nothing"} for name in names})
    began = time.process_time()
    metrics.take_rules({}, {})
    # a tenth of a second; half a minute when each series looks through all for what belongs to its automation
    assert time.process_time() - began < 5
    assert not counted(metrics, "whenthen_actions_total")


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
    observation = Observation(metrics)
    observation.unreadable(0, 7, ValueError("no event"))
    assert 'whenthen_skipped_messages_total{shard="0"} 1.0' in lines(metrics)


def test_how_far_a_shard_is_behind_is_told_from_when_it_is_known_until_the_shard_is_given_away() -> None:
    metrics = Metrics(version="1")
    observation = Observation(metrics, shards=2)
    families = ("whenthen_evaluation_lag_messages", "whenthen_evaluation_lag_seconds")
    assert [counted(metrics, family) for family in families] == [{}, {}]
    observation.lag(0, 7, 2.5)
    observation.lag(1, 0, 0.0)
    assert [counted(metrics, family) for family in families] == [{("0",): 7, ("1",): 0}, {("0",): 2.5, ("1",): 0}]
    assert observation.lags == {0: 7, 1: 0}
    observation.released(0)
    assert observation.lags == {1: 0}
    assert [counted(metrics, family) for family in families] == [{("1",): 0}, {("1",): 0}]


def counted(metrics: Metrics, family: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for found in metrics.registry.collect()
        for sample in found.samples
        if sample.name == family
    }


def test_what_rules_can_count_stands_at_zero_when_they_are_loaded_and_goes_with_them() -> None:
    metrics = Metrics(version="1")
    metrics.take_rules(
        {"a": None, "b": None},
        {},
        actions={"a": {"do-nothing", "emit-event"}, "b": {"emit-event"}},
        webhooks=["w", "v"],
    )
    actions = [("a", "do-nothing"), ("a", "emit-event"), ("b", "emit-event")]
    outcomes = ("executed", "failed", "dead")
    assert counted(metrics, "whenthen_actions_total") == {(*each, o): 0.0 for each in actions for o in outcomes}
    assert counted(metrics, "whenthen_action_duration_seconds_count") == {("do-nothing",): 0.0, ("emit-event",): 0.0}
    sources = {("api",): 0.0, ("webhook:w",): 0.0, ("webhook:v",): 0.0}
    assert counted(metrics, "whenthen_events_received_total") == sources
    assert counted(metrics, "whenthen_events_duplicate_total") == sources
    refused = counted(metrics, "whenthen_events_refused_total")
    assert (
        refused[("webhook:w", "refused")] == refused[("api", "invalid_event")] == refused[("webhook", "not_found")] == 0
    )
    metrics.acted("b", "emit-event", "dead", 0.1)
    metrics.received("webhook:w", duplicate=True)
    metrics.take_rules({"b": None}, {}, actions={"b": {"emit-event"}}, webhooks=["w"])
    metrics.acted("a", "do-nothing", "dead", 0.1)  # a task outlives its rule
    metrics.match("a", 1)
    metrics.received("webhook:v")
    metrics.refused("webhook:v", "refused")
    assert counted(metrics, "whenthen_actions_total") == {
        ("b", "emit-event", outcome): float(outcome == "dead") for outcome in outcomes
    }
    assert counted(metrics, "whenthen_events_received_total") == {("api",): 0.0, ("webhook:w",): 1.0}
    assert counted(metrics, "whenthen_automation_matched_total") == {("b",): 0.0}
    assert {source for source, _ in counted(metrics, "whenthen_events_refused_total")} == {
        "api",
        "webhook:w",
        "webhook",
    }


def test_an_action_of_a_type_that_its_automation_has_no_more_goes_with_the_next_rules() -> None:
    metrics = Metrics(version="1")
    metrics.take_rules({"a": None}, {}, actions={"a": {"do-nothing"}})
    metrics.acted("a", "call-webhook", "dead", 0.1)  # of the rules before
    assert counted(metrics, "whenthen_actions_total")[("a", "call-webhook", "dead")] == 1
    metrics.take_rules({"a": None}, {}, actions={"a": {"do-nothing"}})
    assert {kind for _, kind, _ in counted(metrics, "whenthen_actions_total")} == {"do-nothing"}


def test_series_that_are_made_ahead_are_bounded_and_the_rest_is_made_when_it_is_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(metric_series, "MOST_AHEAD", 4)
    metrics = Metrics(version="1")
    names = [f"a{number}" for number in range(6)]
    metrics.take_rules(dict.fromkeys(names), {})
    assert sorted(counted(metrics, "whenthen_automation_fired_total")) == [(name,) for name in names[:4]]
    assert "2 series of whenthen_automation_fired are made when the first of them is counted" in caplog.text
    metrics.fire("a5")
    assert counted(metrics, "whenthen_automation_fired_total")[("a5",)] == 1
    metrics.take_rules(dict.fromkeys(names[2:]), {})
    assert sorted(counted(metrics, "whenthen_automation_fired_total")) == [("a2",), ("a3",), ("a4",), ("a5",)]


def test_a_process_counts_of_rules_what_its_roles_do_with_them() -> None:
    worker, executor = Metrics(version="1", roles=["worker"]), Metrics(version="1", roles=["executor"])
    for metrics in (worker, executor):
        metrics.take_rules({"a": timedelta(hours=1)}, {}, actions={"a": {"do-nothing"}}, webhooks=["w"])
    assert not [line for line in lines(worker) if 'automation="a"' in line and "_paused" not in line]
    # a process that never evaluates would say for ever that it has been silent, or after its start that it is not
    assert not any("silent" in line or "webhook" in line for line in lines(executor))
    assert len(counted(executor, "whenthen_actions_total")) == 3


def test_every_reason_of_a_refusal_is_known_ahead() -> None:
    given = {
        kind.reason
        for kind in vars(errors).values()
        if isinstance(kind, type)
        and issubclass(kind, (errors.InvalidEvent, errors.UnsupportedMediaType, errors.Refused, errors.BusUnavailable))
    }
    given |= {
        *errors.Unproven.REASONS,
        errors.InvalidInput.reason,
        errors.RenderError.reason,
        errors.KeysUnavailable.reason,
        "internal",
        "disk_full",
        "data_directory_gone",
    }
    given |= {value for name, value in vars(BusReason).items() if not name.startswith("_")}
    folder = Path(http.__file__).parent
    for name in ("ingest", "bodies", "rate_limits"):
        given |= set(re.findall(r'HttpError\(\s*\d+,\s*"(\w+)"', (folder / f"{name}.py").read_text()))
    assert given == {*REFUSALS["webhook:"]}
    assert {*REFUSALS["api"]} < given
