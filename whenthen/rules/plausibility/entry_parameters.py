"""The parameters of a function of a Python file, their types and defaults, as its syntax says. Nothing is imported.

Types that are built in, of the standard library, or an enumeration of the same file are known; any other admits every value. Of flows and plain
functions the values are converted as `flows.definitions.parameters` converts them when it is called. Called by `deployment_warnings` and
`Rules.entry_schema`.
"""

from __future__ import annotations

import ast
import datetime
import decimal
import enum
import pathlib
import types
import typing
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pydantic

from whenthen.python_syntax import parse_expression, parse_module
from whenthen.schemas.entry_points import EntryPoint

__all__ = ["MAX_FILE", "EntryParameters", "entry_file", "entry_parameters", "read_syntax"]

MAX_FILE: Final = 4 << 20  #: bytes of a file whose functions are looked for
_MOST_DEEP: Final = 20  #: levels of an annotation

_PLAIN: Final[dict[str, Any]] = {
    **{kind.__name__: kind for kind in (int, float, str, bool, bytes, list, dict, set, tuple, frozenset)},
    **{kind.__name__: kind for kind in (datetime.datetime, datetime.date, datetime.time, datetime.timedelta)},
    **{kind.__name__: kind for kind in (uuid.UUID, decimal.Decimal, pathlib.Path)},
    "List": list,
    "Dict": dict,
    "Set": set,
    "Tuple": tuple,
    "None": None,
}
_LISTS: Final = {"list", "List", "Sequence", "Iterable", "Collection"}
_SETS: Final = {"set": set, "Set": set, "frozenset": frozenset, "FrozenSet": frozenset}
_MAPPINGS: Final = {"dict", "Dict", "Mapping", "MutableMapping"}
_ENUMS: Final = {"Enum": enum.Enum, "StrEnum": enum.StrEnum, "IntEnum": enum.IntEnum}


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryParameters:
    """What a function takes."""

    required: frozenset[str]
    known: frozenset[str] | None  #: None when it takes any
    converts: (
        bool  #: values are converted to their types when it is called, as those of flows and of plain functions are
    )
    model: type[pydantic.BaseModel] = field(repr=False)  #: fields by alias; every one has a default

    def schema(self) -> dict[str, Any]:
        """JSON Schema of an object of parameters."""
        found = self.model.model_json_schema(by_alias=True)
        for name, one in found.get("properties", {}).items():
            if name in self.required:
                one.pop("default", None)
            one.pop("title", None)
        properties = found.get("properties", {})
        schema: dict[str, Any] = {"type": "object", "properties": properties}
        if self.required:
            schema["required"] = [name for name in properties if name in self.required]
        schema["additionalProperties"] = self.known is None
        return {**schema, **({"$defs": found["$defs"]} if "$defs" in found else {})}

    def misfits(self, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Each parameter whose value can not be converted to its type, and why; those that are not known are passed over."""
        if not self.converts:
            return
        try:
            self.model.model_validate(dict(values))
        except pydantic.ValidationError as problem:
            for error in problem.errors(include_url=False):
                name = str(error["loc"][0])
                where = "".join(f"[{step!r}]" for step in error["loc"][1:])
                yield name, f"{name}{where}: {error['msg']}; found {error['input']!r:.100}"


def entry_file(point: EntryPoint, *folders: pathlib.Path) -> pathlib.Path | None:
    """Where the function of an entry point is written: a file from the first folder on, whether it is there or not, or a module of one of
    them; None for a module that none of them has."""
    if point.file is not None:
        return folders[0] / point.file
    steps = point.where.split(".")
    for folder in folders:
        for file in (folder.joinpath(*steps[:-1], f"{steps[-1]}.py"), folder.joinpath(*steps, "__init__.py")):
            if file.is_file():
                return file
    return None


def read_syntax(file: pathlib.Path) -> ast.Module | str:
    """The syntax of a Python file, or what is wrong with it."""
    try:
        if not file.is_file():
            return "there is no such file beside the rules; a path is relative to the rules folder"
        if file.stat().st_size > MAX_FILE:
            return f"the file has more than {MAX_FILE} bytes"
        return parse_module(file.read_bytes())
    except OSError as error:
        return f"the file can not be read: {error.strerror or error}"
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        return f"this is no Python{line}: {getattr(error, 'msg', error)}"


def entry_parameters(tree: ast.Module, name: str) -> EntryParameters | None:
    """What the function of that name takes; None when there is none, or when a decorator that is not known may change it."""
    function = next(
        (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name),
        None,
    )
    if function is None:
        return None
    converts = not function.decorator_list
    for decorator in function.decorator_list:
        call = decorator.func if isinstance(decorator, ast.Call) else decorator
        if _last_name(call) not in ("flow", "task"):
            return None
        converts = converts or _last_name(call) == "flow"
        if isinstance(decorator, ast.Call) and any(
            word.arg == "validate_parameters" and isinstance(word.value, ast.Constant) and word.value.value is False
            for word in decorator.keywords
        ):
            converts = False
    given = function.args
    named = [*given.posonlyargs, *given.args]
    defaults: dict[str, ast.expr] = dict(
        zip([one.arg for one in named[len(named) - len(given.defaults) :]], given.defaults, strict=True)
    )
    defaults |= {
        one.arg: default
        for one, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
        if default is not None
    }
    every = [*named, *given.kwonlyargs]
    enums = _enums(tree)
    fields: dict[str, Any] = {}
    for at, one in enumerate(every):
        kind = Any if one.annotation is None else _type_of(one.annotation, enums)
        fields[f"p{at}"] = (kind, pydantic.Field(default=_value_of(defaults.get(one.arg)), alias=one.arg))
    config = pydantic.ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())
    return EntryParameters(
        required=frozenset(one.arg for one in every if one.arg not in defaults),
        known=None if given.kwarg is not None else frozenset(one.arg for one in every),
        converts=converts,
        model=pydantic.create_model(name, __config__=config, **fields),
    )


def _type_of(node: ast.expr, enums: Mapping[str, type[enum.Enum]], depth: int = 0) -> Any:
    """The type that an annotation names, or `Any`."""
    if depth > _MOST_DEEP:
        return Any
    if isinstance(node, ast.Constant):
        if node.value is None:
            return None
        if not isinstance(node.value, str):
            return Any
        try:
            return _type_of(parse_expression(node.value), enums, depth + 1)
        except (SyntaxError, ValueError, RecursionError):
            return Any
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union([_type_of(side, enums, depth + 1) for side in (node.left, node.right)])
    if isinstance(node, ast.Subscript):
        return _generic(node, enums, depth)
    word = _last_name(node)
    if word in enums:
        return enums[word]
    return _PLAIN.get(word, Any)


def _generic(node: ast.Subscript, enums: Mapping[str, type[enum.Enum]], depth: int) -> Any:
    word = _last_name(node.value)
    parts = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
    if word == "Literal":
        values = [part.value for part in parts if isinstance(part, ast.Constant)]
        return typing.Literal[tuple(values)] if len(values) == len(parts) else Any
    inner = [_type_of(part, enums, depth + 1) for part in parts if not _is_ellipsis(part)]
    if not inner:
        return Any
    if word == "Optional":
        return _union([inner[0], None])
    if word == "Union":
        return _union(inner)
    if word == "Annotated":
        return inner[0]
    if word in _LISTS:
        return types.GenericAlias(list, (inner[0],))
    if word in _SETS:
        return types.GenericAlias(_SETS[word], (inner[0],))
    if word in _MAPPINGS and len(inner) == 2:
        return types.GenericAlias(dict, tuple(inner))
    if word in ("tuple", "Tuple"):
        return types.GenericAlias(tuple, (inner[0], ...) if len(inner) < len(parts) else tuple(inner))
    return Any


def _union(kinds: list[Any]) -> Any:
    return Any if Any in kinds else typing.Union[tuple(kinds)]


def _enums(tree: ast.Module) -> dict[str, type[enum.Enum]]:
    """The enumerations of a file whose values are written out."""
    found: dict[str, type[enum.Enum]] = {}
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        base = next((_ENUMS[name] for one in node.bases if (name := _last_name(one)) in _ENUMS), None)
        members = {
            target.id: statement.value.value
            for statement in node.body
            if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
            for target in statement.targets
            if isinstance(target, ast.Name)
        }
        whole = sum(isinstance(statement, ast.Assign) for statement in node.body) == len(members)
        if base is not None and members and whole:
            try:
                found[node.name] = base(node.name, members)
            except (TypeError, ValueError):
                continue
    return found


def _value_of(node: ast.expr | None) -> Any:
    """A default that is written out; None for another."""
    if node is None:
        return None
    try:
        value = ast.literal_eval(node)
        pydantic.TypeAdapter(Any).dump_json(value)
    except Exception:  # noqa: BLE001 - whatever is written there is shown where it can be, and left out where not
        return None
    return value


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is Ellipsis


def _last_name(node: ast.expr) -> str:
    """`datetime` of `dt.datetime`; empty for what is no name."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
