"""A JSON-like value with templates in it, compiled once when rules are loaded and rendered for each event.

Called by `actions` for parameters and bodies and by `sources` for mappings. How a string is read:

- `$`, `$.name...` and `$[...]` are JSONPath over the root; the value's type is kept.
- `$$`, `$$.name` and `$$[...]` are the text without the first `$`.
- With `{{`, `{%` or `{#` it is a text template over the context.
- Everything else, and every key of a mapping, is itself.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from whenthen.schemas import InvalidTemplate, RenderError
from whenthen.templates.budget import Budget
from whenthen.templates.environment import Sandbox
from whenthen.templates.paths import Path, compile_path
from whenthen.templates.text import Text, compile_text

__all__ = ["MAX_DEPTH", "MAX_NODES", "Value", "compile_value"]

#: levels of nesting of a value
MAX_DEPTH = 64
#: items of a value at all levels
MAX_NODES = 10_000

_PATH = re.compile(r"\$(?:[.\[]|$)")
_ESCAPED = re.compile(r"\$\$+(?:[.\[]|$)")
_TEXT = re.compile(r"\{\{|\{%|\{#")
_CONTEXT: Final = object()  # "no root given": the context is the root

Render = Callable[[Mapping[str, Any], Any, Budget], Any]


class Value:
    """A compiled value. `render` makes new lists and mappings where templates are; constant parts are shared."""

    __slots__ = ("_constant", "_render", "is_constant", "names_used", "steps_used")

    def __init__(
        self, constant: Any, render: Render | None, names_used: frozenset[str], steps_used: frozenset[str | int]
    ) -> None:
        self._constant = constant
        self._render = render
        self.is_constant = render is None  #: nothing in it depends on the context
        self.names_used = names_used  #: top-level variables of the context that its text templates read
        self.steps_used = steps_used  #: first steps of its paths

    def render(self, context: Mapping[str, Any], root: Any = _CONTEXT) -> Any:
        """The value for `context`. Paths start at `root`, by default the context itself.

        Raises:
            RenderError: something is missing or too large; starts with the field's path, `parameters.path: ...`.
        """
        if self._render is None:
            return self._constant
        return self._render(context, context if root is _CONTEXT else root, Budget())


def compile_value(
    spec: Any,
    *,
    known: Iterable[str] | None = None,
    known_steps: Iterable[str] | None = None,
    field: str = "",
) -> Value:
    """Compile a value. `known` are the variables that text templates may read, `known_steps` the names that the first
    step of a path may have; None allows any. `field` opens the paths in messages.

    Raises:
        InvalidTemplate: a template or path in it is wrong, or it is too large; starts with the field's path.
    """
    compiler = _Compiler(
        None if known is None else frozenset(known), None if known_steps is None else frozenset(known_steps)
    )
    constant, render = compiler.compile(spec, field, 0)
    return Value(constant, render, frozenset(compiler.names), frozenset(compiler.steps))


class _Compiler:
    def __init__(self, known: frozenset[str] | None, known_steps: frozenset[str] | None) -> None:
        self.names: set[str] = set()
        self.steps: set[str | int] = set()
        self._known = known
        self._known_steps = known_steps
        self._nodes = 0
        self._sandbox: Sandbox | None = None  # one for all texts of the value

    def compile(self, spec: Any, field: str, depth: int) -> tuple[Any, Render | None]:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise InvalidTemplate(f"{field}: more than {MAX_NODES} items; send large data by reference")
        if depth > MAX_DEPTH:
            raise InvalidTemplate(f"{field[:200]}: nested deeper than {MAX_DEPTH} levels")
        if isinstance(spec, str):
            return self._compile_string(spec, field)
        if isinstance(spec, Mapping):
            keys = list(spec)
            parts = [self.compile(spec[key], f"{field}.{key}" if field else str(key), depth + 1) for key in keys]
            if all(render is None for _, render in parts):
                return dict(zip(keys, (constant for constant, _ in parts), strict=True)), None
            return None, _mapping_of(keys, parts)
        if isinstance(spec, (list, tuple)):
            parts = [self.compile(item, f"{field}[{index}]", depth + 1) for index, item in enumerate(spec)]
            if all(render is None for _, render in parts):
                return [constant for constant, _ in parts], None
            return None, _list_of(parts)
        return spec, None

    def _compile_string(self, spec: str, field: str) -> tuple[Any, Render | None]:
        try:
            if _PATH.match(spec):
                path = compile_path(spec)
                self._check_first_step(path)
                self.steps.update(path.steps[:1])
                return None, _path_of(path, field)
            if _ESCAPED.match(spec):
                spec = spec[1:]
                if not _TEXT.search(spec):
                    return spec, None
            if _TEXT.search(spec):
                if self._sandbox is None:
                    self._sandbox = Sandbox()
                text = compile_text(spec, known=self._known, sandbox=self._sandbox)
                self.names |= text.names_used
                return None, _text_of(text, field)
        except InvalidTemplate as error:
            raise InvalidTemplate(f"{field}: {error}" if field else str(error)) from None
        return spec, None

    def _check_first_step(self, path: Path) -> None:
        if self._known_steps is None or not path.steps or path.steps[0] in self._known_steps:
            return
        near = difflib.get_close_matches(str(path.steps[0]), self._known_steps, n=1)
        hint = f"did you mean $.{near[0]}?" if near else f"there are {', '.join(sorted(self._known_steps))}"
        raise InvalidTemplate(f"column 2: {path.text!r} starts with an unknown name; {hint}")


def _path_of(path: Path, field: str) -> Render:
    def render(context: Mapping[str, Any], root: Any, budget: Budget) -> Any:
        try:
            return path.one(root)
        except RenderError as error:
            raise _at(field, error) from None

    return render


def _text_of(text: Text, field: str) -> Render:
    def render(context: Mapping[str, Any], root: Any, budget: Budget) -> Any:
        try:
            return text.render(context, budget=budget)
        except RenderError as error:
            raise _at(field, error) from None

    return render


def _mapping_of(keys: list[Any], parts: list[tuple[Any, Render | None]]) -> Render:
    fields = [(key, constant, render) for key, (constant, render) in zip(keys, parts, strict=True)]

    def render_mapping(context: Mapping[str, Any], root: Any, budget: Budget) -> Any:
        return {key: constant if render is None else render(context, root, budget) for key, constant, render in fields}

    return render_mapping


def _list_of(parts: list[tuple[Any, Render | None]]) -> Render:
    def render_list(context: Mapping[str, Any], root: Any, budget: Budget) -> Any:
        return [constant if render is None else render(context, root, budget) for constant, render in parts]

    return render_list


def _at(field: str, error: RenderError) -> RenderError:
    return RenderError(f"{field}: {error}" if field else str(error))
