"""What `whenthen deploy` says of a registration."""

from __future__ import annotations

from pathlib import Path

import pytest

from whenthen.cli.deploys import deploy_command

NEEDS = "function load needs 'day', which has no value here nor in the deployment"


def test_a_note_that_the_server_repeats_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "load.py").write_text("def load(day): ...\n")
    monkeypatch.chdir(tmp_path)
    rule = {"name": "load/a", "entrypoint": "load.py:load", "schedules": [{"name": "default", "interval": "1h"}]}
    said = deploy_command._warn(rule)
    assert said == [NEEDS]
    notes = [f"a.yaml:7:7: warning: deployments[0].schedules[0]: {NEEDS}", "another one"]
    found = {"changes": [], "unchanged": ["load/a"], "notes": notes, "number": 2}
    deploy_command._print(found, said, preview=False, as_json=False)
    told = capsys.readouterr()
    assert f"note: {NEEDS}" in " ".join(told.err.split())
    assert told.out == "= deployment load/a: as it was\n  note: another one\nrevision 2 is in force\n"
    deploy_command._print(found, [], preview=False, as_json=False)
    assert "needs 'day'" in " ".join(capsys.readouterr().out.split())
