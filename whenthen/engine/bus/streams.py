"""The streams and key-value buckets that whenthen keeps, and whether a server can hold them. See
docs/architecture.md, "The log".

Called once at start, by whoever connects. `EVENTS` discards nothing to make room: at `events_max_bytes` it refuses
new events (HTTP 503) rather than dropping unread ones, and `make_room` purges what every shard has read before that
happens. Nor does `ENGINE`, where a commit that is refused is tried until it is stored; `make_room_in_engine` purges the oldest
firings and outcomes, which are history only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext, api

from whenthen.engine.bus.protocol import Delivery
from whenthen.engine.bus.records import Offset
from whenthen.engine.bus.request_client import BusReason, RequestClient, unavailable
from whenthen.engine.bus.subjects import ALL_EVENTS, PAUSES, RULE_MARKERS
from whenthen.schemas.errors import SetupError

__all__ = [
    "AUDIT",
    "DECISIONS",
    "ENGINE",
    "EVENTS",
    "HANGS",
    "LEASES",
    "NEEDED_ENGINE_BYTES",
    "RULES",
    "RUNS",
    "RUN_STATES",
    "SENDERS",
    "SESSIONS",
    "SOURCES",
    "SPECS",
    "STATE",
    "TOKENS",
    "TOLD",
    "StreamSettings",
    "check_server",
    "ensure_stream",
    "ensure_streams",
    "make_room",
    "make_room_for",
    "make_room_in_engine",
    "update_stream",
]

EVENTS = "EVENTS"
ENGINE = "ENGINE"
RULES = "RULES"
DECISIONS = "DECISIONS"
AUDIT = "AUDIT"
SENDERS = "SENDERS"
RUNS = "RUNS"
RUN_STATES = "WT_runs"
STATE = "WT_state"
LEASES = "WT_leases"
SPECS = "WT_specs"
HANGS = "WT_hangs"
TOKENS = "WT_tokens"
SESSIONS = "WT_sessions"
SOURCES = "WT_sources"

#: the streams of which each message is something that happened, and which of their subjects: shown to people, and kept in the history
TOLD: Mapping[str, Sequence[str]] = {
    EVENTS: (ALL_EVENTS,),
    ENGINE: ("engine.firing.>", "engine.action.>", "engine.outcome.>"),
    f"KV_{RUN_STATES}": (f"$KV.{RUN_STATES}.>",),
    AUDIT: ("audit.*",),
}

#: nats-server 2.12 brought atomic batches (ADR-50); its JetStream API level is 2
NEEDED_VERSION = (2, 12)
NEEDED_API_LEVEL = 2
#: a firing names up to 1,000 events by ids of up to 256 bytes, with a key of 16 KiB and an event of 64 KiB; its tasks add the
#: action. Half of NATS's own default. Windows are cut to what there is
NEEDED_PAYLOAD = 512 << 10
#: eight of the largest commits: one at hand, and room for what it replaces, tasks that wait, and outcomes to come
NEEDED_ENGINE_BYTES = 32 << 20
DUPLICATE_WINDOW_S = 120.0
HANGS_KEPT_S = 30 * 86400.0  #: as long as an action may wait
SESSIONS_KEPT_S = 31 * 86400.0  #: after the last login with a token; no session is longer than 30 days
ROOM_FROM = 0.8  #: share of a stream's limit from which what is not needed any more is purged
ROOM_TO = 0.6  #: and down to which
ROOM_SHARE = 0.05  #: of its limit that a full `ENGINE` is given beyond what a commit needs
_NOT_NEEDED = 1 << 62
#: of `EVENTS`, and nobody publishes to it. A process of format 1, which knows no record of the format, finds the stream different from
#: what it wants and tries to change it at its start; the server refuses that, as `deny_delete` can not be taken back
FENCE = "format.2"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """How much is kept, and on how many servers. -1 bytes means no limit but the disk's."""

    replicas: int = 1
    events_max_age: timedelta = timedelta(days=7)
    events_max_bytes: int = 8 << 30
    duplicate_window: timedelta = timedelta(seconds=DUPLICATE_WINDOW_S)
    engine_max_bytes: int = -1
    rules_max_bytes: int = -1
    runs_max_bytes: int = -1
    run_states_max_age: timedelta = timedelta(days=30)
    decisions_max_age: timedelta = timedelta(days=7)
    decisions_max_bytes: int = 1 << 30
    audit_max_age: timedelta = timedelta(days=90)
    audit_max_bytes: int = 100 << 20
    senders_max_age: timedelta = timedelta(days=7)
    senders_max_bytes: int = 64 << 20
    audit_max_notes: int = 10_000  #: of each kind, so that refused requests push nothing else out


async def check_server(nc: Client) -> None:
    """Refuse a server that lacks what whenthen needs.

    Raises:
        SetupError: naming everything that is missing and what was found.
    """
    missing = []
    version = nc.connected_server_version
    if (version.major, version.minor) < NEEDED_VERSION:
        wanted = ".".join(map(str, NEEDED_VERSION))
        missing.append(f"version {wanted} or later (found {version.major}.{version.minor}.{version.patch})")
    try:
        account = await nc.jetstream().account_info()
    except (nats.js.errors.Error, nats.errors.Error, TimeoutError) as error:
        missing.append(f"JetStream, enabled for this account ({type(error).__name__}); start nats-server with -js")
    else:
        level = getattr(account.api, "level", None)
        if level is not None and level < NEEDED_API_LEVEL:
            missing.append(f"atomic batches (JetStream API level {NEEDED_API_LEVEL}, found {level})")
    if nc.max_payload < NEEDED_PAYLOAD:
        missing.append(
            f"room for a firing with its events in one message: max_payload {NEEDED_PAYLOAD} or more "
            f"(found {nc.max_payload}); set max_payload in its configuration"
        )
    if missing:
        url = nc.connected_url.netloc.rpartition("@")[2] if nc.connected_url else "?"
        raise SetupError(f"the NATS server at {url} lacks: {'; '.join(missing)}")


async def ensure_streams(js: JetStreamContext, settings: StreamSettings) -> None:
    """Create what is missing and bring what exists up to `settings`. Called again it changes nothing.

    Raises:
        SetupError: the server refuses a stream, or did not understand an option of it.
    """
    for config in _streams(settings):
        await ensure_stream(js, config)
    for bucket in _buckets(settings):
        await _ensure_bucket(js, bucket)


async def make_room(js: JetStreamContext, settings: StreamSettings, *, read_up_to: int) -> int:
    """Purge the oldest events that every shard has read (up to sequence `read_up_to`) when `EVENTS` nears its limit.

    Gives how many sequences were freed; 0 when there is room, or when everything kept is still unread.
    """
    if settings.events_max_bytes <= 0:
        return 0
    state = (await js.stream_info(EVENTS)).state
    if state.bytes < ROOM_FROM * settings.events_max_bytes or not state.messages:
        return 0
    share = 1 - ROOM_TO * settings.events_max_bytes / state.bytes
    target = min(read_up_to, state.first_seq + int((state.last_seq - state.first_seq) * share))
    if target <= state.first_seq:
        return 0
    await js.purge_stream(EVENTS, seq=target)
    return target - state.first_seq


async def make_room_in_engine(client: RequestClient, settings: StreamSettings, *, needed_from: int) -> int:
    """Purge the oldest firings and outcomes below sequence `needed_from` when `ENGINE` nears its limit.

    Gives how many messages went. What a shard must know (offsets, windows, prepared packs), tasks that wait, their outcomes
    and dead letters are kept whatever their age.

    Raises:
        BusUnavailable: no answer.
    """
    if settings.engine_max_bytes <= 0:
        return 0
    state = (await client.api(f"STREAM.INFO.{ENGINE}")).get("state")
    if state is None or state["bytes"] < ROOM_FROM * settings.engine_max_bytes:
        return 0
    share = 1 - ROOM_TO * settings.engine_max_bytes / state["bytes"]
    return await _purge_oldest(client, share, needed_from=needed_from, last_seq=int(state["last_seq"]))


async def make_room_for(client: RequestClient, needed: int) -> int:
    """Purge the oldest firings and outcomes, whatever is kept of them, until a commit of `needed` bytes fits in `ENGINE`, with
    `ROOM_SHARE` of its limit to spare. Kept is what `make_room_in_engine` keeps.

    Gives how many messages went; 0 when nothing may go, or the stream has no limit and the disk is what is full.

    Raises:
        BusUnavailable: no answer.
    """
    purged = 0
    for part in (8, 4, 2, 1):
        answer = await client.api(f"STREAM.INFO.{ENGINE}")
        if "state" not in answer:
            break
        state, limit = answer["state"], int(answer["config"].get("max_bytes") or -1)
        if limit > 0 and purged and state["bytes"] + needed + ROOM_SHARE * limit <= limit:
            break
        needed_from = await _needed_from(client)
        share = 1 / part if limit > 0 else 1 / 8
        purged += await _purge_oldest(client, share, needed_from=needed_from, last_seq=int(state["last_seq"]))
        if limit <= 0:
            break  # whether it was enough only the disk knows
    return purged


async def _needed_from(client: RequestClient) -> int:
    """The first sequence that the recovery of a commit packed in an offset may look at."""
    found = [_NOT_NEEDED]

    def receive(message: Delivery) -> None:
        offset = Offset.decode(message.data, int(message.headers["Nats-Sequence"]))
        if offset.packed:
            found.append(offset.revision)

    await client.read_stored(ENGINE, {"seq": 1, "next_by_subj": "engine.shard.*.offset", "batch": 10_000}, receive)
    return min(found)


async def _purge_oldest(client: RequestClient, share: float, *, needed_from: int, last_seq: int) -> int:
    """Purge firings and outcomes of the oldest `share` of the sequences that have any; gives how many went."""
    purged = 0
    # an outcome is younger than its task, and says how many attempts a task that waits has had
    waiting = await client.api(f"STREAM.MSG.GET.{ENGINE}", {"seq": 1, "next_by_subj": "engine.action.>"})
    oldest_task = int(waiting["message"]["seq"]) if "message" in waiting else needed_from
    for subject, keep_from in (("engine.firing.>", needed_from), ("engine.outcome.>", min(needed_from, oldest_task))):
        answer = await client.api(f"STREAM.MSG.GET.{ENGINE}", {"seq": 1, "next_by_subj": subject})
        if "message" not in answer:
            continue
        oldest = int(answer["message"]["seq"])
        target = min(keep_from, oldest + 1 + int((last_seq - oldest) * share))
        if target > oldest:
            answer = await client.api(f"STREAM.PURGE.{ENGINE}", {"filter": subject, "seq": target}, timeout_s=30)
            purged += int(answer.get("purged", 0))
    return purged


def _streams(settings: StreamSettings) -> list[api.StreamConfig]:
    return [
        api.StreamConfig(
            name=EVENTS,
            subjects=["events.>", "ticks.*", "skips.*", RULE_MARKERS, PAUSES, FENCE],
            retention=api.RetentionPolicy.LIMITS,
            discard=api.DiscardPolicy.NEW,
            max_age=settings.events_max_age.total_seconds(),
            max_bytes=settings.events_max_bytes,
            duplicate_window=min(settings.duplicate_window, settings.events_max_age).total_seconds(),
            allow_direct=True,
            num_replicas=settings.replicas,
            storage=api.StorageType.FILE,
            deny_delete=True,
        ),
        api.StreamConfig(
            name=ENGINE,
            subjects=["engine.>"],
            retention=api.RetentionPolicy.LIMITS,
            discard=api.DiscardPolicy.NEW,
            max_bytes=settings.engine_max_bytes,
            max_msgs_per_subject=1,
            allow_atomic=True,
            allow_msg_ttl=True,
            allow_direct=True,
            num_replicas=settings.replicas,
            storage=api.StorageType.FILE,
        ),
        api.StreamConfig(
            name=RULES,
            subjects=["rulesets.>"],
            retention=api.RetentionPolicy.LIMITS,
            discard=api.DiscardPolicy.NEW,
            max_bytes=settings.rules_max_bytes,
            max_msgs_per_subject=1,
            allow_direct=True,
            num_replicas=settings.replicas,
            storage=api.StorageType.FILE,
        ),
        api.StreamConfig(
            name=DECISIONS,
            subjects=["decisions.*"],
            retention=api.RetentionPolicy.LIMITS,
            discard=api.DiscardPolicy.OLD,
            max_age=settings.decisions_max_age.total_seconds(),
            max_bytes=settings.decisions_max_bytes,
            duplicate_window=min(DUPLICATE_WINDOW_S, settings.decisions_max_age.total_seconds()),
            allow_direct=True,
            num_replicas=settings.replicas,
            storage=api.StorageType.FILE,
        ),
        api.StreamConfig(
            name=AUDIT,
            subjects=["audit.*"],
            retention=api.RetentionPolicy.LIMITS,
            discard=api.DiscardPolicy.OLD,
            max_age=settings.audit_max_age.total_seconds(),
            max_bytes=settings.audit_max_bytes,
            max_msgs_per_subject=settings.audit_max_notes,
            duplicate_window=min(DUPLICATE_WINDOW_S, settings.audit_max_age.total_seconds()),
            allow_direct=True,
            num_replicas=settings.replicas,
            storage=api.StorageType.FILE,
        ),
        api.StreamConfig(
            name=SENDERS,
            subjects=["senders.>"],
            retention=api.RetentionPolicy.LIMITS,
            discard=api.DiscardPolicy.OLD,
            max_age=settings.senders_max_age.total_seconds(),
            max_bytes=settings.senders_max_bytes,
            max_msgs_per_subject=1,
            duplicate_window=DUPLICATE_WINDOW_S,
            allow_direct=True,
            num_replicas=settings.replicas,
            storage=api.StorageType.FILE,
        ),
        api.StreamConfig(
            name=RUNS,
            subjects=["runs.>"],
            retention=api.RetentionPolicy.WORK_QUEUE,
            discard=api.DiscardPolicy.NEW,
            max_bytes=settings.runs_max_bytes,
            duplicate_window=DUPLICATE_WINDOW_S,
            num_replicas=settings.replicas,
            storage=api.StorageType.FILE,
        ),
    ]


def _buckets(settings: StreamSettings) -> list[api.KeyValueConfig]:
    return [
        api.KeyValueConfig(
            bucket=RUN_STATES,
            history=64,
            ttl=settings.run_states_max_age.total_seconds(),
            replicas=settings.replicas,
            direct=True,
        ),
        api.KeyValueConfig(bucket=STATE, history=1, replicas=settings.replicas, direct=True),
        api.KeyValueConfig(bucket=SPECS, history=1, replicas=settings.replicas, direct=True),
        api.KeyValueConfig(bucket=LEASES, history=1, replicas=settings.replicas, direct=True),
        api.KeyValueConfig(bucket=HANGS, history=1, ttl=HANGS_KEPT_S, replicas=settings.replicas, direct=True),
        api.KeyValueConfig(bucket=SOURCES, history=1, replicas=settings.replicas, direct=True),
        api.KeyValueConfig(bucket=TOKENS, history=1, replicas=settings.replicas),
        api.KeyValueConfig(bucket=SESSIONS, history=1, ttl=SESSIONS_KEPT_S, replicas=settings.replicas),
    ]


async def ensure_stream(js: JetStreamContext, config: api.StreamConfig) -> None:
    """Create a stream, or bring it up to `config` where it differs: who may not change streams needs no right to.

    Raises:
        SetupError: the server refuses it, or did not understand an option of it.
        BusUnavailable: see `update_stream`.
    """
    try:
        found = (await js.stream_info(config.name or "")).config
    except nats.js.errors.NotFoundError:
        found = None
    try:
        if found is None:
            found = (await js.add_stream(config)).config
        elif _differs(found, config):
            found = await update_stream(js, config)
    except nats.js.errors.APIError as error:
        raise SetupError(f"stream {config.name}: the NATS server refuses it: {error.description}") from error
    if config.allow_atomic and not found.allow_atomic:
        raise SetupError(
            f"stream {config.name}: the NATS server does not know atomic batches; use nats-server 2.12 or later"
        )


async def update_stream(js: JetStreamContext, config: api.StreamConfig) -> api.StreamConfig:
    """Change a stream that exists to `config`.

    Raises:
        BusUnavailable: no answer, which is what a user gets that has no right to change streams.
        nats.js.errors.APIError: the server refuses it.
    """
    try:
        return (await js.update_stream(config)).config
    except TimeoutError:
        raise unavailable(
            f"stream {config.name} is to be changed for this version, and the server does not answer; if this process's user of "
            "NATS may not change streams, start one with the role `api` of this version first",
            BusReason.TIMEOUT,
        ) from None


async def _ensure_bucket(js: JetStreamContext, bucket: api.KeyValueConfig) -> None:
    try:
        await js.key_value(bucket.bucket)
    except nats.js.errors.NotFoundError:
        try:
            await js.create_key_value(bucket)
        except nats.js.errors.APIError as error:
            raise SetupError(f"bucket {bucket.bucket}: the NATS server refuses it: {error.description}") from error
        return
    stream = (await js.stream_info(f"KV_{bucket.bucket}")).config
    if (stream.num_replicas or 1) != bucket.replicas:
        await update_stream(js, dataclasses.replace(stream, num_replicas=bucket.replicas))


def _differs(found: api.StreamConfig, wanted: api.StreamConfig) -> bool:
    """Whether one of the fields that whenthen sets has another value on the server; it fills in the ones left out."""
    for field in dataclasses.fields(wanted):
        value = getattr(wanted, field.name)
        if value is not None and value != field.default and getattr(found, field.name) != value:
            return True
    return False
