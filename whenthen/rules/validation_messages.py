"""What pydantic found, in the words of people who write rules.

Called by `folder` for a file that does not validate. An error's location is followed through the models and the data
at once, which gives the path as it was written (short forms and single values in place of lists included), the model
whose field it is, and the value. Errors of the branches of one union become one sentence.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any

from pydantic import BaseModel

from whenthen.rules.reading.scalars import describe
from whenthen.schemas.actions import ACTIONS, ActionBase
from whenthen.schemas.automations import Automation
from whenthen.schemas.base import description_of
from whenthen.schemas.errors import FieldPath, near_names
from whenthen.schemas.triggers import EventTrigger

__all__ = ["Explained", "explain", "nearest"]


_SCALARS = (str, int, float)  #: have no fields
_FORMS = frozenset(
    ("str", "int", "float", "bool", "constrained-str", "constrained-int")
)  #: as pydantic names plain ones
_OF_TRIGGERS = frozenset(EventTrigger.model_fields)  #: fields that are looked for beside `trigger`
#: what other tools call a field
_OTHER_WORDS = {"cwd": "working_dir", "labels": "match", "match_labels": "match"}
MAX_GUESSED = 20  #: keys of a mapping that are looked at for a misspelt action


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """One problem of a file. `at_key` says that the key is at fault and not its value."""

    path: FieldPath
    detail: str
    at_key: bool = False


@dataclass(slots=True)
class _Walk:
    """Where an error's location leads."""

    path: list[str | int] = field(default_factory=list)
    model: type[BaseModel] | None = None  #: the model that holds the last step
    holder: Any = None  #: the data of that model
    branches: Mapping[str, type[BaseModel]] = field(default_factory=dict)  #: what the value may be
    value: Any = None
    present: bool = True


@dataclass(slots=True)
class _Wish:
    """What may stand at one place in place of what was found there."""

    value: Any
    texts: list[str] = field(default_factory=list)
    text_allowed: bool = False


def explain(
    errors: Iterable[Mapping[str, Any]],
    data: Any,
    root: type[BaseModel],
    *,
    spelling: Mapping[FieldPath, str] | None = None,
) -> list[Explained]:
    """Say each of pydantic's `errors` about `data`, which was to be a `root`.

    `spelling` has plain scalars as they were written, where that is known: `on` for what YAML reads as true.
    """
    wanted: dict[tuple[FieldPath, str], _Wish] = {}
    explained: list[Explained] = []
    for error in errors:
        walk = _follow(error["loc"], data, root)
        path = tuple(walk.path)
        kind = str(error["type"])
        if kind == "extra_forbidden":
            explained.append(Explained(path=path, detail=_unknown_field(walk), at_key=True))
        elif kind == "missing":
            name = str(walk.path[-1]) if walk.path else ""
            explained.append(Explained(path=path, detail=f"missing; add `{name}:`{_purpose(walk.model, name)}"))
        elif kind in ("union_tag_invalid", "union_tag_not_found"):
            if isinstance(walk.value, dict) and "type" in walk.value:
                path = (*path, "type")
            explained.append(Explained(path=path, detail=_unknown_kind(walk)))
        elif kind == "value_error":
            explained.append(Explained(path=path, detail=str(error.get("ctx", {}).get("error", error["msg"]))))
        else:
            found = _found(kind, walk.value, (spelling or {}).get(path))
            wish = wanted.setdefault((path, found), _Wish(walk.value))
            wish.texts.append(_wanted(kind, error.get("ctx") or {}, walk))
            wish.text_allowed |= kind == "string_type"
    specific = {item.path for item in explained} | {path[:size] for path, _ in wanted for size in range(len(path))}
    for (path, found), wish in wanted.items():
        if path not in specific and not any(other[: len(path)] == path for other in specific):
            wishes = " or ".join(dict.fromkeys(wish.texts))
            explained.append(Explained(path=path, detail=f"wanted {wishes}, found {found}{_quotes_hint(wish)}"))
    return explained


def _found(kind: str, value: Any, spelt: str | None) -> str:
    if kind in ("too_short", "too_long"):
        return _count(len(value) if isinstance(value, (list, dict)) else 1, "item")
    found = describe(value)
    if isinstance(value, bool) and spelt is not None and spelt.lower() != found:
        return f"{spelt} (which YAML reads as {found})"
    return found


def nearest(word: str, known: Iterable[str], *, what: str = "known") -> str:
    """`; did you mean "x"?`, or `; known are a, b, c` when nothing comes close, or nothing when there is nothing."""
    names = sorted(set(known))
    word = word[:200]
    close = near_names(word, names)
    if not close:
        folded = word.lower().replace("-", "_")
        close = [name for name in names if name.lower().replace("-", "_") == folded]
    if close:
        return f'; did you mean "{close[0]}"?'
    if not names:
        return f"; there are no {what}" if what != "known" else ""
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"; {what} are {', '.join(names[:12])}{more}"


def _follow(loc: tuple[Any, ...], data: Any, root: type[BaseModel]) -> _Walk:
    walk = _Walk(value=data, branches={"": root})
    _choose(walk, root)
    short: str | None = None
    for step in loc:
        if _is_form(step, walk.value):
            continue
        if (branch := _branch(step, walk)) is not None:
            short = step if isinstance(walk.value, dict) and "type" not in walk.value and step in walk.value else None
            _choose(walk, branch)
        elif isinstance(step, int):
            if isinstance(walk.value, list) and step < len(walk.value):
                walk.path.append(step)
                walk.value = walk.value[step]
            if len(walk.branches) == 1:
                _choose(walk, next(iter(walk.branches.values())))
        elif walk.branches and isinstance(step, str):
            _into_field(walk, step, short)
            short = None
        elif isinstance(walk.value, dict):
            walk.path.append(str(step))
            walk.value = walk.value.get(step)
    return walk


def _is_form(step: Any, value: Any) -> bool:
    """Whether a step of a location names one of the forms that a value may have, such as `dict[str,str]`, and leads nowhere."""
    if not isinstance(step, str) or (isinstance(value, dict) and step in value):
        return False
    return "[" in step or step in _FORMS or isinstance(value, _SCALARS)


def _branch(step: Any, walk: _Walk) -> type[BaseModel] | None:
    """The model that a step of a location names, of those that a value may be; of one model beside other forms, too."""
    if not isinstance(step, str):
        return None
    if len(walk.branches) > 1:
        return walk.branches.get(step)
    for model in walk.branches.values():
        if step == model.__name__ and step not in _fields(model):
            return model
    return None


def _choose(walk: _Walk, model: type[BaseModel]) -> None:
    walk.branches = {"": model}


def _into_field(walk: _Walk, step: str, short: str | None) -> None:
    model = next(iter(walk.branches.values()))
    walk.model, walk.holder = model, walk.value
    name = step
    if short is not None and issubclass(model, ActionBase) and model.primary == step:
        name = short
    walk.path.append(name)
    if isinstance(walk.value, dict) and name in walk.value:
        walk.value = walk.value[name]
    elif isinstance(walk.value, dict):
        walk.value, walk.present = None, False
    walk.branches = _fields(model).get(step, {})


@lru_cache(maxsize=256)
def _fields(model: type[BaseModel]) -> dict[str, dict[str, type[BaseModel]]]:
    """For each field, by the name under which it is written, the models that its value may be, by tag."""
    return {
        info.alias or name: dict(_models(info.annotation, info.metadata)) for name, info in model.model_fields.items()
    }


def _models(annotation: Any, metadata: Iterable[Any] = ()) -> Iterator[tuple[str, type[BaseModel]]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        kind = annotation.model_fields.get("type")
        tags = typing.get_args(kind.annotation) if kind is not None else ()
        yield (str(tags[0]) if tags else annotation.__name__), annotation
        return
    for argument in typing.get_args(annotation):
        yield from _models(argument)


def _unknown_field(walk: _Walk) -> str:
    name = str(walk.path[-1]) if walk.path else ""
    known = list(_fields(walk.model)) if walk.model is not None else []
    if walk.model is not None and issubclass(walk.model, ActionBase) and isinstance(walk.holder, dict):
        known = [field_name for field_name in known if field_name != "type"]
    if walk.model is Automation and name in _OF_TRIGGERS:
        return f"unknown field; `{name}` belongs in `trigger`"
    other = _OTHER_WORDS.get(name, "")
    if other in known:
        return f'unknown field; did you mean "{other}"?'
    return "unknown field" + nearest(name, known, what="the fields")


def _unknown_kind(walk: _Walk) -> str:
    value = walk.value
    kinds = list(walk.branches)
    if isinstance(value, dict) and "type" in value:
        kind = value["type"]
        if not isinstance(kind, str):
            return f"wanted one of {', '.join(kinds)}, found {describe(kind)}"
        return f'unknown type "{kind[:80]}"' + nearest(kind, kinds, what="the types")
    if set(kinds) & set(ACTIONS):
        if isinstance(value, dict):
            named = [key for key in value if key in ACTIONS]
            if len(named) > 1:
                return f"two actions in one: {' and '.join(named)}; start a list item for each with `- `"
            for key in islice((key for key in value if isinstance(key, str)), MAX_GUESSED):
                close = near_names(key, kinds)
                if close:
                    return f'unknown action "{key[:80]}"; did you mean "{close[0]}"?'
            return f"no action is named; write {kinds[0]}: ... or another of {', '.join(kinds)}"
        return f"wanted an action such as `run-deployment: name`, found {describe(value)}"
    if isinstance(value, dict):
        return f"missing; add `type:`, one of {', '.join(kinds)}"
    return f"wanted a mapping with a `type` ({', '.join(kinds)}), found {describe(value)}"


def _purpose(model: type[BaseModel] | None, name: str) -> str:
    if model is None:
        return ""
    for field_name, info in model.model_fields.items():
        if name in (field_name, info.alias) and (text := description_of(model, field_name)):
            return f" ({text.splitlines()[0].strip().rstrip('.')})"
    return ""


def _wanted(kind: str, context: Mapping[str, Any], walk: _Walk) -> str:
    simple = {
        "string_type": "text",
        "int_type": "a whole number",
        "int_parsing": "a whole number",
        "int_parsing_size": "a smaller whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "float_parsing": "a number",
        "finite_number": "a finite number",
        "bool_type": "true or false",
        "bool_parsing": "true or false",
        "list_type": "a list",
        "dict_type": "a mapping",
        "model_type": "a mapping",
        "model_attributes_type": "a mapping",
        "none_required": "nothing",
    }
    if kind in simple:
        wish = simple[kind]
        if kind.startswith("model") and walk.branches:
            fields = list(_fields(next(iter(walk.branches.values()))))
            wish += f" with fields such as {', '.join(fields[:4])}"
        return wish
    bounds = {"greater_than_equal": ("ge", "at least"), "greater_than": ("gt", "more than"),
              "less_than_equal": ("le", "at most"), "less_than": ("lt", "less than")}  # fmt: skip
    if kind in bounds:
        key, words = bounds[kind]
        return f"{words} {context.get(key, 0):g}"
    if kind == "string_too_short":
        return f"at least {_count(context.get('min_length'), 'character')}"
    if kind == "string_too_long":
        return f"at most {_count(context.get('max_length'), 'character')}"
    if kind == "too_short":
        return f"at least {_count(context.get('min_length'), 'item')}"
    if kind == "too_long":
        return f"at most {_count(context.get('max_length'), 'item')}"
    if kind in ("literal_error", "enum"):
        expected = str(context.get("expected", "")).replace("'", "")
        close = near_names(walk.value, _literals(walk)) if isinstance(walk.value, str) else []
        return expected + (f' (did you mean "{close[0]}"?)' if close else "")
    if kind.startswith(("datetime", "date", "timezone")):
        return "a time such as 2026-01-31T08:00:00Z"
    return "something else"


def _literals(walk: _Walk) -> list[str]:
    """The texts that the field at fault may have."""
    if walk.model is None:
        return []
    annotations = {info.alias or name: info.annotation for name, info in walk.model.model_fields.items()}
    name = next((step for step in reversed(walk.path) if isinstance(step, str)), "")
    return list(_texts_of(annotations.get(name)))


def _texts_of(annotation: Any) -> Iterator[str]:
    for argument in typing.get_args(annotation):
        if isinstance(argument, str):
            yield argument
        else:
            yield from _texts_of(argument)


def _count(number: Any, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _quotes_hint(wish: _Wish) -> str:
    return "; put it in quotes" if wish.text_allowed and isinstance(wish.value, (bool, int, float)) else ""
