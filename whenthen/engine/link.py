"""Requests over one NATS connection, many at a time: one inbox, one future each, nothing pending across a lost
connection.

Called by the bus, the commit and the loaders. A request that got no answer has an unknown outcome; whoever sends one
must be able to send it again (a message id, an expected sequence). `nats.aio.client.Client.request` does the same,
but keeps waiting through a reconnection for an answer that can not come any more.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import nats.errors
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from whenthen.schemas.errors import BusUnavailable

__all__ = ["Link", "LinkReason", "unavailable"]


class LinkReason:
    """`reason` of a `BusUnavailable`: a bounded set."""

    DISCONNECTED = "bus_disconnected"  #: there is no connection, or it was lost before the answer came
    TIMEOUT = "bus_timeout"  #: no answer in time
    NO_STREAM = "no_stream"  #: nobody serves the subject: the stream is missing or has no leader
    FULL = "stream_full"  #: the stream or the disk has reached its limit
    REFUSED = "bus_refused"  #: the server answered with another error


def unavailable(message: str, reason: str) -> BusUnavailable:
    """A `BusUnavailable` whose `reason` is one of `LinkReason`."""
    error = BusUnavailable(message)
    error.reason = reason
    return error


class Link:
    """Pipelined requests on `nc`. `open` before use; `lost` when the connection went away."""

    def __init__(self, nc: Client) -> None:
        self.nc = nc
        self._prefix = ""
        self._sub: Subscription | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[Msg]] = {}

    @property
    def in_flight(self) -> int:
        return len(self._waiting)

    async def open(self) -> None:
        """Subscribe the inbox."""
        self._prefix = self.nc.new_inbox() + "."
        self._sub = await self.nc.subscribe(
            self._prefix + "*", cb=self._answer, pending_msgs_limit=0, pending_bytes_limit=0
        )

    async def close(self) -> None:
        """Give up the inbox and fail what still waits."""
        self.lost("the connection is being closed")
        if self._sub is not None and self.nc.is_connected:
            await self._sub.unsubscribe()
        self._sub = None

    def lost(self, why: str = "the connection to NATS was lost before the answer came") -> None:
        """Fail every request that still waits; its outcome is unknown."""
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(unavailable(why, LinkReason.DISCONNECTED))
                future.exception()  # whoever waits gets it; a sender that was cancelled leaves no warning behind

    async def start(
        self, subject: str, data: bytes, headers: dict[str, Any] | None = None, *, timeout_s: float = 5.0
    ) -> asyncio.Future[Msg]:
        """Send a request; the future gives the answer, or raises `BusUnavailable` after `timeout_s`.

        Raises:
            BusUnavailable: there is no connection; nothing was sent.
            nats.errors.MaxPayloadError: `data` is larger than the server accepts.
        """
        if not self.nc.is_connected:
            raise unavailable("there is no connection to NATS; it is being restored", LinkReason.DISCONNECTED)
        loop = asyncio.get_running_loop()
        token = str(next(self._numbers))
        future: asyncio.Future[Msg] = loop.create_future()
        self._waiting[token] = future
        timer = loop.call_later(timeout_s, self._expire, token, subject, timeout_s)

        def forget(_: asyncio.Future[Msg]) -> None:
            timer.cancel()
            self._waiting.pop(token, None)

        future.add_done_callback(forget)
        try:
            await self.nc.publish(subject, data, reply=self._prefix + token, headers=headers)
        except nats.errors.MaxPayloadError:
            future.cancel()
            raise
        except (nats.errors.Error, OSError) as error:
            future.cancel()
            raise unavailable(f"NATS did not take the message: {error!r}", LinkReason.DISCONNECTED) from error
        return future

    async def request(
        self, subject: str, data: bytes, headers: dict[str, Any] | None = None, *, timeout_s: float = 5.0
    ) -> Msg:
        """Send a request and wait for its answer. Errors: see `start`."""
        return await (await self.start(subject, data, headers, timeout_s=timeout_s))

    async def publish(self, subject: str, data: bytes, headers: dict[str, Any] | None = None) -> None:
        """Send without asking for an answer.

        Raises:
            BusUnavailable: there is no connection; nothing was sent.
            nats.errors.MaxPayloadError: `data` is larger than the server accepts.
        """
        if not self.nc.is_connected:
            raise unavailable("there is no connection to NATS; it is being restored", LinkReason.DISCONNECTED)
        try:
            await self.nc.publish(subject, data, headers=headers)
        except nats.errors.MaxPayloadError:
            raise
        except (nats.errors.Error, OSError) as error:
            raise unavailable(f"NATS did not take the message: {error!r}", LinkReason.DISCONNECTED) from error

    async def api(self, subject: str, body: Any = None, *, timeout_s: float = 5.0) -> dict[str, Any]:
        """Call the JetStream API (`subject` after `$JS.API.`) and give its answer, errors included, as it is."""
        data = b"" if body is None else orjson.dumps(body)
        message = await self.request("$JS.API." + subject, data, timeout_s=timeout_s)
        answer: dict[str, Any] = orjson.loads(message.data)
        return answer

    async def stream_of(
        self, subject: str, data: bytes, receive: Callable[[Msg], bool], *, idle_s: float = 10.0
    ) -> None:
        """Send a request that many messages answer; `receive` gets each and says whether more are to come.

        Raises:
            BusUnavailable: nothing came for `idle_s`, or the connection was lost.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Msg] = loop.create_future()
        token = str(next(self._numbers))
        self._waiting[token] = done
        last = loop.time()

        async def collect(message: Msg) -> None:
            nonlocal last
            last = loop.time()
            if not done.done():
                try:
                    if not receive(message):
                        done.set_result(message)
                except Exception as error:  # noqa: BLE001 - handed to whoever waits below
                    done.set_exception(error)

        inbox = self.nc.new_inbox()
        sub = await self.nc.subscribe(inbox, cb=collect, pending_msgs_limit=0, pending_bytes_limit=0)
        try:
            if not self.nc.is_connected:
                raise unavailable("there is no connection to NATS", LinkReason.DISCONNECTED)
            await self.nc.publish(subject, data, reply=inbox)
            while not done.done():
                left = last + idle_s - loop.time()
                if left <= 0:
                    raise unavailable(f"NATS sent nothing for {idle_s:g} s on {subject}", LinkReason.TIMEOUT)
                await asyncio.wait([done], timeout=left)
            done.result()
        except (nats.errors.Error, OSError) as error:
            raise unavailable(f"NATS did not take the request: {error!r}", LinkReason.DISCONNECTED) from error
        finally:
            self._waiting.pop(token, None)
            if not done.done():
                done.cancel()
            if self.nc.is_connected:
                await sub.unsubscribe()

    async def _answer(self, message: Msg) -> None:
        future = self._waiting.get(message.subject[len(self._prefix) :])
        if future is None or future.done():
            return
        if message.headers and message.headers.get("Status") == "503":
            future.set_exception(unavailable("no stream or service answers on the subject", LinkReason.NO_STREAM))
        else:
            future.set_result(message)

    def _expire(self, token: str, subject: str, timeout_s: float) -> None:
        future = self._waiting.get(token)
        if future is not None and not future.done():
            future.set_exception(
                unavailable(f"NATS did not answer within {timeout_s:g} s on {subject[:200]}", LinkReason.TIMEOUT)
            )
