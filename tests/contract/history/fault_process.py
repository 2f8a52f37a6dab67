"""Writes events into a SQLite history until it fails; prints the reason and the message: `fault_process PATH`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.contract.history.history_messages import event, project
from whenthen.history import Database, HistoryUnavailable, Projection

database = Database(Path(sys.argv[1]))
try:
    for batch in range(200):
        first = batch * 100 + 1
        project(Projection(database), "EVENTS", *(event(first + n, payload="x" * 500) for n in range(100)))
except HistoryUnavailable as error:
    print(error.reason, error)
else:
    print("nothing failed")
