"""The Jinja sandbox of text templates: the names that they can use, and hooks that charge the budget for every operation.

`templates.text` uses it. Binary operators, calls, attribute access, filters, tests and output go through the
environment; loop bodies, macro bodies, comparisons, literals of lists and mappings, slices and `~` are rewritten
(`Rewriter`) so that they do as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, cast

from jinja2 import StrictUndefined, nodes, pass_context
from jinja2.exceptions import SecurityError, UndefinedError
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS as JINJA_TESTS
from jinja2.utils import Cycler, Joiner, Namespace, missing
from jinja2.visitor import NodeTransformer

from whenthen.schemas.errors import InvalidTemplate, near_names
from whenthen.templates import allowed_calls, bounded_text, guards
from whenthen.templates.budget import Budget
from whenthen.templates.own_filters import OWN_FILTERS
from whenthen.templates.scalar_text import scalar_text

__all__ = ["BudgetContext", "MissingValue", "Rewriter", "Sandbox", "keep_value"]

#: filters that only the rewriter can name: the space keeps them out of reach
SPEND, WALK, GLANCE, CONCAT, SEARCH = "budget spend", "budget walk", "budget glance", "budget concat", "budget search"
KEEP = "keep value"
#: syntax nodes executed for one step
NODES_PER_STEP = 10
#: what a call of a macro, method or loop costs besides its body
STEPS_PER_CALL = 8
Filter = Callable[..., Any]
_GLOBALS = ("range", "namespace", "cycler", "joiner")


class MissingValue(UndefinedError):
    """A template used a missing value. `name` is the last step of its path."""

    def __init__(self, message: str, name: str | None) -> None:
        super().__init__(message)
        self.name = name


class Missing(StrictUndefined):
    """A missing value: any use of it is an error that lists the existing keys."""

    __slots__ = ()

    def __init__(self, hint: Any = None, obj: Any = missing, name: Any = None, exc: Any = UndefinedError) -> None:
        wanted = None if name is None else str(name)
        kind: Any = exc if exc is SecurityError else partial(_missing, name=wanted)
        super().__init__(hint, obj, name, kind)
        if hint is None and obj is missing:
            self._undefined_hint = f"there is no variable {str(name)[:80]!r}"
        elif hint is None and isinstance(obj, Mapping):
            self._undefined_hint = f"no {str(name)[:80]!r}; {present(obj)}"
        elif hint is None and isinstance(obj, (list, tuple)):
            self._undefined_hint = f"no {str(name)[:80]!r} in a list of {len(obj)}"

    __repr__ = StrictUndefined.__str__


def _missing(message: str, *, name: str | None) -> MissingValue:
    return MissingValue(message, name)


def present(mapping: Mapping[Any, Any]) -> str:
    """The keys of a mapping, for a message; long keys and long lists are cut."""
    if not mapping:
        return "there are no keys"
    keys = [str(key)[:40] for _, key in zip(range(12), mapping, strict=False)]
    more = f" and {len(mapping) - 12} more" if len(mapping) > 12 else ""
    return f"there are {', '.join(keys)}{more}"


class BudgetContext(Context):
    """The context of one rendering, with its `budget`, and the value that `keep_value` asked for."""

    budget: Budget
    kept: Any = None


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja with strict missing values, no loader, a fixed list of filters, and a budget."""

    context_class = BudgetContext
    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "**", "%"))

    def __init__(self) -> None:
        super().__init__(
            undefined=Missing, autoescape=False, keep_trailing_newline=True, finalize=_finalize, cache_size=0
        )
        self.globals = {name: self.globals[name] for name in _GLOBALS}
        self.globals["dict"] = pass_context(_dict)
        # One table for all sandboxes: with tables of its own each would weigh sixty kilobytes.
        self.filters = cast(Any, _ALL_FILTERS)
        self.tests = cast(Any, _ALL_TESTS)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        return bounded_text.operate(_budget(context), operator, left, right, self.binop_table[operator])

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        budget = _budget(__context)
        budget.spend(STEPS_PER_CALL)
        if isinstance(__obj, partial) and __obj.func is _format_text:
            return budget.meter(_format_text(*__obj.args, budget, *args, **kwargs))
        guards.check_method(budget, __obj, args, kwargs)
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str) and __obj.__name__ == "join" and len(args) == 1 and not kwargs:
            return bounded_text.join_texts(budget, owner, args[0])
        return budget.meter(super().call(__context, __obj, *args, **kwargs))

    def getattr(self, obj: Any, attribute: str) -> Any:
        # A key of the data wins over a method: `event.payload.items` is the payload's own `items`.
        if isinstance(obj, Mapping):
            try:
                return obj[attribute]
            except KeyError:
                pass
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if attr.startswith("_"):
            return False
        if isinstance(obj, str):
            return attr in allowed_calls.STRING_METHODS
        if isinstance(obj, Mapping):
            return attr in allowed_calls.MAPPING_METHODS
        if isinstance(obj, tuple) and attr in getattr(obj, "_fields", ()):
            return True
        if isinstance(obj, (list, tuple)):
            return attr in allowed_calls.LIST_METHODS
        return isinstance(obj, (*bounded_text.TIME_TYPES, LoopContext, Namespace, Cycler, Joiner, Macro))

    def wrap_str_format(self, value: Any) -> Any:
        owner = getattr(value, "__self__", None)
        if not isinstance(owner, str) or getattr(value, "__name__", "") != "format":
            return None
        return partial(_format_text, self, owner)


def _budget(context: Context) -> Budget:
    return context.budget  # type: ignore[attr-defined, no-any-return]


def _format_text(environment: Sandbox, text: str, budget: Budget, /, *args: Any, **kwargs: Any) -> str:
    return bounded_text.BoundedFormatter(environment, budget).vformat(text, args, kwargs)


@pass_context
def _finalize(context: Context, value: Any) -> Any:
    """Convert a value that is written to an output, at any depth, and charge text."""
    if not isinstance(value, str):
        return scalar_text(value)
    _budget(context).write(value)
    return value


def _dict(context: Context, *args: Any, **kwargs: Any) -> dict[Any, Any]:
    result = dict(*args, **kwargs)
    _budget(context).walk(result)
    return result


@pass_context
def _spend(context: Context, steps: int) -> bool:
    # `map` takes a filter's name as text and so reaches this one: a template must not earn steps.
    _budget(context).spend(max(steps, 1))
    return True


@pass_context
def _walk(context: Context, value: Any) -> Any:
    if not isinstance(value, (int, float, Missing)):
        _budget(context).walk(value)
    return value


@pass_context
def _search(context: Context, value: Any) -> Any:
    """Charge an operand of `in`: a text is searched or searched for."""
    if isinstance(value, str):
        _budget(context).search(len(value), 0)
    elif not isinstance(value, (int, float, Missing)):
        _budget(context).walk(value)
    return value


@pass_context
def _glance(context: Context, value: Any) -> Any:
    _budget(context).glance(value)
    return value


@pass_context
def _concat(context: Context, parts: list[Any]) -> str:
    budget = _budget(context)
    texts = []
    for part in parts:
        texts.append(scalar_text(part))
    budget.room(sum(map(len, texts)))
    return "".join(texts)


@pass_context
def _keep(context: Context, value: Any) -> str:
    """Hand a value to whoever renders, beside the text."""
    context.kept = value  # type: ignore[attr-defined]
    return ""


def _function(name: str) -> Filter:
    return OWN_FILTERS.get(name) or cast("Filter", JINJA_FILTERS[name])


def _metered(name: str, function: Filter) -> Filter:
    """A filter or test whose arguments and result are charged."""
    own = OWN_FILTERS.get(name)
    wanted = "context" if own else getattr(getattr(function, "jinja_pass_arg", None), "name", None)
    function = own or function
    guard = guards.GUARDS.get(name)
    constant, deep = name in allowed_calls.CONSTANT, name in allowed_calls.DEEP
    written = allowed_calls.WRITTEN.get(name, 0)
    nests = name in ("batch", "slice", "groupby")

    @pass_context
    def metered(context: Context, *args: Any, **kwargs: Any) -> Any:
        budget = _budget(context)
        budget.spend(1)
        if deep:  # what an iterator gives is charged deeply, too
            args = tuple(budget.meter(arg, deep=True) if isinstance(arg, Iterator) else arg for arg in args)
        for value in () if constant else (*args, *kwargs.values()):
            if deep and not isinstance(value, Missing):
                budget.walk(value)
            else:
                budget.glance(value)
        if written and args:
            args = (*map(scalar_text, args[:written]), *args[written:])
        if guard is not None:
            guard(budget, *args, **kwargs)
        match wanted:
            case "context":
                result = function(context, *args, **kwargs)
            case "eval_context":
                result = function(context.eval_ctx, *args, **kwargs)
            case "environment":
                result = function(context.environment, *args, **kwargs)
            case _:
                result = function(*args, **kwargs)
        return result if constant else bounded_text.check_number(budget.meter(result, deep=nests))

    return metered


_ALL_FILTERS: dict[str, Filter] = {
    **{name: _metered(name, _function(name)) for name in sorted(allowed_calls.FILTERS)},
    KEEP: _keep,
    SPEND: _spend,
    WALK: _walk,
    GLANCE: _glance,
    CONCAT: _concat,
    SEARCH: _search,
}
_ALL_TESTS: dict[str, Filter] = {name: _metered(name, cast("Filter", test)) for name, test in JINJA_TESTS.items()}


class Rewriter(NodeTransformer):
    """Adds budget charges to a parsed template, and refuses statements that need other templates."""

    def __init__(self, environment: Sandbox) -> None:
        self._environment = environment
        self._repeated = 0

    def rewrite(self, template: nodes.Template) -> nodes.Template:
        """The template with the charges added.

        Raises:
            InvalidTemplate: it uses another template, or a filter or test that does not exist.
        """
        result: nodes.Template = self.visit(template)
        result.set_environment(self._environment)
        return result

    def visit_For(self, node: nodes.For) -> nodes.Node:
        node = self._visit_body(node)
        if node.test is not None:
            node.test = nodes.And(self._charge(1, node.lineno), node.test, lineno=node.lineno)
        return node

    def visit_Macro(self, node: nodes.Macro) -> Any:
        return self._visit_body(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> Any:
        return self._visit_body(node)

    def _visit_body(self, node: Any) -> Any:
        weight = 1 + sum(1 for _ in node.find_all(nodes.Node)) // NODES_PER_STEP
        self._repeated += 1
        self.generic_visit(node)
        self._repeated -= 1
        node.body.insert(0, nodes.ExprStmt(self._charge(weight, node.lineno), lineno=node.lineno))
        return node

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:
        # Plain text counts once; inside a body it goes the way of an expression, so that each copy is counted.
        return nodes.Const(node.data, lineno=node.lineno) if self._repeated else node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return _filter(CONCAT, parts, node.lineno)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        searches = any(operand.op in ("in", "notin") for operand in node.ops)
        holders: list[Any] = [node, *node.ops]
        for holder in holders:
            if not isinstance(holder.expr, nodes.Const):
                holder.expr = _filter(SEARCH if searches else WALK, holder.expr, node.lineno)
        return node

    def visit_Const(self, node: nodes.Const) -> nodes.Node:
        # Before Jinja folds constant expressions.
        if isinstance(node.value, int) and node.value.bit_length() > bounded_text.MAX_BITS:
            raise InvalidTemplate(
                f"line {node.lineno}: a number of {node.value.bit_length()} bits; at most {bounded_text.MAX_BITS} are allowed"
            )
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:
        return self._literal(node, node.items)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        return self._literal(node, node.items) if node.ctx == "load" else node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        return self._literal(node, [pair.value for pair in node.items])

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _filter(GLANCE, node.node, node.lineno)
        return node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:
        self._check_name("filter", node.name, self._environment.filters, node.lineno)
        self.generic_visit(node)
        return node

    def visit_Test(self, node: nodes.Test) -> nodes.Node:
        self._check_name("test", node.name, self._environment.tests, node.lineno)
        self.generic_visit(node)
        return node

    def _refuse(self, node: nodes.Node) -> nodes.Node:
        raise InvalidTemplate(
            f"line {node.lineno}: a template here stands alone; extends, include, import and block are not supported"
        )

    visit_Extends = visit_Include = visit_Import = visit_FromImport = visit_Block = _refuse

    def _charge(self, steps: int, lineno: int) -> nodes.Expr:
        return _filter(SPEND, nodes.Const(steps, lineno=lineno), lineno)

    def _literal(self, node: Any, items: list[nodes.Expr]) -> nodes.Node:
        constant = all(isinstance(item, nodes.Const) for item in items)
        self.generic_visit(node)
        return node if constant else _filter(WALK, node, node.lineno)

    def _check_name(self, kind: str, name: str, known: Mapping[str, Any], lineno: int) -> None:
        if name not in known:
            names = [item for item in known if item.isidentifier()]
            near = near_names(name, names)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(names))}"
            raise InvalidTemplate(f"line {lineno}: no {kind} named {name!r}; {hint}")


def keep_value(environment: Sandbox, template: nodes.Template) -> bool:
    """Make a template that is one `{{ ... | from_json }}` and white space keep its value in the context; whether it is one."""
    found: list[nodes.Node] = []
    for output in template.body:
        if not isinstance(output, nodes.Output):
            return False
        found += [node for node in output.nodes if not (isinstance(node, nodes.TemplateData) and not node.data.strip())]
    if len(found) != 1 or not isinstance(found[0], nodes.Filter) or found[0].name != "from_json":
        return False
    value = found[0]
    template.body = [nodes.Output([_filter(KEEP, value, value.lineno)], lineno=value.lineno)]
    template.set_environment(environment)
    return True


def _filter(name: str, node: nodes.Expr, lineno: int) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=lineno)
