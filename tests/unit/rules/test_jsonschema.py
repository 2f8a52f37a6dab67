"""The JSON Schema for editors agrees with the loader about what people write."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import yaml

from whenthen.rules.jsonschema import rules_schema
from whenthen.schemas.automations import RuleFile


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = rules_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


GOOD = """
automations:
  - name: a
    trigger: {expect: s3.file.uploaded, match: {bucket: raw, key: ["*.csv", "!tmp*"]}, resolve_on: s3.file.deleted}
    actions: [do-nothing, {run-deployment: loader, parameters: {n: 1}}, {type: emit-event, event: x}]
  - name: b
    trigger:
      type: sequence
      within: 5m
      triggers: [{expect: a}, {type: compound, require: 1, triggers: [{expect: b}, {expect: c}]}]
    actions_on_trigger: {call-webhook: "https://example.com/"}
  - name: c
    trigger: {type: metric, aggregate: p95, value: $.payload.d, operator: ">", threshold: 1, within: 60, for: 1m}
  - name: d
    trigger: {type: schedule, cron: "0 8 * * *"}
    actions: do-nothing
deployments:
  - {name: loader, command: echo hello, schedules: [{cron: "0 1 * * *"}]}
webhooks:
  - {name: gh, preset: github, secret: env:S}
  - {name: own, verify: none, map: {event: "x.{{ body.kind }}", resource: {id: $.body.id}}}
notifiers:
  - {name: ops, urls: "json://localhost"}
"""


def test_what_the_loader_takes_the_schema_takes(validator: Any) -> None:
    data = yaml.safe_load(GOOD)
    RuleFile.model_validate(data)
    assert [error.message for error in validator.iter_errors(data)] == []


@pytest.mark.parametrize(
    "bad",
    [
        {"automation": []},
        {"automations": [{"name": "a", "trigger": {"expct": "x"}}]},
        {"automations": [{"name": "a"}]},
        {"automations": [{"name": "a", "trigger": {"expect": "x"}, "actions": [{"run-deploymnt": "x"}]}]},
        {"automations": [{"name": "a", "trigger": {"expect": "x"}, "actions": [{"call-webhook": "u", "bdy": 1}]}]},
        {"deployments": [{"name": "x", "commnd": "y"}]},
    ],
)
def test_a_misspelling_is_marked(validator: Any, bad: dict[str, Any]) -> None:
    assert list(validator.iter_errors(bad))


def test_every_field_of_a_trigger_has_hover_text() -> None:
    properties = rules_schema()["$defs"]["EventTrigger"]["properties"]
    silent = [name for name, schema in properties.items() if "description" not in str(schema) and name != "type"]
    assert silent == []
