"""Why did a rule fire, or not, tomorrow and from any process? Decisions on record: written before a commit, true with it, and read.

Meaning: docs/architecture.md, "Decisions on record".
"""

from __future__ import annotations

from whenthen.engine.decisions.committed import CommittedBatches

__all__ = ["CommittedBatches"]
