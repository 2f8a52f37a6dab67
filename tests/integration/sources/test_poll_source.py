"""An address as a source: asked again and again, and only what is new becomes an event."""

from __future__ import annotations

import json
import resource
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.integration.sources.reading import forget_what_is_stored, reading
from tests.patience import until

pytestmark = pytest.mark.anyio


class Site:
    """Answers with `body` and its ETag."""

    def __init__(self) -> None:
        self.body = b"[]"
        self.status = 200
        self.content_type = "application/json"
        self.more: dict[str, str] = {}  #: headers, which win
        self.asked: list[tuple[int, dict[str, str]]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                etag = f'"{hash(site.body)}"'
                status = 304 if self.headers.get("If-None-Match") == etag else site.status
                site.asked.append((status, {name.lower(): value for name, value in self.headers.items()}))
                body = b"" if status == 304 else site.body
                self.send_response(status)
                given = {"Content-Type": site.content_type, "ETag": etag, "Content-Length": str(len(body)), **site.more}
                for name, value in given.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/list"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def items(self, *numbers: int) -> None:
        self.body = json.dumps({"items": [{"id": number, "what": f"item {number}"} for number in numbers]}).encode()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


def rules(site: Site, more: str = "", mapping: str = "") -> str:
    mapping = (
        mapping or 'map: {each: $.body.items, event: item.new, resource: {id: "item.{{ item.id }}"}, id: $.item.id}'
    )
    return f"sources:\n  - {{name: list, read: {{type: poll, url: '{site.url}', every: 1s{more}}}, {mapping}}}\n"


async def test_what_comes_while_the_beginning_can_not_be_stored_is_new(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.items(1)
    lost = forget_what_is_stored(monkeypatch, back=(tmp_path / "back").exists)
    async with reading(tmp_path, rules(site, ", existing: skip")) as server:
        await server.becomes("list", "trouble", "away for the test")
        site.items(2, 1)
        (tmp_path / "back").touch()
        await server.becomes("list", "reading")
        assert [event["resource"]["id"] for event in await server.come(1)] == ["item.2"]
        assert "poll" in lost


async def test_only_what_is_new_becomes_an_event_also_over_a_restart(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIST_TOKEN", "token-of-the-list")
    site.items(1, 2)
    text = rules(site, ", existing: report, headers: {x-token: 'env:LIST_TOKEN'}")
    async with reading(tmp_path, text) as server:
        events = await server.come(2)
        assert [each["id"] for each in events] == ["source:list/1", "source:list/2"]
        assert events[0]["payload"] == {"id": 1, "what": "item 1"}
        assert site.asked[0][1]["x-token"] == "token-of-the-list"

        async def not_modified() -> bool:
            return site.asked[-1][0] == 304

        await until(not_modified)
        site.items(3, 2)
        await server.come(3)
    site.items(4, 3, 2)
    async with reading(tmp_path, text) as server:
        await server.come(4)
        asked = len(site.asked)

        async def asked_again() -> bool:
            return len(site.asked) > asked + 1

        await until(asked_again)
        assert [each["resource"]["id"] for each in await server.events()] == ["item.1", "item.2", "item.3", "item.4"]
        assert await server.metric('whenthen_events_duplicate_total{source="source:list"}') == 0.0


async def test_what_was_there_at_the_first_time_is_no_news(tmp_path: Path, site: Site) -> None:
    site.items(1, 2)
    async with reading(tmp_path, rules(site)) as server:

        async def asked() -> bool:
            return any(status == 304 for status, _ in site.asked)

        await until(asked)
        site.items(5, 2, 1)
        (event,) = await server.come(1)
        assert event["resource"]["id"] == "item.5"


async def test_an_answer_that_fits_nothing_is_refused_once_and_trouble_ends_with_it(tmp_path: Path, site: Site) -> None:
    site.body = b'{"items": "none"}'
    async with reading(tmp_path, rules(site, ", existing: report")) as server:

        async def refused() -> bool:
            return (
                await server.metric('whenthen_events_refused_total{reason="invalid_input",source="source:list"}')
            ) == 1.0

        await until(refused)
        asked = len(site.asked)

        async def asked_again() -> bool:
            return len(site.asked) > asked + 1

        await until(asked_again)
        assert await refused()
        (kept,) = await server.aside()
        assert (kept["source"], kept["shape"]) == ("source:list", "{items: text of 4}")
        assert len((await server.resend())["refused"]) == 1
        site.status = 500
        site.items(1)
        await until(asked_again)
        site.status = 200
        await server.come(1)


FEED = b"""<?xml version="1.0"?><rss version="2.0"><channel><title>News</title><link>https://news.example</link>
<item><title>Second</title><guid>n-2</guid><link>https://news.example/2</link><pubDate>Sat, 31 Jan 2026 09:00:00 GMT</pubDate></item>
<item><title>First</title><guid>n-1</guid><link>https://news.example/1</link><pubDate>Sat, 31 Jan 2026 08:00:00 GMT</pubDate></item>
</channel></rss>"""


async def test_a_feed_needs_no_mapping(tmp_path: Path, site: Site) -> None:
    site.body, site.content_type = FEED, "application/rss+xml"
    text = f"sources:\n  - {{name: news, read: {{type: poll, url: '{site.url}', every: 1s, format: feed, existing: report}}}}\n"
    async with reading(tmp_path, text) as server:
        events = await server.come(2)
        assert {each["event"] for each in events} == {"feed.entry"}
        assert sorted(each["resource"]["entry"] for each in events) == ["n-1", "n-2"]
        assert events[0]["payload"]["published"] in ("2026-01-31T08:00:00+00:00", "2026-01-31T09:00:00+00:00")


async def test_an_address_that_answers_what_no_header_can_be_is_asked_on(tmp_path: Path, site: Site) -> None:
    site.more = {"ETag": '"\xfc"', "Last-Modified": "x" * 5000}  # neither can be sent back
    site.items(1)
    text = rules(site, ", existing: report")
    async with reading(tmp_path, text) as server:
        await server.come(1)
        site.items(2, 1)
        await server.come(2)
        assert {"if-none-match", "if-modified-since"} & site.asked[-1][1].keys() == set()
        site.status, site.more = 503, {"Retry-After": f"Sat, 31 Jan {'9' * 30} 00:00:00 GMT"}
        await server.becomes("list", "trouble", "answers 503")
        site.status, site.more = 200, {"ETag": ""}
        site.items(3)
        await server.come(3)


async def test_an_answer_that_unfolds_to_half_a_gigabyte_is_trouble_and_takes_no_memory(
    tmp_path: Path, site: Site
) -> None:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    zeros = bytes(1_000_000)
    site.body = b"".join(packer.compress(zeros) for _ in range(500)) + packer.flush()
    site.more = {"Content-Encoding": "gzip"}
    async with reading(tmp_path, rules(site, ", existing: report")) as server:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await server.becomes("list", "trouble", "more than 16000000 bytes")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 250_000  # KiB
        site.more = {}
        site.items(1)
        await server.come(1)
