"""Whether the input that a run is resumed with fits the JSON Schema of what it waits for. Pure.

The schema comes from the run's own process and is read as the work of a stranger: references lead nowhere but into itself, patterns run in
linear time, and a check ends after so many steps. Called where a resume comes in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

import orjson

from whenthen.schemas.base import MAX_MADE_DEPTH, is_deeper_than
from whenthen.schemas.errors import InvalidInput, path_text

__all__ = ["MAX_INPUTS_BYTES", "checked_input"]

MAX_INPUTS_BYTES: Final = 128 * 1024  #: of all that one run is given
MOST_INPUTS: Final = 500
MOST_STEPS: Final = 50_000  #: of one check
MOST_ERRORS: Final = 200  #: that are looked for
MOST_PROBLEMS: Final = 20  #: that are told
MAX_TOLD_CHARS: Final = 300  #: of one of them
#: keywords that are not checked, as their cost has no bound; the process that gets the input checks it whole
_PASSED_OVER: Final = ("patternProperties", "unevaluatedProperties", "unevaluatedItems", "$dynamicRef")


def checked_input(pause: Mapping[str, Any], given: Any, before: Mapping[str, Any]) -> Any:
    """The input for a pause; `before` is what the run was given so far. A value that is no object may come as `{"value": ...}`, as in Prefect.

    Raises:
        InvalidInput: it does not fit; names each field.
    """
    schema = pause.get("schema")
    if schema is None:
        if given not in (None, {}):
            raise InvalidInput("this pause takes no input; resume the run without it", path=("input",))
        return None
    if is_deeper_than(given, MAX_MADE_DEPTH):
        raise InvalidInput(f"nested more than {MAX_MADE_DEPTH} deep; flatten it", path=("input",))
    size = len(orjson.dumps([*before.values(), given]))
    if size > MAX_INPUTS_BYTES or len(before) >= MOST_INPUTS:
        raise InvalidInput(
            f"the run would have {size:,} bytes of input, in {len(before) + 1} parts; at most {MAX_INPUTS_BYTES:,} bytes in "
            f"{MOST_INPUTS} parts are kept: refer to large data",
            path=("input",),
        )
    value = {} if given is None and _is_object(schema) else given
    problems = _problems(schema, value)
    if problems and not _is_object(schema) and isinstance(value, dict) and set(value) == {"value"}:
        value = value["value"]
        problems = _problems(schema, value)
    if problems:
        raise InvalidInput("; ".join(problems), path=("input",))
    return value


def _is_object(schema: Mapping[str, Any]) -> bool:
    """Whether the value is an object of named fields. What pydantic makes of a model that names itself is a reference to it."""
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        found = (schema.get("$defs") or {}).get(reference.removeprefix("#/$defs/"))
        return isinstance(found, Mapping) and found.get("type") == "object"
    return schema.get("type") == "object"


class _TooMuch(Exception):
    """The check takes too many steps."""


def _problems(schema: Mapping[str, Any], value: Any) -> list[str]:
    """A line for each field that does not fit."""
    import jsonschema  # takes as long as starting a small process, and few requests need it
    import re2
    from jsonschema import validators
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    steps = 0

    def counted(check: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps > MOST_STEPS:
                raise _TooMuch
            return check(*arguments)

        return run

    def pattern(validator: Any, written: Any, instance: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
        if isinstance(instance, str) and re2.search(str(written), instance) is None:
            yield jsonschema.ValidationError(f"{instance!r} does not match {written!r}")

    def unique(validator: Any, written: Any, instance: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
        # that of the library compares each with each
        if not written or not isinstance(instance, list):
            return
        if len({orjson.dumps(item, option=orjson.OPT_SORT_KEYS) for item in instance}) < len(instance):
            yield jsonschema.ValidationError("has equal items")

    draft = jsonschema.Draft202012Validator
    checks = {**draft.VALIDATORS, "pattern": pattern, "uniqueItems": unique, **dict.fromkeys(_PASSED_OVER, _nothing)}
    validator = validators.extend(  # type: ignore[no-untyped-call]
        draft, {name: counted(check) for name, check in checks.items()}
    )
    try:
        found = validator(_bounded(schema), registry=Registry())  # which is empty, and fetches nothing
        errors = list(islice(found.iter_errors(value), MOST_ERRORS))
        errors.sort(key=lambda error: list(map(str, error.absolute_path)))
    except _TooMuch:
        return [f"the check takes more than {MOST_STEPS:,} steps; give less"]
    except (
        RecursionError,
        Unresolvable,
        jsonschema.SchemaError,
        re2.error,
        TypeError,
        AttributeError,
        ValueError,
    ) as error:
        return [f"the run asks for what can not be checked: {type(error).__name__}: {str(error)[:MAX_TOLD_CHARS]}"]
    told = [_told(error) for error in errors[:MOST_PROBLEMS]]
    return [*told, f"and {len(errors) - MOST_PROBLEMS} more"] if len(errors) > MOST_PROBLEMS else told


def _nothing(validator: Any, written: Any, instance: Any, schema: Any) -> Iterator[Any]:
    return iter(())


def _bounded(part: Any) -> Any:
    """A schema without `patternProperties`, whose patterns other keywords search for, too, and not in linear time."""
    if isinstance(part, Mapping):
        return {name: _bounded(value) for name, value in part.items() if name not in _PASSED_OVER}
    return [_bounded(value) for value in part] if isinstance(part, list) else part


def _told(error: Any) -> str:
    """`approved: 'maybe' is not of type 'boolean'`."""
    message = str(error.message)
    if len(message) > MAX_TOLD_CHARS:
        message = f"{message[:MAX_TOLD_CHARS]}..."
    where = path_text(error.absolute_path)
    return f"{where}: {message}" if where else message
