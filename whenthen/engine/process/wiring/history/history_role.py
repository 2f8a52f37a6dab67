"""The role `history`: projects the streams into SQL. Importing it loads SQLAlchemy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from whenthen.engine.bus.connection import Bus
from whenthen.engine.process.settings import Settings
from whenthen.engine.process.supervisor import Supervisor
from whenthen.engine.projection import (
    PROJECTED,
    DecisionProjector,
    HistoryLag,
    HistoryService,
    HistoryWriter,
    StreamProjector,
)
from whenthen.history import Database, Keep

__all__ = ["HistoryRole", "history_database"]

RETENTION = "history retention"


class HistoryRole:
    """Projects, and answers questions; `report` is told how far it is behind each stream. Raises SetupError: what `history` names is no database of ours."""

    def __init__(
        self,
        bus: Bus,
        settings: Settings,
        supervisor: Supervisor,
        report: Callable[[Mapping[str, tuple[int, float]]], None],
    ) -> None:
        self._database = history_database(settings)
        keep = Keep(
            events=settings.history_events,
            decisions=settings.history_decisions,
            firings=settings.history_firings,
            runs=settings.history_runs,
            audit=settings.history_audit,
            tallies=settings.history_tallies,
        )
        self._writer = HistoryWriter(self._database, keep)
        start = supervisor.start_restarting
        for stream in PROJECTED:
            start(f"history of {stream}", StreamProjector(bus.client, self._writer, stream).run)
        start("history of decisions", DecisionProjector(bus, self._writer, shards=settings.shards).run)
        start(RETENTION, self._writer.retain)
        lag = HistoryLag(bus, self._database, report=report, shards=settings.shards)
        start("history lag", lag.run)
        self._service = HistoryService(bus, self._database, lag)
        start("history questions", self._service.run)

    def close(self) -> None:
        """Give up the database, after what is being written; the tasks have ended."""
        self._service.close()
        self._writer.close()
        self._database.close()


def history_database(settings: Settings) -> Database:
    """The database that the settings name. Raises SetupError: it is none of ours."""
    if settings.history is not None:
        return Database(settings.history.get_secret_value())
    with contextlib.suppress(OSError):  # said by whoever opens the database
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Database(settings.data_dir / "history.db")
