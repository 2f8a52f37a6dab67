"""Sets in globs that are probably words: `dependabot[bot]` is `dependabot` and one of the letters b, o, t.

Called by `implausible`. Meaning of globs: docs/rules.md, "Globs".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from whenthen.rules.plausibility.trigger_parts import filters_of, triggers_of
from whenthen.schemas.automations import Automation
from whenthen.schemas.errors import FieldPath
from whenthen.schemas.triggers import EventTrigger

__all__ = ["word_sets"]

#: a set as `fnmatch` reads it: a `]` right after the opening is a member
_SET = re.compile(r"\[(!?)(\]?[^\]]*)\]")
_RANGE = re.compile(r".-.", re.DOTALL)
_VOWELS = frozenset("aeiouyAEIOUY")


def word_sets(model: Automation) -> Iterator[tuple[FieldPath, str]]:
    """Where an automation's triggers have such a set, and what to write for the text."""
    for path, trigger in triggers_of(model.trigger):
        for place, filter_ in filters_of(trigger, path):
            globs = [((*place, "expect", index), text) for index, text in enumerate(filter_.expect)]
            for field, mappings in (("match", [filter_.match]), ("match_related", filter_.match_related)):
                for number, mapping in enumerate(mappings):
                    base = (*place, field) if field == "match" else (*place, field, number)
                    globs += [
                        ((*base, label, i), text) for label, texts in mapping.items() for i, text in enumerate(texts)
                    ]
            for where, text in globs:
                yield from _of_glob(where, text)
        if isinstance(trigger, EventTrigger):
            for index, text in enumerate(trigger.after):
                yield from _of_glob((*path, "after", index), text)


def _of_glob(path: FieldPath, text: str) -> Iterator[tuple[FieldPath, str]]:
    for found in _SET.finditer(text):
        if _is_word(found[2]):
            letters = ", ".join(dict.fromkeys(found[2]))
            meant = text[: found.start()] + "[[]" + text[found.start() + 1 :]
            what = "one character that is none of" if found[1] else "one of"
            yield path, f"`{found[0]}` is a set, {what} {letters}; for the text itself write `{meant}`"
            return


def _is_word(members: str) -> bool:
    """Whether the members of a set read like a word: three letters and more, not a run of the alphabet, and no mere list either, as a
    letter occurs twice or vowels stand among consonants."""
    single = _RANGE.sub("", members)
    letters = [char for char in single if char.isalpha()]
    if len(letters) < 3 or any(not (char.isalnum() or char in " _-.") for char in members):
        return False
    if len(set(letters)) < len(letters):
        return True
    run = all(ord(after) - ord(before) == 1 for before, after in pairwise(letters))
    vowels = sum(char in _VOWELS for char in letters)
    return not run and 0 < vowels < len(letters)
