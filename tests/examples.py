"""How many examples a property test draws: the library's hundred, fewer where one is dear, and all that it names where time is no object.

`WHENTHEN_TEST_EXAMPLES=all` draws all of them; `make ci` sets it. Examples differ from run to run, so that the runs add up.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

__all__ = ["ALL", "up_to"]

#: of a dear test; with so many the quick tests reach all but 40 of the 26,000 branches that property tests reach with a hundred each
FEW = 25
ALL = os.environ.get("WHENTHEN_TEST_EXAMPLES") == "all"


def up_to(examples: int, *, usually: int | None = None) -> settings:
    """Settings for a test of which `examples` are worth their time in a run that has it. Another run draws `usually`: if that is not
    given, a tenth of them, or a few where that is more."""
    some = max(FEW, examples // 10) if usually is None else usually
    return settings(
        max_examples=examples if ALL else min(examples, some), deadline=None, suppress_health_check=list(HealthCheck)
    )
