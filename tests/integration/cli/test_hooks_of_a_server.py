"""`whenthen hooks try --server`: what the rules in force on a server would make of a request, whether its proof holds, and nothing stored."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.integration.served import TOKEN, Served, serving
from whenthen.cli.main import app

RULES = """
webhooks:
  - {name: github, preset: github, secret: env:GITHUB_SECRET}
  - {name: slack, preset: slack, verify: none}
  - name: shop
    verify: {type: bearer, token: env:SHOP_TOKEN}
    map:
      each: $.body.orders
      event: order.{{ query.kind }}
      resource: {id: "order.{{ item.n }}"}
      when: item.paid
"""
SECRETS = {"GITHUB_SECRET": "planted-secret-value", "SHOP_TOKEN": "planted-token-value"}
PUSH = json.dumps({"ref": "refs/heads/main", "repository": {"full_name": "acme/app"}}).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("server"), {"rules.yaml": RULES}, SECRETS) as served:
        yield served


def hooks_try(
    server: Served, *arguments: str, body: bytes = b"", code: int = 0, url: str = "", token: str = TOKEN
) -> Result:
    """Of the body as it comes on standard input."""
    env = {"WHENTHEN_URL": url or server.url, "WHENTHEN_API_TOKEN": token, "TZ": "UTC", "COLUMNS": "200"}
    result = CliRunner().invoke(app, ["hooks", "try", *arguments, "--server", "--body", "-"], input=body, env=env)
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


def signed(body: bytes, secret: str = SECRETS["GITHUB_SECRET"]) -> list[str]:
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = ("X-GitHub-Event: push", "X-GitHub-Delivery: d-1", f"X-Hub-Signature-256: sha256={signature}")
    return [word for header in headers for word in ("-H", header)]


def as_json(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_genuine_request_shows_its_event_and_stores_nothing(server: Served) -> None:
    shown = hooks_try(server, "github", *signed(PUSH), body=PUSH).output
    assert "github.push github/d-1" in shown
    assert "branch: main" in shown
    assert "proof" not in shown
    made = as_json(hooks_try(server, "github", *signed(PUSH), "--json", body=PUSH))
    [event] = made["events"]
    assert (event["event"], event["id"], event["resource"]["repository"]) == ("github.push", "github/d-1", "acme/app")
    assert (made["proof"], made["answer"], made["dropped"]) == ("", None, [])
    assert server.get("/api/events?event=github.*") == []
    assert server.get("/api/sources/refused") == []
    sources = {each["name"]: each for each in server.get("/api/sources")}
    assert (sources["github"]["taken"], sources["github"]["refused"]) == (0, {})
    assert sources["github"]["last_heard"] is None


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        (signed(PUSH, "other"), "proof_wrong: "),
        (signed(PUSH + b" "), "proof_wrong: "),
        (signed(PUSH)[:4], "proof_missing: "),
    ],
)
def test_a_proof_that_does_not_hold_is_said_beside_the_event(server: Served, headers: list[str], said: str) -> None:
    shown = hooks_try(server, "github", *headers, body=PUSH, code=1).output
    assert "github.push github/d-1" in shown
    assert f"its proof does not hold: {said}" in shown
    assert SECRETS["GITHUB_SECRET"] not in shown
    made = as_json(hooks_try(server, "github", *headers, "--json", body=PUSH, code=1))
    assert made["proof"].startswith(said)
    assert len(made["events"]) == 1


def test_items_the_query_and_what_is_dropped_are_as_the_mapping_says(server: Served) -> None:
    body = json.dumps({"orders": [{"n": 1, "paid": True}, {"n": 2, "paid": False}]}).encode()
    words = ("-H", "Authorization: Bearer planted-token-value", "-H", "Content-Type: application/json")
    shown = hooks_try(server, "shop", *words, "-q", "kind=paid", body=body).output
    assert "order.paid " in shown
    assert "id: order.1" in shown
    assert "order.2" not in shown
    assert "no event: items[1].map.when: does not hold" in shown


def test_a_handshake_shows_its_answer(server: Served) -> None:
    body = b'{"type": "url_verification", "challenge": "<b>"}'
    shown = hooks_try(server, "slack", "-H", "Content-Type: application/json", body=body).output
    assert 'a handshake, answered with: {"challenge":"<b>"}' in shown.replace('": "', '":"')


@pytest.mark.parametrize(
    ("words", "body", "said"),
    [
        (["github"], PUSH, "headers.x-github-event: missing"),
        (["github", "-H", "X-GitHub-Event: push"], b"{", "body: not JSON at line 1"),
        (["githb"], PUSH, "did you mean 'github'?"),
        (["github", "-X", "PUT"], PUSH, "PUT: this webhook is called with POST"),
    ],
)
def test_what_fits_no_webhook_is_refused_with_its_field(
    server: Served, words: list[str], body: bytes, said: str
) -> None:
    assert said in " ".join(hooks_try(server, *words, body=body, code=1).output.split())


def test_a_server_that_is_not_there_or_knows_another_token_is_named(server: Served) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # where nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert url in hooks_try(server, "github", body=PUSH, code=1, url=url).output
    refused = hooks_try(server, "github", body=PUSH, code=1, token="another").output
    assert "WHENTHEN_API_TOKEN" in refused
    assert TOKEN not in refused
