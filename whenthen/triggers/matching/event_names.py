"""Event names as Prefect matches them, for triggers with tumbling windows.

Prefect looks triggers up by event name in one place and evaluates the name in another, with different semantics. An
event is expected when all of these hold for its name, each possibly by a different pattern:

- one of `expect` or `after` is a glob that matches it (`*`, `?` and sets have their meaning, `!` has none);
- it starts with one of `expect` or `after`, where `*` stands for at least one character and every other character for itself;
- one of `expect` is a glob that matches it, where a leading `!` negates.

The same with `after` in the last line says whether an event opens a bucket. For plain names and trailing stars the only effect
is that `*` does not match the empty text. Called by `triggers.trees.trigger_compiler`. Meaning: docs/rules.md, "Tumbling windows".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from whenthen.triggers.matching.globs import any_of, compile_glob, compile_glob_body

__all__ = ["compile_names"]


def compile_names(names: Sequence[str], every: Sequence[str]) -> Callable[[str], bool]:
    """A test for one filter: `names` are those of the filter, `every` those of all filters of the trigger."""
    plain = not any(mark in text for text in every for mark in "*?[!")
    decides = any_of([compile_glob(text) for text in names])
    if plain or (len(every) == 1 and every[0] == "*"):
        return decides
    found = any_of([compile_glob_body(text) for text in every])
    begins = any_of([compile_glob_body(_beginning(text)) for text in every])
    return partial(_all, (decides, found, begins))


def _beginning(text: str) -> str:
    """A glob for texts that start with `text`, with at least one character for each star."""
    return "".join("?*" if char == "*" else f"[{char}]" if char in "?[" else char for char in text) + "*"


def _all(tests: tuple[Callable[[str], bool], ...], text: str) -> bool:
    return all(test(text) for test in tests)
