"""The reporter of a run that has a worker: states, lines, events and artifacts as messages of its channel."""

from __future__ import annotations

import json
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
_TEXT: Final = json.encoder.encode_basestring_ascii  #: a text as JSON, whatever is in it
_NONE: Final = '""'


class SocketReporter:
    """See `execution.reporter.RunReporter`."""

    keeps_lines = True  #: lines of runs need not be shown elsewhere: the worker puts them into the run's log

    def __init__(self, channel: WorkerChannel, *, pause_file: str | None = None) -> None:
        """`pause_file` is there while the run is to pause (`reporting.outside_pause`)."""
        self.channel = channel
        self.pause_file = pause_file
        self._numbers = count(1)

    def state(self, run: FlowRun | TaskRun, state: State[Any]) -> None:
        self.channel.tell_lines(self._move(run, state, run.run_count))

    def states(self, run: FlowRun | TaskRun, before: State[Any], state: State[Any]) -> None:
        tries = run.run_count
        began = tries if state.type.value != "RUNNING" else tries - 1
        self.channel.tell_lines(self._move(run, before, began) + self._move(run, state, tries))

    def _move(self, run: FlowRun | TaskRun, state: State[Any], tries: int) -> bytes:
        """The line of a state. It is put together here: an encoder of dictionaries takes four times as long, and a task has three."""
        told_as = run.told_as
        if told_as is None or told_as[0] != run.name:
            told_as = run.told_as = run.name, _described(run)
        message = "" if not state.message else _TEXT(state.message[:MAX_MESSAGE_CHARS])
        return (
            f'{{"type":"state","n":{next(self._numbers)},{told_as[1]},"try":{tries},"state":"{state.type.value}",'
            f'"state_name":{_TEXT(state.name[:MAX_NAME_CHARS])},"message":{message or _NONE},'
            f'"at":"{state.timestamp.isoformat()}"}}\n'
        ).encode()

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


def _described(run: FlowRun | TaskRun) -> str:
    """What of a run is the same in each of its states, as fields of JSON."""
    task_name: str | None = getattr(run, "task_name", None)
    kind, of = ("task", task_name) if task_name is not None else ("flow", str(getattr(run, "flow_name", "")))
    parent = "null" if run.parent is None else f'"{run.parent.id.hex}"'
    tags = ",".join(_TEXT(tag[:MAX_NAME_CHARS]) for tag in list(run.tags)[:MAX_TAGS])
    return (
        f'"kind":"{kind}","id":"{run.id.hex}","name":{_TEXT(run.name[:MAX_NAME_CHARS])},"of":{_TEXT(of[:MAX_NAME_CHARS])},'
        f'"parent":{parent},"tags":[{tags}]'
    )


def reporter_of(environment: Mapping[str, str] = os.environ) -> SocketReporter | None:
    """The reporter of the process, if a worker started it or what started it."""
    path, token = environment.get(SOCKET_VARIABLE), environment.get(TOKEN_VARIABLE)
    if not path or not token or not os.path.isabs(path):
        return None
    return SocketReporter(WorkerChannel(path, token), pause_file=os.path.join(os.path.dirname(path), "paused"))
