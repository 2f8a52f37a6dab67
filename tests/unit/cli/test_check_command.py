"""`whenthen check`: what it says of rules that are sound."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from whenthen.cli.main import app

LINKING = """automations:
  - {name: tells, trigger: {expect: a.b}, actions: [{call-webhook: "https://x.example", body: "{{ url_of(firing) }}"}]}
  - {name: silent, trigger: {expect: a.b}, actions: [do-nothing]}
"""


def test_rules_that_make_links_are_said_to_need_the_address_of_the_pages(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(LINKING)
    shown = CliRunner().invoke(app, ["check", str(tmp_path), "--strict"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert shown.output.splitlines()[1] == (
        "  served with public_url (WHENTHEN_PUBLIC_URL) alone, as url_of makes links in tells"
    )
    read = json.loads(CliRunner().invoke(app, ["check", str(tmp_path), "--json"]).output)
    assert read["needs"] == {"public_url": ["tells"]}
    (tmp_path / "rules.yaml").write_text(LINKING.replace("url_of(firing)", "firing.id"))
    assert "needs" not in json.loads(CliRunner().invoke(app, ["check", str(tmp_path), "--json"]).output)
