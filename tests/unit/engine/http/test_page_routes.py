"""Pages over HTTP: headers, the way to the login, forms that nobody else can send."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from http_fakes import FakeApi, app_over

from whenthen.engine.access import AccessControl, AccessScope, AccessStore, MemoryBucket
from whenthen.engine.http import RequestOrigin
from whenthen.schemas.errors import BusUnavailable, NotFound

pytestmark = pytest.mark.takes(0.2)  # each builds all routes anew

OWN = "t" * 20
HOME = "http://127.0.0.1:4280"
PAGES = (
    "/automations", "/automation?name=a", "/why", "/why?automation=a&event=e", "/trace", "/trace?id=e", "/system",
    "/events", "/recorded?firing=f", "/firings", "/firing?id=f", "/actions", "/actions/dead?do=drop", "/runs",
    "/run?id=r", "/sources", "/sources/resend", "/try", "/try?automation=a",
)  # fmt: skip
LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


class Away(FakeApi):
    """An `Api` whose history and NATS do not answer."""

    def __getattr__(self, name: str) -> Any:
        if name in (
            "history_counts",
            "history_page",
            "history_stats",
            "event_reasons",
            "action_tries",
            "run_states",
            "list_artifacts",
            "system_sizes",
            "count_dead",
            "list_revisions",
            "list_work_pools",
            "list_workers",
        ):

            async def refuse(*_args: Any, **_kwargs: Any) -> Any:
                raise BusUnavailable("NATS does not answer")

            return refuse
        return super().__getattr__(name)


def asked(
    scenario: Callable[[httpx.AsyncClient, FakeApi, AccessControl], Awaitable[Any]], api: FakeApi | None = None
) -> Any:
    """What a scenario gives that has a browser, which knows no cookie yet."""
    access = AccessControl(AccessStore(MemoryBucket(), MemoryBucket()), token=OWN)
    found = api or FakeApi()

    async def run() -> Any:
        app = app_over(found, access=access, origin=RequestOrigin(host="127.0.0.1", port=4280))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=HOME) as client:
            return await scenario(client, found, access)

    return asyncio.run(run())


async def log_in(client: httpx.AsyncClient, token: str = OWN) -> str:
    """Log in; gives what forms bring."""
    answer = await client.post("/login", json={"token": token}, headers={"origin": HOME})
    assert answer.status_code == 200, answer.text
    proof: str = answer.json()["csrf_token"]
    return proof


@pytest.mark.parametrize("path", PAGES)
def test_every_page_has_a_strict_policy_and_nothing_inline(path: str) -> None:
    async def scenario(client: httpx.AsyncClient, *_: Any) -> httpx.Response:
        await log_in(client)
        return await client.get(path)

    answer = asked(scenario)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["cache-control"] == "no-store"
    assert " style=" not in answer.text
    assert " onclick" not in answer.text
    assert "<script>" not in answer.text
    assert len(answer.content) < 200_000


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_shown_also_while_history_and_nats_are_away(path: str) -> None:
    async def scenario(client: httpx.AsyncClient, *_: Any) -> httpx.Response:
        await log_in(client)
        return await client.get(path)

    assert asked(scenario, Away()).status_code == 200


def test_who_has_no_session_is_led_to_the_login_and_back() -> None:
    async def scenario(client: httpx.AsyncClient, *_: Any) -> httpx.Response:
        return await client.get("/why?automation=a%26b&event=%3Cx%3E")

    answer = asked(scenario)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=%2Fwhy%3Fautomation%3Da%2526b%26event%3D%253Cx%253E"


def test_a_link_of_another_site_leads_to_the_page_over_one_of_ours_since_no_cookie_comes_with_it() -> None:
    async def scenario(client: httpx.AsyncClient, *_: Any) -> tuple[httpx.Response, ...]:
        first = await client.get("/trace?id=e", headers=LINK)
        framed = await client.get("/trace?id=e", headers={**LINK, "sec-fetch-dest": "iframe"})
        api = await client.get("/api/status", headers=LINK)
        return first, framed, api

    first, framed, api = asked(scenario)
    assert first.status_code == 200
    assert '<meta http-equiv="refresh" content="0; url=/trace?id=e">' in first.text
    assert (framed.status_code, api.status_code) == (403, 403)


@pytest.mark.parametrize("proof", ["none", "wrong", "right"])
def test_a_form_is_taken_only_with_what_other_sites_can_not_know(proof: str) -> None:
    async def scenario(client: httpx.AsyncClient, api: FakeApi, _: Any) -> tuple[httpx.Response, list[Any]]:
        right = await log_in(client)
        form = {"name": "a", "reason": "x", "for": "2h"}
        if proof != "none":
            form["csrf_token"] = right if proof == "right" else "wrong"
        return await client.post("/automation/pause", data=form, headers={"origin": HOME}), api.calls

    answer, calls = asked(scenario)
    if proof == "right":
        assert (answer.status_code, answer.headers["location"]) == (303, "/automation?name=a&done=paused")
        assert calls == [("pause_automation", "a", {"for": calls[0][2]["for"], "reason": "x", "by": "api-token"})]
    else:
        assert (answer.status_code, calls) == (403, [])
        assert "<h1>Not allowed</h1>" in answer.text


def test_a_form_of_another_site_is_refused() -> None:
    async def scenario(client: httpx.AsyncClient, api: FakeApi, _: Any) -> tuple[int, list[Any]]:
        form = {"name": "a", "csrf_token": await log_in(client)}
        answer = await client.post("/automation/pause", data=form, headers={"origin": "http://evil.example"})
        return answer.status_code, api.calls

    assert asked(scenario) == (403, [])


def test_who_may_only_read_sees_no_forms_and_may_not_send_them() -> None:
    async def scenario(client: httpx.AsyncClient, api: FakeApi, access: AccessControl) -> tuple[str, int, list[Any]]:
        _, value = await access.create_token("reads", [AccessScope.READ])
        proof = await log_in(client, value)
        page = await client.get("/automation?name=a")
        api.calls.clear()
        form = {"name": "a", "csrf_token": proof}
        answer = await client.post("/automation/resume", data=form, headers={"origin": HOME})
        return page.text, answer.status_code, api.calls

    text, status, calls = asked(scenario)
    assert "/automation/pause" not in text
    assert (status, calls) == (403, [])


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/automations?page=0", "page"),
        ("/automations?page=x", "page"),
        ("/automation", "name"),
        ("/why?automation=a&at=now&key=x", "name=value"),
    ],
)
def test_a_bad_address_is_told_on_a_page(path: str, says: str) -> None:
    async def scenario(client: httpx.AsyncClient, *_: Any) -> httpx.Response:
        await log_in(client)
        return await client.get(path)

    answer = asked(scenario)
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("text/html")
    assert says in answer.text


def test_an_address_without_a_page_is_answered_to_browsers_with_the_pages_that_are_near() -> None:
    async def scenario(client: httpx.AsyncClient, *_: Any) -> tuple[httpx.Response, ...]:
        page = await client.get("/automaton", headers={"accept": "text/html,*/*"})
        strange = await client.get("/%3Cb%3E%E2%80%AE", headers={"accept": "text/html"})
        api = await client.get("/api/automatons", headers={"accept": "text/html"})
        return page, strange, api, await client.get("/automaton")

    page, strange, api, plain = asked(scenario)
    assert [each.status_code for each in (page, strange, plain)] == [404, 404, 404]
    assert '<a href="/automations"' in page.text.partition("Perhaps")[2]
    assert "content-security-policy" in page.headers
    assert "&lt;b&gt;‹U+202E›" in strange.text
    assert api.headers["content-type"] == plain.headers["content-type"] == "application/json"


def test_a_name_that_there_is_not_leads_to_this_page_of_those_that_are_near() -> None:
    class Near(FakeApi):
        async def get_automation(self, name: str) -> Any:
            raise NotFound(f"there is no automation {name!r}", word=name, among=["big-order", "other & <b>"])

    async def scenario(client: httpx.AsyncClient, *_: Any) -> tuple[httpx.Response, ...]:
        await log_in(client)
        paths = (
            "/automation?name=big-ordr&reason=fired",
            "/automation?name=other%20%26%20%3Cb",
            "/automation?name=zzz",
        )
        return tuple([await client.get(path) for path in paths])

    one, other, none = asked(scenario, Near())
    assert [each.status_code for each in (one, other, none)] == [404] * 3
    assert '<a href="/automation?name=big-order&amp;reason=fired"><bdi>big-order</bdi></a>' in one.text
    assert '<a href="/automation?name=other+%26+%3Cb%3E"><bdi>other &amp; &lt;b&gt;</bdi></a>' in other.text
    assert "Perhaps" not in none.text


def test_files_of_pages_are_kept_by_browsers_and_others_are_not_there() -> None:
    async def scenario(client: httpx.AsyncClient, *_: Any) -> tuple[httpx.Response, ...]:
        return await client.get("/ui/style.css"), await client.get("/ui/..%2Fpage_links.py"), await client.get("/ui/x")

    style, outside, missing = asked(scenario)
    assert (style.status_code, style.headers["content-type"]) == (200, "text/css; charset=utf-8")
    assert "immutable" in style.headers["cache-control"]
    assert (outside.status_code, missing.status_code) == (404, 404)


@pytest.mark.parametrize(
    ("method", "path", "taken"), [("POST", "/system", "GET"), ("GET", "/automation/pause", "POST")]
)
def test_a_method_that_a_page_does_not_take_is_told_which_it_takes(method: str, path: str, taken: str) -> None:
    async def scenario(client: httpx.AsyncClient, *_: Any) -> httpx.Response:
        return await client.request(method, path)

    answer = asked(scenario)
    assert (answer.status_code, answer.headers["allow"]) == (405, taken)
