"""How is everything that the embedded server stores kept in one file, and how does it come back?"""

from __future__ import annotations

from whenthen.engine.backup.archive import (
    ArchiveSummary,
    InvalidBackup,
    read_archive,
)
from whenthen.engine.backup.live_copy import (
    Backups,
)
from whenthen.engine.backup.restoring import (
    restore,
)

__all__ = [
    "ArchiveSummary",
    "Backups",
    "InvalidBackup",
    "read_archive",
    "restore",
]
