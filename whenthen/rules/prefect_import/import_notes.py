"""What an import could not carry over, or what needs a look: said once, with all that it is about.

Called by the other modules of this package.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["Aspect", "ImportNotes", "Notes"]

MOST_NAMES = 5  #: that a note about several lists


class Aspect(StrEnum):
    """What a deployment is made of."""

    CODE = "code"
    PARAMETERS = "parameters"
    SCHEDULES = "schedules"
    POOL = "pool"
    LIMITS = "limits"


@dataclass(slots=True)
class ImportNotes:
    """All notes of an import, in the order of their first subject."""

    groups: dict[str, list[str]] = field(default_factory=dict)  #: what is said, and about whom
    lost: dict[Aspect, list[str]] = field(default_factory=dict)  #: which deployments lost what

    def add(self, subject: str, message: str, lost: Aspect | None = None) -> None:
        """Say `message` of `subject`, such as `deployment 'etl/nightly'`; empty for the whole file."""
        subjects = self.groups.setdefault(message, [])
        if subject not in subjects:
            subjects.append(subject)
        if lost is not None and subject not in self.lost.setdefault(lost, []):
            self.lost[lost].append(subject)

    def lines(self) -> tuple[str, ...]:
        """A line each. What is said of several is said once, with their number and the first of them."""
        return tuple(_line(message, subjects) for message, subjects in self.groups.items())


class Notes:
    """The notes on one automation, each with the path of the field that it is about."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.messages: list[str] = []

    def add(self, path: str, message: str) -> None:
        self.messages.append(f"{path}: {message}" if path else message)


def _line(message: str, subjects: list[str]) -> str:
    if len(subjects) == 1:
        return f"{subjects[0]}: {message}" if subjects[0] else message
    kinds = {subject.partition(" ")[0] for subject in subjects}
    kind = f"{kinds.pop()}s" if len(kinds) == 1 else "places"
    names = ", ".join(subject.partition(" ")[2] for subject in subjects[:MOST_NAMES])
    more = f" and {len(subjects) - MOST_NAMES} more" if len(subjects) > MOST_NAMES else ""
    return f"{message} ({len(subjects)} {kind}: {names}{more})"
