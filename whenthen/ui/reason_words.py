"""Reasons and states in words, and the tone in which a page shows them: never by a colour alone."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["REASON_WORDS", "reason_tone", "reason_words"]

#: what each reason of a decision says to somebody who does not know the word
REASON_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "fired": "fired",
        "label_mismatch": "a label does not match",
        "condition_false": "its condition is false",
        "condition_error": "its condition failed on this event",
        "missing_key": "the event lacks what the key is made of",
        "below_threshold": "counted; more events are needed",
        "cooldown": "fired recently, and is quiet for a while",
        "spent": "its events were used by an earlier firing",
        "waiting_for_after": "no event has opened a window",
        "waiting_for_sibling": "other parts have not fired yet",
        "collecting": "gathered until the burst ends",
        "expected": "came as expected",
        "opened": "opened a window",
        "resolved": "resolved",
        "late": "too late for its window",
        "held_for_predecessor": "waits for the event that it follows",
        "paused": "the automation is paused",
        "lapsed": "was due while the automation was away",
        "loop": "caused by too many firings in a row",
        "not_expected": "no trigger looks at such an event",
        "not_in_rules": "the automation is not in the rules of then",
        "not_evaluated": "not evaluated yet",
    }
)
_GOOD = frozenset(
    {"fired", "resolved", "expected", "active", "succeeded", "executed", "done", "Completed", "Triggered", "Resolved"}
)
_BAD = frozenset(
    {"condition_error", "loop", "dead", "failed", "Failed", "Crashed", "TimedOut", "set-aside", "hung", "crashed"}
)
_WARN = frozenset(
    {"paused", "late", "lapsed", "retrying", "missing_key", "disabled", "Cancelled", "Cancelling", "Paused"}
)


def reason_words(reason: str) -> str:
    """A reason in words; an unknown one as it is."""
    return REASON_WORDS.get(reason, reason.replace("_", " "))


def reason_tone(word: str) -> str:
    """`good`, `warn`, `bad` or `calm`: the class in which a reason or a state is shown."""
    if word in _GOOD:
        return "good"
    if word in _BAD:
        return "bad"
    return "warn" if word in _WARN else "calm"
