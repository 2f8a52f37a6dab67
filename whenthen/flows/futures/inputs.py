"""Which futures the arguments of a run hold, and what the arguments are once these have ended. Pure but for reading states.

Futures and states are found in lists, tuples, sets, dicts, dataclasses and pydantic models, at any depth; not in what is quoted.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

from whenthen.flows.definitions.annotations import Annotation, allow_failure, opaque, quote
from whenthen.flows.flow_errors import UpstreamTaskError
from whenthen.flows.futures.future import PrefectFuture
from whenthen.flows.states.state import State, result_of

#: values of these classes are looked at no further
PLAIN = frozenset([int, str, float, bool, bytes, type(None), complex, bytearray, range])

Replace = Callable[[Any, bool], Any]  #: a future or state, and whether it may have failed


def futures_in(value: Any) -> list[PrefectFuture[Any]]:
    """Every future in `value`, each once, in order."""
    if value.__class__ in PLAIN:
        return []
    found: dict[int, PrefectFuture[Any]] = {}

    def note(one: Any, allowed: bool) -> Any:
        if isinstance(one, PrefectFuture):
            found[id(one)] = one
        return one

    _replaced(value, note, False, set())
    return list(found.values())


def resolved(value: Any) -> Any:
    """`value` with results in the place of futures and states; `value` itself where there are none.

    Every future in it has ended.

    Raises:
        UpstreamTaskError: one did not complete, and is not marked with `allow_failure`.
    """
    if value.__class__ in PLAIN:
        return value
    return _replaced(value, _result, False, set())


def states_for_futures(value: Any) -> Any:
    """`value` with the states in the place of futures; every future in it has ended."""
    if value.__class__ in PLAIN:
        return value
    return _replaced(value, lambda one, _: one.state if isinstance(one, PrefectFuture) else one, False, set())


def _result(one: Any, may_fail: bool) -> Any:
    state: State[Any] = one.state if isinstance(one, PrefectFuture) else one
    if state.is_completed():
        return result_of(state)
    not_ready = state.is_pending() and state.name == "NotReady"
    if may_fail and (state.is_failed() or state.is_crashed() or state.is_cancelled()):
        return result_of(state, raise_on_failure=False)
    if may_fail and not_ready:
        return UpstreamTaskError(state.message or "an upstream run did not complete")
    run = state.state_details.task_run_id or state.state_details.flow_run_id
    raise UpstreamTaskError(
        f"Upstream task run '{run}' did not reach a 'COMPLETED' state: it is {state}; "
        "allow_failure(...) around the argument passes the exception instead"
    )


def _replaced(value: Any, replace: Replace, may_fail: bool, above: set[int]) -> Any:
    """`value` after `replace` on each future and state in it. Containers without any are given back as they are."""
    kind = value.__class__
    if kind in PLAIN:
        return value
    if isinstance(value, (PrefectFuture, State)):
        return replace(value, may_fail)
    if isinstance(value, Annotation):
        if isinstance(value, quote):
            return value.value if replace is _result else value
        inner = value.value
        if isinstance(value, opaque):
            new = replace(inner, may_fail) if isinstance(inner, (PrefectFuture, State)) else inner
        else:
            new = _replaced(inner, replace, may_fail or isinstance(value, allow_failure), above)
        return new if replace is _result else value
    if isinstance(value, (list, tuple, set, frozenset, dict)):
        pass
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _replaced_fields(
            value,
            {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init},
            replace,
            may_fail,
            above,
        )
    elif (models := sys.modules.get("pydantic.main")) is not None and isinstance(value, models.BaseModel):
        return _replaced_fields(value, dict(value.__dict__), replace, may_fail, above)
    else:
        return value
    if id(value) in above:  # it holds itself
        return value
    above.add(id(value))
    try:
        if isinstance(value, dict):
            items = [
                (_replaced(k, replace, may_fail, above), _replaced(v, replace, may_fail, above))
                for k, v in value.items()
            ]
            if all(new_k is k and new_v is v for (new_k, new_v), (k, v) in zip(items, value.items(), strict=True)):
                return value
            if kind is dict:
                return dict(items)
            copied = value.copy()
            copied.clear()
            copied.update(items)
            return copied
        members = list(value)
        new_members = [_replaced(member, replace, may_fail, above) for member in members]
        if all(new is old for new, old in zip(new_members, members, strict=True)):
            return value
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return kind(*new_members)
        if isinstance(value, list):
            return new_members
        return kind(new_members)
    finally:
        above.discard(id(value))


def _replaced_fields(value: Any, fields: dict[str, Any], replace: Replace, may_fail: bool, above: set[int]) -> Any:
    if id(value) in above:
        return value
    above.add(id(value))
    try:
        new = {name: _replaced(one, replace, may_fail, above) for name, one in fields.items()}
    finally:
        above.discard(id(value))
    changed = {name: one for name, one in new.items() if one is not fields[name]}
    if not changed:
        return value
    if dataclasses.is_dataclass(value):
        return dataclasses.replace(value, **changed)  # type: ignore[type-var]
    return value.model_copy(update=changed)
