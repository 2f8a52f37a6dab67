"""Loading a flow from the file or module that it is written in."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whenthen.flows.flow_errors import MissingFlowError, ScriptError
from whenthen.flows.unsupported import not_supported

if TYPE_CHECKING:
    from whenthen.flows.definitions.flow_definition import Flow

__all__ = ["flow_from_source", "load_flow_from_entrypoint"]


def load_flow_from_entrypoint(entrypoint: str, folder: Path | None = None) -> Flow[..., Any]:
    """The flow at `path/to/file.py:function` (from `folder`, or the working directory) or `package.module:function`.

    What stands below `if __name__ == "__main__"` is not run. The file's folder is first on the import path meanwhile.

    Raises:
        FileNotFoundError: there is no such file.
        MissingFlowError: there is no flow of that name.
        ScriptError: the file raised while it was loaded.
    """
    from whenthen.flows.definitions.flow_definition import Flow

    place, _, name = str(entrypoint).rpartition(":")
    if not place or not name:
        raise ValueError(f"entrypoint {entrypoint!r:.200} is not path/to/file.py:function")
    module = _module_of_file(Path(folder or ".") / place) if place.endswith(".py") else _module(place, folder)
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, Flow):
        flows = [key for key, value in vars(module).items() if isinstance(value, Flow)]
        what = "there is no such name" if found is None else f"it is a {type(found).__name__}"
        raise MissingFlowError(f"{entrypoint}: no flow {name!r}: {what}; flows there: {', '.join(flows) or 'none'}")
    return found


def flow_from_source(source: Any, entrypoint: str) -> Flow[..., Any]:
    """The flow of an entry point below a folder.

    Raises:
        FileNotFoundError: there is no such folder or file.
        NotSupported: the source is a repository or a bucket.
    """
    written = str(source) if isinstance(source, (str, os.PathLike)) else None
    if written is None or "://" in written or written.startswith("git@") or written.endswith(".git"):
        not_supported("Flow.from_source(<git or bucket>)", f"{source!r:.100}")
    return load_flow_from_entrypoint(entrypoint, Path(written))


def _module_of_file(path: Path) -> Any:
    path = path.resolve()
    if not path.is_file():
        raise FileNotFoundError(f"[Errno 2] No such file or directory: '{path}'")
    name = f"__whenthen_loader_{abs(hash(str(path)))}__"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up
    loader = spec.loader

    def load() -> Any:
        loader.exec_module(module)
        return module

    try:
        return _loaded(str(path), load, path.parent)
    except ScriptError:
        del sys.modules[name]
        raise


def _module(name: str, folder: Path | None) -> Any:
    return _loaded(name, lambda: importlib.import_module(name), folder)


def _loaded(what: str, load: Any, folder: Path | None) -> Any:
    first = None if folder is None else str(folder)
    if first is not None:
        sys.path.insert(0, first)
    try:
        return load()
    except Exception as error:
        raise ScriptError(f"{what}: can not be loaded: {type(error).__name__}: {error}") from error
    finally:
        if first is not None and first in sys.path:
            sys.path.remove(first)
