"""Which parts does a process have, and how do they start, stop and swap rules? Wiring, roles, settings, rule registry, maintenance."""

from __future__ import annotations

from whenthen.engine.process.log_output import (
    configure_logs,
)
from whenthen.engine.process.queries.asyncapi_query import (
    asyncapi_document,
)
from whenthen.engine.process.roles import (
    Role,
)
from whenthen.engine.process.server import (
    Server,
)
from whenthen.engine.process.settings import (
    Settings,
    load_settings,
)
from whenthen.engine.process.wiring.history.history_process import (
    HistoryProcess,
)

__all__ = [
    "HistoryProcess",
    "Role",
    "Server",
    "Settings",
    "asyncapi_document",
    "configure_logs",
    "load_settings",
]
