"""A backfill of a real server by the command: a preview, then the runs, each once."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests import forks
from tests.integration.served import TOKEN, environment, serving
from tests.patience import eventually

RULES = """
deployments:
  - name: report
    command: [sh, -c, 'echo "for $WHENTHEN_SCHEDULED_FOR"']
    schedules: [{name: nightly, cron: "0 2 * * *"}, {name: often, interval: 1s, active: false}]
"""


def test_a_backfill_is_shown_and_then_started_once(tmp_path: Path) -> None:
    with serving(tmp_path, {"rules.yaml": RULES}) as server:
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        since = (today - timedelta(days=3)).isoformat()

        def backfill(*words: str) -> subprocess.CompletedProcess[str]:
            command = [
                "deployments",
                "backfill",
                "report",
                "--from",
                since,
                "--to",
                today.isoformat(),
                "--url",
                server.url,
            ]
            return forks.run([*command, *words], env=environment(WHENTHEN_API_TOKEN=TOKEN), within_s=30)

        shown = backfill("-s", "nightly", "--preview")
        assert (shown.returncode, "3 times" in shown.stdout) == (0, True), shown
        assert server.get("/api/runs") == []
        assert "3 runs are started" in backfill("-s", "nightly", "--yes").stdout
        assert "0 runs are started; 3 times had theirs before" in backfill("-s", "nightly", "--yes").stdout
        runs = eventually(lambda: [run for run in [server.get("/api/runs?state=Completed")] if len(run) == 3])[0]
        assert {run["triggered_by"] for run in runs} == {"backfill:nightly"}
        (line,) = server.get(f"/api/runs/{runs[0]['id']}/logs")["lines"]
        assert line["text"] == f"for {runs[0]['scheduled_for']}"
        refused = backfill("-s", "often", "--yes")
        assert refused.returncode != 0
        assert "259,200 times" in refused.stderr.replace("\n", " "), refused.stderr
        upcoming = server.get("/api/deployments/report")["upcoming"]
        assert [each["schedule"] for each in upcoming] == ["nightly"] * 10
