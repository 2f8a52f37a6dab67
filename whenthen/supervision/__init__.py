"""Who starts a process again that hung or crashed, and how is it known what it was working on? A parent, a watchdog, a shared page.

Imported before anything else of a `whenthen serve`, so it needs the standard library alone. Meaning: docs/reliability.md,
"A process that hangs".
"""

from __future__ import annotations

from whenthen.supervision.at_hand import (
    AtHand,
    Item,
    Work,
    noted,
)
from whenthen.supervision.bound_children import (
    bound_to,
    fork_bound,
)
from whenthen.supervision.parent_process import (
    supervise,
)
from whenthen.supervision.shared_page import (
    Cause,
    Ended,
    SharedPage,
)
from whenthen.supervision.watchdog import (
    Watchdog,
)

__all__ = [
    "AtHand",
    "Cause",
    "Ended",
    "Item",
    "SharedPage",
    "Watchdog",
    "Work",
    "bound_to",
    "fork_bound",
    "noted",
    "supervise",
]
