"""Rules that somebody tries, each trial in a process of its own: what it takes is nobody's promise, and it can be ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys

import orjson

from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.schemas.errors import Conflict

__all__ = ["RuleTrials"]

AT_ONCE = 2
WITHIN_S = (
    60.0  #: on the clock; its processor time is bounded in the trial itself, and a busy machine gives it that later
)
MOST_ANSWER = 4 << 20  #: bytes
_MODULE = "whenthen.rules.following.trial"


class RuleTrials:
    def __init__(self, rule_registry: RuleRegistry) -> None:
        self._rule_registry = rule_registry
        self._running = 0

    async def try_rules(self, rules: str, events: str, *, follow: bool) -> answers.TriedRules:
        """What they would do. Raises Conflict (as many are being tried as may be)."""
        if self._running >= AT_ONCE:
            raise Conflict(f"{AT_ONCE} trials are going on in this process; try again in a moment")
        self._running += 1
        try:
            return await self._tried(rules, events, follow)
        finally:
            self._running -= 1

    async def _tried(self, rules: str, events: str, follow: bool) -> answers.TriedRules:
        now = self._rule_registry.now
        known = {  # what the rules may name; those that they do not mention are not needed
            "deployments": [name for name in now.deployments if name in rules],
            "notifiers": [name for name in now.notifiers if name in rules],
        }
        question = orjson.dumps({"rules": rules, "events": events, "known": known, "follow": follow})
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", _MODULE,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            env={name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ},
            start_new_session=True,
        )  # fmt: skip
        try:
            answer, _ = await asyncio.wait_for(process.communicate(question), WITHIN_S)
        except TimeoutError:
            return _refused(f"it takes longer than {WITHIN_S:.0f} s; try less at once")
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode != 0:
            return _refused("it takes more time or memory than a trial may have; try fewer steps, or a shorter time")
        if len(answer) > MOST_ANSWER:
            return _refused(f"what comes of it has {len(answer):,} bytes, more than a page shows; try less at once")
        return answers.TriedRules.model_validate_json(answer)


def _refused(why: str) -> answers.TriedRules:
    return answers.TriedRules(problems=[why])
