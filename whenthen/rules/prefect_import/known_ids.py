"""Names of deployments and automations by their ids, from a file: `--ids FILE`.

Read are a mapping of ids to names, and what Prefect's command line and API print as JSON: a list of objects with `id`, `name` and, for a
deployment, `flow_name` or `flow: {name}`. A list that says only `flow_id` gives the names of deployments without their flow.
"""

from __future__ import annotations

from typing import Any

from whenthen.rules.reading.documents import read_document
from whenthen.schemas.errors import InvalidInput

__all__ = ["read_ids"]


def read_ids(raw: bytes, *, name: str = "ids") -> dict[str, str]:
    """Names by ids.

    Raises:
        InvalidInput: it is neither; says where.
    """
    document = read_document(raw)
    if document.faults:
        fault = document.faults[0]
        raise InvalidInput(f"{name}:{fault.line}:{fault.column}: {fault.detail}")
    data = document.data
    if isinstance(data, dict):
        found = {str(key): value for key, value in data.items()}
    elif isinstance(data, list):
        found = {str(item.get("id")): _name(item) for item in data if isinstance(item, dict)}
    else:
        found = {}
    wrong = next((key for key, value in found.items() if not isinstance(value, str) or not value), None)
    if wrong is not None or not found:
        what = f"the name of {wrong[:80]!r} is missing" if wrong is not None else "it has no ids"
        raise InvalidInput(
            f"{name}: {what}; give a mapping of ids to names such as `1f2e...: etl/nightly`, or a list of objects with id and name"
        )
    return found


def _name(item: dict[str, Any]) -> Any:
    flow = item.get("flow_name") or (item["flow"].get("name") if isinstance(item.get("flow"), dict) else None)
    return f"{flow}/{item.get('name')}" if flow and item.get("name") else item.get("name")
