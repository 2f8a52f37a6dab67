"""Cancelling and retrying many runs of a real server by filters, whose number is said first."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests import forks
from tests.integration.served import TOKEN, environment, serving
from tests.patience import eventually

RULES = """
deployments:
  - {name: bad, command: "false"}
  - {name: good, command: "true"}
  - {name: slow, command: sleep 600}
"""


def test_runs_are_retried_and_cancelled_by_filters(tmp_path: Path) -> None:
    with serving(tmp_path, {"rules.yaml": RULES}) as server:

        def runs(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
            env = environment(WHENTHEN_API_TOKEN=TOKEN, WHENTHEN_URL=server.url)
            return forks.run(["runs", *words], env=env, within_s=30, stdin=stdin)

        for name in ("bad", "bad", "good", "slow"):
            server.http.post(f"/api/deployments/{name}/run").raise_for_status()
        eventually(lambda: len(server.get("/api/runs?deployment=bad&state=Failed")) == 2)
        eventually(lambda: server.get("/api/runs?deployment=slow&state=Running"))
        eventually(lambda: server.get("/api/runs?deployment=good&state=Completed"))

        refused = runs("retry", "--deployment", "bad", stdin="n\n")
        assert "retry 2 runs?" in refused.stdout, refused
        assert len(server.get("/api/runs")) == 4
        assert runs("retry", "--state", "Failed", "--yes").stdout.count("is Scheduled") == 2
        eventually(lambda: len(server.get("/api/runs?deployment=bad&state=Failed")) == 4)
        # each once: those that were retried before are the same runs
        assert runs("retry", "-d", "bad", "--yes").returncode == 0
        eventually(lambda: len(server.get("/api/runs?deployment=bad&state=Failed")) == 6)

        assert "is Cancelling" in runs("cancel", "--deployment", "slow", "--yes").stdout
        assert "no run of those filters" in runs("cancel", "-d", "good", "-y").stdout
        neither = runs("cancel")
        assert neither.returncode != 0
        assert "give a run, or filters" in neither.stderr + neither.stdout
        eventually(lambda: server.get("/api/runs?deployment=slow&state=Cancelled"))
