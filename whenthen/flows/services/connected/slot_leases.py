"""Slots that a program beside the runs leases from the server at `WHENTHEN_URL`. A thread renews the lease; a program that dies lets it end."""

from __future__ import annotations

import threading
from typing import Any, Final

from whenthen.flows.clock import steady
from whenthen.flows.execution.run_logging import engine_logger
from whenthen.flows.flow_errors import ConcurrencySlotAcquisitionError, ConfigurationError, ObjectNotFound, ServerError
from whenthen.flows.services.server_requests import ServerAddress

__all__ = ["SlotLease", "leased"]

_RENEWALS: Final = 3  #: in the time of a lease


class SlotLease:
    """Slots that are held. `release` gives them back."""

    def __init__(self, server: ServerAddress, id: str, lease_s: float) -> None:
        self._server = server
        self._id = id
        self._lease_s = lease_s
        self._over = threading.Event()
        self.lost = ""  #: why others may have the slots
        self._thread = threading.Thread(target=self._renew, name="whenthen-lease", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Give the slots back; what can not be given back comes free with its time."""
        self._over.set()
        try:
            self._server.post(f"/api/leases/{self._id}/release")
        except (ObjectNotFound, ServerError) as error:
            engine_logger().info("slots come free when their lease is over, and not at once: %s", error)

    def _renew(self) -> None:
        valid_until = steady() + self._lease_s
        while not self._over.wait(self._lease_s / _RENEWALS):
            try:
                self._server.post(f"/api/leases/{self._id}/renew")
                valid_until = steady() + self._lease_s
            except ObjectNotFound as error:
                self._lose(str(error))
                return
            except ServerError as error:
                if steady() >= valid_until:
                    self._lose(str(error))
                    return

    def _lose(self, why: str) -> None:
        if not self._over.is_set():
            self.lost = why
            engine_logger().warning("the lease of slots could not be renewed, and others may have them: %s", why)


def leased(body: dict[str, Any], lease_s: float, *, until: float | None, sleep: Any) -> SlotLease | dict[str, Any]:
    """The slots, when they are free; else `{"timed_out": True}` at `until` of the steady clock, or `{"in_process": True}`. A rate's slots are
    used up: `{"used": True}`.

    Raises:
        ConcurrencySlotAcquisitionError: they will never be free. ServerError: no server answers, or it refuses.
    """
    server = ServerAddress.of_environment("concurrency")
    sent = {name: body[name] for name in ("names", "occupy", "mode")} | {"lease_s": lease_s}
    while True:
        try:
            answer = server.post("/api/leases", sent)
        except ServerError as error:
            if error.answered == "no_such_limit":
                raise ConcurrencySlotAcquisitionError(str(error)) from None
            if error.status == 400:
                raise ConfigurationError(str(error)) from None
            raise
        if answer.get("in_process"):
            return {"in_process": True}
        if (lease := answer.get("lease")) is not None:
            return {"used": True} if body["mode"] == "rate_limit" else SlotLease(server, lease, lease_s)
        wait_s = float(answer.get("wait_s") or 1.0)
        left_s = wait_s if until is None else until - steady()
        if left_s <= 0:
            return {"timed_out": True}
        sleep(min(wait_s, left_s))
