"""`whenthen emit`: what flags and files become on the protocol."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from whenthen.cli.emit import read_events, read_labels
from whenthen.schemas.errors import InvalidInput


def accept(asked: Any) -> tuple[int, Any]:
    events = asked.body if isinstance(asked.body, list) else [asked.body]
    return 202, {"ids": [event["id"] for event in events], "duplicates": []}


def test_flags_become_one_event(run: Callable[..., Any], server: Any) -> None:
    server.answers["POST /api/events"] = accept
    result = run(
        "emit", "order.paid", "-r", "id=order.17,country=fr", "-r", "note=a, b", "--related", "id=customer.5,role=customer",
        "-p", '{"total": 4.5}', "--id", "e-1", "--occurred", "2026-01-31T08:00:00Z", "--follows", "e-0",
    )  # fmt: skip
    assert result.output == "accepted order.paid e-1\n"
    assert server.asked[0].body == {
        "event": "order.paid",
        "resource": {"id": "order.17", "country": "fr", "note": "a, b"},
        "related": [{"id": "customer.5", "role": "customer"}],
        "payload": {"total": 4.5},
        "id": "e-1",
        "occurred": "2026-01-31T08:00:00Z",
        "follows": "e-0",
    }


def test_an_event_has_its_id_before_it_is_sent(run: Callable[..., Any], server: Any) -> None:
    server.answers["POST /api/events"] = accept
    result = run("emit", "a.b", "-r", "id=x", "--json")
    assert orjson.loads(result.output)["ids"] == [server.asked[0].body["id"]]


def test_a_payload_comes_from_a_file_or_standard_input(run: Callable[..., Any], server: Any, tmp_path: Path) -> None:
    server.answers["POST /api/events"] = accept
    file = tmp_path / "payload.json"
    file.write_text("[1, 2]")
    run("emit", "a.b", "-r", "id=x", "-p", f"@{file}")
    run("emit", "a.b", "-r", "id=x", "-p", "-", stdin='{"from": "stdin"}')
    assert [asked.body["payload"] for asked in server.asked] == [[1, 2], {"from": "stdin"}]


def test_a_cloudevent_in_a_file_is_sent_as_it_is(run: Callable[..., Any], server: Any, tmp_path: Path) -> None:
    server.answers["POST /api/events"] = accept
    file = tmp_path / "event.json"
    written = {"specversion": "1.0", "type": "order.paid", "source": "/shop", "id": "c1"}
    file.write_bytes(orjson.dumps(written))
    assert run("emit", "--file", str(file)).output == "accepted order.paid c1\n"
    assert server.asked[0].body == written


def test_a_long_file_is_sent_in_parts(run: Callable[..., Any], server: Any, tmp_path: Path) -> None:
    server.answers["POST /api/events"] = accept
    file = tmp_path / "events.jsonl"
    file.write_text("".join(f'{{"event": "a.b", "resource": {{"id": "{number}"}}}}\n' for number in range(1200)))
    result = run("emit", "--file", str(file))
    assert [len(asked.body) for asked in server.asked] == [500, 500, 200]
    assert result.output.count("accepted a.b") == 1200


def test_a_server_that_fails_is_told_with_how_to_send_again(run: Callable[..., Any], server: Any) -> None:
    server.answers["POST /api/events"] = (
        503,
        {"error": {"reason": "bus_unavailable", "field": None, "message": "NATS is away"}},
    )
    result = run("emit", "a.b", "-r", "id=x", "--id", "e-9", code=1)
    assert "NATS is away" in result.output
    assert "send it again with --id e-9" in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "give the event's name, or --file"),
        (("a.b",), 1, "--resource: missing"),
        (("a.b", "-r", "x"), 1, "'x' is not a label"),
        (("a.b", "-r", "id=x", "-p", "{"), 1, "--payload: not JSON"),
        (("a.b", "-r", "id=x", "-p", "@/nowhere.json"), 1, "/nowhere.json: No such file"),
        (("a.b", "--file", "x.json"), 2, "--file has whole events"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(
    run: Callable[..., Any], server: Any, arguments: tuple[str, ...], code: int, said: str
) -> None:
    assert said in run("emit", *arguments, code=code).output
    assert not server.asked


def test_labels_are_read_as_pairs_or_json() -> None:
    assert read_labels("--resource", "id=a=b,c=d") == {"id": "a=b", "c": "d"}
    assert read_labels("--resource", '{"id": "x", "b": "c,d=e"}') == {"id": "x", "b": "c,d=e"}
    with pytest.raises(InvalidInput, match="not JSON"):
        read_labels("--resource", "{id}")


def test_events_are_read_from_an_object_a_list_or_lines() -> None:
    assert read_events(b'{"event": "a"}', "f") == [{"event": "a"}]
    assert read_events(b'[{"event": "a"}, {"event": "b"}]', "f") == [{"event": "a"}, {"event": "b"}]
    assert read_events(b'{"event": "a"}\n\n{"event": "b"}\n', "f") == [{"event": "a"}, {"event": "b"}]


@pytest.mark.parametrize(
    ("raw", "said"),
    [(b"", "f: empty"), (b"{", "f: not JSON"), (b"[]", "the list is empty"), (b"{}\n{", "f:2: not JSON")],
)
def test_a_file_without_events_is_refused_with_its_line(raw: bytes, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        read_events(raw, "f")


def test_an_integer_beyond_64_bits_is_sent_as_the_digits_that_the_server_would_make_of_it(
    run: Callable[..., Any], server: Any, tmp_path: Path
) -> None:
    server.answers["POST /api/events"] = accept
    file = tmp_path / "events.jsonl"
    line = '{"event": "a.b", "resource": {"id": "x"}, "payload": 123456789012345678901}\n'
    for text in (line, line * 2):
        file.write_text(text)
        run("emit", "--file", str(file))
    run("emit", "a.b", "-r", "id=x", "-p", '{"n": [18446744073709551615, 123456789012345678901, -9223372036854775809]}')
    one, two, flag = (asked.body for asked in server.asked)
    assert [event["payload"] for event in (one, *two)] == ["123456789012345678901"] * 3
    assert flag["payload"] == {"n": [18446744073709551615, "123456789012345678901", "-9223372036854775809"]}


def test_an_event_is_sent_with_the_trace_of_the_environment(
    run: Callable[..., Any], server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["POST /api/events"] = accept
    parent = f"00-{'1' * 32}-{'2' * 16}-01"
    for written in (parent, "", "malformed"):
        monkeypatch.setenv("TRACEPARENT", written)
        monkeypatch.setenv("TRACESTATE", "a=1")
        run("emit", "a.b", "-r", "id=x")
    headers = [asked.headers for asked in server.asked]
    assert [found.get("traceparent") for found in headers] == [parent, None, None]
    assert [found.get("tracestate") for found in headers] == ["a=1", None, None]
