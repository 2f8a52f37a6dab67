"""Names of labels, and whole events, from Prefect's spelling into ours. Pure.

`prefect.resource.id`, `.name` and `.role` are `id`, `name` and `role` here. A label that Prefect's users have named `id`, `name` or
`role` themselves is another one; it gets an underscore in front, so that the two never meet. Called by the importer and by
`rules.replay`. Meaning: docs/prefect.md.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["key_expression", "label", "prefect_event"]

_OURS = {"prefect.resource.id": "id", "prefect.resource.name": "name", "prefect.resource.role": "role"}
_TAKEN = re.compile(r"_*(?:id|name|role)")
_FIELDS = ("id", "event", "occurred", "payload", "follows")


def label(name: str) -> str:
    """Our name for a label of Prefect's."""
    return _OURS.get(name) or ("_" + name if _TAKEN.fullmatch(name) else name)


def key_expression(text: str) -> str:
    """Our `for_each` expression for one of Prefect's: a label, or `related:<role>:<label>`."""
    head, _, last = text.rpartition(":")
    kind, colon, role = head.partition(":")
    if kind == "related" and colon and role:
        return f"related:{role}:{label(last)}"
    return label(text)


def prefect_event(data: Any) -> Any:
    """An event as Prefect writes it, in our wire form before checking. What is not an object stays as it is."""
    if not isinstance(data, dict):
        return data
    event = {field: data[field] for field in _FIELDS if data.get(field) is not None}
    if "resource" in data:
        event["resource"] = _labels(data["resource"])
    if data.get("related") is not None:
        related = data["related"]
        event["related"] = [_labels(item) for item in related] if isinstance(related, list) else related
    return event


def _labels(resource: Any) -> Any:
    if not isinstance(resource, dict):
        return resource
    return {label(name) if isinstance(name, str) else name: value for name, value in resource.items()}
