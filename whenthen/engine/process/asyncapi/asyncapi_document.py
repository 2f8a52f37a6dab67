"""The AsyncAPI document: every subject of ours with the message that is sent on it, made by FastStream from typed models.

Called by `whenthen asyncapi` and by the route `/asyncapi.json`. Buckets are the streams that they are: `$KV.<bucket>.<key>`. The
models are those classes that are encoded as they are (`FlowRun`, `Outcome`), or stand in the files beside this one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import orjson

from whenthen.engine.bus.records import Outcome
from whenthen.engine.bus.subjects import HISTORY_QUESTIONS
from whenthen.engine.process.asyncapi.access_messages import SessionsMessage, TokensMessage
from whenthen.engine.process.asyncapi.audit_messages import (
    AsideMessageMessage,
    AuditMessage,
    HeardMessage,
    RefusedRequestMessage,
)
from whenthen.engine.process.asyncapi.decision_messages import DecisionsMessage
from whenthen.engine.process.asyncapi.engine_messages import (
    ActionSpecMessage,
    ActionTaskMessage,
    DeadLetterMessage,
    FiringMessage,
    OffsetLine,
    PreparedPack,
    ProbeMessage,
    WindowLine,
    WindowPart,
)
from whenthen.engine.process.asyncapi.event_messages import EventMessage, PauseMessage, SkipMessage
from whenthen.engine.process.asyncapi.history_messages import HistoryQuestion
from whenthen.engine.process.asyncapi.rule_messages import RevisionMessage, RuleMarker, RuleText, SeenRules
from whenthen.engine.process.asyncapi.run_messages import (
    ArtifactMessage,
    FormatMessage,
    HangRecord,
    HeartbeatText,
    HeldSlots,
    LeaseRecord,
    LogLines,
    MemberBeat,
    PauseFlag,
    QueuedRun,
    SlotLeaseMessage,
    SlotRate,
    TaskRunMoves,
    ToldEventMessage,
    VariableMessage,
    WorkerMessage,
)
from whenthen.engine.process.asyncapi.source_records import (
    ReaderReportMessage,
    SourceGoneMessage,
    SourceStateMessage,
    WebhookReportMessage,
)
from whenthen.schemas.deployments import FlowRun

__all__ = ["CHANNELS", "Channel", "asyncapi_document"]

JSON = "application/json"
TEXT = "text/plain"
BINARY = "application/octet-stream"
LINE_AND_BINARY = "application/vnd.whenthen.line"  #: a line of JSON, and possibly a line feed and bytes
DESCRIPTION = (
    "The subjects of whenthen's NATS streams, and of questions that no stream keeps. Publish events over HTTP rather than here, where nothing checks them; "
    "read whatever is of use. All but events may change with the version."
)


@dataclass(frozen=True, slots=True)
class Channel:
    """A subject, or all of one form, and what is sent there. `payload` None is an empty message."""

    name: str
    stream: str  #: empty: no stream has it
    address: str  #: with parameters in braces; the last one may stand for several tokens where `parameters` say so
    payload: Any
    description: str
    content_type: str = JSON


CHANNELS = (
    Channel(
        "Event", "EVENTS", "events.{event}", EventMessage,
        "Events, by their dotted name. The header Nats-Msg-Id is the event's id, by which JetStream recognises a redelivery.",
    ),
    Channel("Tick", "EVENTS", "ticks.{shard}", None, "An empty message by which a shard learns the stream's time.", BINARY),
    Channel(
        "Skip", "EVENTS", "skips.{shard}", SkipMessage,
        "Says which event a shard passes over, as processes hung on it. The header Nats-Msg-Id is made of shard and position.",
    ),
    Channel(
        "RuleMarker", "EVENTS", "rules.{revision}", RuleMarker,
        "From the position of this message on shards evaluate with a revision of the rules.",
    ),
    Channel(
        "Pause", "EVENTS", "pauses.{automation}", PauseMessage,
        "From the position of this message on an automation is paused, or is not.",
    ),
    Channel("RuleRevision", "RULES", "rulesets.revision.{revision}", RevisionMessage, "The revisions of the rules."),
    Channel(
        "RuleText", "RULES", "rulesets.text.{text}.{index}", RuleText,
        "The texts that revisions name: rules files, and lists of them.", BINARY,
    ),
    Channel("SeenRules", "RULES", "rulesets.seen.{rules}", SeenRules, "Which rules were published before.", TEXT),
    Channel(
        "ShardOffset", "ENGINE", "engine.shard.{shard}.offset", OffsetLine,
        "How far a shard is; every commit ends with it.", LINE_AND_BINARY,
    ),
    Channel(
        "ShardWindow", "ENGINE", "engine.shard.{shard}.window.{trigger}.{key}", WindowLine,
        "The window of a trigger for one key.", LINE_AND_BINARY,
    ),
    Channel(
        "WindowPart", "ENGINE", "engine.shard.{shard}.part.{trigger}.{key}.{index}", WindowPart,
        "A further part of a window that is larger than a message.", BINARY,
    ),
    Channel(
        "PreparedPack", "ENGINE", "engine.shard.{shard}.prepared.{index}", PreparedPack,
        "A part of a commit that is larger than an atomic batch.", BINARY,
    ),
    Channel(
        "Probe", "ENGINE", "engine.probe.{shard}.{index}", ProbeMessage,
        "What a shard stores only to learn whether the server takes it. It is deleted, and nobody reads it.", BINARY,
    ),
    Channel(
        "UnreadableWindow", "ENGINE", "engine.unreadable.{shard}.{trigger}.{key}", WindowLine,
        "A window that could not be read, put away for 30 days for people to look at; the first of it, if it is larger than a message.",
        LINE_AND_BINARY,
    ),
    Channel("Firing", "ENGINE", "engine.firing.{automation}.{firing}", FiringMessage, "Firings."),
    Channel(
        "ActionTask", "ENGINE", "engine.action.{automation}.{firing}.{index}", ActionTaskMessage,
        "Actions that wait to be performed, retries included. An empty message deletes one.",
    ),
    Channel(
        "ActionOutcome", "ENGINE", "engine.outcome.{automation}.{firing}.{index}", Outcome,
        "The outcome of each action after its last attempt.",
    ),
    Channel(
        "DeadLetter", "ENGINE", "engine.dead.{automation}.{firing}.{index}", DeadLetterMessage,
        "Actions whose last attempt failed. An empty message deletes one.",
    ),
    Channel(
        "ActionSpec", "KV_WT_specs", "$KV.WT_specs.{digest}", ActionSpecMessage,
        "Specifications of actions, which tasks name by digest.",
    ),
    Channel(
        "Decisions", "DECISIONS", "decisions.{shard}", DecisionsMessage,
        "What a shard decided between two commits. It holds once a later batch, or the shard's offset, names it.",
    ),
    Channel(
        "RefusedRequest", "SENDERS", "senders.refused.{webhook}.{request}", RefusedRequestMessage,
        "Refused requests whose proof held. An empty message stands for one that was sent again.",
    ),
    Channel(
        "AsideMessage", "SENDERS", "senders.aside.{aside}.{message}", AsideMessageMessage,
        "Messages of sources that became no event. An empty message stands for one that was sent again.",
    ),
    Channel("Heard", "SENDERS", "senders.heard.{webhook}", HeardMessage, "When a webhook, or `source:<name>`, took something last."),
    Channel(
        "ReaderReport", "SENDERS", "senders.reader.{member}", ReaderReportMessage,
        "How the sources do in each process that reads them. An empty message is of a process that ended.",
    ),
    Channel(
        "WebhookReport", "SENDERS", "senders.webhooks.{member}", WebhookReportMessage,
        "What came to the webhooks at each process that answers requests. An empty message is of a process that ended.",
    ),
    Channel("Audit", "AUDIT", "audit.{kind}", AuditMessage, "Who did what, and what was refused."),
    Channel(
        "HistoryQuestion", "", HISTORY_QUESTIONS, HistoryQuestion,
        "Questions about the history, answered by one process of the role `history` to the subject that the question names for its answer: "
        "`{\"answer\": ...}`, or `{\"error\": {\"reason\", \"detail\", \"path\"}}`.",
    ),
    Channel("QueuedRun", "RUNS", "runs.{pool}.{deployment}.{run}", QueuedRun, "The queue of a work pool.", TEXT),
    Channel("RunLog", "LOGS", "logs.{run}", LogLines, "What flow runs wrote. The header `Whenthen-Log-Before` has the lines and bytes that the attempt wrote before these, `Whenthen-Log-Levels` number, level and task run of lines that were logged."),
    Channel("TaskRuns", "TASK_RUNS", "task-runs.{run}", TaskRunMoves, "The states of the task runs of flow runs."),
    Channel("ToldEvents", "TOLD_EVENTS", "told-events.{run}", ToldEventMessage, "Events that runs told their workers, until they are published."),
    Channel("FlowRun", "KV_WT_runs", "$KV.WT_runs.{run}", FlowRun, "Flow runs, a message for each change."),
    Channel(
        "PauseFlag", "KV_WT_state", "$KV.WT_state.flow.{key}", PauseFlag,
        "Pause flags.",
    ),
    Channel("Format", "KV_WT_state", "$KV.WT_state.format", FormatMessage, "The format of everything that is stored."),
    Channel("Heartbeat", "KV_WT_heartbeats", "$KV.WT_heartbeats.{run}", HeartbeatText, "The heartbeats of flow runs.", TEXT),
    Channel("Worker", "KV_WT_heartbeats", "$KV.WT_heartbeats.worker.{worker}", WorkerMessage, "The workers that are at work."),
    Channel("Slots", "KV_WT_slots", "$KV.WT_slots.{deployment}", HeldSlots, "The holders of the slots of deployments with a concurrency limit."),
    Channel("SlotRate", "KV_WT_slots", "$KV.WT_slots.rate.{limit}", SlotRate, "How many slots of a named limit were taken that come free with time."),
    Channel("SlotLease", "KV_WT_slots", "$KV.WT_slots.lease.{lease}", SlotLeaseMessage, "Slots that a program beside the runs has for a time."),
    Channel("Variable", "KV_WT_variables", "$KV.WT_variables.{variable}", VariableMessage, "The variables that flows and people share."),
    Channel("Artifact", "ARTIFACTS", "artifacts.{artifact_key}.{run}.{artifact}", ArtifactMessage, "What runs have to show, the newest version of each artifact."),
    Channel("Lease", "KV_WT_leases", "$KV.WT_leases.shard.{shard}", LeaseRecord, "Who evaluates which shard."),
    Channel("Member", "KV_WT_leases", "$KV.WT_leases.member.{member}", MemberBeat, "The heartbeats of evaluators.", TEXT),
    Channel("SourceLease", "KV_WT_sources", "$KV.WT_sources.lease.{source}", LeaseRecord, "Who reads a source that its broker does not share."),
    Channel(
        "SourceState", "KV_WT_sources", "$KV.WT_sources.state.{source}.{part}", SourceStateMessage,
        "What of a folder or an address was reported already.",
    ),
    Channel(
        "SourceGone", "KV_WT_sources", "$KV.WT_sources.gone.{what}.{source}", SourceGoneMessage,
        "Since when nobody wants what is remembered of a source.",
    ),
    Channel("Tokens", "KV_WT_tokens", "$KV.WT_tokens.tokens", TokensMessage, "The named tokens of the API, without their values."),
    Channel(
        "Sessions", "KV_WT_sessions", "$KV.WT_sessions.{owner}", SessionsMessage,
        "Sessions and one-time addresses that a token has begun, without their secrets.",
    ),
    Channel(
        "HungEvent", "KV_WT_hangs", "$KV.WT_hangs.event.{shard}.{position}", HangRecord,
        "How often processes hung on the message at a position of EVENTS.",
    ),
    Channel(
        "HungAction", "KV_WT_hangs", "$KV.WT_hangs.action.{action}", HangRecord,
        "How often processes hung on an action.",
    ),
)  # fmt: skip

_PARAMETERS = {
    "limit": "A named limit as a key.",
    "lease": "Names a lease: 32 hexadecimal digits.",
    "variable": "The variable's name.",
    "artifact_key": "The key of the artifact; % without one.",
    "artifact": "The artifact's id: 32 hexadecimal digits.",
    "webhook": "The webhook's name as a token, shortened to a hash when it is long.",
    "request": "Names a refused request: 32 hexadecimal digits.",
    "digest": "Names a specification: 24 hexadecimal digits, its BLAKE2b hash.",
    "event": "The event's name. Its dots separate tokens; characters that a subject can not have are written as %XX.",
    "shard": "The number of the shard.",
    "trigger": "The trigger's id, shortened to a hash when it is long.",
    "kind": "What was done, such as automation-paused or request-refused.",
    "key": "A key as text, shortened to a hash when it is long.",
    "automation": "The automation's name, shortened to a hash when it is long.",
    "firing": "The firing's id.",
    "index": "Counts from 0.",
    "pool": "The work pool's name.",
    "deployment": "The deployment's name.",
    "run": "The flow run's id.",
    "worker": "The worker's name, as a key.",
    "revision": "The number of the revision.",
    "text": "The digest of the text.",
    "rules": "The digest of a set of rules.",
    "member": "The id of an evaluator, or of a process that reads sources.",
    "message": "Names a message that was kept aside: 32 hexadecimal digits.",
    "aside": "The source's name as a token, shortened to a hash when it is long.",
    "what": "`state` or `lease`.",
    "owner": "The id of the token, or a hash of the server's own one.",
    "position": "The position in EVENTS.",
    "source": "A hash of what is read.",
    "part": "`head` or a number for a folder, `poll` for an address.",
    "action": "The action's key, shortened to a hash when it is long.",
}


def asyncapi_document(version: str) -> bytes:
    """The document as JSON (AsyncAPI 3.0). `version` is that of the application."""
    from faststream.nats import NatsBroker
    from faststream.specification import AsyncAPI

    broker = NatsBroker(protocol_version="1", description="NATS with JetStream, embedded or a cluster of yours.")
    for channel in CHANNELS:
        broker.publisher(
            channel.address,
            title=channel.name,
            description=f"{channel.description} In {f'the stream {channel.stream}' if channel.stream else 'no stream'}.",
            schema=channel.payload,
        )
    factory = AsyncAPI(broker, title="whenthen", version=version, description=DESCRIPTION, schema_version="3.0.0")
    document: dict[str, Any] = factory.to_specification().to_jsonable()
    return orjson.dumps(_completed(document))


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    """FastStream's document with what it has no place for: parameters of addresses, kinds of contents, a fixed order."""
    for part in ("channels", "operations"):
        document[part] = {channel.name: document[part][channel.name] for channel in CHANNELS}
    messages, schemas = document["components"]["messages"], document["components"]["schemas"]
    document["components"] = {"messages": {}, "schemas": dict(sorted(schemas.items()))}
    for channel in CHANNELS:
        described = document["channels"][channel.name]
        described["parameters"] = {
            name: {"description": _PARAMETERS[name]} for name in re.findall(r"\{(\w+)\}", channel.address)
        }
        message = messages[f"{channel.name}:Message"]
        del message["correlationId"]  # FastStream's own header, which none of these have
        message["contentType"] = channel.content_type
        document["components"]["messages"][f"{channel.name}:Message"] = message
    return document
