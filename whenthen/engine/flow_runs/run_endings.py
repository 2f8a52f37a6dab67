"""How flow runs end, for whoever watches the process: each is counted, and one that failed leaves a line in the log.

Called by `run_events` for each revision that ends a run, whichever process ended it; after a crash perhaps twice.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from whenthen.engine.log_lines import Redact, one_line
from whenthen.engine.metrics import Metrics
from whenthen.engine.spans import Spans, run_span
from whenthen.schemas.deployments import FlowRun, RunState
from whenthen.schemas.trace_context import derived_trace, valid_trace

__all__ = ["RunEndings"]

log = logging.getLogger(__name__)

_FAILED = frozenset({RunState.FAILED, RunState.CRASHED, RunState.TIMED_OUT})


class RunEndings:
    """Counts, logs and records spans. `redact` takes secrets out of what is told."""

    def __init__(self, metrics: Metrics, redact: Redact, spans: Spans | None = None) -> None:
        self._spans = spans or Spans()
        self._metrics = metrics
        self._redact = redact

    def note(self, run: FlowRun) -> None:
        """Note a run in a terminal state."""
        self._metrics.run_ended(run.deployment, run.state)
        if self._spans.on and (span := run_span(run)) is not None:
            self._spans.record(replace(span, error=self._redact(span.error)))
        if run.state in _FAILED:
            log.warning(
                "flow run %s of deployment %s: %s at attempt %d%s",
                run.id,
                run.deployment,
                run.state.value,
                run.attempt,
                f": {one_line(run.message, self._redact)}" if run.message else "",
                extra={
                    "run": run.id,
                    "deployment": run.deployment,
                    "worker": run.worker,
                    "exit_code": run.exit_code,
                    "trace": (valid_trace(run.trace) or derived_trace(run.id))["id"],
                },
            )
