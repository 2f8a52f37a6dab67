"""Whether an embedded nats-server can write, as it says itself over its system account."""

from __future__ import annotations

import asyncio
import json

import nats
import nats.errors

from whenthen.engine.bus.datadir import Login

__all__ = ["HEALTH_SUBJECT", "health_error"]

HEALTH_TIMEOUT_S = 5.0
HEALTH_SUBJECT = "$SYS.REQ.SERVER.PING.HEALTHZ"


async def health_error(url: str, login: Login) -> str | None:
    """The error that the server's health check reports; empty when it is healthy, None when it does not answer."""
    try:
        async with asyncio.timeout(HEALTH_TIMEOUT_S):
            client = await nats.connect(
                url,
                name="whenthen health",
                user=login.user,
                password=login.password,
                allow_reconnect=False,
                error_cb=_pass_over,
            )
            try:
                answer = json.loads((await client.request(HEALTH_SUBJECT, timeout=HEALTH_TIMEOUT_S)).data)
            finally:
                await client.close()
        health = answer["data"]
        if health["status_code"] == 200:
            return ""
        return str(health.get("error") or "unavailable") if health["status_code"] == 503 else None
    except (TimeoutError, ValueError, LookupError, TypeError, OSError, nats.errors.Error):
        return None


async def _pass_over(error: Exception) -> None:
    """What goes wrong with a connection that asks for the health is the answer to it, not a line in the log."""
