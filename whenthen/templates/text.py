"""Text templates: Jinja in a sandbox, where a missing value is an error and a render has a budget.

Called by `templates.values` and where a field is text only. Meaning: docs/templates.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import CodeType, TracebackType
from typing import Any

from jinja2 import Template, meta, nodes
from jinja2.exceptions import TemplateError, TemplateSyntaxError

from whenthen.schemas.errors import InvalidTemplate, RenderError, near_names
from whenthen.templates.budget import MAX_CHARS, Budget, too_long
from whenthen.templates.environment import BudgetContext, MissingValue, Rewriter, Sandbox, keep_value
from whenthen.templates.lookups import Piece, join_pieces, pieces_of, steps_of
from whenthen.templates.scalar_text import NoText, kind_of_value

__all__ = ["MAX_SOURCE", "Text", "compile_text", "lookups_of"]

#: characters of a template
MAX_SOURCE = 200_000
#: steps of a look-up up to which Jinja certainly compiles it, so that this can wait
MAX_LATE_STEPS = 20
_FILE = "<whenthen text>"
_NOWHERE = object()


class Text:
    """A compiled text template. Rendering is pure: the same context gives the same text.

    Most templates are literals and look-ups, which `lookups.join_pieces` renders. Jinja's code for those is made when a
    render first needs it, such as to say what is missing: it is most of the time that compiling an action takes.
    """

    __slots__ = ("_template", "keeps_value", "names_used", "pieces", "text")

    def __init__(
        self,
        text: str,
        template: Template | None,
        names_used: frozenset[str],
        pieces: tuple[Piece, ...] | None = None,
        *,
        keeps_value: bool = False,
    ) -> None:
        self.text = text
        self.names_used = names_used  #: top-level variables that it reads
        self._template = template  #: None only beside `pieces`, until it is needed
        self.pieces = pieces  #: of a template of literals and look-ups only
        self.keeps_value = keeps_value  #: it is one `{{ ... | from_json }}`, compiled for `value`

    def render(self, context: Mapping[str, Any], *, budget: Budget | None = None) -> str:
        """The text for `context`. `budget` is given where several templates share one.

        Raises:
            RenderError: a value is missing, an expression failed, or the budget is spent; with the line.
        """
        budget = budget or Budget()
        if self.pieces is not None and (found := join_pieces(self.pieces, context, budget)) is not None:
            return found
        text, _ = self._render(context, budget)
        if len(text) > MAX_CHARS:
            raise too_long(len(text))
        if not text.isascii():
            _check_unicode(text)
        return text

    def value(self, context: Mapping[str, Any], budget: Budget) -> Any:
        """What a template that `keeps_value` gives: JSON's value with its type. Of any other its text. Raises as `render` does."""
        return self._render(context, budget)[1] if self.keeps_value else self.render(context, budget=budget)

    def _render(self, context: Mapping[str, Any], budget: Budget) -> tuple[str, Any]:
        template = self._template
        if template is None:
            environment = Sandbox()
            template = self._template = _generate(environment, _parse(environment, self.text))
        inner = template.new_context(dict(context))
        assert isinstance(inner, BudgetContext)
        inner.budget = budget
        try:
            return "".join(template.root_render_func(inner)), inner.kept
        except MissingValue as error:
            line = self._line(error.__traceback__)
            raise RenderError(f"line {line}: {self._expression(error.name, line)}{error.message}") from None
        except NoText as error:
            line = self._line(error.__traceback__)
            raise RenderError(f"line {line}: {self._without_text(error.kind, line, context)}{error}") from None
        except RenderError as error:
            raise RenderError(f"line {self._line(error.__traceback__)}: {error}") from None
        except RecursionError:
            raise RenderError("the template calls itself too deep") from None
        except MemoryError:
            raise RenderError("the template needs more memory than there is") from None
        except TemplateError as error:
            raise RenderError(f"line {self._line(error.__traceback__)}: {error.message}") from None
        except Exception as error:
            # Whatever a filter or operator raises for values that it can not handle.
            where = self._line(error.__traceback__)
            raise RenderError(f"line {where}: {type(error).__name__}: {str(error)[:300]}") from error

    def _line(self, traceback: TracebackType | None) -> int:
        line = 1
        while traceback is not None:
            if traceback.tb_frame.f_code.co_filename == _FILE:
                assert self._template is not None  # it is what raised
                line = self._template.get_corresponding_lineno(traceback.tb_lineno)
            traceback = traceback.tb_next
        return line

    def _expression(self, name: str | None, line: int) -> str:
        """The whole expression that ends in the missing name: `event.payload.order: `."""
        tree = Sandbox().parse(self.text)
        found = {
            text
            for node in tree.find_all((nodes.Getattr, nodes.Getitem, nodes.Name))
            if node.lineno == line and _last_step(node) == name and (text := _spell(node))
        }
        return f"{found.pop()}: " if len(found) == 1 else ""

    def _without_text(self, kind: str, line: int, context: Mapping[str, Any]) -> str:
        """The look-ups of the line that find a value of this kind, or else the only one that the context does not
        resolve (`item.name` in a loop): `event.payload.order: `."""
        here: list[str] = []
        elsewhere: list[str] = []
        for node in Sandbox().parse(self.text).find_all((nodes.Getattr, nodes.Getitem, nodes.Name)):
            steps = steps_of(node) if node.lineno == line else None
            if steps is None or (spelled := _spell(node)) is None:
                continue
            value: Any = context
            for step in steps:
                value = value[step] if isinstance(value, Mapping) and step in value else _NOWHERE
            if value is _NOWHERE:
                elsewhere.append(spelled)
            elif kind_of_value(value) == kind:
                here.append(spelled)
        named = _longest(here)
        if not named and len(named := _longest(elsewhere)) > 1:
            return ""
        return f"{' or '.join(named[:3])}: " if named else ""


def compile_text(
    text: str, *, known: Iterable[str] | None = None, sandbox: Sandbox | None = None, as_value: bool = False
) -> Text:
    """Compile a Jinja template. With `known`, a top-level variable outside of it is refused. `as_value` compiles one that is a
    single `{{ ... | from_json }}` for `Text.value`, so that the type is kept.

    Raises:
        InvalidTemplate: it does not parse, or uses a filter, test or variable that does not exist; with the line.
    """
    if len(text) > MAX_SOURCE:
        raise InvalidTemplate(f"a template of {len(text)} characters; at most {MAX_SOURCE} are allowed")
    environment = sandbox or Sandbox()
    try:
        tree = _parse(environment, text)
        names = frozenset(meta.find_undeclared_variables(tree))
        if known is not None:
            _check_names(tree, names, frozenset(known))
        keeps_value = as_value and keep_value(environment, tree)
        pieces = pieces_of(tree, environment.globals)
        template = None if pieces is not None and _are_short(pieces) else _generate(environment, tree)
    except TemplateSyntaxError as error:
        raise InvalidTemplate(f"line {error.lineno}: {error.message}") from None
    except (RecursionError, MemoryError, SyntaxError):
        raise InvalidTemplate("the template is nested too deep; simplify it") from None
    return Text(text, template, names, pieces, keeps_value=keeps_value)


def lookups_of(text: str) -> Iterator[tuple[str, ...]]:
    """Each look-up in a variable of the context, as `("event", "payload", "order")` of `event.payload.order`. Nothing of a
    text that is no template."""
    try:
        tree = Sandbox().parse(text)
        given = meta.find_undeclared_variables(tree)
    except (TemplateSyntaxError, RecursionError):
        return
    waiting: list[nodes.Node] = [tree]
    while waiting:
        node = waiting.pop()
        steps = steps_of(node) if isinstance(node, (nodes.Getattr, nodes.Getitem, nodes.Name)) else None
        if steps is None:
            waiting.extend(node.iter_child_nodes())
        elif steps[0] in given:
            yield steps


def _parse(environment: Sandbox, text: str) -> nodes.Template:
    return Rewriter(environment).rewrite(environment.parse(text))


def _generate(environment: Sandbox, tree: nodes.Template) -> Template:
    code: CodeType = environment.compile(tree, name=None, filename=_FILE)
    return Template.from_code(environment, code, environment.globals)


def _are_short(pieces: tuple[Piece, ...]) -> bool:
    """Whether no look-up is nested so deep that Jinja may be unable to compile it."""
    return all(isinstance(piece, str) or len(piece) <= MAX_LATE_STEPS for piece in pieces)


def _check_names(tree: nodes.Template, used: frozenset[str], known: frozenset[str]) -> None:
    for name in sorted(used - known):
        line = next((node.lineno for node in tree.find_all(nodes.Name) if node.name == name), 1)
        near = near_names(name, known)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"
        raise InvalidTemplate(f"line {line}: unknown variable {name!r}; {hint}")


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RenderError(f"character {error.start + 1} of the text is half of a surrogate pair") from None


def _longest(spelled: list[str]) -> list[str]:
    """The look-ups that are no part of another one."""
    return [
        text
        for text in dict.fromkeys(spelled)
        if not any(other.startswith((f"{text}.", f"{text}[")) for other in spelled)
    ]


def _last_step(node: nodes.Node) -> str | None:
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Getattr):
        return node.attr
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        return str(node.arg.value)
    return None


def _spell(node: nodes.Node) -> str | None:
    steps: list[str] = []
    while not isinstance(node, nodes.Name):
        if isinstance(node, nodes.Getattr):
            steps.append(f".{node.attr}")
        elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
            steps.append(f"[{node.arg.value!r}]")
        else:
            return None
        node = node.node
    return node.name + "".join(reversed(steps))
