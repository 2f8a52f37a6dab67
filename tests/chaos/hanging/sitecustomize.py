"""Makes a `whenthen` process hang on what says so, for tests: put this folder on its PYTHONPATH.

An event whose payload has `hang` hangs the filter of a trigger, or with `hang_action` the action `do-nothing`; a request whose body says `hang_request` hangs its
translation. `spin` is Python code that goes on for ever, `hold` C code that waits and keeps every thread from running, `crash` a fault in C code.
"""

from __future__ import annotations

import ctypes
import importlib.abc
import importlib.util
import os
import signal
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def hang(how: object) -> None:
    if how == "spin":
        while True:
            pass
    if how == "hold":
        libc, lock = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
        while True:
            libc.pthread_mutex_lock(lock)  # the second time for ever, and without giving up the interpreter
    if how == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)


def hang_filter(module: ModuleType) -> None:
    admitted = module.Filter.admitted  # `admits` asks it, too

    def hanging(self: Any, event: Any, *more: Any) -> Any:
        hang((event.data.get("payload") or {}).get("hang"))
        return admitted(self, event, *more)

    module.Filter.admitted = hanging


def hang_action(module: ModuleType) -> None:
    run = module.NothingHandler.run

    async def hanging(self: Any, call: Any) -> Any:
        hang(((call.event or {}).get("payload") or {}).get("hang_action"))
        return await run(self, call)

    module.NothingHandler.run = hanging


def hang_webhook(module: ModuleType) -> None:
    translate = module.WebhookTranslator.translate

    def hanging(self: Any, request: Any, *more: Any, **named: Any) -> Any:
        if b"hang_request" in request.body:
            hang("spin")
        return translate(self, request, *more, **named)

    module.WebhookTranslator.translate = hanging


CHANGED = {
    "whenthen.triggers.matching.filters": hang_filter,
    "whenthen.actions.automation_actions": hang_action,
    "whenthen.sources.translator": hang_webhook,
}


class Finder(importlib.abc.MetaPathFinder):
    """Changes modules when they are imported."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        change = CHANGED.pop(name, None)
        if change is None:
            return None
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def executed(module: ModuleType) -> None:
            execute(module)
            change(module)

        spec.loader.exec_module = executed  # type: ignore[method-assign]
        return spec


for imported in CHANGED.keys() & sys.modules.keys():  # in a fork of a process that has imported them
    CHANGED.pop(imported)(sys.modules[imported])
sys.meta_path.insert(0, Finder())
