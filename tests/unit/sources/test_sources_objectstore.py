"""Notifications of object stores in every form in which they arrive. The documents have the producers' shapes."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from whenthen.schemas.errors import InvalidEvent, InvalidInput
from whenthen.schemas.event_sources import Source, SqsReading
from whenthen.schemas.events import Event
from whenthen.sources import Request
from whenthen.sources.readings import SourceMessage, SourceTranslator


def aws(**changes: Any) -> dict[str, Any]:
    key = changes.pop("key", "incoming/2026/red+flower%2B1.CSV")
    sequencer = changes.pop("sequencer", "0055AED6DCD90281E5")
    record: dict[str, Any] = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "eu-central-1",
        "eventTime": "2026-01-31T07:59:58.123Z",
        "eventName": "ObjectCreated:Put",
        "userIdentity": {"principalId": "AWS:AIDAJDPLRKLG7UEXAMPLE"},
        "requestParameters": {"sourceIPAddress": "192.0.2.3"},
        "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810", "x-amz-id-2": "FMyUVURIY8"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "all",
            "bucket": {"name": "raw", "ownerIdentity": {"principalId": "A3NL1KOZZKExample"}, "arn": "arn:aws:s3:::raw"},
            "object": {"key": key, "size": 1024, "eTag": "d41d8cd98f00b204e9800998ecf8427e", "versionId": "v1"},
        },
    }
    if sequencer:
        record["s3"]["object"]["sequencer"] = sequencer
    return {**record, **changes}


def minio() -> dict[str, Any]:
    record = aws(
        eventSource="minio:s3", awsRegion="", eventName="s3:ObjectCreated:Put", key="incoming%2Fa+b.csv",
        source={"host": "10.0.0.5", "port": "", "userAgent": "MinIO"},
    )  # fmt: skip
    record["s3"]["object"] |= {"contentType": "text/csv", "userMetadata": {"content-type": "text/csv"}}
    return {"EventName": "s3:ObjectCreated:Put", "Key": "raw/incoming/a b.csv", "Records": [record]}


def ceph() -> dict[str, Any]:
    record = aws(
        eventVersion="2.2", eventSource="ceph:s3", awsRegion="default", eventTime="2026-01-31T07:59:58.123456Z",
        key="incoming/a+b c.csv", eventId="1575221657.102001.80dbbe", opaqueData="",
    )  # fmt: skip
    record["s3"]["object"] |= {"metadata": [], "tags": []}
    return {"Records": [record]}


def eventbridge(kind: str = "Object Created") -> dict[str, Any]:
    return {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": kind,
        "source": "aws.s3",
        "account": "111122223333",
        "time": "2026-01-31T07:59:58Z",
        "region": "ca-central-1",
        "resources": ["arn:aws:s3:::raw"],
        "detail": {
            "version": "0",
            "bucket": {"name": "raw"},
            "object": {"key": "incoming/a+b c.csv", "size": 5, "etag": "b1946ac9", "version-id": "IYV3p45BT0ac",
                       "sequencer": "00617F08299329D189"},
            "request-id": "N4N7GDK58NMKJ12R",
            "requester": "123456789012",
            "source-ip-address": "1.2.3.4",
            "reason": "PutObject",
        },
    }  # fmt: skip


def r2(action: str = "PutObject", **changes: Any) -> dict[str, Any]:
    """As in Cloudflare's "Event notifications", message format."""
    return {
        "account": "3f4b7e3dcab231cbfdaa90a6a28bd548",
        "action": action,
        "bucket": "raw",
        "object": {"key": "incoming/a+b c.csv", "size": 65536, "eTag": "c846ff7a18f28c2e262116d6e8719ef0"},
        "eventTime": "2026-01-31T07:59:58.379Z",
        **changes,
    }


def sns(message: Any, kind: str = "Notification") -> dict[str, Any]:
    return {
        "Type": kind,
        "MessageId": "da41e39f-ea4d-435a-b922-c6aae3915ebe",
        "TopicArn": "arn:aws:sns:us-east-1:123456789012:uploads",
        "Subject": "Amazon S3 Notification",
        "Message": message if isinstance(message, str) else json.dumps(message),
        "Timestamp": "2026-01-31T07:59:59.000Z",
        "SubscribeURL": "https://sns.example/?Token=secret-token",
    }


def events(build: Any, now: datetime, body: Any, type: str = "application/json") -> list[Event]:
    request = Request.of(headers={"Content-Type": type}, body=json.dumps(body).encode())
    found: list[Event] = build(name="s3", preset="s3").translate(request, now).events
    return found


def dropped(build: Any, now: datetime, body: Any) -> list[str]:
    result = build(name="s3", preset="s3").translate(Request.of(body=json.dumps(body).encode()), now)
    assert result.events == []
    reasons: list[str] = result.dropped
    return reasons


def forms_of(record: dict[str, Any], told: dict[str, Any]) -> list[Any]:
    """One change in each form in which AWS tells of it."""
    records = {"Records": [record]}
    return [records, sns(records), sns(sns(records)), told, sns(told)]


@pytest.mark.parametrize(
    ("operation", "kind"), [("ObjectCreated:Put", "Object Created"), ("ObjectRemoved:Delete", "Object Deleted")]
)
def test_change_has_one_id_in_whatever_form_it_comes(build: Any, now: datetime, operation: str, kind: str) -> None:
    record = aws(eventName=operation, key="incoming/a%2Bb+c.csv", sequencer="00617F08299329D189")
    told = eventbridge(kind)
    record["s3"]["object"] |= {"versionId": "IYV3p45BT0ac", "eTag": "b1946ac9"}
    told["detail"]["object"]["sequencer"] = "617f08299329d189"  # as EventBridge writes it
    found = [events(build, now, each) for each in forms_of(record, told)]
    assert [len(each) for each in found] == [1] * 5
    assert len({(each.name, each.id, each.resource["id"]) for [each] in found}) == 1
    record["s3"]["object"]["sequencer"] = "00617F08299329D18A"
    [later] = events(build, now, {"Records": [record]})
    assert later.id != found[0][0].id


def test_ids_are_shared_by_those_that_have_one_word(build: Any, now: datetime) -> None:
    request = Request.of(headers={"Content-Type": "application/json"}, body=json.dumps({"Records": [aws()]}).encode())
    read = SqsReading(type="sqs", queue="https://sqs.eu-west-1.amazonaws.com/1/uploads")

    def made(**fields: Any) -> set[str]:
        source = SourceTranslator(Source(name="hook", read=read, preset="s3", **fields))
        message = SourceMessage(body=request.body, delivery="1")
        translations = [
            build(name="hook", preset="s3", **fields).translate(request, now),
            source.translate(message, now),
        ]
        return {event.id.rpartition("/")[0] for each in translations for event in each.events}

    assert made() == {"hook", "source:hook"}
    assert made(ids="uploads") == {"ids:uploads"}


def test_record_of_aws_is_an_uploaded_file(build: Any, now: datetime) -> None:
    record = aws()
    [event] = events(build, now, {"Records": [record]})
    assert event.name == "s3.file.uploaded"
    assert event.resource == {
        "id": "s3://raw/incoming/2026/red flower+1.CSV",
        "bucket": "raw",
        "key": "incoming/2026/red flower+1.CSV",
        "name": "red flower+1.CSV",
        "extension": "csv",
        "operation": "ObjectCreated:Put",
    }
    assert event.payload == {
        "bucket": "raw",
        "key": "incoming/2026/red flower+1.CSV",
        "size": 1024,
        "etag": "d41d8cd98f00b204e9800998ecf8427e",
        "version": "v1",
        "sequencer": "0055AED6DCD90281E5",
        "request": "C3D13FE58DE4C810",
        "principal": "AWS:AIDAJDPLRKLG7UEXAMPLE",
        "source_ip": "192.0.2.3",
        "time": "2026-01-31T07:59:58.123Z",
        "region": "eu-central-1",
        "operation": "ObjectCreated:Put",
        "record": record,
    }
    assert event.data["occurred"] == "2026-01-31T07:59:58.123000Z"
    assert event.data["source"] == "webhook:s3"


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (minio(), "incoming/a b.csv"),
        (ceph(), "incoming/a+b c.csv"),
        (eventbridge(), "incoming/a+b c.csv"),
        (sns({"Records": [aws(key="a+b")]}), "a b"),
        (sns(sns(eventbridge())), "incoming/a+b c.csv"),
    ],
)
def test_other_forms_are_the_same_event(build: Any, now: datetime, body: Any, key: str) -> None:
    [event] = events(build, now, body)
    assert event.name == "s3.file.uploaded"
    assert event.resource["id"] == f"s3://raw/{key}"
    assert event.payload["key"] == key
    assert {"size", "etag", "version", "sequencer", "time"} <= event.payload.keys()


def test_sns_declares_its_json_as_text(build: Any, now: datetime) -> None:
    assert len(events(build, now, sns({"Records": [aws()]}), "text/plain; charset=UTF-8")) == 1


#: every name that AWS ("Supported event types for SQS, SNS, and Lambda"), MinIO (`internal/event/name.go`) and Ceph
#: (`rgw_notify_event_type.cc`, "S3 Bucket Notifications Compatibility") define, and names that none of them does
OPERATIONS = """
ObjectCreated:Put                                  uploaded
ObjectCreated:Post                                 uploaded
s3:ObjectCreated:Copy                              uploaded
ObjectCreated:CompleteMultipartUpload              uploaded
s3:ObjectCreated:*                                 uploaded
OBJECT_CREATE                                      uploaded
s3:ObjectCreated:PutTagging                        tagged
s3:ObjectCreated:DeleteTagging                     untagged
s3:ObjectCreated:PutRetention                      lock-changed
s3:ObjectCreated:PutLegalHold                      lock-changed
s3:ObjectCreated:PutSomethingNew                   other
s3:ObjectCreated:                                  other
ObjectRemoved:Delete                               deleted
ObjectRemoved:DeleteMarkerCreated                  deleted
s3:ObjectRemoved:DeleteAllVersions                 deleted
OBJECT_DELETE                                      deleted
DELETE_MARKER_CREATE                               deleted
s3:ObjectRemoved:SomethingNew                      other
LifecycleExpiration:Delete                         deleted
LifecycleExpiration:DeleteMarkerCreated            deleted
s3:LifecycleDelMarkerExpiration:Delete             version-deleted
ObjectLifecycle:Expiration:Current                 deleted
ObjectLifecycle:Expiration:Noncurrent              version-deleted
ObjectLifecycle:Expiration:NonCurrent              version-deleted
ObjectLifecycle:Expiration:DeleteMarker            version-deleted
ObjectLifecycle:Expiration:AbortMPU                upload-aborted
ObjectLifecycle:Expiration:AbortMultipartUpload    upload-aborted
ObjectLifecycle:Expiration:SomethingNew            other
ObjectLifecycle:Transition:Current                 transitioned
ObjectLifecycle:Transition:Noncurrent              transitioned
ObjectLifecycle:Transition:NonCurrent              transitioned
ObjectRestore:Post                                 restore-started
ObjectRestore:Completed                            restored
ObjectRestore:Delete                               restore-expired
ObjectTagging:Put                                  tagged
ObjectTagging:Delete                               untagged
ObjectAcl:Put                                      acl-changed
s3:ObjectAccessed:Get                              accessed
s3:ObjectAccessed:Head                             accessed
s3:ObjectAccessed:GetRetention                     accessed
s3:ObjectAccessed:GetLegalHold                     accessed
s3:ObjectAccessed:Attributes                       accessed
LifecycleTransition                                transitioned
IntelligentTiering                                 transitioned
s3:ObjectTransition:Complete                       transitioned
s3:ObjectTransition:Failed                         transition-failed
s3:ObjectTransition:SomethingNew                   other
ReducedRedundancyLostObject                        lost
Replication:OperationFailedReplication             replication-failed
Replication:OperationMissedThreshold               replication-delayed
Replication:OperationReplicatedAfterThreshold      replicated
Replication:OperationNotTracked                    replication-untracked
s3:Replication:OperationCompletedReplication       replicated
Replication:SomethingNew                           other
s3:Replication:Create                              replicated
s3:Replication:Delete                              deletion-replicated
s3:Replication:DeletionMarkerCreated               deletion-replicated
s3:ObjectSynced:Create                             replicated
s3:ObjectSynced:Delete                             deletion-replicated
s3:ObjectSynced:DeletionMarkerCreated              deletion-replicated
s3:ObjectSynced:*                                  other
s3:Scanner:ManyVersions                            other
s3:Scanner:LargeVersions                           other
s3:Scanner:BigPrefix                               other
s3:UnknownEvent                                    other
objectcreated:put                                  other
"""


@pytest.mark.parametrize(
    ("operation", "name"), [(line.split()[0], f"s3.file.{line.split()[1]}") for line in OPERATIONS.strip().splitlines()]
)
def test_operation_decides_the_name(build: Any, now: datetime, operation: str, name: str) -> None:
    [event] = events(build, now, {"Records": [aws(eventName=operation)]})
    assert event.name == name
    assert event.resource["operation"] == operation.removeprefix("s3:")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("Object Created", "s3.file.uploaded"),
        ("Object Deleted", "s3.file.deleted"),
        ("Object Restore Initiated", "s3.file.restore-started"),
        ("Object Restore Completed", "s3.file.restored"),
        ("Object Restore Expired", "s3.file.restore-expired"),
        ("Object Storage Class Changed", "s3.file.transitioned"),
        ("Object ACL Updated", "s3.file.acl-changed"),
        ("Object Tags Added", "s3.file.tagged"),
        ("Object Tags Deleted", "s3.file.untagged"),
        ("Object Access Tier Changed", "s3.file.transitioned"),
        ("Object Something New", "s3.file.other"),
    ],
)
def test_detail_type_decides_the_name(build: Any, now: datetime, kind: str, name: str) -> None:
    assert events(build, now, eventbridge(kind))[0].name == name


@pytest.mark.parametrize(
    ("action", "name"),
    [
        ("PutObject", "s3.file.uploaded"),
        ("CopyObject", "s3.file.uploaded"),
        ("CompleteMultipartUpload", "s3.file.uploaded"),
        ("DeleteObject", "s3.file.deleted"),
        ("LifecycleDeletion", "s3.file.deleted"),
        ("PutObjectTagging", "s3.file.other"),
    ],
)
def test_action_of_r2_decides_the_name_alone_and_in_a_list(build: Any, now: datetime, action: str, name: str) -> None:
    later = r2(action, eventTime="2026-01-31T07:59:59.379Z")
    [event] = events(build, now, r2(action))
    assert (event.name, event.resource["operation"], event.resource["id"]) == (
        name,
        action,
        "s3://raw/incoming/a+b c.csv",
    )
    assert event.payload["account"] == "3f4b7e3dcab231cbfdaa90a6a28bd548"
    first, second = events(build, now, [r2(action), later])
    assert first.id == event.id != second.id


def test_event_of_a_bucket_has_no_key(build: Any, now: datetime) -> None:
    record = aws(eventName="s3:BucketCreated:*")
    [event] = events(build, now, {"Records": [record]})
    assert (event.name, event.resource["id"]) == ("s3.bucket.created", "s3://raw")
    assert "key" not in event.resource


def test_redelivery_is_the_same_event_and_a_second_upload_another(build: Any, now: datetime) -> None:
    def id_of(**changes: Any) -> str:
        return events(build, now, {"Records": [aws(**changes)]})[0].id

    assert id_of() == id_of()
    assert id_of() == id_of(responseElements={"x-amz-request-id": "another"})
    assert len({id_of(), id_of(sequencer="B"), id_of(key="b"), id_of(eventName="ObjectRemoved:Delete")}) == 4
    assert id_of(sequencer=None) == id_of(sequencer=None)
    assert id_of(sequencer=None) != id_of(sequencer=None, eventTime="2026-01-31T07:59:59Z")
    assert id_of().startswith("s3/")
    assert events(build, now, sns({"Records": [aws()]}))[0].id == id_of()


def test_records_keep_their_order(build: Any, now: datetime) -> None:
    body = {"Records": [aws(key=f"k{index}") for index in range(5)]}
    assert [event.resource["key"] for event in events(build, now, body)] == ["k0", "k1", "k2", "k3", "k4"]


def test_what_is_no_change_of_a_file_is_dropped_with_a_reason(build: Any, now: datetime) -> None:
    trial = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-01-31T07:59:59Z", "Bucket": "raw"}
    assert "TestEvent" in dropped(build, now, trial)[0]
    assert "TestEvent" in dropped(build, now, sns(trial))[0]
    assert "changed nothing" in dropped(build, now, {"Records": [aws(eventName="s3:ObjectRemoved:NoOP")]})[0]
    assert "empty" in dropped(build, now, {"Records": []})[0]
    [confirmation] = dropped(build, now, sns("You have chosen to subscribe", "SubscriptionConfirmation"))
    assert "SubscribeURL" in confirmation
    assert "secret-token" not in confirmation


def test_condition_sees_size_and_key(build: Any, now: datetime) -> None:
    hook = build(preset="s3", when="event.payload.size > 0 && event.resource.key.endsWith('.csv')")
    body = {"Records": [aws(key="a.csv"), aws(key="b.txt")]}
    result = hook.translate(Request.of(body=json.dumps(body).encode()), now)
    assert [event.resource["key"] for event in result.events] == ["a.csv"]
    assert len(result.dropped) == 1


def test_key_with_control_characters_is_a_legal_label_and_exact_in_the_payload(build: Any, now: datetime) -> None:
    [event] = events(build, now, {"Records": [aws(key="a%0Ab")]})
    assert event.resource["key"] == "a%0Ab"
    assert event.payload["key"] == "a\nb"


def _record_without(path: str) -> dict[str, Any]:
    record = aws()
    parent: Any = record
    *parents, last = path.split(".")
    for key in parents:
        parent = parent[key]
    del parent[last]
    return {"Records": [aws(), record]}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ([], "body"),
        ({"hello": 1}, "body"),
        ({"Records": {}}, "body.Records"),
        ([5], "body[0]"),
        ([r2(), aws()], "body[1].action"),
        (r2(5), "body.action"),
        (r2(bucket={}), "body.bucket"),
        (r2(object="a.csv"), "body.object.key"),
        (r2(eventTime="yesterday"), "body.eventTime"),
        ({"Records": [5]}, "body.Records[0]"),
        (_record_without("eventName"), "body.Records[1].eventName"),
        (_record_without("s3"), "body.Records[1].s3.bucket.name"),
        (_record_without("s3.bucket.name"), "body.Records[1].s3.bucket.name"),
        (_record_without("s3.object.key"), "body.Records[1].s3.object.key"),
        ({"Records": [aws(key="%ff")]}, "body.Records[0].s3.object.key"),
        ({"Records": [aws(eventTime="yesterday")]}, "body.Records[0].eventTime"),
        ({"Records": [aws(eventTime="2030-01-01T00:00:00Z")]}, "body.Records[0].eventTime"),
        ({**eventbridge(), "detail": None}, "body.detail.bucket.name"),
        ({**eventbridge(), "source": "aws.ec2"}, "body.source"),
        ({**eventbridge(), "time": 5}, "body.time"),
        (sns("not json"), "body.Message"),
        (sns({"hello": 1}), "body.Message"),
        (sns({"Records": [5]}), "body.Message.Records[0]"),
        ({"Type": "Notification"}, "body.Message"),
        (sns(sns(sns(sns({"Records": []})))), "body.Message.Message.Message"),
    ],
)
def test_what_is_no_notification_is_refused_with_the_field(build: Any, now: datetime, body: Any, field: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        events(build, now, body)
    assert caught.value.field == field


def test_an_empty_key_is_called_empty(build: Any, now: datetime) -> None:
    with pytest.raises(InvalidEvent) as caught:
        events(build, now, {"Records": [aws(key="")]})
    assert (caught.value.field, caught.value.detail) == ("body.Records[0].s3.object.key", "empty")


def test_too_many_records_are_refused(build: Any, now: datetime) -> None:
    with pytest.raises(InvalidInput, match="1001 records"):
        events(build, now, {"Records": [aws()] * 1001})
