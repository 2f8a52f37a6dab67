"""Translates the notifications of Google Cloud Storage and Azure Blob Storage to `gcs.file.*` and `azure-blob.file.*`. Pure.

Google's come by Pub/Sub push, Azure's by Event Grid in its own schema or as CloudEvents. Labels and payload are those of S3's. Meaning:
docs/sources.md, "Object storage".
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from whenthen.schemas.errors import FieldPath, InvalidEvent, InvalidInput, InvalidJson
from whenthen.sources.json_bodies import decode_json
from whenthen.sources.labels import dig
from whenthen.sources.mapping import Translation
from whenthen.sources.objectstore import Notice, Reading, notice_event, text_at
from whenthen.sources.requests import kind_of

__all__ = ["AZURE_NAMES", "GCS_NAMES", "translate_azure_blob", "translate_gcs"]

#: `eventType` of Google's attributes
GCS_NAMES = {
    "OBJECT_FINALIZE": "gcs.file.uploaded",
    "OBJECT_DELETE": "gcs.file.deleted",
    "OBJECT_ARCHIVE": "gcs.file.archived",
    "OBJECT_METADATA_UPDATE": "gcs.file.metadata-changed",
}
#: an old generation that an upload of the same name replaced: the file is there
GCS_REPLACED = "gcs.file.replaced"
GCS_OTHER = "gcs.file.other"
#: without `Microsoft.Storage.`
AZURE_NAMES = {
    "BlobCreated": "azure-blob.file.uploaded",
    "BlobDeleted": "azure-blob.file.deleted",
    "BlobRenamed": "azure-blob.file.renamed",
    "BlobTierChanged": "azure-blob.file.transitioned",
    "AsyncOperationInitiated": "azure-blob.file.restore-started",
    "DirectoryCreated": "azure-blob.directory.created",
    "DirectoryDeleted": "azure-blob.directory.deleted",
    "DirectoryRenamed": "azure-blob.directory.renamed",
    "LifecyclePolicyCompleted": "azure-blob.lifecycle.completed",
    "BlobInventoryPolicyCompleted": "azure-blob.inventory.completed",
}
AZURE_OTHER = "azure-blob.file.other"
_AZURE = "Microsoft.Storage."


def translate_gcs(body: Any, reading: Reading) -> Translation:
    """The event of one push of Pub/Sub with a notification of Cloud Storage.

    Raises:
        InvalidEvent: it is none; names the field.
    """
    path: FieldPath = ("body", "message")
    message = _object(dig(_object(body, ("body",)), "message"), path)
    attributes = _object(message.get("attributes"), (*path, "attributes"))
    where = (*path, "attributes")
    operation = text_at(attributes, "eventType", where)
    event = GCS_NAMES.get(operation, GCS_OTHER)
    if operation in ("OBJECT_DELETE", "OBJECT_ARCHIVE") and attributes.get("overwrittenByGeneration"):
        event = GCS_REPLACED
    found = _resource(message, (*path, "data"))
    notice = Notice(
        name=event,
        scheme="gs",
        bucket=text_at(attributes, "bucketId", where),
        key=text_at(attributes, "objectId", where),
        operation=operation,
        time=attributes.get("eventTime") or message.get("publishTime"),
        region=None,
        details={
            "size": _number(found.get("size")),
            "etag": found.get("etag"),
            "version": attributes.get("objectGeneration"),
            "sequencer": ".".join(
                str(part) for part in (attributes.get("objectGeneration"), found.get("metageneration")) if part
            ),
            "content_type": found.get("contentType"),
            "metadata": found.get("metadata"),
            "request": message.get("messageId"),
            "replaced_by": attributes.get("overwrittenByGeneration"),
        },
        record={"attributes": attributes, "object": found} if found else {"attributes": attributes},
    )
    return Translation(events=[notice_event(notice, path, reading)])


def translate_azure_blob(body: Any, reading: Reading) -> Translation:
    """The events of one delivery of Event Grid.

    Raises:
        InvalidEvent: an event is none of Blob Storage; names the field.
    """
    items = body if isinstance(body, list) else [body]
    if len(items) > reading.limits.events:
        raise InvalidInput(
            f"{len(items)} events; at most {reading.limits.events} are allowed in a request", path=("body",)
        )
    result = Translation()
    if not items:
        result.dropped.append("body is an empty list")
    for index, item in enumerate(items):
        path: FieldPath = ("body", index) if isinstance(body, list) else ("body",)
        result.events.append(notice_event(_of_azure(item, path), path, reading))
    return result


def _of_azure(item: Any, path: FieldPath) -> Notice:
    event = _object(item, path)
    field = "eventType" if "eventType" in event else "type"
    kind = text_at(event, field, path)
    if not kind.startswith(_AZURE):
        raise InvalidEvent(
            f"{kind[:80]!r} is no event of Blob Storage; the preset azure-event-grid takes it", path=(*path, field)
        )
    operation = kind.removeprefix(_AZURE)
    subject = text_at(event, "subject", path)
    given = event.get("data")
    data: dict[str, Any] = given if isinstance(given, dict) else {}
    topic = event.get("topic") or event.get("source")
    account = topic.rpartition("/")[2] if isinstance(topic, str) else ""
    _, _, rest = subject.partition("/containers/")
    bucket, _, key = rest.partition("/blobs/")
    name = AZURE_NAMES.get(operation, AZURE_OTHER)
    if not bucket:
        bucket = account or "unknown"  # of a whole account, such as a policy that was carried out
    if operation == "BlobDeleted" and data.get("snapshot"):
        name = AZURE_OTHER  # the file itself is there
    return Notice(
        name=name,
        scheme="azure-blob",
        bucket=bucket,
        key=key,
        operation=operation,
        time=event.get("eventTime") or event.get("time"),
        region=None,
        details={
            "account": account,
            "size": _number(data.get("contentLength")),
            "etag": data.get("eTag"),
            "version": data.get("versionId") or data.get("blobVersion"),
            "sequencer": data.get("sequencer"),
            "content_type": data.get("contentType"),
            "tier": data.get("accessTier"),
            "destination": data.get("destinationUrl"),
            "request": event.get("id"),
        },
        record=event,
    )


def _resource(message: Mapping[str, Any], path: FieldPath) -> dict[str, Any]:
    """The object that a notification describes; nothing with the payload format NONE."""
    data = message.get("data")
    if not data:
        return {}
    try:
        found = decode_json(base64.b64decode(data, validate=True), path)
    except (binascii.Error, ValueError, TypeError, InvalidJson):
        raise InvalidEvent(
            "base64 of JSON is expected; the notification's payload format is JSON_API_V1 or NONE", path=path
        ) from None
    return _object(found, path)


def _object(value: Any, path: FieldPath) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidEvent(f"a JSON object is expected, found {kind_of(value)}", path=path)
    return value


def _number(value: Any) -> Any:
    """Google writes sizes as text."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19 else value
