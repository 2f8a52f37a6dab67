"""The macros by closures: `exists`, `filter`, `map` and the others range over a list or a map, the optional ones over one value.

Called by `exact` with the evaluators of a macro's parts. Meaning: cel-spec, langdef, "Macros".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from whenthen.conditions import nodes as n
from whenthen.conditions.frame import Evaluator, Frame, absorb, not_bool
from whenthen.conditions.functions.optional_functions import flat_mapped, mapped
from whenthen.conditions.runtime.cel_values import EvaluationFault
from whenthen.conditions.runtime.cost import literal_slots, literal_weight, pairs, weight

__all__ = ["comprehension"]

_UNSET = object()


def comprehension(node: n.Macro, over: Evaluator, test: Evaluator | None, result: Evaluator | None) -> Evaluator:
    """A macro's evaluator: ranges over `over` with the variables bound, and folds what the body yields."""
    if node.kind in _OPTIONAL:
        assert result is not None
        return _optional_macro(node, over, result)
    fold = _FOLDS[node.kind](node, test, result)
    cost, slots = weight(node), literal_slots(node)
    names = node.variables

    def run(frame: Frame) -> Any:
        value = over(frame)
        try:
            more = literal_weight(frame.constants[slot] for slot in slots)
            keys, values = pairs(value, cost + more, frame.budget)
        except EvaluationFault as fault:
            fault.node = fault.node or node
            raise
        saved = _saved(frame, names)
        try:
            return fold(frame, _steps(frame, names, value, keys, values))
        finally:
            _restore(frame, saved)

    return run


def _saved(frame: Frame, names: tuple[str, ...]) -> dict[str, Any]:
    """What a macro around this one calls by these names."""
    return {name: frame.locals.get(name, _UNSET) for name in names}


def _restore(frame: Frame, saved: dict[str, Any]) -> None:
    for name, old in saved.items():
        if old is _UNSET:
            frame.locals.pop(name, None)
        else:
            frame.locals[name] = old


def _optional_macro(node: n.Macro, over: Evaluator, result: Evaluator) -> Evaluator:
    function, (name,) = _OPTIONAL[node.kind], node.variables

    def run(frame: Frame) -> Any:
        def body(value: Any) -> Any:
            saved = _saved(frame, node.variables)
            frame.locals[name] = value
            try:
                return result(frame)
            finally:
                _restore(frame, saved)

        optional = over(frame)
        try:
            return function(optional, body)
        except EvaluationFault as fault:
            fault.node = fault.node or node
            raise

    return run


def _steps(
    frame: Frame, names: tuple[str, ...], value: Any, keys: Iterable[Any], values: Iterable[Any]
) -> Iterable[tuple[Any, Any]]:
    """Bind the variables for each element in turn; yields key and element."""
    if len(names) == 1:
        name = names[0]
        for item in value:
            frame.locals[name] = item
            yield item, item
    else:
        first, second = names
        for key, item in zip(keys, values, strict=True):
            frame.locals[first] = key
            frame.locals[second] = item
            yield key, item


_Fold = Callable[[Frame, Iterable[tuple[Any, Any]]], Any]


def _absorbing(node: n.Macro, test: Evaluator | None, _: Evaluator | None) -> _Fold:
    assert test is not None
    assert node.test is not None
    decisive, what, body = node.kind == "exists", f"{node.kind}()", (node.test, test)
    return lambda frame, steps: absorb((body for _pair in steps), frame, decisive, what)


def _passes(node: n.Macro, test: Evaluator | None, frame: Frame) -> bool:
    if test is None or node.test is None:
        return True
    value = test(frame)
    if value is not True and value is not False:
        raise not_bool(node.test, f"{node.kind}()", value)
    return bool(value)


def _exists_one(node: n.Macro, test: Evaluator | None, _: Evaluator | None) -> _Fold:
    return lambda frame, steps: sum([_passes(node, test, frame) for _pair in steps]) == 1


def _filter(node: n.Macro, test: Evaluator | None, _: Evaluator | None) -> _Fold:
    return lambda frame, steps: [item for _key, item in steps if _passes(node, test, frame)]


def _to_list(node: n.Macro, test: Evaluator | None, result: Evaluator | None) -> _Fold:
    assert result is not None
    return lambda frame, steps: [result(frame) for _pair in steps if _passes(node, test, frame)]


def _to_map(node: n.Macro, test: Evaluator | None, result: Evaluator | None) -> _Fold:
    assert result is not None
    return lambda frame, steps: {key: result(frame) for key, _item in steps if _passes(node, test, frame)}


_FOLDS: dict[str, Callable[[n.Macro, Evaluator | None, Evaluator | None], _Fold]] = {
    "all": _absorbing,
    "exists": _absorbing,
    "exists_one": _exists_one,
    "filter": _filter,
    "map": _to_list,
    "transformList": _to_list,
    "transformMap": _to_map,
}
_OPTIONAL: dict[str, Callable[[Any, Callable[[Any], Any]], Any]] = {"optMap": mapped, "optFlatMap": flat_mapped}
