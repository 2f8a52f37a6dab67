"""How many examples a property test draws: the library's hundred while one works, and as many as it names where time is no object.

`WHENTHEN_TEST_EXAMPLES=all` draws all of them; `make ci` sets it. Examples differ from run to run, so that the hundreds add up.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

__all__ = ["ALL", "up_to"]

USUAL = 100  #: what hypothesis draws by itself
ALL = os.environ.get("WHENTHEN_TEST_EXAMPLES") == "all"


def up_to(examples: int) -> settings:
    """Settings for a test of which `examples` are worth their time in a run that has it."""
    count = examples if ALL else min(examples, USUAL)
    return settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))
