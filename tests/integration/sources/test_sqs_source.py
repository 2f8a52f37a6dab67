"""A queue of SQS as a source, of moto's server: what was deleted there is stored here, and credentials may expire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from tests.integration.conftest import NatsServer
from tests.integration.sources.aws import Cloud, cloud
from tests.integration.sources.reading import Reading, reading
from tests.patience import limit, until
from tests.plain_http import plain_async_client
from whenthen.engine.sources.edges import sqs_edge

pytestmark = pytest.mark.anyio


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-access-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-key")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with cloud(tmp_path / "aws") as made:
        yield made


def rules(queue: str, read: str = "", more: str = "") -> str:
    mapping = 'map: {event: order.placed, resource: {id: "order.{{ body.n }}", queue: $.message.queue}}'
    return f"sources:\n  - {{name: orders, read: {{type: sqs, queue: '{queue}', region: eu-west-1{read}}}, {more or mapping}}}\n"


def order(*numbers: int) -> list[str]:
    return [f'{{"n": {number}}}' for number in numbers]


def ids(events: list[dict[str, object]]) -> list[int]:
    return sorted(int(event["resource"]["id"][6:]) for event in events)  # type: ignore[index]


async def is_empty(aws: Cloud, name: str = "orders") -> None:
    async def empty() -> bool:
        return await asyncio.to_thread(aws.held, name) == (0, 0)

    await until(empty, within_s=60)


async def says(here: Reading, text: str) -> None:
    async def said() -> bool:
        runner = here.server._running._sources  # type: ignore[union-attr]
        return runner is not None and "orders" in runner.watches and text in runner.watches["orders"].detail

    await until(said, within_s=60)


@pytest.mark.takes(30)
async def test_a_queue_is_read_over_restarts_and_a_poison_message_is_kept_aside(
    tmp_path: Path, aws: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the server goes on with the long poll of a reader that was stopped, and hides from the next one what it finds
    monkeypatch.setattr(sqs_edge, "LONG_POLL_S", 1)
    monkeypatch.setattr(sqs_edge, "HIDDEN_S", 10)
    monkeypatch.setattr(sqs_edge, "HIDE_EVERY_S", 1.0)
    text = rules(aws.queue("orders"))
    aws.send("orders", *order(*range(40)))
    async with reading(tmp_path, text) as here:
        events = await here.come(40, within_s=60)
        assert ids(events) == list(range(40))
        assert events[0]["resource"]["queue"] == "orders"
        aws.send("orders", "poison", *order(40))
        await here.come(41, within_s=60)
        await is_empty(aws)
        assert await here.metric('whenthen_events_refused_total{reason="invalid_json",source="source:orders"}') == 1.0
    aws.send("orders", *order(41, 42))
    async with reading(tmp_path, text) as here:
        assert ids(await here.come(43, within_s=60)) == list(range(43))
        await is_empty(aws)


async def test_processes_share_a_queue(tmp_path: Path, aws: Cloud, nats_server: NatsServer) -> None:
    text = rules(aws.queue("orders"))
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    url = nats_server.url
    async with (
        reading(tmp_path / "one", text, nats_url=url) as one,
        reading(tmp_path / "two", text, nats_url=url) as two,
    ):
        sent = 0

        async def both_read() -> bool:
            nonlocal sent
            await asyncio.to_thread(aws.send, "orders", *order(*range(sent, sent + 4)))
            sent += 4
            return all(
                [await each.metric('whenthen_source_heard_timestamp_seconds{source="orders"}') for each in (one, two)]
            )

        await until(both_read, within_s=90)
        assert ids(await one.come(sent, within_s=60)) == list(range(sent))
        await is_empty(aws)


async def test_a_queue_that_is_not_there_is_said_and_read_once_it_is(tmp_path: Path, aws: Cloud) -> None:
    async with reading(tmp_path, rules(aws.address("orders"))) as here:
        await says(here, "there is no queue http://127.0.0.1")
        aws.queue("orders")
        aws.send("orders", *order(1))
        assert ids(await here.come(1, within_s=90)) == [1]
        aws.server.kill()
        await says(here, "SQS: ")
        aws.server.start()
        aws.queue("orders")
        aws.send("orders", *order(2))
        assert ids(await here.come(2, within_s=90)) == [1, 2]


@pytest.mark.takes(20)
async def test_messages_stay_hidden_while_they_wait_and_are_given_back_when_that_ends(
    tmp_path: Path, aws: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqs_edge, "HIDDEN_S", 12)  # much longer than a busy machine lets this process wait
    monkeypatch.setattr(sqs_edge, "HIDE_EVERY_S", 0.5)
    monkeypatch.setattr(sqs_edge, "GIVE_BACK_S", limit(sqs_edge.GIVE_BACK_S))
    queue = aws.queue("orders")
    aws.send("orders", *order(1))
    async with reading(tmp_path, rules(queue)) as here:
        blocked = asyncio.Event()

        async def waits(message: object) -> None:
            blocked.set()
            await asyncio.Event().wait()

        await here.come(1)
        monkeypatch.setattr(
            "whenthen.engine.sources.message_intake.MessageIntake.deliver", lambda _, message: waits(message)
        )
        aws.send("orders", *order(2))
        await blocked.wait()
        began = asyncio.get_running_loop().time()
        while (
            asyncio.get_running_loop().time() < began + sqs_edge.HIDDEN_S + 2
        ):  # longer than a message is hidden at one time
            assert await asyncio.to_thread(aws.held, "orders") == (0, 1)
            await asyncio.sleep(0.25)
    assert aws.held("orders") == (1, 0)


@asynccontextmanager
async def guarded(aws: Cloud, accepted: list[str]) -> AsyncIterator[str]:
    """The address of a server that lets only the accepted access key through to moto, and calls every other one expired."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if f"Credential={accepted[0]}/" not in request.headers.get("Authorization", ""):
            body = {"__type": "com.amazonaws.sqs#ExpiredTokenException", "message": "The security token is expired"}
            return web.json_response(body, status=403, content_type="application/x-amz-json-1.0")
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        answer = await client.request(
            request.method, f"{aws.url}{request.path_qs}", headers=headers, content=await request.read()
        )
        return web.Response(body=answer.content, status=answer.status_code, content_type="application/x-amz-json-1.0")

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=1)
    async with plain_async_client() as client:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


async def test_credentials_that_expire_are_said_and_read_again(tmp_path: Path, aws: Cloud) -> None:
    aws.queue("orders")
    aws.send("orders", *order(1))
    key, secret = tmp_path / "key", tmp_path / "secret"
    key.write_text("first-key\n")
    secret.write_text("a-secret\n")
    accepted = ["first-key"]
    async with guarded(aws, accepted) as url:
        read = f", access_key: 'file:{key}', secret_key: 'file:{secret}', session_token: 'file:{secret}'"
        async with reading(tmp_path, rules(aws.address("orders").replace(aws.url, url), read)) as here:
            await here.come(1, within_s=60)
            accepted[0] = "second-key"
            await says(here, "the credentials have expired (ExpiredTokenException); renew them")
            aws.send("orders", *order(2))
            key.write_text("second-key\n")
            assert ids(await here.come(2, within_s=90)) == [1, 2]
        await is_empty(aws)


async def test_without_credentials_it_says_what_to_give(
    tmp_path: Path, aws: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    async with reading(tmp_path, rules(aws.queue("orders"))) as here:
        await says(here, "Unable to locate credentials; give `access_key` and `secret_key`")


async def test_a_message_kept_aside_is_sent_again_once_the_mapping_is_mended(tmp_path: Path, aws: Cloud) -> None:
    queue = aws.queue("orders")
    aws.send("orders", *order(1))
    mistaken = 'map: {event: order.placed, resource: {id: "order.{{ body.nmber }}"}}'
    async with reading(tmp_path, rules(queue, more=mistaken)) as here:
        (kept,) = await here.aside()
        assert (kept["source"], kept["field"], kept["whole"]) == ("source:orders", "map.resource.id", True)
        await is_empty(aws)
    async with reading(tmp_path, rules(queue)) as here:
        report = await here.resend(source="source:orders")
        assert (report["sent"], report["refused"]) == (1, [])
        (event,) = await here.come(1)
        assert event["resource"] == {"id": "order.1", "queue": "orders"}
        assert report["events"] == [event["id"]]
        await here.aside(0)
