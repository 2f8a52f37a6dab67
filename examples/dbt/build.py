"""dbt as a command; what it leaves in run_results.json becomes an event for each model, test, seed and snapshot."""

import json
import subprocess
from pathlib import Path

from whenthen import flow, get_run_logger
from whenthen.events import emit_event


@flow(log_prints=True)
def build(project: str, select: str = "") -> dict[str, int]:
    """How many nodes ended in which status. Fails when dbt does, after the events."""
    results = Path(project, "target", "run_results.json")
    results.unlink(missing_ok=True)  # those of an earlier run are not told again
    words = ["dbt", "build", "--project-dir", project, "--profiles-dir", project]
    code = subprocess.run([*words, *(["--select", select] if select else [])], check=False).returncode
    if not results.is_file():
        raise RuntimeError(f"dbt ended with {code} and left no {results}")
    counts: dict[str, int] = {}
    for result in json.loads(results.read_text(encoding="utf-8"))["results"]:
        kind, package, name = result["unique_id"].split(".")[
            :3
        ]  # model.shop.orders, test.shop.not_null_orders_id.1a2b3c
        status = result["status"]
        counts[status] = counts.get(status, 0) + 1
        emit_event(
            f"dbt.{kind}.{status}",
            {"id": f"dbt.{result['unique_id']}", "name": name, "project": package},
            payload={
                "seconds": result["execution_time"],
                "rows": (result.get("adapter_response") or {}).get("rows_affected"),
                "message": result.get("message"),
            },
        )
    get_run_logger().info("%s", counts)
    if code:
        raise RuntimeError(f"dbt ended with {code}: {counts}")
    return counts
