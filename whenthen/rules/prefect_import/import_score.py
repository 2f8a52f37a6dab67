"""How much of many files of Prefect's comes over: `whenthen import prefect --score FOLDER`.

A file counts as kept when of all its deployments code, parameters, schedules, pool and limits are as it says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whenthen.rules.prefect_import.import_notes import Aspect
from whenthen.rules.prefect_import.importer import NothingToImport, import_prefect_file
from whenthen.schemas.errors import InvalidInput

__all__ = ["ImportScore", "score_folder"]

MAX_FILES = 100_000


@dataclass(slots=True, kw_only=True)
class ImportScore:
    """Counts over files."""

    files: int = 0  #: with deployments
    kept: int = 0  #: of these, with nothing lost
    deployments: int = 0
    automations: int = 0
    unread: dict[str, str] = field(default_factory=dict)  #: files that are no YAML, and why
    others: int = 0  #: files with neither deployments nor automations
    lost: dict[Aspect, int] = field(default_factory=dict)  #: of how many deployments
    losing: dict[str, dict[str, int]] = field(default_factory=dict)  #: by file, of how many deployments

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON."""
        return {
            "files": self.files,
            "kept": self.kept,
            "deployments": self.deployments,
            "automations": self.automations,
            "lost": {aspect.value: self.lost.get(aspect, 0) for aspect in Aspect},
            "losing": self.losing,
            "unread": self.unread,
            "others": self.others,
        }


def score_folder(folder: Path) -> ImportScore:
    """Import every YAML file below a folder, and count. Nothing is written, and values of the environment are not looked up.

    Raises:
        InvalidInput: there is no such folder, or it has more than 100,000 such files.
    """
    if not folder.is_dir():
        raise InvalidInput(f"{folder}: there is no such folder; give one with files such as prefect.yaml")
    score = ImportScore()
    lost: Counter[Aspect] = Counter()
    for file in _files(folder):
        name = str(file.relative_to(folder))
        try:
            result = import_prefect_file(file.read_bytes(), name=name, project=file.parent)
        except OSError as error:
            score.unread[name] = error.strerror or str(error)
            continue
        except NothingToImport:
            score.others += 1
            continue
        except InvalidInput as error:
            score.unread[name] = str(error)
            continue
        score.automations += len(result.rules["automations"])
        if not result.deployments:
            score.others += not result.rules["automations"]
            continue
        score.files += 1
        score.deployments += result.deployments
        if result.lost:
            score.losing[name] = {aspect.value: len(subjects) for aspect, subjects in result.lost.items()}
            lost.update({aspect: len(subjects) for aspect, subjects in result.lost.items()})
        else:
            score.kept += 1
    score.lost = dict(lost)
    return score


def _files(folder: Path) -> Iterator[Path]:
    found = sorted(path for ending in ("*.yaml", "*.yml") for path in folder.rglob(ending) if path.is_file())
    if len(found) > MAX_FILES:
        raise InvalidInput(f"{folder}: more than {MAX_FILES} YAML files; give a smaller folder")
    yield from found
