"""How the arguments of a call become parameters by name, and these arguments again; and how the types of a flow's parameters are
checked. Signatures and validators are made once a function, when they are first needed.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from whenthen.flows.flow_errors import ParameterBindError, ParameterTypeError, SignatureMismatchError

__all__ = ["Parameters"]

EMPTY = inspect.Parameter.empty


class Parameters:
    """The parameters of one function."""

    __slots__ = ("_local_types", "_model", "_simple", "defaults", "fn", "keywords", "names", "signature", "varargs")

    def __init__(self, fn: Callable[..., Any], *, local_types: Mapping[str, Any] | None = None) -> None:
        self.fn = fn
        self.signature = inspect.signature(fn)
        given = self.signature.parameters.values()
        self.names = tuple(self.signature.parameters)
        self.varargs = next((p.name for p in given if p.kind is p.VAR_POSITIONAL), None)
        self.keywords = next((p.name for p in given if p.kind is p.VAR_KEYWORD), None)
        self.defaults = {p.name: _default(p.default) for p in given if p.default is not EMPTY}
        #: every parameter can be given by position or by name, and its default is a value
        self._simple = all(p.kind is p.POSITIONAL_OR_KEYWORD for p in given)
        self._model: Any = None
        self._local_types = dict(local_types or {})

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, defaults: bool = True) -> dict[str, Any]:
        """The parameters of a call by name, with the defaults of those that were not given.

        Raises:
            ParameterBindError: the arguments do not fit the signature.
        """
        if self._simple and len(args) <= len(self.names):
            found = dict(zip(self.names, args, strict=False))
            if not kwargs and len(found) == len(self.names):
                return found
            if found.keys().isdisjoint(kwargs):
                found.update(kwargs)
                if len(found) == len(self.names) and found.keys() == self.signature.parameters.keys():
                    return {name: found[name] for name in self.names}
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as problem:
            raise ParameterBindError.of(self.fn, problem, args, kwargs) from None
        if defaults:
            bound.apply_defaults()
            for name, value in self.defaults.items():
                if bound.arguments[name] is self.signature.parameters[name].default:
                    bound.arguments[name] = value
        return dict(bound.arguments)

    def call_arguments(self, parameters: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments for the function.

        Raises:
            SignatureMismatchError: a parameter has a name that the function does not have.
        """
        if self._simple and len(parameters) == len(self.names):
            try:
                return [parameters[name] for name in self.names], {}
            except KeyError:
                pass
        self._refuse_unknown(parameters)
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        by_position = True
        for parameter in self.signature.parameters.values():
            if parameter.name not in parameters:
                by_position = False
                continue
            value = parameters[parameter.name]
            if parameter.kind is parameter.VAR_POSITIONAL:
                args.extend(value)
            elif parameter.kind is parameter.VAR_KEYWORD:
                kwargs.update(value)
            elif parameter.kind is parameter.KEYWORD_ONLY or (
                not by_position and parameter.kind is not parameter.POSITIONAL_ONLY
            ):
                kwargs[parameter.name] = value
            else:
                args.append(value)
        return args, kwargs

    def exploded(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """The parameters with those of `**kwargs` at the top level."""
        if self.keywords is None or self.keywords not in parameters:
            return parameters
        rest = {name: value for name, value in parameters.items() if name != self.keywords}
        return {**rest, **parameters[self.keywords]}

    def collapsed(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """The reverse of `exploded`."""
        if self.keywords is None:
            return parameters
        own = {name: value for name, value in parameters.items() if name in self.names}
        more = {name: value for name, value in parameters.items() if name not in self.names}
        return {**own, self.keywords: more} if more else own

    def validated(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """The parameters converted to their types.

        Raises:
            ParameterTypeError: one does not fit; the message has a line for each.
            SignatureMismatchError: a parameter has a name that the function does not have.
        """
        self._refuse_unknown(parameters)
        model = self._model
        if model is None:
            model = self._model = self._made_model()
        if model is NO_TYPES:
            return parameters
        import pydantic

        try:
            found = model.model_validate(parameters)
        except pydantic.ValidationError as problem:
            lines = [
                f" - {'.'.join(map(str, error['loc']))}: {error['msg']}; got {error.get('input')!r:.100}"
                for error in problem.errors()
            ]
            name = getattr(self.fn, "__name__", self.fn)
            raise ParameterTypeError.of(f"{name} received invalid parameters:", lines) from None
        return {name: getattr(found, f"p{at}") for at, name in enumerate(self.names) if name in parameters}

    def _refuse_unknown(self, parameters: Mapping[str, Any]) -> None:
        if unknown := sorted(set(parameters) - set(self.names)):
            raise SignatureMismatchError(
                f"{getattr(self.fn, '__name__', self.fn)}{self.signature} has no parameter {', '.join(map(repr, unknown))}"
            )

    def types(self) -> dict[str, Any]:
        """The annotation of each parameter that has one, with texts resolved.

        Raises:
            TypeError: an annotation names something that does not exist.
        """
        annotated = {p.name: p.annotation for p in self.signature.parameters.values() if p.annotation is not EMPTY}
        target = inspect.unwrap(self.fn)
        scope = getattr(target, "__globals__", {})
        try:
            closure = inspect.getclosurevars(target).nonlocals if inspect.isfunction(target) else {}
        except ValueError:
            closure = {}
        names = {**self._local_types, **closure}
        found = {}
        for name, annotation in annotated.items():
            try:
                found[name] = typing.get_type_hints(
                    _Annotated(name, annotation), globalns=scope, localns=names, include_extras=True
                )[name]
            except NameError as problem:
                raise TypeError(
                    f"{getattr(self.fn, '__name__', self.fn)}: the annotation {annotation!r} of parameter {name!r} can not be resolved: "
                    f"{problem}; import it at the top of the module, or use validate_parameters=False"
                ) from None
        return found

    def _made_model(self) -> Any:
        if all(p.annotation in (EMPTY, Any) for p in self.signature.parameters.values()):
            return NO_TYPES
        import pydantic
        import pydantic.errors
        import pydantic.fields

        types = self.types()
        fields: dict[str, Any] = {}
        for at, parameter in enumerate(self.signature.parameters.values()):
            kind = types.get(parameter.name, Any)
            if parameter.kind is parameter.VAR_POSITIONAL:
                kind = tuple.__class_getitem__((kind, ...))
            elif parameter.kind is parameter.VAR_KEYWORD:
                kind = dict.__class_getitem__((str, kind))
            if isinstance(parameter.default, pydantic.fields.FieldInfo):
                kind = typing.cast(Any, typing.Annotated)[kind, parameter.default]
            field = pydantic.Field(default=None, alias=parameter.name)
            fields[f"p{at}"] = (kind, field)
        config = pydantic.ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())
        name = getattr(self.fn, "__name__", "Parameters")
        try:
            return pydantic.create_model(str(name), __config__=config, **fields)
        except pydantic.errors.PydanticUserError as problem:
            raise TypeError(
                f"{name}{self.signature}: its parameters can not be validated: {problem.message}; use validate_parameters=False"
            ) from None


class _Annotated:
    """Something with one annotation, as `typing.get_type_hints` wants it."""

    def __init__(self, name: str, annotation: Any) -> None:
        self.__annotations__ = {name: annotation}


class _NoTypes:
    """Stands for the model of a function none of whose parameters has a type."""


NO_TYPES = _NoTypes()


def _default(value: Any) -> Any:
    """A default as it is passed; of pydantic's `Field(...)` that which it says."""
    if type(value).__module__ == "pydantic.fields" and type(value).__name__ == "FieldInfo":
        return value.get_default(call_default_factory=True)
    return value
