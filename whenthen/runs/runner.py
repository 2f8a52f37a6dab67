"""Calls one function of a Python file or module with a run's parameters, in the run's own process.

    python whenthen/runs/runner.py FILE FUNCTION [IMPORTED]
    python whenthen/runs/runner.py MODULE FUNCTION [IMPORTED]

Parameters come from `WHENTHEN_PARAMETERS_FILE` or `WHENTHEN_PARAMETERS` (JSON) as keyword arguments. What the function
returns is written to `WHENTHEN_RESULT_FILE` when it is JSON, or else a note that says why it is not; an error ends the process with exit code 1, its traceback on
standard error and its last line in the result file. A flow is called through its engine, and its final state is written, too. The names of
the library modules that were imported go to the file IMPORTED, for interpreters that wait for further runs with them loaded.

Run by its path, in the interpreter of the deployment, which has the standard library at least.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["call", "is_file", "is_library", "load_function", "main"]

_OLDEST = (3, 11)  #: that this package runs in

_PACKAGE = str(Path(__file__).parent.parent) + os.sep
MAX_RESULT_BYTES = 64 * 1024  #: as JSON; the same as the worker's
MAX_RESULT_DEPTH = 100  #: the worker checks it; Python's own limit is higher
MAX_IMPORTED = 2_000  #: names of modules
_STANDARD = os.path.dirname(os.__file__) + os.sep
#: they change what modules do that are imported after them
_PATCHING = frozenset(["eventlet", "gevent"])
#: of whose imports no setting of a program's own has a part
_UNTOUCHED = frozenset(
    ["whenthen", "pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"]
)


class CanNotCall(Exception):
    """The function can not be found or does not take these parameters, now as later. The message is for people."""


def main(arguments: list[str]) -> int:
    file, name, *imported = arguments
    report: dict[str, Any] = {}
    code = 0
    given = dict(os.environ)
    try:
        _check_interpreter()
        function = load_function(file, name)
        if _is_flow(function):
            report, code = run_flow(function, read_parameters())
        else:
            report = result_of(call(function, read_parameters()))
    except CanNotCall as error:
        print(error, file=sys.stderr)
        report, code = {"error": str(error), "retry": False}, 1
    except ModuleNotFoundError as error:
        _print_traceback(error)
        report, code = {"error": _missing(error), "retry": error.name != "whenthen"}, 1
    except Exception as error:  # noqa: BLE001 - whatever the user's function raises ends the run, and is reported
        _print_traceback(error)
        report, code = {"error": traceback.format_exception_only(error)[-1].strip()}, 1
    sys.stdout.flush()
    if target := os.environ.get("WHENTHEN_RESULT_FILE"):
        Path(target).write_text(json.dumps(report), encoding="utf-8")
    for told in imported:
        names = imported_libraries(as_given=dict(os.environ) == given)
        Path(told).write_text(json.dumps({"modules": names}), encoding="utf-8")
    return code


def _check_interpreter() -> None:
    if sys.version_info < _OLDEST:
        needed, found = ".".join(map(str, _OLDEST)), ".".join(map(str, sys.version_info[:3]))
        raise CanNotCall(f"the interpreter {sys.executable} is Python {found}; whenthen needs {needed} or newer")


def _missing(error: ModuleNotFoundError) -> str:
    if error.name == "whenthen":
        return (
            f"the interpreter {sys.executable} lacks the package whenthen, which the code of this deployment imports; "
            f"install it there: {sys.executable} -m pip install whenthen"
        )
    return traceback.format_exception_only(error)[-1].strip()


def is_library(path: str) -> bool:
    """Whether a file is one of the standard library, of an installed package, or of this package, and not of a project."""
    return (
        path.startswith((_STANDARD, _PACKAGE)) or f"{os.sep}site-packages{os.sep}" in path or "/dist-packages/" in path
    )


def imported_libraries(*, as_given: bool) -> list[str]:
    """The modules of libraries that are imported, in that order. Those alone that no program prepares its environment for, unless that
    is `as_given`; none where imports may have been changed by others."""
    if not _PATCHING.isdisjoint(sys.modules):
        return []
    found = []
    for name, module in list(sys.modules.items()):
        origin = getattr(getattr(module, "__spec__", None), "origin", None)
        top = name.partition(".")[0]
        standard = top in getattr(sys, "stdlib_module_names", ())
        if not isinstance(origin, str) or name.startswith("__") or not name.replace(".", "_").isidentifier():
            continue
        if not standard and not is_library(origin):
            continue
        if as_given or standard or top in _UNTOUCHED:
            found.append(name)
    return found[:MAX_IMPORTED]


def read_parameters() -> dict[str, Any]:
    """The run's parameters."""
    if file := os.environ.get("WHENTHEN_PARAMETERS_FILE"):
        text = Path(file).read_text(encoding="utf-8")
    else:
        text = os.environ.get("WHENTHEN_PARAMETERS", "{}")
    parameters = json.loads(text)
    if not isinstance(parameters, dict):
        raise CanNotCall("parameters are not a JSON object")
    return parameters


def is_file(where: str) -> bool:
    """Whether an entry point's place is the path of a file, and not the name of a module."""
    return where.endswith(".py") or os.sep in where


def load_function(where: str, name: str) -> Callable[..., Any]:
    """Import the module `where`, or run the file of that path as a module of its own with its folder first on the import path, and
    take the function from it; `Class.method` is one, too.

    Raises:
        CanNotCall: there is no such module or function; lists near names.
    """
    module = _run_file(Path(where)) if is_file(where) else _import_module(where)
    found: Any = module
    for step in name.split("."):
        found = getattr(found, step, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = difflib.get_close_matches(name[:100], known, n=1)
        raise CanNotCall(f"{where} has no function {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return found  # type: ignore[no-any-return]


def _run_file(file: Path) -> ModuleType:
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise CanNotCall(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name == "whenthen" or not f"{name}.".startswith(f"{error.name}."):
            raise  # one that the module itself imports
        raise CanNotCall(
            f"there is no module {error.name!r}, neither in the working folder nor in the rules folder nor installed in {sys.prefix}"
        ) from None


def call(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    """What the function returns for these parameters, converted to its types; awaited when it is asynchronous.

    Raises:
        CanNotCall: it does not take these parameters; names them.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        signature = None
    if signature is not None:
        try:
            signature.bind(**parameters)
        except TypeError as error:
            takes = ", ".join(signature.parameters) or "none"
            raise CanNotCall(f"{function.__name__}: {error}; it takes: {takes}") from None
        parameters = converted(function, signature, parameters)
    value = function(**parameters)
    if inspect.isawaitable(value):
        import asyncio  # takes as long as everything else that is imported here

        async def wait() -> Any:
            return await value

        return asyncio.run(wait())
    return value


def converted(function: Callable[..., Any], signature: inspect.Signature, parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters converted to the types that the function's hints name, as those of a flow are: a text to a datetime, an object to a
    pydantic model. As they are, where the interpreter has no pydantic or the hints can not be read.

    Raises:
        CanNotCall: one does not fit its type; a line for each.
    """
    scope = getattr(inspect.unwrap(function), "__globals__", {})
    if all(_is_plainly(signature.parameters.get(name), value, scope) for name, value in parameters.items()):
        return parameters
    try:
        found = importlib.import_module("whenthen.flows.definitions.parameters").Parameters(function)
        given: dict[str, Any] = found.exploded(found.validated(found.collapsed(parameters)))
    except Exception as error:  # noqa: BLE001 - of its hints, which the function itself may never look at
        lines = getattr(error, "lines", ())  # of a ParameterTypeError, one for each parameter
        if not lines:
            return parameters
        name = getattr(function, "__name__", function)
        raise CanNotCall("\n".join([f"{name} does not take these parameters:", *lines])) from None
    return given


#: types whose values need no conversion, by how a hint may be written
_PLAIN = {"int": int, "str": str, "float": float, "bool": bool, "list": list, "dict": dict}


def _is_plainly(parameter: inspect.Parameter | None, value: Any, scope: dict[str, Any]) -> bool:
    """Whether a value is of its type already, so that nothing has to be imported to see it."""
    if parameter is None or parameter.annotation in (inspect.Parameter.empty, Any, "Any"):
        return True
    hint = parameter.annotation
    if isinstance(hint, str) and hint not in scope:
        hint = _PLAIN.get(hint)
    return hint in _PLAIN.values() and type(value) is hint


def run_flow(flow: Any, parameters: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """The report of one run of a flow, with its final state, and the exit code.

    Raises:
        CanNotCall: it does not take these parameters; names each.
    """
    if not hasattr(flow, "run_entry"):
        version = getattr(sys.modules.get("whenthen"), "__version__", "unknown")
        raise CanNotCall(
            f"whenthen {version} of the interpreter {sys.executable} can not be run by this worker; install the worker's version there"
        )
    end = flow.run_entry(parameters, os.environ)
    if end.refused:
        raise CanNotCall(end.refused)
    state = end.state
    told = {"state": state.name, "type": state.type.value}
    if end.suspended:
        return told, 0
    if state.is_completed():
        return {**result_of(end.value), **told, "message": state.message}, 0
    if end.error is not None:
        _print_traceback(end.error)
        said = traceback.format_exception_only(end.error)[-1].strip()
        return {**told, "error": said.removeprefix("whenthen.flows.flow_errors.")}, 1
    message = state.message or f"the flow ended as {state.name}"
    print(message, file=sys.stderr)
    return {**told, "error": message}, 1


def _is_flow(function: Any) -> bool:
    module = sys.modules.get("whenthen.flows.definitions.flow_definition")  # there when the user's file has imported it
    return module is not None and isinstance(function, module.Flow)


def result_of(value: Any) -> dict[str, Any]:
    """The report of a returned value. One that is not JSON, or too large or deep, is left out, and a note says why."""
    if value is None:
        return {}
    try:
        text = json.dumps(value, allow_nan=False)
    except RecursionError:
        return _dropped(f"it is nested more than {MAX_RESULT_DEPTH} deep or contains itself; flatten it")
    except (TypeError, ValueError) as error:
        return _dropped(f"{error}; return numbers, text, lists and dicts")
    if len(text) > MAX_RESULT_BYTES:
        return _dropped(
            f"{len(text):,} bytes of JSON; at most {MAX_RESULT_BYTES // 1024} KiB are kept: return a reference to it"
        )
    return {"result": value}


def _dropped(why: str) -> dict[str, Any]:
    return {"note": f"the result was dropped: {why}"}


def _print_traceback(error: BaseException) -> None:
    """The traceback without the frames of this package that lie between the user's own."""
    told = traceback.TracebackException.from_exception(error)
    _leave_out_ours(told, all_of_them=type(error).__module__.startswith("whenthen."))
    sys.stdout.flush()
    print("".join(told.format()), end="", file=sys.stderr)


def _leave_out_ours(told: traceback.TracebackException, *, all_of_them: bool) -> None:
    """Drop the package's frames, also of causes. Those behind the last one of the user stay, as the exception was raised there, unless
    it is one of the package's own, which says all by itself (`all_of_them`)."""
    waiting = [(told, all_of_them)]
    while waiting:
        one, all_of_one = waiting.pop()
        last = max((place for place, frame in enumerate(one.stack) if not _is_ours(frame)), default=-1)
        one.stack[:] = [
            frame
            for place, frame in enumerate(one.stack)
            if not _is_ours(frame) or (place > last and not all_of_one and frame.filename != __file__)
        ]
        others = (one.__cause__, one.__context__, *(one.exceptions or ()))
        waiting += [(other, False) for other in others if other is not None]


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith(_PACKAGE)


if __name__ == "__main__":
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]  # the folder of this file
    sys.path.insert(0, os.getcwd())  # as with `python -m`
    sys.exit(main(sys.argv[1:]))
