"""What is this thing, and is it valid? Data and validation only: everything that travels between rooms.

Imports nothing of ours. One module a kind of thing, and these modules are what other rooms import from; none is loaded before
it is needed, so that the command line starts fast.
"""

from __future__ import annotations

__all__ = [
    "actions",
    "automations",
    "base",
    "calendar",
    "decision_records",
    "deployments",
    "entry_points",
    "errors",
    "event_sources",
    "events",
    "firings",
    "history_rows",
    "list_filters",
    "providers",
    "ruletests",
    "times",
    "trace_context",
    "triggers",
    "webhooks",
    "work_pools",
]
