"""How flow runs end, for whoever watches the process: each is counted, and one that failed leaves a line in the log.

Called by `run_events` for each revision that ends a run, whichever process ended it; after a crash perhaps twice.
"""

from __future__ import annotations

import logging

from whenthen.engine.log_lines import Redact, one_line
from whenthen.engine.metrics import Metrics
from whenthen.schemas.deployments import FlowRun, RunState

__all__ = ["RunEndings"]

log = logging.getLogger(__name__)

_FAILED = frozenset({RunState.FAILED, RunState.CRASHED, RunState.TIMED_OUT})


class RunEndings:
    """Counts and logs. `redact` takes secrets out of what is logged."""

    def __init__(self, metrics: Metrics, redact: Redact) -> None:
        self._metrics = metrics
        self._redact = redact

    def note(self, run: FlowRun) -> None:
        """Note a run in a terminal state."""
        self._metrics.run_ended(run.deployment, run.state)
        if run.state in _FAILED:
            log.warning(
                "flow run %s of deployment %s: %s at attempt %d%s",
                run.id,
                run.deployment,
                run.state.value,
                run.attempt,
                f": {one_line(run.message, self._redact)}" if run.message else "",
                extra={"run": run.id, "deployment": run.deployment, "worker": run.worker, "exit_code": run.exit_code},
            )
