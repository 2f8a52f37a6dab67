"""Rules that need a setting are refused with file and line by a process that has not got it."""

from __future__ import annotations

from pathlib import Path

import pytest

from whenthen.engine.process.revisions.setting_checks import setting_checks
from whenthen.engine.process.settings import load_settings
from whenthen.rules import load_rules
from whenthen.schemas.errors import InvalidRules

RULES = """automations:
  - name: tell
    trigger: {expect: a.b}
    actions:
      - do-nothing
      - send-notification: team
        subject: plain
        body: "{{ url_of(firing) }}"
    actions_on_resolve:
      - {call-webhook: "https://x.example", body: {text: "{{ url_of(event) }}"}}
  - {name: other, trigger: {expect: a.c}, actions: [{emit-event: a.d, payload: {text: url_of is a word}}]}
notifiers: [{name: team, urls: ["json://x.example"]}]
"""


def test_links_need_to_know_where_the_pages_are(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    without = load_settings({"data_dir": tmp_path / "data"})
    with pytest.raises(InvalidRules) as refused:
        load_rules(tmp_path, also=setting_checks(without))
    places = [(each.line, each.field) for each in refused.value.problems]
    assert places == [(8, "automations[0].actions[1].body"), (10, "automations[0].actions_on_resolve[0].body")]
    assert "set public_url (WHENTHEN_PUBLIC_URL)" in refused.value.problems[0].detail
    has_one = load_settings({"data_dir": tmp_path / "data", "public_url": "https://automation.example"})
    assert len(load_rules(tmp_path, also=setting_checks(has_one)).automations) == 2
