"""An interpreter that imports what runs of a deployment need, and then waits for one run.

    python waiting_interpreter.py DESCRIPTOR

Started under a guard by `warm_process`, whose messages come over the socket DESCRIPTOR, a line of JSON each: what to import, then the run
with its environment, then the word to begin. It needs nothing but the standard library, as a deployment's own interpreter may have nothing
else. Before it takes a run it looks whether what it has loaded is still what there is; whenever that is in doubt it says so and ends, and
the run begins in an interpreter of its own. Meaning: docs/deployments.md, "Warm interpreters".
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

__all__ = ["main"]

MOST_FILES = 1_000  #: of the project, that are looked at again before a run
MOST_BYTES = 16 << 20  #: in these files
MOST_ENTRIES = 10_000  #: of a folder on the import path
#: a file that was written so shortly before the imports began may be another one than was read: clocks of files tick
TICK_NS = 50_000_000
_WRITES = os.O_WRONLY | os.O_RDWR
#: differ in every run; who reads one of them by name while it is imported is another matter
RUN_VARIABLES = ("WHENTHEN_", "TRACEPARENT", "TRACESTATE")


class CanNotWait(Exception):
    """What was loaded, or is to be, may not be what the run would load. The message is for people; `again` says whether it may be
    another time."""

    def __init__(self, why: str, *, again: bool = False) -> None:
        super().__init__(why)
        self.again = again


def main(descriptor: int) -> int:
    control = socket.socket(fileno=descriptor)
    control.set_inheritable(False)
    with control, control.makefile("rb") as heard:
        order = json.loads(heard.readline())
        try:
            runner = _by_path("whenthen_runner", order["runner"])
            loaded = Loaded(runner, order)
        except CanNotWait as problem:
            return _refuse(control, problem)
        _say(control, {"ready": True, "bytes": _resident_bytes()})
        line = heard.readline()
        if not line:
            return 0
        run = json.loads(line)
        try:
            loaded.check(run["env"])
        except CanNotWait as problem:
            return _refuse(control, problem)
        _say(control, {"ready": True})
        if not heard.readline():
            return 0
    loaded.become(run)
    return runner.main(run["arguments"])  # type: ignore[no-any-return]


class Loaded:
    """What was imported, from which files, and what these imports read of the environment."""

    def __init__(self, runner: ModuleType, order: dict[str, Any]) -> None:
        """Import the modules `preload` of the order, and those of `learnt` as far as they can be.

        Raises:
            CanNotWait: see there.
        """
        self._runner = runner
        self._given: Mapping[str, str] = order["env"]  # without what an interpreter itself adds when it starts
        self._read: set[str] = set()  #: variables that were asked for while modules were imported
        self._read_all = False
        where = str(order["where"])
        self._own = os.path.dirname(where) if runner.is_file(where) else ""
        sys.path.insert(0, os.getcwd())
        began = time.time_ns()
        opened = self._load(order["preload"], order["learnt"])
        if self._own:
            stem = os.path.splitext(os.path.basename(where))[0]
            if stem in sys.modules:
                raise CanNotWait(
                    f"the file of the entry point has the name of a module that is imported, {stem!r}: rename it, or let the entry point "
                    "name the module"
                )
        self._folders = {folder: self._hides(folder) for folder in self._import_folders()}
        self._files = self._look(self._project_files(opened), began)
        self._libraries = {path: _stamp(path) for path in self._library_marks()}

    def check(self, environment: Mapping[str, str]) -> None:
        """
        Raises:
            CanNotWait: a run with this environment can not be sure to find what it would load itself.
        """
        for path, (stamp, digest) in self._files.items():
            if _stamp(path) != stamp or _digest(path) != digest:
                raise CanNotWait(f"{path} has changed", again=True)
        for path, stamp in self._libraries.items():
            if _stamp(path) != stamp:
                raise CanNotWait(f"what is installed in {path} has changed", again=True)
        for folder, names in self._folders.items():
            if self._hides(folder) != names:
                raise CanNotWait(f"{folder} has other modules of the names that were imported", again=True)
        before = self._given
        read = set(self._read)
        if self._read_all:
            read |= {name for name in {*before, *environment} if not name.startswith(RUN_VARIABLES)}
        differ = sorted(name for name in read if before.get(name) != environment.get(name))
        if differ:
            raise CanNotWait(
                f"a module that is loaded ahead reads {differ[0]} of the environment while it is imported, which only a run has"
            )

    def become(self, run: dict[str, Any]) -> None:
        """Be the process of this run. What modules have put into the environment stays, as it would in the run."""
        os.chdir(run["cwd"])
        for name in self._given.keys() - run["env"].keys():
            os.environ.pop(name, None)
        for name, value in run["env"].items():
            if self._given.get(name) != value:
                os.environ[name] = value
        sys.argv = [str(self._runner.__file__), *run["arguments"]]

    def _load(self, preload: Iterable[str], learnt: Iterable[str]) -> set[str]:
        """Import; gives the files that were opened meanwhile."""
        opened: set[str] = set()
        is_loading = True

        def note(event: str, arguments: tuple[Any, ...]) -> None:
            if is_loading and event == "open" and isinstance(arguments[0], str) and not arguments[2] & _WRITES:
                opened.add(os.path.abspath(arguments[0]))

        sys.addaudithook(note)  # it stays for as long as the process lives
        forget = self._note_environment()
        if self._own:
            sys.path.insert(0, self._own)  # where the run will have it
        try:
            for name in preload:
                try:
                    importlib.import_module(name)
                except BaseException as error:  # noqa: BLE001 - SystemExit, too: the run says it again
                    raise CanNotWait(
                        f"preload {name!r} can not be imported: {type(error).__name__}: {str(error)[:500]}"
                    ) from None
            for name in learnt:
                try:
                    importlib.import_module(name)
                except BaseException:  # noqa: BLE001, S112 - one that comes in another way; the run imports what it needs
                    continue
        finally:
            if self._own in sys.path:
                sys.path.remove(self._own)
            is_loading = False
            forget()
        return opened

    def _note_environment(self) -> Any:
        """Note which variables are read; gives what ends that."""
        environ: Any = os.environ
        encode, decode = environ.encodekey, environ.decodekey

        def encoded(name: str) -> Any:
            self._read.add(name)
            return encode(name)

        def decoded(name: Any) -> Any:
            self._read_all = True
            return decode(name)

        environ.encodekey, environ.decodekey = encoded, decoded

        def forget() -> None:
            environ.encodekey, environ.decodekey = encode, decode

        return forget

    def _project_files(self, opened: set[str]) -> list[str]:
        """Files that modules are made of or have read, but for those of libraries."""
        made_of = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
        found = {os.path.abspath(path) for path in made_of if isinstance(path, str)} | opened
        found -= {os.path.abspath(__file__)}
        return sorted(
            path
            for path in found
            if not self._runner.is_library(path)
            and not path.startswith(("/proc/", "/dev/", "/sys/"))
            and f"{os.sep}__pycache__{os.sep}" not in path
            and not os.path.isdir(path)
        )  # also those that were looked for and are not there

    def _look(self, paths: list[str], began: int) -> dict[str, tuple[tuple[int, ...] | None, bytes]]:
        stamps = {path: _stamp(path) for path in paths}
        if len(paths) > MOST_FILES or sum(stamp[0] for stamp in stamps.values() if stamp) > MOST_BYTES:
            raise CanNotWait(
                f"preload reads {len(paths):,} files of the project, more than are looked at again before a run "
                f"({MOST_FILES:,}, of {MOST_BYTES >> 20} MiB); name fewer modules"
            )
        for path, stamp in stamps.items():
            if stamp is not None and stamp[2] >= began - TICK_NS:
                raise CanNotWait(f"{path} changed while it was loaded", again=True)
        return {path: (stamps[path], _digest(path)) for path in paths}

    def _import_folders(self) -> list[str]:
        """Folders of the project that modules are looked for in."""
        found = {os.path.abspath(entry) for entry in [self._own, *sys.path] if entry}
        return sorted(entry for entry in found if not self._runner.is_library(entry + os.sep) and os.path.isdir(entry))

    def _hides(self, folder: str) -> frozenset[str]:
        """Imported modules of whose names there is a file or a folder here."""
        found = set()
        try:
            with os.scandir(folder) as entries:
                for number, entry in enumerate(entries):
                    if number >= MOST_ENTRIES:
                        raise CanNotWait(
                            f"{folder}, where modules are looked for, has more than {MOST_ENTRIES:,} entries"
                        )
                    found.add(entry.name.partition(".")[0])
        except OSError:
            return frozenset()
        return frozenset(found & {name.partition(".")[0] for name in sys.modules})

    def _library_marks(self) -> list[str]:
        """What changes when something is installed: folders of installed packages, and the interpreter."""
        folders = [entry for entry in sys.path if entry and self._runner.is_library(entry + os.sep)]
        return [os.path.realpath(sys.executable), *(entry for entry in folders if os.path.isdir(entry))]


def _stamp(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev


def _digest(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return hashlib.blake2b(file.read(MOST_BYTES + 1)).digest()
    except OSError:
        return b""


def _resident_bytes() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _by_path(name: str, path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CanNotWait(f"{path} is no module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _refuse(control: socket.socket, problem: CanNotWait) -> int:
    _say(control, {"ready": False, "why": str(problem), "again": problem.again})
    return 1


def _say(control: socket.socket, message: dict[str, Any]) -> None:
    control.sendall(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]  # the folder of this file
    sys.exit(main(int(sys.argv[1])))
