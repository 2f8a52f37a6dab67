"""Does this event, or the time, make an automation fire, and if not, why? Events and `now` in; decisions, firings and changed
windows out. Pure: no clock, no bus, no files.

    evaluator = Evaluator(RuleSet.compile(automations))
    evaluation = evaluator.process(event, now_us)    # firings and decisions
    evaluator.drain()                                # windows that changed

Meaning: docs/rules.md.
"""

from __future__ import annotations

from whenthen.triggers.evaluator import (
    Evaluation,
    Evaluator,
    Stopped,
)
from whenthen.triggers.firing_ids import (
    LOOP_STOPPED,
)
from whenthen.triggers.matching.filters import (
    WHEN_VARIABLES,
)
from whenthen.triggers.matching.globs import (
    Glob,
    GlobKind,
    any_of,
    compile_glob,
)
from whenthen.triggers.matching.sharding import (
    shard_of,
)
from whenthen.triggers.rule_set import RuleSet
from whenthen.triggers.shard_state import (
    SET_ASIDE,
    Aside,
)
from whenthen.triggers.trees.trigger_compiler import compile_automation, compile_named, trigger_id
from whenthen.triggers.trees.trigger_nodes import CompiledAutomation

__all__ = [
    "LOOP_STOPPED",
    "SET_ASIDE",
    "WHEN_VARIABLES",
    "Aside",
    "CompiledAutomation",
    "Evaluation",
    "Evaluator",
    "Glob",
    "GlobKind",
    "RuleSet",
    "Stopped",
    "any_of",
    "compile_automation",
    "compile_glob",
    "compile_named",
    "explaining",
    "shard_of",
    "trigger_id",
]
