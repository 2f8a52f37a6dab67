"""Translates notifications of S3-compatible object stores, in all their envelopes, to `s3.file.*` events. Pure.

Called by `sources.translator` for `preset: s3`. Understood: records of AWS, MinIO and Ceph, an SNS envelope around them, EventBridge
events, and messages of Cloudflare R2, alone or in a list. Meaning, with examples: docs/sources.md, "Object storage".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus

import orjson

from whenthen.schemas.errors import (
    FieldPath,
    InvalidEvent,
    InvalidInput,
    error_text,
    path_text,
)
from whenthen.schemas.events import Event, new_event
from whenthen.sources.json_bodies import decode_json
from whenthen.sources.labels import Labels, dig, label_of
from whenthen.sources.mapping import SourceLimits, Translation, delivery_event_id, time_of
from whenthen.sources.provider_mapping import Additions
from whenthen.sources.requests import kind_of

__all__ = ["Added", "Notice", "Reading", "notice_event", "text_at", "translate_notification"]

#: what the webhook adds to each event, and the context in which that is read
Added = tuple[Additions, dict[str, Any]]

#: envelopes around envelopes
MAX_ENVELOPES = 3

#: what the event names of AWS, MinIO and Ceph become, without `s3:`; None for what changed nothing. A list of all of them and no
#: patterns: a store names new events after old ones (`ObjectCreated:PutTagging` uploads nothing), and failures after successes.
_NAMES: tuple[tuple[str, str | None], ...] = (
    *((f"ObjectCreated:{how}", "s3.file.uploaded") for how in ("Put", "Post", "Copy", "CompleteMultipartUpload", "*")),
    ("OBJECT_CREATE", "s3.file.uploaded"),
    ("ObjectCreated:PutTagging", "s3.file.tagged"),
    ("ObjectTagging:Put", "s3.file.tagged"),
    ("ObjectCreated:DeleteTagging", "s3.file.untagged"),
    ("ObjectTagging:Delete", "s3.file.untagged"),
    ("ObjectCreated:PutRetention", "s3.file.lock-changed"),
    ("ObjectCreated:PutLegalHold", "s3.file.lock-changed"),
    ("ObjectAcl:Put", "s3.file.acl-changed"),
    *((f"ObjectRemoved:{how}", "s3.file.deleted") for how in ("Delete", "DeleteMarkerCreated", "DeleteAllVersions", "*")),
    ("ObjectRemoved:NoOP", None),  # a delete that found nothing
    *((name, "s3.file.deleted") for name in ("OBJECT_DELETE", "DELETE_MARKER_CREATE")),
    *((f"LifecycleExpiration:{how}", "s3.file.deleted") for how in ("Delete", "DeleteMarkerCreated", "*")),
    ("ObjectLifecycle:Expiration:Current", "s3.file.deleted"),
    ("ObjectLifecycle:Expiration:*", "s3.file.deleted"),
    # the file was deleted before, or is still there
    *((f"ObjectLifecycle:Expiration:{what}", "s3.file.version-deleted") for what in ("Noncurrent", "NonCurrent", "DeleteMarker")),
    ("LifecycleDelMarkerExpiration:Delete", "s3.file.version-deleted"),
    *((f"ObjectLifecycle:Expiration:{what}", "s3.file.upload-aborted") for what in ("AbortMPU", "AbortMultipartUpload")),
    ("ObjectRestore:Post", "s3.file.restore-started"),
    ("ObjectRestore:Completed", "s3.file.restored"),
    ("ObjectRestore:Delete", "s3.file.restore-expired"),
    *((f"ObjectAccessed:{how}", "s3.file.accessed")
      for how in ("Get", "Head", "GetRetention", "GetLegalHold", "Attributes", "*")),
    ("LifecycleTransition", "s3.file.transitioned"),
    ("IntelligentTiering", "s3.file.transitioned"),
    ("ObjectTransition:Complete", "s3.file.transitioned"),
    ("ObjectTransition:Failed", "s3.file.transition-failed"),
    *((f"ObjectLifecycle:Transition:{what}", "s3.file.transitioned") for what in ("Current", "Noncurrent", "NonCurrent", "*")),
    ("ReducedRedundancyLostObject", "s3.file.lost"),
    *((f"Replication:{how}", "s3.file.replicated")
      for how in ("OperationCompletedReplication", "OperationReplicatedAfterThreshold", "Create")),
    ("ObjectSynced:Create", "s3.file.replicated"),
    ("Replication:OperationFailedReplication", "s3.file.replication-failed"),
    ("Replication:OperationMissedThreshold", "s3.file.replication-delayed"),
    ("Replication:OperationNotTracked", "s3.file.replication-untracked"),
    *((f"{what}:{how}", "s3.file.deletion-replicated")
      for what in ("Replication", "ObjectSynced") for how in ("Delete", "DeletionMarkerCreated")),
    ("BucketCreated:*", "s3.bucket.created"),
    ("BucketCreated", "s3.bucket.created"),
    ("BucketRemoved:*", "s3.bucket.deleted"),
    ("BucketRemoved", "s3.bucket.deleted"),
)  # fmt: skip
_NAME_OF = dict(_NAMES)
#: what an event that is not listed becomes; the `operation` label has its name
_OTHER = "s3.file.other"
_UNLISTED = ".other"  #: what such names of all stores end with
#: `detail-type` of EventBridge
_DETAIL_TYPES = {
    "Object Created": "s3.file.uploaded",
    "Object Deleted": "s3.file.deleted",
    "Object Restore Initiated": "s3.file.restore-started",
    "Object Restore Completed": "s3.file.restored",
    "Object Restore Expired": "s3.file.restore-expired",
    "Object Storage Class Changed": "s3.file.transitioned",
    "Object Access Tier Changed": "s3.file.transitioned",
    "Object ACL Updated": "s3.file.acl-changed",
    "Object Tags Added": "s3.file.tagged",
    "Object Tags Deleted": "s3.file.untagged",
}
#: `action` of Cloudflare R2
_R2_ACTIONS = {
    "PutObject": "s3.file.uploaded",
    "CopyObject": "s3.file.uploaded",
    "CompleteMultipartUpload": "s3.file.uploaded",
    "DeleteObject": "s3.file.deleted",
    "LifecycleDeletion": "s3.file.deleted",
}


@dataclass(frozen=True, slots=True)
class Reading:
    """What is the same for all records of a request."""

    source: str  #: of the events
    ids: str  #: what their ids begin with
    now: datetime
    limits: SourceLimits
    added: Added | None = None  #: what is put to each event


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What all forms of a notification have in common."""

    name: str
    bucket: str
    key: str  #: decoded; empty for a bucket's own event
    operation: str
    time: Any
    region: Any
    details: dict[str, Any]
    record: Mapping[str, Any]
    scheme: str = "s3"  #: of the resource's id


def translate_notification(body: Any, reading: Reading) -> Translation:
    """The events of one notification, in the order of its records.

    Raises:
        InvalidEvent: it has none of the known forms, or a record lacks something; names the field.
    """
    return _translate(body, ("body",), reading, 0)


def _translate(body: Any, path: FieldPath, reading: Reading, level: int) -> Translation:
    if isinstance(body, list) and body:
        return _translate_records(body, path, reading, _of_r2)
    if not isinstance(body, dict):
        raise InvalidEvent(f"a JSON object is expected, found {kind_of(body)}", path=path)
    if "Records" in body:
        return _translate_records(body["Records"], (*path, "Records"), reading, _of_record)
    if "action" in body:
        return Translation(events=[notice_event(_of_r2(body, path), path, reading)])
    if "detail-type" in body:
        notice = _of_eventbridge(body, path)
        return Translation(events=[notice_event(notice, path, reading)])
    if body.get("Event") == "s3:TestEvent":
        return Translation(dropped=["s3:TestEvent: the store tries this address out"])
    kind = body.get("Type")
    if kind == "Notification":
        if level >= MAX_ENVELOPES:
            raise InvalidEvent(f"more than {MAX_ENVELOPES} envelopes", path=path)
        message = body.get("Message")
        if not isinstance(message, str):
            raise InvalidEvent(f"text is expected, found {kind_of(message)}", path=(*path, "Message"))
        inner = decode_json(message.encode(), (*path, "Message"))
        return _translate(inner, (*path, "Message"), reading, level + 1)
    if kind in ("SubscriptionConfirmation", "UnsubscribeConfirmation"):
        return Translation(dropped=[f"SNS {kind}: confirm it by opening its SubscribeURL"])
    raise InvalidEvent(
        "not a notification of an object store: Records, detail-type, action, or an SNS Message is expected; found "
        + (", ".join(str(key)[:40] for _, key in zip(range(8), body, strict=False)) or "an empty object"),
        path=path,
    )


def _translate_records(
    records: Any, path: FieldPath, reading: Reading, of: Callable[[Any, FieldPath], Notice | None]
) -> Translation:
    if not isinstance(records, list):
        raise InvalidEvent(f"a list is expected, found {kind_of(records)}", path=path)
    if len(records) > reading.limits.events:
        raise InvalidInput(
            f"{len(records)} records; at most {reading.limits.events} are allowed in a request", path=path
        )
    result = Translation()
    if not records:
        result.dropped.append(f"{path_text(path)} is an empty list")
    for index, record in enumerate(records):
        place = (*path, index)
        notice = of(record, place)
        if notice is None:
            result.dropped.append(error_text(place, f"{record['eventName']} changed nothing"))
        else:
            result.events.append(notice_event(notice, place, reading))
    return result


def _of_record(record: Any, path: FieldPath) -> Notice | None:
    if not isinstance(record, dict):
        raise InvalidEvent(f"a JSON object is expected, found {kind_of(record)}", path=path)
    operation = text_at(record, "eventName", path).removeprefix("s3:")
    name = _NAME_OF.get(operation, _OTHER)
    if name is None:
        return None
    bucket = text_at(record, "s3.bucket.name", path)
    key = ""
    if not name.startswith("s3.bucket."):
        key = text_at(record, "s3.object.key", path)
        # Ceph sends keys as they are; AWS and MinIO encode them like a form, with + for a space.
        if record.get("eventSource") != "ceph:s3":
            try:
                key = unquote_plus(key, errors="strict")
            except UnicodeDecodeError:
                raise InvalidEvent(
                    f"{key[:80]!r} is not URL-encoded UTF-8", path=(*path, "s3", "object", "key")
                ) from None
    return Notice(
        name=name,
        bucket=bucket,
        key=key,
        operation=operation,
        time=record.get("eventTime"),
        region=record.get("awsRegion"),
        details={
            "size": dig(record, "s3.object.size"),
            "etag": dig(record, "s3.object.eTag"),
            "version": dig(record, "s3.object.versionId"),
            "sequencer": dig(record, "s3.object.sequencer"),
            "content_type": dig(record, "s3.object.contentType"),
            "metadata": dig(record, "s3.object.userMetadata"),
            "request": dig(record, "responseElements.x-amz-request-id"),
            "principal": dig(record, "userIdentity.principalId"),
            "source_ip": dig(record, "requestParameters.sourceIPAddress"),
        },
        record=record,
    )


def _of_eventbridge(body: Mapping[str, Any], path: FieldPath) -> Notice:
    operation = text_at(body, "detail-type", path)
    if body.get("source") not in (None, "aws.s3"):
        raise InvalidEvent(f"{str(body['source'])[:80]!r} is not aws.s3", path=(*path, "source"))
    detail = body.get("detail")
    return Notice(
        name=_DETAIL_TYPES.get(operation, _OTHER),
        bucket=text_at(body, "detail.bucket.name", path),
        key=text_at(body, "detail.object.key", path),  # not encoded, unlike in records
        operation=operation,
        time=body.get("time"),
        region=body.get("region"),
        details={
            "size": dig(detail, "object.size"),
            "etag": dig(detail, "object.etag"),
            "version": dig(detail, "object.version-id"),
            "sequencer": dig(detail, "object.sequencer"),
            "request": dig(detail, "request-id"),
            "principal": dig(detail, "requester"),
            "source_ip": dig(detail, "source-ip-address"),
            "cause": dig(detail, "reason"),
        },
        record=body,
    )


def _of_r2(body: Any, path: FieldPath) -> Notice:
    """A message that R2 puts into a queue: it has neither a sequencer nor an id, and its time tells two changes of a key apart."""
    if not isinstance(body, dict):
        raise InvalidEvent(f"a JSON object is expected, found {kind_of(body)}", path=path)
    operation = text_at(body, "action", path)
    return Notice(
        name=_R2_ACTIONS.get(operation, _OTHER),
        bucket=text_at(body, "bucket", path),
        key=text_at(body, "object.key", path),  # not encoded
        operation=operation,
        time=body.get("eventTime"),
        region=None,
        details={
            "size": dig(body, "object.size"),
            "etag": dig(body, "object.eTag"),
            "request": None,
            "account": body.get("account"),
        },
        record=body,
    )


def notice_event(notice: Notice, path: FieldPath, reading: Reading) -> Event:
    """The event that a notification of any store becomes. Raises `InvalidEvent`; `path` leads to the notification."""
    whole = f"{notice.scheme}://{notice.bucket}"
    labels = Labels(f"{whole}/{notice.key}" if notice.key else whole)
    labels.put("bucket", notice.bucket)
    labels.put("key", notice.key)
    base = notice.key.rstrip("/").rpartition("/")[2]
    labels.put("name", base)
    stem, dot, extension = base.rpartition(".")
    labels.put("extension", extension.lower() if stem and dot else None)
    labels.put("operation", notice.operation)
    time = notice.time
    details = {label: value for label, value in notice.details.items() if value is not None and value != ""}
    payload = {
        "bucket": notice.bucket,
        "key": notice.key,
        **details,
        "time": notice.time,
        "region": notice.region or None,
        "operation": notice.operation,
        "record": notice.record,
    }
    try:
        related: list[dict[str, str]] = []
        if reading.added is not None:
            additions, context = reading.added
            additions.add_labels(labels, context)
            related = additions.related(context)
        return new_event(
            notice.name,
            resource=labels.done(),
            related=related,
            payload={label: value for label, value in payload.items() if value is not None},
            occurred=time_of(time, ("occurred",)) if isinstance(time, str) and time else time or None,
            id=_event_id(notice, reading.ids),
            now=reading.now,
            source=reading.source,
            limits=reading.limits.event,
        )
    except InvalidEvent as error:
        if error.path == ("occurred",):
            error.path = ("eventTime",) if "eventTime" in notice.record else ("time",)
        raise error.below(*path) from None


def _event_id(notice: Notice, ids: str) -> str:
    """The same for a redelivery, and for the same change that comes in another form: AWS tells of one by records and by EventBridge, with
    names and ways to write the sequencer of their own. It tells two changes of a key apart; without one the whole record does.
    """
    details = notice.details
    sequencer = str(details.get("sequencer") or "").lstrip("0").lower()
    if sequencer:
        what = notice.operation if notice.name.endswith(_UNLISTED) else notice.name
        etag = details.get("etag") if notice.name.endswith(".uploaded") else None
        parts = [notice.bucket, notice.key, what, sequencer, details.get("version") or None, etag or None]
    else:
        parts = [notice.bucket, notice.key, notice.operation, details["request"], notice.record]
    digest = hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return delivery_event_id(ids, digest[:40])


def text_at(document: Mapping[str, Any], name: str, path: FieldPath) -> str:
    """The text at a dotted path. Raises `InvalidEvent`: it is none, or empty."""
    value = dig(document, name)
    if not isinstance(value, str) or not value:
        found = "missing" if value is None else f"text is expected, found {label_of(value) or kind_of(value)}"
        raise InvalidEvent("empty" if value == "" else found, path=(*path, *name.split(".")))
    return value
