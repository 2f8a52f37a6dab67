"""The clocks of the SDK: the time of day for what is shown and for expiry, a steady one for what is waited for.

A clock that is set back or forward changes no delay and no time-out; those are measured with `steady`.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

__all__ = ["LONGEST_WAIT_S", "processor_time", "sleep", "steady", "utc_now"]

LONGEST_WAIT_S = (
    1e9  #: 31 years: threads can not be asked to wait much longer; who asks for more, or for infinity, gets this
)

_now = datetime.now


def utc_now() -> datetime:
    return _now(UTC)


steady = time.monotonic
processor_time = time.process_time  #: of all threads of this process
sleep = time.sleep
