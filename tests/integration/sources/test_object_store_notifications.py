"""A file in a bucket of moto's S3: its notification comes by SNS to a webhook and by SQS, and a rule fires once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import nats
import orjson
import pytest

from tests.integration.conftest import NatsServer
from tests.integration.sources.aws import ACCOUNT, REGION, Cloud, cloud
from tests.integration.sources.reading import Reading, reading
from tests.patience import until
from tests.ports import free_port

pytestmark = pytest.mark.anyio


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-access-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-key")
    with cloud(tmp_path / "aws") as made:
        yield made


def rules(*queues: str) -> str:
    sources = "".join(
        f"  - {{name: queue-{number}, read: {{type: sqs, queue: '{queue}', region: {REGION}}}, preset: s3, ids: uploads}}\n"
        for number, queue in enumerate(queues)
    )
    return f"""
webhooks:
  - {{name: uploads, preset: s3, ids: uploads, verify: {{type: basic, username: sns, password: env:SNS_PASSWORD}}}}
sources:
{sources}
automations:
  - name: load-new-csv
    trigger: {{expect: s3.file.uploaded, match: {{bucket: raw, extension: csv}}}}
    actions: [do-nothing]
"""


async def taken(here: Reading, *senders: str) -> dict[str, tuple[float, float]]:
    """By sender how many events came, and how many of them were there already."""
    found = {}
    for each in senders:
        label = f'{{source="{each}"}}'
        found[each] = (
            await here.metric(f"whenthen_events_received_total{label}") or 0.0,
            await here.metric(f"whenthen_events_duplicate_total{label}") or 0.0,
        )
    return found


async def fired(here: Reading) -> list[dict[str, object]]:
    answer = (await here.client.get("/api/firings", params={"limit": 100})).raise_for_status().json()
    return [each for each in answer if each["state"] == "Triggered"]


def notify(aws: Cloud, bucket: str, **configuration: object) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=configuration)


@pytest.mark.takes(30)
async def test_a_file_of_which_three_ways_tell_fires_once(
    tmp_path: Path, aws: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNS_PASSWORD", "a-password")
    wrapped, raw = aws.queue("wrapped"), aws.queue("raw")
    port = free_port()
    async with reading(tmp_path, rules(wrapped, raw), port=port) as here:

        def prepare() -> None:
            sns = aws.client("sns")
            topic = sns.create_topic(Name="uploads")["TopicArn"]
            endpoint = f"http://sns:a-password@127.0.0.1:{port}/hooks/uploads"
            sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=endpoint)
            for name, attributes in (("wrapped", {}), ("raw", {"RawMessageDelivery": "true"})):
                arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"
                sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes=attributes)
            notify(aws, "raw", TopicConfigurations=[{"TopicArn": topic, "Events": ["s3:ObjectCreated:*"]}])
            aws.client("s3").put_object(Bucket="raw", Key="incoming/a day.csv", Body=b"1,2,3")

        await asyncio.to_thread(prepare)
        senders = ("webhook:uploads", "source:queue-0", "source:queue-1")

        async def all_came() -> bool:
            found = await taken(here, *senders)
            return [came for came, _ in found.values()] == [1, 1, 1]

        await until(all_came, within_s=60)
        assert sum(again for _, again in (await taken(here, *senders)).values()) == 2

        async def one() -> bool:
            return len(await fired(here)) == 1

        await until(one)
        [event] = (await here.client.get("/api/events", params={"event": "s3.file.uploaded"})).json()
        assert event["id"].startswith("ids:uploads/")
        assert event["resource"]["id"] == "s3://raw/incoming/a day.csv"
        assert event["payload"]["size"] == 5
        assert len(await fired(here)) == 1


@pytest.mark.takes(30)
async def test_a_bucket_tells_a_queue_directly_and_through_eventbridge(tmp_path: Path, aws: Cloud) -> None:
    direct, bus = aws.queue("direct"), aws.queue("bus")
    text = f"""
sources:
  - {{name: direct, read: {{type: sqs, queue: '{direct}', region: {REGION}}}, preset: s3}}
  - {{name: bus, read: {{type: sqs, queue: '{bus}', region: {REGION}}}, preset: s3}}
"""
    async with reading(tmp_path, text) as here:

        def prepare() -> None:
            events = aws.client("events")
            events.put_rule(
                Name="uploads", EventPattern=json.dumps({"source": ["aws.s3"], "detail-type": ["Object Created"]})
            )
            arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}"
            events.put_targets(Rule="uploads", Targets=[{"Id": "queue", "Arn": f"{arn}:bus"}])
            notify(
                aws,
                "raw",
                QueueConfigurations=[{"QueueArn": f"{arn}:direct", "Events": ["s3:ObjectCreated:*"]}],
                EventBridgeConfiguration={},
            )
            aws.client("s3").put_object(Bucket="raw", Key="a+b.csv", Body=b"1")

        await asyncio.to_thread(prepare)  # the queue is told of the configuration first, which is no event
        found = await here.come(2, within_s=60)
        assert sorted((each["source"], each["event"], each["resource"]["id"]) for each in found) == [
            ("source:bus", "s3.file.uploaded", "s3://raw/a+b.csv"),
            ("source:direct", "s3.file.uploaded", "s3://raw/a+b.csv"),
        ]


MINIO = {
    "eventVersion": "2.0",
    "eventSource": "minio:s3",
    "awsRegion": "",
    "eventTime": "2026-01-31T07:59:58.123Z",
    "eventName": "s3:ObjectCreated:Put",
    "userIdentity": {"principalId": "minioadmin"},
    "requestParameters": {"principalId": "minioadmin", "region": "", "sourceIPAddress": "127.0.0.1"},
    "responseElements": {"x-amz-request-id": "17A4F0B3B2F0D2C8", "x-minio-origin-endpoint": "http://127.0.0.1:9000"},
    "s3": {
        "s3SchemaVersion": "1.0",
        "configurationId": "Config",
        "bucket": {"name": "raw", "ownerIdentity": {"principalId": "minioadmin"}, "arn": "arn:aws:s3:::raw"},
        "object": {
            "key": "incoming%2Fa+day.csv",
            "size": 5,
            "eTag": "d41d8cd98f00b204e9800998ecf8427e",
            "contentType": "text/csv",
            "userMetadata": {"content-type": "text/csv"},
            "sequencer": "17A4F0B3B30E57B2",
        },
    },
    "source": {"host": "127.0.0.1", "port": "", "userAgent": "MinIO (linux; amd64) minio-go/v7.0.0"},
}


async def test_minio_tells_by_its_nats_target_with_and_without_jetstream(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    theirs = await nats.connect(nats_server.url)
    await theirs.jetstream().add_stream(name="MINIO", subjects=["minio.stream"])
    text = f"""
sources:
  - {{name: stream, read: {{type: nats, url: "{nats_server.url}", stream: MINIO, existing: report}}, preset: s3, ids: minio}}
  - {{name: subject, read: {{type: nats, url: "{nats_server.url}", subject: minio.plain}}, preset: s3, ids: minio}}
"""
    told = {"EventName": "s3:ObjectCreated:Put", "Key": "raw/incoming/a day.csv", "Records": [MINIO]}
    async with reading(tmp_path, text) as here:

        async def both_read() -> bool:
            states = [
                await here.metric(f'whenthen_source_reading{{source="{each}"}}') for each in ("stream", "subject")
            ]
            return states == [1.0, 1.0]

        await until(both_read, within_s=60)
        await theirs.jetstream().publish("minio.stream", orjson.dumps(told))
        await theirs.publish("minio.plain", orjson.dumps(told))

        async def both_came() -> bool:
            found = await taken(here, "source:stream", "source:subject")
            return [came for came, _ in found.values()] == [1, 1]

        await until(both_came)
        [event] = await here.events()
        assert (event["event"], event["resource"]["id"]) == ("s3.file.uploaded", "s3://raw/incoming/a day.csv")
    await theirs.close()
