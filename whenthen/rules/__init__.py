"""What do the files say, and are they right? Rules in files: loaded, checked, tested, replayed, explained, imported.

Needs no NATS and no server. Meaning: docs/rules.md, docs/testing.md.
"""

from __future__ import annotations

from whenthen.rules.explain_event import (
    explain_event,
)
from whenthen.rules.folder import (
    Rules,
    compile_files,
    load_rules,
)
from whenthen.rules.following import (
    TriedWebhooks,
)
from whenthen.rules.reading.documents import (
    read_document,
)
from whenthen.rules.reading.source_files import SourceFile, rules_files
from whenthen.rules.replay import (
    replay,
    skips_of,
)
from whenthen.rules.replay_diff import (
    ReplayDiff,
)
from whenthen.rules.validation_messages import (
    explain,
)
from whenthen.rules.watcher import (
    RulesWatcher,
)

__all__ = [
    "ReplayDiff",
    "Rules",
    "RulesWatcher",
    "SourceFile",
    "TriedWebhooks",
    "changes",
    "compile_files",
    "explain",
    "explain_event",
    "jsonschema",
    "load_rules",
    "prefect_import",
    "read_document",
    "recorded",
    "registering",
    "replay",
    "rules_files",
    "skips_of",
    "test_runner",
]
