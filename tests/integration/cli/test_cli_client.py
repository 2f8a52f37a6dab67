"""What the command line says when the server refuses, is away, or is another program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from whenthen.cli.client import ApiError, Client, Unreachable, api_token
from whenthen.schemas.errors import SetupError


def client_answering(status: int, body: Any = None, content: bytes | None = None) -> Client:
    def answer(_request: httpx.Request) -> httpx.Response:
        headers = {"retry-after": "2"} if status == 503 else {}
        if content is not None:
            return httpx.Response(status, content=content, headers=headers)
        return httpx.Response(status, json=body, headers=headers)

    return Client("http://server:4280/", transport=httpx.MockTransport(answer))


def refusal(message: str, *, reason: str = "refused", field: str | None = None) -> dict[str, Any]:
    return {"error": {"reason": reason, "field": field, "message": message}}


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (400, refusal("empty", reason="invalid_event", field="event"), "event: empty (invalid_event)"),
        (401, refusal("send a token", reason="unauthorized"), "send a token; set WHENTHEN_API_TOKEN to the server's API token: the file api-token in its data directory, unless it was given one (commands of the user who runs it find the token themselves) (unauthorized)"),
        (404, refusal("there is no run 'x'", reason="not_found"), "there is no run 'x' (not_found)"),
        (503, refusal("NATS is away", reason="bus_unavailable"), "NATS is away; try again in 2 seconds (bus_unavailable)"),
        (
            400,
            {"taken": False, "problems": [{"file": "a.yaml", "line": 3, "column": 5, "field": "x", "message": "no"}]},
            "a.yaml:3:5: x: no",
        ),
    ],
)  # fmt: skip
def test_an_error_of_the_api_is_told_with_its_field_reason_and_remedy(status: int, body: Any, said: str) -> None:
    with client_answering(status, body) as client, pytest.raises(ApiError) as found:
        client.get("/api/anything")
    assert str(found.value) == said
    assert found.value.status == status


@pytest.mark.parametrize("status", [200, 502])
def test_another_program_behind_the_address_is_recognised(status: int) -> None:
    with client_answering(status, content=b"<html>hello</html>") as client, pytest.raises(ApiError) as found:
        client.get("/api/events")
    assert "Check --url" in str(found.value)


def test_no_server_is_told_with_what_to_start() -> None:
    with Client("127.0.0.1:9") as client, pytest.raises(Unreachable) as found:
        client.get("/api/events")
    assert "http://127.0.0.1:9" in str(found.value)
    assert "whenthen serve RULES" in str(found.value)


def test_a_server_that_does_not_answer_in_time_is_told() -> None:
    def slow(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow", request=request)

    client = Client("http://server", transport=httpx.MockTransport(slow))
    with client, pytest.raises(Unreachable, match="did not answer within 30 seconds"):
        client.get("/api/events")


@pytest.mark.parametrize("url", ["ftp://server", "http://[::1", "http://server:port"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(SetupError, match="--url"):
        Client(url).get("/api/events")


def test_a_listing_is_read_page_by_page_up_to_the_limit() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(dict(request.url.params))
        size, before = int(request.url.params["limit"]), int(request.url.params.get("before", 5001))
        return httpx.Response(200, json=[{"seq": before - 1 - number} for number in range(size)])

    with Client("http://server", transport=httpx.MockTransport(answer)) as client:
        found = [item["seq"] for item in client.pages("/api/events", limit=2500, event="a.*", source=None)]
    assert found == list(range(5000, 2500, -1))
    assert asked == [
        {"limit": "1000", "event": "a.*"},
        {"limit": "1000", "before": "4001", "event": "a.*"},
        {"limit": "500", "before": "3001", "event": "a.*"},
    ]


def test_a_page_that_was_cut_for_its_size_is_followed_by_the_next() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params.get("before"))
        if asked[-1] is None:
            return httpx.Response(
                200, json=[{"seq": 9}, {"seq": 8}], headers={"link": '</api/events?before=8>; rel="next"'}
            )
        return httpx.Response(200, json=[{"seq": 7}])

    with Client("http://server", transport=httpx.MockTransport(answer)) as client:
        assert [item["seq"] for item in client.pages("/api/events", limit=100)] == [9, 8, 7]
    assert asked == [None, "8"]


def test_a_listing_that_has_one_page_only_is_not_read_over_and_over() -> None:
    page = [{"seq": number} for number in range(1000, 0, -1)]
    with client_answering(200, page) as client:
        assert list(client.pages("/api/actions", limit=100_000, outcome="dead")) == page


def test_the_token_comes_from_the_environment_itself_or_by_reference(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-a-file\n")
    assert api_token({}) is None
    assert api_token({"WHENTHEN_API_TOKEN": "itself"}) == "itself"
    assert api_token({"WHENTHEN_API_TOKEN": "env:OTHER", "OTHER": "from-another"}) == "from-another"
    assert api_token({"WHENTHEN_API_TOKEN": f"file:{file}"}) == "from-a-file"
    with pytest.raises(SetupError, match="OTHER is empty or not set"):
        api_token({"WHENTHEN_API_TOKEN": "env:OTHER"})
    with pytest.raises(SetupError, match="can not be read"):
        api_token({"WHENTHEN_API_TOKEN": f"file:{tmp_path}/nowhere"})


def test_the_token_is_sent_and_never_printed(run: Callable[..., Any], server: Any) -> None:
    server.answers["GET /api/automations"] = (401, refusal("the token is not the one of this server"))
    result = run("automations", code=1, env={"WHENTHEN_API_TOKEN": "do-not-print-me"})
    assert server.asked[0].authorization == "Bearer do-not-print-me"
    assert "do-not-print-me" not in result.output
    assert "set WHENTHEN_API_TOKEN" in result.output


def test_a_list_without_a_limit_is_read_whole_over_its_links() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        link = {"link": '</api/automations?tag=x&after=b>; rel="next"'} if len(asked) == 1 else {}
        return httpx.Response(200, json=[{"name": "ab"[len(asked) - 1]}], headers=link)

    with Client("http://server:4280", transport=httpx.MockTransport(answer)) as client:
        assert [item["name"] for item in client.whole("/api/automations", tag="x")] == ["a", "b"]
    assert asked[1] == "http://server:4280/api/automations?tag=x&after=b"


def test_pages_of_runs_go_on_over_links_whose_place_is_no_number() -> None:
    pages = [["r3", "r2"], ["r1"]]

    def answer(request: httpx.Request) -> httpx.Response:
        before = request.url.params.get("before")
        link = {} if before else {"link": '</api/runs?before=2026/r2>; rel="next"'}
        return httpx.Response(200, json=[{"id": name} for name in pages[before == "2026/r2"]], headers=link)

    with Client("http://server:4280", transport=httpx.MockTransport(answer)) as client:
        assert [item["id"] for item in client.pages("/api/runs", limit=10)] == ["r3", "r2", "r1"]
