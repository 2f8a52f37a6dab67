"""The bus: FastStream's NatsBroker as the application's connection, and events published with an acknowledgement.

Called by the HTTP layer, sources, actions and loops. `publish` returns after JetStream stored the event; everything
else raises `BusUnavailable`, and publishing the same event again is safe, as its id is the message's id
(docs/architecture.md, "The log").
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import nats.errors
import orjson
from faststream.nats import NatsBroker
from faststream.security import SASLPlaintext
from nats.aio.client import Client
from nats.js import JetStreamContext

from whenthen.engine.bus.datadir import Login
from whenthen.engine.bus.protocol import Delivery, encode_headers
from whenthen.engine.bus.request_client import BusReason, RequestClient, refusal, unavailable
from whenthen.engine.bus.streams import EVENTS
from whenthen.engine.bus.subjects import event_subject, header_id
from whenthen.engine.bus.transport import Transport
from whenthen.schemas.errors import BusUnavailable, InvalidEvent, SetupError
from whenthen.schemas.events import Event, decode_event

__all__ = ["ENVELOPE_BYTES", "Ack", "Bus"]

log = logging.getLogger(__name__)

RETRY_PAUSE_S = 0.1
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: what an event is wrapped in where it is stored again: subject, headers, the key and times of an event that waits
ENVELOPE_BYTES = 16 << 10
ATTEMPT_S = 1.5  #: a leader that died does not answer; the next one may


@dataclass(frozen=True, slots=True)
class Ack:
    """JetStream has the event: its position in `EVENTS`, and whether it was there already."""

    seq: int
    duplicate: bool


class Bus:
    """One connection to NATS. `connect` before use; `nc`, `js`, `client` and `broker` serve whoever needs more than
    events. The `login` may be in the URL of a server as well."""

    def __init__(
        self,
        servers: str | Sequence[str],
        *,
        name: str = "whenthen",
        publish_timeout_s: float = 5.0,
        max_in_flight: int = 8192,
        login: Login | None = None,
        **broker_options: Any,
    ) -> None:
        written = [servers] if isinstance(servers, str) else list(servers)
        login = login or next(filter(None, map(_login_in, written)), None)
        #: without the login, so that it gets into no message, and is used for servers that a cluster tells of, too
        self.servers = written if login is None else list(map(_without_secrets, written))
        if login is not None:
            broker_options["security"] = SASLPlaintext(username=login.user, password=login.password)
            if _PLAIN.fullmatch(login.user):
                # the answers to a user's requests are for it alone, where permissions say so (deploy/nats/users.conf)
                broker_options.setdefault("inbox_prefix", f"_INBOX_{login.user}")
        self.publish_timeout_s = publish_timeout_s
        self.broker = NatsBroker(
            self.servers,
            name=name,
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.2,  # type: ignore[arg-type]  # nats-py sleeps for any number
            connect_timeout=2,
            ping_interval=5,
            max_outstanding_pings=2,
            pending_size=0,  # nothing is buffered while the connection is away: a publish then fails at once
            specification_url=self.addresses,
            disconnected_cb=self._disconnected,
            reconnected_cb=self._reconnected,
            closed_cb=self._ended,
            error_cb=self._failed,
            logger=None,
            **broker_options,
        )
        self._most_in_flight = max_in_flight
        self._in_flight = 0
        self._turns: deque[asyncio.Future[None]] = deque()
        self.closed = asyncio.Event()  #: the server has ended the connection for good, and nothing restores it
        self._closing = False
        self._nc: Client | None = None
        self._client: RequestClient | None = None
        self._js: JetStreamContext | None = None
        self._listeners: list[Callable[[bool], Awaitable[None] | None]] = []

    @property
    def addresses(self) -> list[str]:
        """`servers` without secrets."""
        return list(map(_without_secrets, self.servers))

    @property
    def nc(self) -> Client:
        assert self._nc is not None, "connect first"
        return self._nc

    @property
    def js(self) -> JetStreamContext:
        assert self._js is not None, "connect first"
        return self._js

    @property
    def client(self) -> RequestClient:
        assert self._client is not None, "connect first"
        return self._client

    @property
    def protocol(self) -> Transport:
        return self.client.protocol

    @property
    def connected(self) -> bool:
        return self._nc is not None and self._nc.is_connected

    def on_connection(self, listener: Callable[[bool], Awaitable[None] | None]) -> Callable[[], None]:
        """Call `listener` with False when the connection is lost and with True when it is back. Gives what ends
        that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def connect(self, *, timeout_s: float = 10.0) -> None:
        """Connect, trying for `timeout_s`.

        Raises:
            SetupError: no server answers.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            try:
                # nats-py retries a first connection for ever when reconnecting is allowed without a limit
                connection = await asyncio.wait_for(self.broker.connect(), max(deadline - loop.time(), 0.1))
                break
            except (OSError, nats.errors.Error, TimeoutError) as error:
                if loop.time() + RETRY_PAUSE_S > deadline:
                    urls = ", ".join(self.addresses)
                    why = f"no NATS server answers at {urls}: {error or type(error).__name__}"
                    if type(error) is nats.errors.Error:  # what a server said
                        why += "; if it wants a login, name a file with one (nats_credentials)"
                    raise SetupError(why) from error
                await asyncio.sleep(RETRY_PAUSE_S)
        self._nc = connection
        self._js = connection.jetstream(timeout=5)
        self._client = RequestClient(connection)
        await self._client.open()

    async def close(self) -> None:
        """Send what is buffered and disconnect."""
        self._closing = True
        if self._client is not None:
            await self._client.close()
        try:
            await self.broker.stop()
        except (nats.errors.Error, OSError, TimeoutError) as error:
            log.warning("NATS connection was not closed cleanly: %r", error)
            if self._nc is not None:
                await self._nc.close()
        self._nc = self._js = self._client = None

    async def publish(self, event: Event) -> Ack:
        """Store one event. Many callers at once share the connection; each waits for its own acknowledgement.

        Raises:
            BusUnavailable: not stored, or not known to be; publish the same event again. `reason` says why
            (`BusReason`). InvalidEvent: larger than the server accepts.
        """
        data = event.encode()
        if self._nc is not None and len(data) > self._nc.max_payload - ENVELOPE_BYTES:
            raise self._too_large(data)
        return await self.store(event_subject(event.name), data, header_id(event.id))

    async def store(self, subject: str, data: bytes, message_id: str | None = None) -> Ack:
        """Publish one message into whichever stream has `subject`. Errors: see `publish`.

        With a `message_id`, a stream whose leader is missing or silent is tried again until the time is up.
        """
        client = self._client
        if client is None:
            raise unavailable("the bus is not connected", BusReason.DISCONNECTED)
        head = b"" if message_id is None else encode_headers({"Nats-Msg-Id": message_id})
        now = asyncio.get_running_loop().time
        deadline = now() + self.publish_timeout_s
        if self._in_flight < self._most_in_flight and not self._turns:
            self._in_flight += 1
        else:
            await self._turn()
        try:
            while True:
                try:
                    left = deadline - now()
                    if left <= 0:
                        raise unavailable(f"not sent within {self.publish_timeout_s:g} s", BusReason.TIMEOUT)
                    wait = left if message_id is None else min(left, ATTEMPT_S)
                    return _ack(await client.request(subject, data, head, timeout_s=wait))
                except BusUnavailable as error:
                    retry = message_id is not None and error.reason in (BusReason.NO_STREAM, BusReason.TIMEOUT)
                    if not retry or now() + RETRY_PAUSE_S > deadline:
                        raise
                await asyncio.sleep(RETRY_PAUSE_S)
        except nats.errors.MaxPayloadError:
            raise self._too_large(data) from None
        finally:
            self._leave()

    async def _turn(self) -> None:
        """Wait for the place of a message that has ended, in the order of arrival."""
        turn = asyncio.get_running_loop().create_future()
        self._turns.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()
            raise

    def _leave(self) -> None:
        """Hand the place of a message that has ended to whoever waits for one."""
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._in_flight -= 1

    def _too_large(self, data: bytes) -> InvalidEvent:
        limit = self.nc.max_payload - ENVELOPE_BYTES
        return InvalidEvent(f"{len(data)} bytes; the NATS server accepts at most {limit}", path=("event",))

    async def event_at(self, seq: int) -> Event | None:
        """The event at a position of `EVENTS`; None when it is no longer kept.

        Raises:
            BusUnavailable: no answer.
        """
        message = await self.client.request(f"$JS.API.DIRECT.GET.{EVENTS}", orjson.dumps({"seq": seq}))
        if message.headers.get("Status"):
            return None
        return decode_event(message.data, seq)

    async def _disconnected(self) -> None:
        if self._client is not None:
            self._client.lost()
        if not self._closing:
            log.warning("the connection to NATS is lost; it is being restored")
        await self._notify(False)

    async def _ended(self) -> None:
        await self._disconnected()
        if not self._closing:
            why = self._nc.last_error if self._nc is not None else None
            log.critical("NATS has ended the connection for good: %s", why or "it gave no reason")
            self.closed.set()

    async def _reconnected(self) -> None:
        log.info("the connection to NATS is restored")
        if self._client is not None:
            self._client.restored()
        await self._notify(True)

    async def _notify(self, connected: bool) -> None:
        for listener in list(self._listeners):
            result = listener(connected)
            if result is not None:
                await result

    async def _failed(self, error: Exception) -> None:
        if self.connected:
            log.warning("NATS connection: %r", error)


def _ack(message: Delivery) -> Ack:
    answer = orjson.loads(message.data)
    error = answer.get("error")
    if error is None:
        return Ack(answer["seq"], bool(answer.get("duplicate")))
    raise refusal("JetStream did not store the message", error)


def _login_in(url: str) -> Login | None:
    """The user and the password that a URL names; None without both, as of a token."""
    parts = urlsplit(url)
    if parts.username is None or parts.password is None:
        return None
    return Login(unquote(parts.username), unquote(parts.password))


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
