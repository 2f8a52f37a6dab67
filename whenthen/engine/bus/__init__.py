"""How is something stored in NATS and read back? The connection, its protocol, streams, subjects, batches, records, and the embedded server."""

from __future__ import annotations

from whenthen.engine.bus.batches import (
    BATCH_MESSAGES,
    StaleBatch,
    publish_batch,
    publish_fenced,
)
from whenthen.engine.bus.connection import (
    Ack,
    Bus,
)
from whenthen.engine.bus.datadir import (
    DataDir,
    Login,
    find_login,
    read_login,
)
from whenthen.engine.bus.disk import (
    DiskRoom,
)
from whenthen.engine.bus.embedded import (
    EmbeddedServer,
    EmbeddedSettings,
)
from whenthen.engine.bus.protocol import (
    Delivery,
    Position,
    encode_headers,
    read_headers,
)
from whenthen.engine.bus.pull_consumer import (
    ConsumerSettings,
    PullConsumer,
)
from whenthen.engine.bus.records import (
    Message,
    Offset,
    Outcome,
    OutcomeState,
    decode_task,
    decode_window,
    encode_firing,
    encode_task,
    encode_window,
    pack,
    unpack,
)
from whenthen.engine.bus.request_client import (
    BusReason,
    RequestClient,
    refusal,
    unavailable,
)
from whenthen.engine.bus.stream_pages import (
    StoredMessage,
    newest,
)
from whenthen.engine.bus.stream_reader import (
    Received,
    StreamReader,
    stored_messages,
)
from whenthen.engine.bus.streams import (
    ENGINE,
    EVENTS,
    LEASES,
    RUN_STATES,
    RUNS,
    SPECS,
    STATE,
    StreamSettings,
    check_server,
    ensure_streams,
    make_room,
    make_room_in_engine,
)
from whenthen.engine.bus.subjects import (
    ALL_EVENTS,
    action_subject,
    dead_subject,
    dead_subjects,
    escape_token,
    event_subject,
    filters_for,
    firing_subject,
    header_id,
    offset_subject,
    outcome_of,
    outcome_subject,
    prepared_subject,
    shard_subjects,
    short_token,
    tick_subject,
    window_subject,
)

__all__ = [
    "ALL_EVENTS",
    "BATCH_MESSAGES",
    "ENGINE",
    "EVENTS",
    "LEASES",
    "RUNS",
    "RUN_STATES",
    "SPECS",
    "STATE",
    "Ack",
    "Bus",
    "BusReason",
    "ConsumerSettings",
    "DataDir",
    "Delivery",
    "DiskRoom",
    "EmbeddedServer",
    "EmbeddedSettings",
    "Login",
    "Message",
    "Offset",
    "Outcome",
    "OutcomeState",
    "Position",
    "PullConsumer",
    "Received",
    "RequestClient",
    "StaleBatch",
    "StoredMessage",
    "StreamReader",
    "StreamSettings",
    "action_subject",
    "check_server",
    "dead_subject",
    "dead_subjects",
    "decode_task",
    "decode_window",
    "encode_firing",
    "encode_headers",
    "encode_task",
    "encode_window",
    "ensure_streams",
    "escape_token",
    "event_subject",
    "filters_for",
    "find_login",
    "firing_subject",
    "header_id",
    "make_room",
    "make_room_in_engine",
    "newest",
    "offset_subject",
    "outcome_of",
    "outcome_subject",
    "pack",
    "prepared_subject",
    "publish_batch",
    "publish_fenced",
    "read_headers",
    "read_login",
    "refusal",
    "shard_subjects",
    "short_token",
    "stored_messages",
    "tick_subject",
    "unavailable",
    "unpack",
    "window_subject",
]
