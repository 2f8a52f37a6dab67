"""From the arguments of `.map` the arguments of each run. Waits for futures that stand for a whole sequence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from whenthen.flows.definitions.annotations import Annotation, allow_failure, quote, unmapped
from whenthen.flows.definitions.parameters import Parameters
from whenthen.flows.flow_errors import MappingLengthMismatch, MappingMissingIterable, UpstreamTaskError
from whenthen.flows.futures.future import PrefectFuture
from whenthen.flows.states.state import State, result_of

__all__ = ["mapped"]


def mapped(signature: Parameters, parameters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The parameters of each run. Sequences are taken apart; texts, numbers and what is `unmapped` go to each run whole.

    Raises:
        MappingMissingIterable: there is no sequence.
        MappingLengthMismatch: the sequences have different lengths.
        UpstreamTaskError: a future that stands for a sequence did not complete.
    """
    sequences: dict[str, list[Any]] = {}
    marks: dict[str, Annotation[Any]] = {}
    same: dict[str, Any] = {}
    given = signature.exploded(parameters)
    for name, value in given.items():
        if isinstance(value, unmapped):
            same[name] = value.value
            continue
        mark = value if isinstance(value, Annotation) else None
        inner = value.value if mark is not None else value
        if isinstance(inner, unmapped):
            same[name] = mark.rewrap(inner.value) if mark is not None else inner.value
            continue
        inner = _known(inner, isinstance(mark, allow_failure))
        if _is_sequence(inner):
            sequences[name] = list(inner)
            if mark is not None:
                marks[name] = mark
        else:
            same[name] = mark.rewrap(inner) if mark is not None else inner
    if not sequences:
        raise MappingMissingIterable(
            f"No iterable parameters were received: .map needs at least one; got {', '.join(parameters) or 'none'}. Use .submit for one run."
        )
    lengths = {name: len(values) for name, values in sequences.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise MappingLengthMismatch(
            f"Received iterable parameters with different lengths ({shown}); wrap what every run is to get in unmapped(...)"
        )
    for at in range(next(iter(lengths.values()))):
        one = {name: sequences[name][at] if name in sequences else same[name] for name in given}
        for name, mark in marks.items():
            one[name] = mark.rewrap(one[name])
        for name, default in signature.defaults.items():
            one.setdefault(name, default)
        yield signature.collapsed(one)


def _known(value: Any, may_fail: bool) -> Any:
    """A future's result: how many runs there are is known only then."""
    if isinstance(value, PrefectFuture):
        value.wait()
        state: State[Any] = value.state
    elif isinstance(value, State):
        state = value
    else:
        return value
    if not state.is_completed() and not (may_fail and state.is_final()):
        raise UpstreamTaskError(
            f"Upstream task run '{state.state_details.task_run_id}' did not reach a 'COMPLETED' state: it is {state}"
        )
    return result_of(state, raise_on_failure=False)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes, bytearray, quote))
