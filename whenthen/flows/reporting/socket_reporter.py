"""The reporter of a run that has a worker: states, lines, events and artifacts as messages of its channel."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from whenthen.flows.reporting.worker_channel import SOCKET_VARIABLE, TOKEN_VARIABLE, WorkerChannel

if TYPE_CHECKING:
    from whenthen.flows.execution.run_records import FlowRun, TaskRun
    from whenthen.flows.states.state import State

__all__ = ["SocketReporter", "reporter_of"]

MAX_TEXT_CHARS: Final = 64 * 1024  #: of one line of the log; the rest is left out, and said to be
MAX_MESSAGE_CHARS: Final = 4_000  #: of a state, as of a run's
MAX_NAME_CHARS: Final = 500
MAX_TAGS: Final = 50

_FORMATTER = logging.Formatter()


class SocketReporter:
    """See `execution.reporter.RunReporter`."""

    keeps_lines = True  #: lines of runs need not be shown elsewhere: the worker puts them into the run's log

    def __init__(self, channel: WorkerChannel, *, pause_file: str | None = None) -> None:
        """`pause_file` is there while the run is to pause (`reporting.outside_pause`)."""
        self.channel = channel
        self.pause_file = pause_file
        self._numbers = count(1)

    def state(self, run: FlowRun | TaskRun, state: State[Any]) -> None:
        definition: str | None = getattr(run, "task_name", None)
        is_task = definition is not None
        parent = run.parent
        self.channel.tell(
            {
                "type": "state",
                "n": next(self._numbers),
                "kind": "task" if is_task else "flow",
                "id": run.id.hex,
                "name": run.name[:MAX_NAME_CHARS],
                "of": (definition if definition is not None else getattr(run, "flow_name", ""))[:MAX_NAME_CHARS],
                "parent": None if parent is None else parent.id.hex,
                "tags": [tag[:MAX_NAME_CHARS] for tag in list(run.tags)[:MAX_TAGS]],
                "try": run.run_count,
                "state": state.type.value,
                "state_name": state.name[:MAX_NAME_CHARS],
                "message": (state.message or "")[:MAX_MESSAGE_CHARS],
                "at": state.timestamp.isoformat(),
            }
        )

    def log(self, run: FlowRun | TaskRun, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info or record.exc_text:
            text = f"{text}\n{record.exc_text or _FORMATTER.formatException(record.exc_info)}"  # type: ignore[arg-type]
        if len(text) > MAX_TEXT_CHARS:
            text = f"{text[:MAX_TEXT_CHARS]}... ({len(text) - MAX_TEXT_CHARS:,} characters are left out)"
        message = {
            "type": "log",
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelno,
            "text": text,
            "run": run.id.hex,
        }
        if getattr(run, "task_name", None) is not None:
            message["name"] = run.name[:MAX_NAME_CHARS]
        self.channel.tell(message, may_drop=True)

    def event(self, event: Any) -> None:
        self.channel.tell({"type": "event", "event": event.model_dump(mode="json")})

    def artifact(self, artifact: Any) -> None:
        self.channel.tell(
            {
                "type": "artifact",
                "id": artifact.id.hex,
                "key": artifact.key,
                "kind": artifact.type,
                "description": artifact.description,
                "data": artifact.data,
                "metadata": artifact.metadata_,
                "flow_run": None if artifact.flow_run_id is None else artifact.flow_run_id.hex,
                "task_run": None if artifact.task_run_id is None else artifact.task_run_id.hex,
                "at": artifact.created.isoformat(),
            }
        )

    def request(self, kind: str, body: dict[str, Any]) -> Any:
        return self.channel.ask(kind, body)

    def can_answer(self, kind: str) -> bool:
        """Whether the worker answers such requests."""
        return self.channel.answers(kind)


def reporter_of(environment: Mapping[str, str] = os.environ) -> SocketReporter | None:
    """The reporter of the process, if a worker started it or what started it."""
    path, token = environment.get(SOCKET_VARIABLE), environment.get(TOKEN_VARIABLE)
    if not path or not token or not os.path.isabs(path):
        return None
    return SocketReporter(WorkerChannel(path, token), pause_file=os.path.join(os.path.dirname(path), "paused"))
