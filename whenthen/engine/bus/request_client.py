"""Requests over one NATS connection, many at a time: one inbox, one future each, nothing pending across a lost
connection.

Called by the bus, the commit and the loaders. A request that got no answer has an unknown outcome; whoever sends one
must be able to send it again (a message id, an expected sequence). `nats.aio.client.Client.request` does the same,
but keeps waiting through a reconnection for an answer that can not come any more, and costs more (`engine.bus.protocol`).
Readers of streams learn here when the connection is lost and restored (`on_connection`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import nats.errors
import orjson
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from whenthen.engine.bus.protocol import Delivery, Receive
from whenthen.engine.bus.transport import Transport, open_transport
from whenthen.schemas.errors import BusUnavailable

__all__ = [
    "BatchGate",
    "BusReason",
    "RequestClient",
    "answered_unless",
    "refusal",
    "stream_info",
    "unavailable",
    "until_answered",
]

T = TypeVar("T")

ASK_AGAIN_S = 0.2  #: between two questions of `until_answered` and `answered_unless`

SWEEP_S = 0.05  #: how often requests are looked through for those whose time is up
_NO_RESPONDERS = b"NATS/1.0 503"
_AWAY = "there is no connection to NATS; it is being restored"
#: JetStream error codes that say: no room (maximum bytes, messages, storage, memory, insufficient resources)
_FULL_CODES = frozenset({10023, 10028, 10047, 10077, 10122})
#: those that speak of the server as it is just now, whatever the message: it is temporarily unavailable, not the leader, the stream is
#: offline, there are too many requests or batches, or it abandoned an atomic batch: one that it could not stage, as on a full disk, or
#: whose first messages it dropped
_BUSY_CODES = frozenset({10008, 10009, 10118, 10163, 10167, 10176, 10194, 10210})


class BusReason:
    """`reason` of a `BusUnavailable`: a bounded set."""

    DISCONNECTED = "bus_disconnected"  #: there is no connection, or it was lost before the answer came
    TIMEOUT = "bus_timeout"  #: no answer in time
    NO_STREAM = "no_stream"  #: nobody serves the subject: the stream is missing or has no leader
    FULL = "stream_full"  #: the stream or the disk has reached its limit
    BUSY = "bus_busy"  #: the server can not at the moment, whatever it is asked to store; nothing of it was stored
    REFUSED = "bus_refused"  #: the server answered with another error


_REASONS = {**dict.fromkeys(_FULL_CODES, BusReason.FULL), **dict.fromkeys(_BUSY_CODES, BusReason.BUSY)}


def unavailable(message: str, reason: str) -> BusUnavailable:
    """A `BusUnavailable` whose `reason` is one of `BusReason`."""
    error = BusUnavailable(message)
    error.reason = reason
    return error


def refusal(what: str, error: Mapping[str, Any]) -> BusUnavailable:
    """What an error in an answer of JetStream's means: `what` did not work, as there is no room, not just now, or for another reason."""
    reason = _REASONS.get(error.get("err_code", 0), BusReason.REFUSED)
    return unavailable(f"{what}: {error.get('description')} ({error.get('err_code')})", reason)


class _Waiting(NamedTuple):
    """A request that has no answer yet."""

    future: asyncio.Future[Delivery]
    until: float  #: of the loop's clock
    timeout_s: float
    subject: str


async def until_answered(ask: Callable[[], Awaitable[T]], on_failure: Callable[[BusUnavailable], object]) -> T:
    """What `ask` gives, asked again and again as long as the bus is not available; `on_failure` is called each time."""
    while True:
        try:
            return await ask()
        except BusUnavailable as error:
            on_failure(error)
        await asyncio.sleep(ASK_AGAIN_S)


async def answered_unless(
    stopping: Callable[[], bool], ask: Callable[[], Awaitable[T]], on_failure: Callable[[BusUnavailable], object]
) -> T | None:
    """As `until_answered`, until `stopping` says that nobody waits for the answer any more; None then."""
    while not stopping():
        try:
            return await ask()
        except BusUnavailable as error:
            on_failure(error)
        await asyncio.sleep(ASK_AGAIN_S)
    return None


class BatchGate:
    """Which atomic batches are under way, and that none is, for whoever must not meet half of one."""

    def __init__(self) -> None:
        self._under_way = 0
        self._open = asyncio.Event()
        self._open.set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def __aenter__(self) -> None:
        while not self._open.is_set():
            await self._open.wait()
        self._under_way += 1
        self._idle.clear()

    async def __aexit__(self, *_: object) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._idle.set()

    @contextlib.asynccontextmanager
    async def closed(self) -> AsyncIterator[None]:
        """Let those end that are under way, and start none meanwhile."""
        self._open.clear()
        try:
            await self._idle.wait()
            yield
        finally:
            self._open.set()


class RequestClient:
    """Pipelined requests on `nc`. `open` before use; `lost` when the connection went away."""

    def __init__(self, nc: Client) -> None:
        self.nc = nc
        self.protocol: Transport = open_transport(nc)
        self.batches = BatchGate()
        self._prefix = ""
        self._sub: Subscription | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[bytes, _Waiting] = {}
        self._sweeping = False
        self._listeners: list[Callable[[], None]] = []

    async def open(self) -> None:
        """Subscribe the inbox."""
        self._prefix = self.nc.new_inbox() + "."
        self._sub = await self.protocol.subscribe(self._prefix + "*", self._answerer(len(self._prefix)))

    async def close(self) -> None:
        """Give up the inbox and fail what still waits."""
        self.lost("the connection is being closed")
        if self._sub is not None:
            await self.protocol.unsubscribe(self._sub)
        self._sub = None
        await self.protocol.close()

    def on_connection(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` when the connection is lost, and when it is restored. Gives what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def restored(self) -> None:
        """The connection is back; to be called by whoever owns it."""
        for listener in list(self._listeners):
            listener()

    def lost(self, why: str = "the connection to NATS was lost before the answer came") -> None:
        """Fail every request that still waits; its outcome is unknown."""
        for waiting in self._waiting.values():
            if not waiting.future.done():
                _fail(waiting.future, unavailable(why, BusReason.DISCONNECTED))
        self._waiting.clear()  # in place: the receiver of answers holds it
        for listener in list(self._listeners):
            listener()

    async def start(
        self, subject: str, data: bytes, head: bytes = b"", *, timeout_s: float = 5.0
    ) -> asyncio.Future[Delivery]:
        """Send a request, `head` being its header block; the future gives the answer, or raises `BusUnavailable` after
        `timeout_s`. Nothing is waited for: what is started one after the other goes out in one write.

        Raises:
            BusUnavailable: there is no connection; nothing was sent.
            nats.errors.MaxPayloadError: `data` is larger than the server accepts.
        """
        token = str(next(self._numbers))
        self.send(subject, data, head, reply=self._prefix + token)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Delivery] = loop.create_future()
        self._waiting[token.encode()] = _Waiting(future, loop.time() + timeout_s, timeout_s, subject)
        if not self._sweeping:
            self._sweeping = True
            loop.call_later(SWEEP_S, self._sweep)
        return future

    async def request(self, subject: str, data: bytes, head: bytes = b"", *, timeout_s: float = 5.0) -> Delivery:
        """Send a request and wait for its answer. Errors: see `start`."""
        return await (await self.start(subject, data, head, timeout_s=timeout_s))

    def send(self, subject: str, data: bytes, head: bytes = b"", *, reply: str = "") -> None:
        """Send without waiting for an answer.

        Raises:
            BusUnavailable: there is no connection; nothing was sent.
            nats.errors.MaxPayloadError: `data` is larger than the server accepts.
        """
        try:
            self.protocol.send(subject, data, reply=reply, head=head)
        except nats.errors.ConnectionClosedError:
            raise unavailable(_AWAY, BusReason.DISCONNECTED) from None

    async def api(self, subject: str, body: Any = None, *, timeout_s: float = 5.0) -> dict[str, Any]:
        """Call the JetStream API (`subject` after `$JS.API.`) and give its answer, errors included, as it is."""
        data = b"" if body is None else orjson.dumps(body)
        message = await self.request("$JS.API." + subject, data, timeout_s=timeout_s)
        answer: dict[str, Any] = orjson.loads(message.data)
        return answer

    async def read_stored(
        self, stream: str, request: Mapping[str, Any], receive: Callable[[Delivery], None], *, idle_s: float = 10.0
    ) -> bool:
        """Hand stored messages of a stream to `receive`, in order: one batch, which `request` describes as the JetStream
        API `DIRECT.GET` wants it. Gives whether the stream holds more of the kind.

        Raises:
            BusUnavailable: the batch did not come, or not to its end.
        """
        more = False

        def take(message: Delivery) -> bool:
            nonlocal more
            if message.is_plain:
                receive(message)
                return True
            headers = message.headers
            status = headers.get("Status")
            if status is None:
                receive(message)
                return True
            if status not in ("204", "404"):
                reason = BusReason.NO_STREAM if status == "503" else BusReason.REFUSED
                raise unavailable(f"{stream} can not be read: {headers.get('Description') or status}", reason)
            more = status == "204" and headers.get("Nats-Num-Pending", "0") != "0"
            return False

        await self.stream_of(f"$JS.API.DIRECT.GET.{stream}", orjson.dumps(request), take, idle_s=idle_s)
        return more

    async def stream_of(
        self, subject: str, data: bytes, receive: Callable[[Delivery], bool], *, idle_s: float = 10.0
    ) -> None:
        """Send a request that many messages answer; `receive` gets each and says whether more are to come.

        Raises:
            BusUnavailable: nothing came for `idle_s`, or the connection was lost.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Delivery] = loop.create_future()
        token = str(next(self._numbers)).encode()
        last = loop.time()

        def collect(*parts: bytes) -> None:
            nonlocal last
            last = loop.time()
            if not done.done():
                try:
                    message = Delivery(*parts)
                    if not receive(message):
                        done.set_result(message)
                except Exception as error:  # noqa: BLE001 - handed to whoever waits below
                    done.set_exception(error)

        if not self.nc.is_connected:
            raise unavailable(_AWAY, BusReason.DISCONNECTED)
        inbox = self.nc.new_inbox()
        try:
            sub = await self.protocol.subscribe(inbox, collect)
        except (nats.errors.Error, OSError) as error:
            raise unavailable(f"no subscription: {error!r}", BusReason.DISCONNECTED) from error
        self._waiting[token] = _Waiting(done, math.inf, idle_s, subject)  # so that a lost connection ends it
        try:
            self.send(subject, data, reply=inbox)
            while not done.done():
                left = last + idle_s - loop.time()
                if left <= 0:
                    raise unavailable(f"NATS sent nothing for {idle_s:g} s on {subject}", BusReason.TIMEOUT)
                await asyncio.wait([done], timeout=left)
            done.result()
        finally:
            self._waiting.pop(token, None)
            if not done.done():
                done.cancel()
            await self.protocol.unsubscribe(sub)

    def _answerer(self, prefix: int) -> Receive:
        """What takes the answers. It runs for every message that is stored, so it does no more than it must."""
        waiting = self._waiting

        def answer(subject: bytes, reply: bytes, head: bytes, data: bytes) -> None:
            found = waiting.pop(subject[prefix:], None)
            if found is None or found.future.done():
                return
            if head.startswith(_NO_RESPONDERS):
                why = "no stream or service answers on the subject"
                _fail(found.future, unavailable(why, BusReason.NO_STREAM))
            else:
                found.future.set_result(Delivery(subject, reply, head, data))

        return answer

    def _sweep(self) -> None:
        """End the requests whose time is up, and forget those that nobody waits for any more."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        over = [token for token, waiting in self._waiting.items() if waiting.until <= now or waiting.future.done()]
        for token in over:
            waiting = self._waiting.pop(token)
            if not waiting.future.done():
                why = f"NATS did not answer within {waiting.timeout_s:g} s on {waiting.subject[:200]}"
                _fail(waiting.future, unavailable(why, BusReason.TIMEOUT))
        self._sweeping = bool(self._waiting)
        if self._sweeping:
            loop.call_later(SWEEP_S, self._sweep)


async def stream_info(
    client: RequestClient, stream: str, request: Mapping[str, object] | None = None
) -> dict[str, Any]:
    """What JetStream says of a stream: `config`, `state`, `created`. `request` asks for more, such as its subjects.

    Raises:
        BusUnavailable: no answer, or the stream can not be asked; its `reason` says whether it may be later.
    """
    answer = await client.api(f"STREAM.INFO.{stream}", request)
    if error := answer.get("error"):
        raise refusal(f"stream {stream} can not be asked", error)
    return answer


def _fail(future: asyncio.Future[Delivery], error: BusUnavailable) -> None:
    future.set_exception(error)
    future.exception()  # whoever waits gets it; a sender that was cancelled leaves no warning behind
