"""Explanations: every clause with its verdict and the actual value."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from whenthen.rules import Rules, load_rules
from whenthen.rules.explain_event import explain_event
from whenthen.schemas.errors import InvalidInput, NotFound
from whenthen.schemas.events import new_event
from whenthen.schemas.times import to_us
from whenthen.triggers.matching.clause_tree import Clause, Mark, why_not
from whenthen.triggers.trees.trigger_compiler import compile_automation

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)

RULES = """
automations:
  - name: pager
    trigger:
      expect: [job.failed, job.lost]
      match: {team: "data-*"}
      match_related: {role: owner, id: team-*}
      when: event.payload.attempt > 2 && event.payload.kind == "hard"
      for_each: region
      threshold: 3
      within: 60s
  - name: plain
    trigger: {expect: "job.*"}
  - name: both
    trigger:
      type: sequence
      within: 1h
      triggers:
        - {expect: a}
        - {expect: b, after: c, within: 5m}
  - name: bucket
    trigger: {expect: "job.*", window: tumbling, within: 1m, for_each: [region, none]}
  - name: disabled
    enabled: false
    trigger: {expect: "job.*"}
"""


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    (tmp_path / "rules.yaml").write_text(RULES)
    return load_rules(tmp_path)


def explained(rules: Rules, name: str, **event: object) -> Clause:
    data = {"event": "job.failed", "resource": {"id": "job-7", "team": "data-x", "region": "eu"}, **event}
    return explain_event(rules, name, orjson.dumps(data), now=NOW)


def found(tree: Clause, text: str) -> Clause:
    return next(clause for _, clause in tree.lines() if clause.text.startswith(text))


def test_each_clause_has_its_verdict_and_value(rules: Rules) -> None:
    tree = explained(
        rules,
        "pager",
        related=[{"id": "team-9", "role": "owner"}],
        payload={"attempt": 1, "kind": "hard"},
    )
    assert tree.mark is Mark.FAILS
    assert found(tree, "match.team").mark is Mark.HOLDS
    assert found(tree, "match_related[0]").mark is Mark.HOLDS
    assert found(tree, "event.payload.attempt > 2").mark is Mark.FAILS
    assert found(tree, "event.payload.attempt").children or found(tree, "event.payload.attempt").found
    assert found(tree, "for_each").found == "region=eu"
    assert "3 such events within 1m" in found(tree, "window").found


def test_the_key_of_a_bucket_has_empty_texts_for_what_is_absent(rules: Rules) -> None:
    tree = explained(rules, "bucket")
    assert found(tree, "for_each").mark is Mark.HOLDS
    assert found(tree, "for_each").found == "region=eu, none="
    assert tree.mark is Mark.NEEDS


def test_a_matching_event_leaves_only_what_the_window_needs(rules: Rules) -> None:
    tree = explained(
        rules, "pager", related=[{"id": "team-9", "role": "owner"}], payload={"attempt": 3, "kind": "hard"}
    )
    assert tree.mark is Mark.NEEDS


def test_an_event_that_fires_at_once_holds(rules: Rules) -> None:
    assert explained(rules, "plain").mark is Mark.HOLDS


def test_a_disabled_automation_says_so(rules: Rules) -> None:
    tree = explained(rules, "disabled")
    assert tree.mark is Mark.FAILS
    assert found(tree, "enabled").mark is Mark.FAILS


def test_a_condition_that_can_not_be_evaluated_is_an_error_with_the_missing_field(rules: Rules) -> None:
    tree = explained(rules, "pager", related=[{"id": "team-9", "role": "owner"}], payload={})
    assert tree.mark is Mark.ERROR
    assert "attempt" in found(tree, "when").found


def test_the_closest_related_resource_is_shown(rules: Rules) -> None:
    tree = explained(rules, "pager", related=[{"id": "x", "role": "other"}, {"id": "team-1", "role": "user"}])
    clause = found(tree, "match_related[0]")
    assert clause.mark is Mark.FAILS
    assert "closest of 2" in clause.found
    assert [child.mark for child in clause.children].count(Mark.HOLDS) == 1


def test_parts_of_a_sequence_are_explained_one_by_one(rules: Rules) -> None:
    tree = explained(rules, "both", event="a")
    assert tree.mark is Mark.NEEDS
    assert found(tree, "triggers[0]").mark is Mark.HOLDS
    assert found(tree, "triggers[1]").mark is Mark.FAILS


def test_an_unknown_automation_lists_near_names(rules: Rules) -> None:
    with pytest.raises(NotFound, match="did you mean 'pager'"):
        explained(rules, "pagr")


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"event": 3}', b"\xff"])
def test_what_is_no_event_is_refused(rules: Rules, raw: bytes) -> None:
    with pytest.raises(InvalidInput):
        explain_event(rules, "plain", raw, now=NOW)


def test_a_stored_event_is_taken_with_its_lineage(rules: Rules) -> None:
    tree = explained(rules, "plain", received="2026-01-01T00:00:00.000000Z", source="api", lineage={"depth": 2})
    assert tree.as_json()["verdict"] == "holds"


def test_why_not_names_the_innermost_clauses_with_their_values(rules: Rules) -> None:
    automation = compile_automation(next(item for item in rules.automations if item.name == "pager"))
    event = new_event(
        "job.failed",
        resource={"id": "job-7", "team": "web", "region": "eu"},
        related=[{"id": "team-9", "role": "owner"}],
        payload={"attempt": 1, "kind": "hard"},
        now=datetime(2026, 1, 31, tzinfo=UTC),
        source="test",
    )
    assert why_not(automation, event, now_us=to_us(NOW)) == [
        "match.team: data-*, found web",
        "event.payload.attempt > 2 (event.payload.attempt is 1)",
    ]


def test_a_cloudevent_is_explained_as_the_event_that_it_becomes(rules: Rules) -> None:
    raw = orjson.dumps({"specversion": "1.0", "type": "job.failed", "source": "/jobs", "id": "1"})
    assert explain_event(rules, "plain", raw, now=NOW).mark is Mark.HOLDS
