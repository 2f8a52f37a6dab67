"""A JSON-like value with templates in it, compiled once when rules are loaded and rendered for each event.

Called by `actions` for parameters and bodies and by `sources` for mappings. How a string is read:

- `$`, `$.name...` and `$[...]` are JSONPath over the root; the value's type is kept.
- `$$`, `$$.name` and `$$[...]` are the text without the first `$`.
- With `{{`, `{%` or `{#` it is a text template over the context. A single `{{ ... | from_json }}` gives the value with its type.
- Everything else, and every key of a mapping, is itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from whenthen.schemas.errors import (
    FieldPath,
    InvalidTemplate,
    RenderError,
    near_names,
)
from whenthen.templates.budget import Budget
from whenthen.templates.environment import Sandbox
from whenthen.templates.paths import Path, compile_path
from whenthen.templates.text import Text, compile_text

__all__ = ["MAX_DEPTH", "MAX_NODES", "Value", "compile_value"]

#: levels of nesting of a value
MAX_DEPTH = 64
#: items of a value at all levels
MAX_NODES = 10_000
#: steps of the path of a value that is nested too deep that its error shows
MAX_SHOWN = 20

_PATH = re.compile(r"\$(?:[.\[]|$)")
_ESCAPED = re.compile(r"\$\$+(?:[.\[]|$)")
_TEXT = re.compile(r"\{\{|\{%|\{#")
_CONTEXT: Final = object()  # "no root given": the context is the root

Render = Callable[[Mapping[str, Any], Any, Budget], Any]


class Value:
    """A compiled value. `render` makes new lists and mappings where templates are; constant parts are shared."""

    __slots__ = ("_constant", "_render", "names_used", "reads_root", "steps_used")

    def __init__(
        self,
        constant: Any,
        render: Render | None,
        names_used: frozenset[str],
        steps_used: frozenset[str | int],
        *,
        reads_root: bool,
    ) -> None:
        self._constant = constant
        self._render = render  # None when nothing in it depends on the context
        self.names_used = names_used  #: top-level variables of the context that its text templates read
        self.steps_used = steps_used  #: first steps of its paths
        self.reads_root = reads_root  #: a path has no first step that is a name (`$`, `$..id`, `$.*`): it may reach all

    def render(self, context: Mapping[str, Any], root: Any = _CONTEXT) -> Any:
        """The value for `context`. Paths start at `root`, by default the context itself.

        Raises:
            RenderError: something is missing or too large; `path` leads to the part, such as `("parameters", "path")`.
        """
        if self._render is None:
            return self._constant
        return self._render(context, context if root is _CONTEXT else root, Budget())

    def reads(self, name: str) -> bool:
        """Whether rendering may look at the variable `name`. When this is false, `name` need not be there."""
        return self.reads_root or name in self.names_used or name in self.steps_used


def compile_value(
    spec: Any,
    *,
    known: Iterable[str] | None = None,
    known_steps: Iterable[str] | None = None,
    path: FieldPath = (),
) -> Value:
    """Compile a value. `known` are the variables that text templates may read, `known_steps` the names that the first
    step of a path may have; None allows any. `path` leads to the value; the paths of errors start with it.

    Raises:
        InvalidTemplate: a template or path in it is wrong, or it is too large; `path` leads to the part.
    """
    compiler = _Compiler(
        None if known is None else frozenset(known), None if known_steps is None else frozenset(known_steps)
    )
    constant, render = compiler.compile(spec, path, 0)
    return Value(
        constant,
        render,
        frozenset(compiler.names),
        frozenset(compiler.steps),
        reads_root=compiler.reads_root,
    )


class _Compiler:
    def __init__(self, known: frozenset[str] | None, known_steps: frozenset[str] | None) -> None:
        self.names: set[str] = set()
        self.steps: set[str | int] = set()
        self.reads_root = False
        self._known = known
        self._known_steps = known_steps
        self._nodes = 0
        self._sandbox: Sandbox | None = None  # one for all texts of the value

    def compile(self, spec: Any, path: FieldPath, depth: int) -> tuple[Any, Render | None]:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise InvalidTemplate(f"more than {MAX_NODES} items; send large data by reference", path=path)
        if depth > MAX_DEPTH:
            raise InvalidTemplate(f"nested deeper than {MAX_DEPTH} levels", path=path[:MAX_SHOWN])
        if isinstance(spec, str):
            return self._compile_string(spec, path)
        if isinstance(spec, Mapping):
            keys = list(spec)
            parts = [self.compile(spec[key], (*path, str(key)), depth + 1) for key in keys]
            if all(render is None for _, render in parts):
                return dict(zip(keys, (constant for constant, _ in parts), strict=True)), None
            return None, _mapping_of(keys, parts)
        if isinstance(spec, (list, tuple)):
            parts = [self.compile(item, (*path, index), depth + 1) for index, item in enumerate(spec)]
            if all(render is None for _, render in parts):
                return [constant for constant, _ in parts], None
            return None, _list_of(parts)
        return spec, None

    def _compile_string(self, spec: str, path: FieldPath) -> tuple[Any, Render | None]:
        try:
            if _PATH.match(spec):
                found = compile_path(spec)
                self._check_first_step(found)
                self.steps.update(found.steps[:1])
                self.reads_root |= found.reads_root
                return None, _path_of(found, path)
            if _ESCAPED.match(spec):
                spec = spec[1:]
                if not _TEXT.search(spec):
                    return spec, None
            if _TEXT.search(spec):
                if self._sandbox is None:
                    self._sandbox = Sandbox()
                text = compile_text(spec, known=self._known, sandbox=self._sandbox, as_value=True)
                self.names |= text.names_used
                return None, _text_of(text, path)
        except InvalidTemplate as error:
            raise error.below(*path) from None
        return spec, None

    def _check_first_step(self, path: Path) -> None:
        if self._known_steps is None or not path.steps or path.steps[0] in self._known_steps:
            return
        near = near_names(str(path.steps[0]), self._known_steps)
        hint = f"did you mean $.{near[0]}?" if near else f"there are {', '.join(sorted(self._known_steps))}"
        raise InvalidTemplate(f"column 2: {path.text!r} starts with an unknown name; {hint}")


def _path_of(found: Path, path: FieldPath) -> Render:
    def render(context: Mapping[str, Any], root: Any, budget: Budget) -> Any:
        try:
            return found.one(root, budget)
        except RenderError as error:
            raise error.below(*path) from None

    return render


def _text_of(text: Text, path: FieldPath) -> Render:
    def render(context: Mapping[str, Any], root: Any, budget: Budget) -> Any:
        try:
            return text.value(context, budget)
        except RenderError as error:
            raise error.below(*path) from None

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
