"""Loading a flow from the file or module that it is written in."""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whenthen.flows.deploying.code_origins import CodeOrigin, GitRepository, storage_of
from whenthen.flows.deploying.loading_now import loading
from whenthen.flows.flow_errors import ConfigurationError, MissingFlowError, ScriptError
from whenthen.flows.services.environment_values import secret_of

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
    """The flow of an entry point below a folder, or in a repository, which is cloned into a temporary folder for as long as this program runs.
    Its deployments have their code from there.

    Raises:
        FileNotFoundError: there is no such folder or file.
        ConfigurationError: the repository can not be cloned.
        NotSupported: the source is a bucket.
    """
    storage = storage_of(source)
    folder = _cloned(storage) if isinstance(storage, GitRepository) else Path(storage.path)
    loaded = load_flow_from_entrypoint(entrypoint, folder)
    loaded.origin = CodeOrigin(entrypoint=entrypoint, code=storage.as_code())
    return loaded


def _cloned(storage: GitRepository) -> Path:
    from whenthen.checkout import CloneFailed, clone

    folder = Path(tempfile.mkdtemp(prefix="whenthen-source-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    wanted = storage.as_code()
    if token := wanted.get("token"):
        wanted["token"] = secret_of(token, "GitRepository")
    try:
        clone(wanted, folder)
    except CloneFailed as error:
        raise ConfigurationError(f"flow.from_source: {error}") from None
    return folder


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
        with loading():
            return load()
    except Exception as error:
        raise ScriptError(f"{what}: can not be loaded: {type(error).__name__}: {error}") from error
    finally:
        if first is not None and first in sys.path:
            sys.path.remove(first)
