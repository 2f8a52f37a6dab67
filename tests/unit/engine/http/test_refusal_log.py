"""A refused request leaves a line in the log: what it was sent to, from where, and why; one of a kind in some seconds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.unit.engine.http.http_fakes import FakeApi, app_over
from whenthen.actions.secrets import Redactor
from whenthen.engine.http.monitoring import refusal_log as module
from whenthen.engine.http.monitoring.refusal_log import KeptBack, RefusalLog
from whenthen.schemas.errors import BusUnavailable, InvalidInput, Refused

SCOPE = {"client": ("10.0.0.7", 4711), "headers": []}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def sent(api: FakeApi, *requests: tuple[str, dict[str, Any]], **options: Any) -> list[int]:
    async def work() -> list[int]:
        transport = httpx.ASGITransport(app_over(api, **options), client=("10.0.0.7", 4711))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return [(await client.post(path, **request)).status_code for path, request in requests]

    return asyncio.run(work())


def test_a_line_says_what_was_refused_from_where_and_why(caplog: pytest.LogCaptureFixture) -> None:
    found = sent(
        FakeApi(fail={"*": BusUnavailable("NATS is away")}),
        ("/hooks/orders", {"json": {}, "headers": {"x-token": "wrong"}}),
        ("/hooks/orders", {"json": {}, "headers": {"x-token": "right"}}),
        ("/hooks/orders", {"json": {"number": 1}, "headers": {"x-token": "right"}}),
        ("/hooks/ordres", {"json": {}}),
        ("/api/events", {"json": {"event": ""}}),
    )
    assert found == [401, 400, 503, 404, 400]
    assert [line.partition("is refused ")[2] for line in lines(caplog)][:4] == [
        "(401 refused): x-token does not hold the token",
        "(400 invalid_event): resource.id: body.number is missing",
        "(503 bus_unavailable): NATS is away",
        '(404 not_found): no webhook is named "ordres"; did you mean "orders"?',
    ]
    assert [line.partition(" is refused")[0] for line in lines(caplog)] == [
        *["webhook orders: a request from 10.0.0.7"] * 3,
        "webhook: a request from 10.0.0.7",
        "api: a request from 10.0.0.7",
    ]
    record = caplog.records[0]
    assert (vars(record)["webhook"], vars(record)["reason"], vars(record)["status"]) == ("orders", "refused", 401)


def test_a_request_without_the_token_of_the_api_leaves_a_line(caplog: pytest.LogCaptureFixture) -> None:
    assert sent(FakeApi(), ("/api/events", {"json": {}}), token="a-token-of-16-chars") == [401]
    assert lines(caplog) == [
        "api: a request from 10.0.0.7 is refused (401 unauthorized): send `Authorization: Bearer <token>`"
    ]


def test_an_error_inside_the_server_leaves_its_traceback_and_no_second_line(caplog: pytest.LogCaptureFixture) -> None:
    assert sent(FakeApi(), ("/hooks/orders?crash=1", {"json": {}, "headers": {"x-token": "right"}})) == [500]
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_of_each_webhook_and_reason_one_line_in_some_seconds(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    log = RefusalLog(clock=clock)
    for _ in range(50):
        for webhook in ("a", "b"):
            log.refused(f"webhook:{webhook}", Refused("wrong"), 403, SCOPE)
            log.refused(f"webhook:{webhook}", InvalidInput("no JSON"), 400, SCOPE)
    assert len(lines(caplog)) == 4
    clock.now += module.LOG_EVERY_S
    log.refused("webhook:a", Refused("wrong"), 403, SCOPE)
    assert lines(caplog)[4:] == [
        "webhook a: a request from 10.0.0.7 is refused (403 refused): wrong (49 more of this kind since the last such line)"
    ]


def test_a_thousand_names_that_are_not_there_are_one_kind(caplog: pytest.LogCaptureFixture) -> None:
    assert set(sent(FakeApi(), *((f"/hooks/n{number}", {"json": {}}) for number in range(100)))) == {404}
    assert len(lines(caplog)) == 1


@pytest.mark.parametrize(
    ("planted", "shown"),
    [
        ("a\nb\r\n12:00:00 info all is well", r"a\nb\r\n12:00:00 info all is well"),
        ("\x1b[2J\x9b31m\x07", r"\x1b[2J\x9b31m\x07"),
        ("\u202egnp.exe\u2028\u200b", r"\u202egnp.exe\u2028\u200b"),
        ("\ud800", r"\ud800"),
        ("größe 屬性 $", "größe 屬性 $"),
        ("x" * 501, "x" * 500 + "..."),
    ],
)
def test_what_the_sender_wrote_stays_on_one_line_and_is_bounded(
    planted: str, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    RefusalLog().refused("api", InvalidInput(planted), 400, SCOPE)
    assert lines(caplog) == [f"api: a request from 10.0.0.7 is refused (400 invalid_input): {shown}"]


@pytest.mark.parametrize(
    "text",
    [
        lambda secret: f"found {secret!r}".replace("\\n", "\n"),
        lambda secret: "x" * 490 + secret,  # half of it would be left by a cut before
    ],
)
def test_a_secret_is_taken_out_before_the_text_is_cut_or_escaped(
    text: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    secret = "top-secret\npassphrase-of-two-lines"
    redactor = Redactor()
    redactor.add(secret)
    RefusalLog(redact=redactor.text).refused("webhook:w", InvalidInput(text(secret)), 400, SCOPE)
    (line,) = lines(caplog)
    assert "***" in line
    assert not any(part in line for part in ("top-sec", "passphrase"))


def test_the_note_of_a_refusal_has_no_secret_of_the_path_and_no_line_of_the_senders() -> None:
    redactor = Redactor()
    redactor.add("token-of-the-shop")
    notes: list[tuple[str, str, str, str]] = []
    refusals = RefusalLog(redact=redactor.text, note=lambda *note: notes.append(note))
    scope = {**SCOPE, "path": "/hooks/token-of-the-shop\n\x1b[31m"}
    refusals.refused("webhook", InvalidInput("no webhook"), 404, scope)
    assert notes == [("webhook /hooks/***\\n\\x1b[31m", "invalid_input", "no webhook", "10.0.0.7")]


def test_the_memory_of_kinds_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_KINDS", 10)
    kept_back = KeptBack(Clock())
    assert [kept_back.admit(number) for number in range(100)] == [""] * 100
    assert len(kept_back._seen) == 10
    assert kept_back.admit(99) is None
