"""Work pools of a real server: limits, pauses by an action, and who works there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.integration.served import serving
from tests.patience import eventually

RULES = """
work_pools:
  - {name: heavy, limit: 1, description: What the machine bears.}
automations:
  - {name: stop, trigger: {expect: machine.hot}, actions: [{pause-work-pool: heavy}]}
  - {name: go, trigger: {expect: machine.cool}, actions: [{resume-work-pool: heavy}]}
deployments:
  - {name: long, work_pool: heavy, command: [sh, -c, "until test -e go; do sleep 0.05; done"]}
  - {name: keyed, command: [sh, -c, "until test -e go; do sleep 0.05; done"], concurrency: {key: $.parameters.c, on_limit: cancel-new}}
"""


def test_a_pool_has_a_limit_and_is_paused_by_an_action(tmp_path: Path) -> None:
    with serving(tmp_path, {"rules.yaml": RULES}) as server:

        def pool() -> dict[str, Any]:
            return next(each for each in server.get("/api/work-pools") if each["name"] == "heavy")

        def state(run: dict[str, Any]) -> str:
            return str(server.get(f"/api/runs/{run['id']}")["state"])

        def start(name: str, **parameters: Any) -> dict[str, Any]:
            answer = server.http.post(f"/api/deployments/{name}/run", json={"parameters": parameters})
            return dict(answer.raise_for_status().json())

        first = start("long")
        eventually(lambda: state(first) == "Running")
        second = start("long")
        assert eventually(lambda: pool()["active"]) == [first["id"]]
        assert pool()["deployments"] == ["long"]
        workers = eventually(lambda: pool()["workers"])
        assert [(each["lost"], each["concurrency"]) for each in workers] == [(False, 4)]
        eventually(lambda: {each["pool"] for each in server.get("/api/workers")} == {"heavy", "default"})

        server.emit("machine.hot")
        eventually(lambda: pool()["paused"])
        (tmp_path / "rules" / "go").touch()
        eventually(lambda: state(first) == "Completed")
        assert state(second) == "Scheduled"
        server.emit("machine.cool")
        eventually(lambda: state(second) == "Completed")
        eventually(lambda: pool()["active"] == [])

        (tmp_path / "rules" / "go").unlink()
        one, other = start("keyed", c=1), start("keyed", c=2)
        eventually(lambda: {state(one), state(other)} == {"Running"})
        eventually(lambda: state(start("keyed", c=1)) in ("Scheduled", "Cancelled"))
        again = start("keyed", c=1)
        eventually(lambda: state(again) == "Cancelled")
        (tmp_path / "rules" / "go").touch()
        eventually(lambda: {state(one), state(other)} == {"Completed"})
