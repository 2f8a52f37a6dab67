"""Where a process without the role `api` is probed and scraped: an HTTP server of its own for what tells of the process alone."""

from __future__ import annotations

import logging
from collections.abc import Callable

from whenthen.engine.http import (
    ConnectionGate,
    ConnectionLimits,
    HttpServer,
    Listening,
    MonitoringApp,
    RequestOrigin,
    listen,
)
from whenthen.engine.metrics import Metrics
from whenthen.engine.process.settings import Settings
from whenthen.engine.process.supervisor import Supervisor
from whenthen.schemas.errors import SetupError

__all__ = ["DEFAULT_PORT", "MonitoringServer"]

log = logging.getLogger(__name__)

TASK = "monitoring"
DEFAULT_PORT = 4281
_LIMITS = ConnectionLimits(connections=64)  #: a few probes and scrapes, each a moment long
_DRAIN_S = 1.0


class MonitoringServer:
    """Listens once it is built, before the process has anything else; `address` says where.

    Raises:
        SetupError: the address that the settings name can not be had.
    """

    def __init__(
        self,
        settings: Settings,
        supervisor: Supervisor,
        metrics: Metrics,
        *,
        missing: Callable[[], list[str]],
        notes: Callable[[], list[str]],
    ) -> None:
        listening = _listen(settings)
        self.address, self.port = listening.address, listening.port
        app = MonitoringApp(
            metrics=metrics.text,
            # one that stops answers until its end, as its last work is still worth watching
            missing=lambda: ["stopping"] if supervisor.stopping.is_set() else missing(),
            notes=notes,
            origin=RequestOrigin(host=settings.monitoring_host, port=self.port, public_urls=settings.public_urls),
        )
        self._supervisor = supervisor
        self._server = HttpServer(app, drain_s=_DRAIN_S, gate=ConnectionGate(_LIMITS, metrics=metrics))
        supervisor.start(TASK, self._server.serve(sockets=[listening.sock]))

    async def stop(self) -> None:
        """Finish what is being answered."""
        self._server.should_exit = True
        await self._supervisor.end(TASK, 2 * _DRAIN_S)


def _listen(settings: Settings) -> Listening:
    host, port = settings.monitoring_host, settings.monitoring_port
    if port is not None:
        return listen(host, port, remedy="set another monitoring_port (WHENTHEN_MONITORING_PORT) or monitoring_host")
    try:
        found = listen(host, DEFAULT_PORT)
        found.sock.listen()  # two processes can be bound to a port at one time, and the second one that listens fails
    except (SetupError, OSError):
        # of several processes on one machine all but one; they must not need settings to start
        found = listen(host, 0, remedy="set another monitoring_host (WHENTHEN_MONITORING_HOST)")
        log.warning(
            "metrics and probes are served at %s, as port %d is taken; set monitoring_port (WHENTHEN_MONITORING_PORT) to have them at "
            "the same address after the next start",
            found.address,
            DEFAULT_PORT,
        )
    return found
