"""What somebody writes into an address or a form of a page is answered with a page, whatever it is: read, refused with the parameter's name, or not found."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest

from tests.integration.served import Served, serving
from tests.integration.ui.page_story import EVIL, answered
from tests.patience import eventually
from whenthen.engine.http.pages.page_frame import PageFrame
from whenthen.engine.http.pages.page_router import page_routers

pytestmark = [pytest.mark.requires("nats-server"), pytest.mark.takes(1)]

RULES = """
automations:
  - {name: quiet, trigger: {expect: order.paid}, actions: [do-nothing]}
deployments:
  - {name: load, command: echo loads}
webhooks:
  - {name: shop, verify: none, map: {event: order.told, resource: {id: $.body.id}}}
"""
GARBAGE = (
    EVIL,
    "\"'><script>alert(1)</script>",
    "x" * 10_000,
    "שלום" * 1000,
    "\x00",
    "-1",
    "9" * 40,
    "NaN",
    "{{ 7 * 7 }} {% if %}",
    "../../etc/passwd",
    "[!" + "*" * 300,
    "2026-99-99T99:99:99Z",
    "99999999999d",
    "automation=quiet,=,",
)
BROKEN = ("%ff%fe", "%zz", "a&a=b")  #: as they stand in an address
ANSWERS = (200, 400, 404, 409, 413)
#: of pages and their parameters
ROUTES: Mapping[str, list[str]] = {
    route.path: [field.name for field in route.dependant.query_params]  # type: ignore[attr-defined]
    for router in page_routers(None, PageFrame(None, ""), None)  # type: ignore[arg-type]
    for route in router.routes
    if "GET" in route.methods  # type: ignore[attr-defined]
}
PAGES = sorted(path for path, names in ROUTES.items() if names)
FORMS = (
    "/automation/pause", "/automation/resume", "/actions/dead", "/run/cancel", "/run/suspend", "/run/resume", "/run/delete", "/run/again",
    "/sources/resend", "/try",
)  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("addresses"), {"rules.yaml": RULES}) as served:
        served.emit("order.paid", id="paid")
        served.http.post("/api/deployments/load/run", json={}).raise_for_status()
        eventually(lambda: served.fired()["quiet"] and served.get("/api/runs")[0]["state"] == "Completed")
        yield served


@pytest.fixture(scope="module")
def needed(served: Served) -> Mapping[str, Mapping[str, str]]:
    """Without which a page has nothing to show."""
    return {
        "/automation": {"name": "quiet"},
        "/event": {"id": "paid"},
        "/firing": {"id": served.get("/api/firings")[0]["id"]},
        "/run": {"id": served.get("/api/runs")[0]["id"]},
        "/actions/dead": {"do": "drop"},
        "/recorded": {"automation": "quiet", "event": "paid"},
        "/why": {"automation": "quiet"},
    }


def check(answer: httpx.Response, about: Any) -> None:
    text = answer.text
    assert answer.status_code in ANSWERS, (about, answer.status_code, text[-2000:])
    assert answer.headers["content-type"] == "text/html; charset=utf-8", about
    assert len(answer.content) < 200_000, about
    assert "<h1>" in text, about
    assert "<script>" not in text, about
    assert "<img src=x" not in text, about
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f]", text), about


@pytest.mark.parametrize("path", PAGES)
def test_whatever_a_parameter_has_is_answered_with_a_page(
    served: Served, needed: Mapping[str, Mapping[str, str]], path: str
) -> None:
    for name in ROUTES[path]:
        others = urlencode({key: value for key, value in needed.get(path, {}).items() if key != name})
        for value in [*map(quote, GARBAGE), *BROKEN]:
            asked = f"{path}?{others}&{name}={value}"
            check(answered(served.http.get, asked), asked[:300])


@pytest.mark.parametrize("path", PAGES)
def test_what_is_too_long_is_refused_with_the_name_of_its_parameter(served: Served, path: str) -> None:
    name = ROUTES[path][0]
    answer = answered(served.http.get, path, params={name: "x" * 10_000})
    assert answer.status_code == 400
    assert f"<code>{name}</code>" in answer.text


@pytest.mark.parametrize("path", FORMS)
def test_whatever_a_form_brings_is_answered_with_a_page(served: Served, path: str) -> None:
    names = (
        "name",
        "for",
        "reason",
        "id",
        "since",
        "key",
        "do",
        "automation",
        "upto",
        "deployment",
        "parameters",
        "source",
        "rules",
        "events",
    )
    # each rule that is tried is tried in a process of its own
    for value in GARBAGE[::4] if path == "/try" else GARBAGE:
        form = dict.fromkeys(names, value)
        answer = answered(served.http.post, path, data=form)
        if answer.status_code == 303:  # it was taken
            answer = answered(served.http.get, answer.headers["location"])
        check(answer, (path, value[:100]))
    for body, kind in (
        (b"\xff\xfe=%ff", "application/x-www-form-urlencoded"),
        (b"a=b&" * 1000, "application/x-www-form-urlencoded"),
        (b"{}", "application/json"),
        (b"--x\r\n\r\n--x--", "multipart/form-data; boundary=x"),
        (b"", ""),
    ):
        answer = answered(served.http.post, path, content=body, headers={"Content-Type": kind})
        assert answer.status_code in (*ANSWERS, 303, 415), (path, kind, answer.text)
    large = served.http.post(path, data={"name": "x" * 100_000})
    assert large.status_code == 413


def test_a_page_says_only_what_a_form_of_it_did(served: Served) -> None:
    """A link of somebody else has no words of his own on it."""
    run = served.get("/api/runs")[0]["id"]
    for path in ("/sources?text=", "/actions?type=", f"/run?id={run}", "/automation?name=quiet"):
        answer = answered(served.http.get, f"{path}&done=Call+555+to+go+on&seal={'0' * 32}")
        assert answer.status_code == 200
        assert "Call 555" not in answer.text
        assert 'class="said"' not in answer.text


def test_a_run_that_is_asked_for_twice_by_one_form_is_one(served: Served) -> None:
    run = served.get("/api/runs")[0]
    form = answered(served.http.get, "/run", params={"id": run["id"]}).text.partition('action="/run/again"')[2]
    fields = {name: re.search(f'name="{name}" value="([^"]*)"', form)[1] for name in ("deployment", "key")}  # type: ignore[index]
    answers = [answered(served.http.post, "/run/again", data={**fields, "parameters": "{}"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [303, 303]
    assert answers[0].headers["location"] == answers[1].headers["location"]
    assert run["id"] not in answers[0].headers["location"]
