"""What do the files say, and are they right? Rules in files: loaded, checked, tested, replayed, explained, imported.

Needs no NATS and no server. Meaning: docs/rules.md, docs/testing.md.
"""

from __future__ import annotations

from whenthen.rules.documents import (
    read_document,
)
from whenthen.rules.explain_event import (
    explain_event,
)
from whenthen.rules.folder import (
    Rules,
    SourceFile,
    compile_files,
    load_rules,
    rules_files,
)
from whenthen.rules.following import (
    TriedWebhooks,
)
from whenthen.rules.replay import (
    replay,
    skips_of,
)
from whenthen.rules.replay_diff import (
    ReplayDiff,
)
from whenthen.rules.test_runner import (
    junit,
    load_tests,
    run_tests,
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
    "junit",
    "load_rules",
    "load_tests",
    "prefect_import",
    "read_document",
    "recorded",
    "replay",
    "rules_files",
    "run_tests",
    "skips_of",
]
