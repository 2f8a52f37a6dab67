"""A file that is uploaded to a bucket is loaded, with retries: of the task for what passes by itself, of the run for what does not.

    python etl_on_upload.py

Notifications of the bucket come in by a webhook (docs/sources.md) as events `s3.file.uploaded`; `whenthen emit s3.file.uploaded ...` sends one by hand.
"""

from __future__ import annotations

import json
from pathlib import Path

from whenthen import flow, get_run_logger, task
from whenthen.events import DeploymentEventTrigger


@task(retries=6, retry_delay_seconds=[0.1, 1, 5, 10, 10, 10])
def extract(key: str, size: int) -> list[dict[str, float]]:
    """The rows of the file. One that is not there yet, or not whole, is tried again."""
    path = Path("bucket") / key
    if not path.exists() or path.stat().st_size < size:
        raise FileNotFoundError(f"{path} is not there yet, or has less than {size} bytes")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@task
def transform(rows: list[dict[str, float]]) -> dict[str, float]:
    """What the warehouse wants to know."""
    totals = [row["total"] for row in rows]
    return {"rows": len(totals), "total": sum(totals)}


@task(retries=3, retry_delay_seconds=0.1)
def load(key: str, totals: dict[str, float]) -> None:
    """A file in the place of a table."""
    Path("warehouse").mkdir(exist_ok=True)
    (Path("warehouse") / f"{Path(key).stem}.json").write_text(json.dumps(totals), encoding="utf-8")


@flow(retries=1, retry_delay_seconds=1)
def etl(key: str, size: int) -> dict[str, float]:
    """Load one file."""
    totals = transform(extract(key, size))
    load(key, totals)
    get_run_logger().info("%s: %d rows of %d bytes", key, totals["rows"], size)
    return totals


if __name__ == "__main__":
    etl.serve(
        name="raw",
        triggers=[
            DeploymentEventTrigger(
                expect={"s3.file.uploaded"},
                match={"bucket": "raw"},
                parameters={"key": "{{ event.resource.key }}", "size": "{{ event.payload.size }}"},
            )
        ],
    )
