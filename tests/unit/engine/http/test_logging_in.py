"""Sessions of browsers over HTTP: the cookie, and what a page of another site can not do with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from http_fakes import FakeApi, app_over

from whenthen.engine.access import AccessControl, AccessScope, AccessStore, MemoryBucket
from whenthen.engine.http import RequestOrigin

pytestmark = [pytest.mark.anyio, pytest.mark.takes(0.2)]  # each builds all routes anew

OWN = "t" * 20
HOME = "http://127.0.0.1:4280"
ORIGIN = {"origin": HOME}
FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Site:
    """An application, and what it was asked."""

    def __init__(self, token: str | None = OWN, public_url: str = "") -> None:
        self.api = FakeApi()
        self.notes: list[tuple[str, str]] = []
        self.access = AccessControl(
            AccessStore(MemoryBucket(), MemoryBucket()),
            token=token,
            note=lambda kind, *, what, **_: self.notes.append((kind, what)),
        )
        origin = RequestOrigin(host="127.0.0.1", port=4280, public_urls=[public_url] if public_url else [])
        self.app = app_over(self.api, access=self.access, origin=origin)

    @asynccontextmanager
    async def browser(self, base: str = HOME) -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=base) as client:
            yield client


async def logged_in(browser: httpx.AsyncClient, token: str = OWN) -> str:
    """Log in; gives what changing requests must bring."""
    answer = await browser.post("/login", json={"token": token})
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["csrf_token"]
    return found


async def test_a_session_reads_what_its_token_may_and_its_cookie_is_for_the_browser_alone() -> None:
    site = Site()
    async with site.browser() as browser:
        assert (await browser.get("/api/status")).status_code == 401
        answer = await browser.post("/login", json={"token": OWN})
        (cookie,) = answer.headers.get_list("set-cookie")
        name, _, attributes = cookie.partition("=")
        assert name == "whenthen-4280"
        assert attributes.split("; ")[2:] == ["Path=/", "HttpOnly", "SameSite=Strict"]
        assert 43_000 < int(attributes.split("; ")[1].removeprefix("Max-Age=")) <= 43_200
        assert OWN not in answer.text + cookie
        assert (await browser.get("/api/status")).status_code == 200
        assert (await browser.get("/api/session")).json() == answer.json()
        assert answer.json()["scopes"] == ["admin"]


@pytest.mark.parametrize("public", ["https://auto.example", "https://auto.example:8443"])
async def test_over_https_the_cookie_goes_nowhere_else(public: str) -> None:
    site = Site(public_url=public)
    async with site.browser(public) as browser:
        (cookie,) = (await browser.post("/login", json={"token": OWN})).headers.get_list("set-cookie")
        port = public.removeprefix("https://auto.example").replace(":", "-")
        assert cookie.startswith(f"__Host-whenthen{port}=")
        assert cookie.endswith("; Path=/; HttpOnly; SameSite=Strict; Secure")
        assert (await browser.get("/api/status")).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status", "said"),
    [
        ({**ORIGIN}, 403, "forged_request"),
        ({**ORIGIN, "x-csrf-token": "wrong"}, 403, "forged_request"),
        ({**ORIGIN, "x-csrf-token": "TOKEN of another session"}, 403, "forged_request"),
        ({"x-csrf-token": "TOKEN"}, 403, "forged_request"),
        ({"origin": "http://evil.example", "x-csrf-token": "TOKEN"}, 403, "foreign_origin"),
        ({"origin": "http://127.0.0.1:9999", "x-csrf-token": "TOKEN"}, 403, "foreign_origin"),
        ({"origin": "null", "x-csrf-token": "TOKEN"}, 403, "foreign_origin"),
        ({"sec-fetch-site": "same-site", "x-csrf-token": "TOKEN"}, 403, "foreign_origin"),
        ({"sec-fetch-site": "cross-site", "x-csrf-token": "TOKEN"}, 403, "foreign_origin"),
        ({**ORIGIN, "host": "evil.example", "x-csrf-token": "TOKEN"}, 403, "foreign_host"),
        ({**ORIGIN, "x-csrf-token": "TOKEN"}, 200, ""),
        ({"sec-fetch-site": "same-origin", "x-csrf-token": "TOKEN"}, 200, ""),
    ],
)
async def test_a_change_by_cookie_says_where_it_comes_from_and_proves_it(
    headers: dict[str, str], status: int, said: str
) -> None:
    site = Site()
    async with site.browser() as browser, site.browser() as other:
        another = await logged_in(other)
        mine = await logged_in(browser)
        sent = {
            name: text.replace("TOKEN of another session", another).replace("TOKEN", mine)
            for name, text in headers.items()
        }
        answer = await browser.post("/api/automations/a/pause", headers=sent)
        assert answer.status_code == status, answer.text
        assert said in answer.text
        assert bool(site.api.calls) == (status == 200)
        if status != 200:
            assert [reason for _, reason, _, _ in site.api.refusals] == [said]


async def test_events_by_cookie_are_looked_at_like_every_other_change() -> None:
    site = Site()
    event = {"event": "order.created", "resource": {"id": "order.1"}}
    async with site.browser() as browser:
        token = await logged_in(browser)
        assert (await browser.post("/api/events", json=event, headers=ORIGIN)).status_code == 403
        assert site.api.stored == {}
        sent = await browser.post("/api/events", json=event, headers={**ORIGIN, "x-csrf-token": token})
        assert sent.status_code == 202


async def test_beside_a_cookie_a_token_counts_and_nothing_falls_back() -> None:
    site = Site()
    _, reads = await site.access.create_token("reads", [AccessScope.READ])
    async with site.browser() as browser:
        await logged_in(browser)
        weaker = await browser.post("/api/automations/a/pause", headers={"authorization": f"Bearer {reads}"})
        assert (weaker.status_code, weaker.json()["error"]["reason"]) == (403, "missing_scope")
        for wrong in ("Bearer wrong", "Basic x", ""):
            assert (await browser.get("/api/status", headers={"authorization": wrong})).status_code == 401
        # a token is sent by programs, and not by browsers of themselves
        own = await browser.post("/api/automations/a/pause", headers={"authorization": f"Bearer {OWN}"})
        assert own.status_code == 200


async def test_logging_out_ends_the_session_and_not_only_the_cookie() -> None:
    site = Site()
    async with site.browser() as browser, site.browser() as thief:
        token = await logged_in(browser)
        thief.cookies = httpx.Cookies(browser.cookies)
        assert (await browser.post("/logout", headers=ORIGIN)).status_code == 403
        assert (await browser.post("/logout", headers={**ORIGIN, **FORM}, content="csrf_token=x")).status_code == 403
        assert (await thief.get("/api/session")).status_code == 200
        answer = await browser.post("/logout", headers=ORIGIN, data={"csrf_token": token})
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
        assert "whenthen-4280=; Max-Age=0" in answer.headers["set-cookie"]
        assert not browser.cookies
        for each in (browser, thief):
            assert (await each.get("/api/session")).status_code == 401
        assert site.notes == [("logged-in", "api-token"), ("logged-out", "api-token")]


@pytest.mark.parametrize(
    "cookie",
    [
        "whenthen-4280=",
        "whenthen-4280=x",
        "whenthen-4280=s0123456789abcdef0123456789abcdef." + "A" * 43,
        "whenthen-4280=0123456789ab." + "A" * 43,
        "whenthen-4280=tokens." + "A" * 43,
        "whenthen-4280=" + "A" * 60_000,
        "whenthen-4280=>.*",
        "whenthen-4280=\xff",
        "whenthen=x; ; =; a=b=c",
        ";" * 5000,
    ],
)
async def test_a_forged_cookie_opens_nothing(cookie: str) -> None:
    site = Site()
    async with site.browser() as browser:
        await logged_in(browser)
        browser.cookies.clear()
        answer = await browser.get("/api/status", headers={"cookie": cookie.encode("latin-1")})
        assert answer.status_code == 401


async def test_a_cookie_under_the_name_of_another_port_is_not_ours() -> None:
    site = Site()
    async with site.browser() as browser:
        await logged_in(browser)
        (value,) = browser.cookies.values()
        browser.cookies.clear()
        for name in ("whenthen", "whenthen-4281", "__Host-whenthen-4280"):
            assert (await browser.get("/api/status", headers={"cookie": f"{name}={value}"})).status_code == 401
        assert (await browser.get("/api/status", headers={"cookie": f"whenthen-4280={value}"})).status_code == 200


@pytest.mark.parametrize("joint", ["; ", None])
async def test_two_cookies_of_the_name_are_refused_as_one_of_them_is_somebody_elses(joint: str | None) -> None:
    site = Site()
    async with site.browser() as browser:
        await logged_in(browser)
        (value,) = browser.cookies.values()
        browser.cookies.clear()
        pairs = [f"whenthen-4280={value}", "whenthen-4280=another"]
        headers = [("cookie", each) for each in pairs] if joint is None else [("cookie", joint.join(pairs))]
        answer = await browser.get("/api/status", headers=headers)
        assert answer.status_code == 400
        assert "comes with several values; delete the cookies of this site" in answer.text


async def test_a_one_time_address_logs_a_browser_in_once() -> None:
    site = Site()
    async with site.browser() as browser, site.browser() as late:
        made = await browser.post("/api/login-addresses", headers={"authorization": f"Bearer {OWN}"})
        assert made.status_code == 201
        path = made.json()["path"]
        # what looks at a link beforehand uses nothing up
        assert (await browser.head(path)).status_code == 405
        link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
        answer = await browser.get(path, headers=link)
        assert answer.status_code == 200
        assert 'content="0; url=/"' in answer.text
        assert (await browser.get("/api/status")).status_code == 200
        again = await late.get(path)
        assert again.status_code == 401
        assert "whenthen open" in again.text
        assert "set-cookie" not in again.headers
        code = path.partition("=")[2]
        assert code not in str(site.api.refusals) + str(site.notes) + answer.text + again.text


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
        {"sec-fetch-site": "cross-site"},
        {"host": "evil.example"},
    ],
)
async def test_a_one_time_address_is_not_used_up_from_inside_of_another_site(headers: dict[str, str]) -> None:
    site = Site()
    path = f"/login?once={await site.access.new_address(site.access.own)}"
    async with site.browser() as browser:
        assert (await browser.get(path, headers=headers)).status_code == 403
        assert (await browser.get(path)).status_code == 200


async def test_only_pages_are_where_links_of_other_sites_lead() -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    async with Site().browser() as browser:
        assert (await browser.get("/login", headers=link)).status_code == 200
        assert (await browser.get("/api/status", headers=link)).status_code == 403
        assert (await browser.post("/login", headers=link, data={"token": OWN})).status_code == 403


async def test_the_form_logs_in_without_a_script_and_leads_on() -> None:
    async with Site().browser() as browser:
        page = await browser.get("/login", params={"next": "/events?name=order.*"})
        assert '<label for="token">' in page.text
        assert 'value="/events?name=order.*"' in page.text
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "form-action 'self'" in policy
        assert "script-src" not in policy
        assert "unsafe" not in policy
        wrong = await browser.post("/login", data={"token": "wrong", "next": "/events"}, headers=ORIGIN)
        assert wrong.status_code == 401
        assert 'role="alert"' in wrong.text
        assert 'value="/events"' in wrong.text
        right = await browser.post("/login", data={"token": OWN, "next": "/events?a=b"}, headers=ORIGIN)
        assert (right.status_code, right.headers["location"]) == (303, "/events?a=b")
        assert (await browser.get("/api/session")).json()["token"] == "api-token"


@pytest.mark.parametrize(
    "target",
    ["http://evil.example", "//evil.example", "/\\evil.example", "\\/evil.example", "/\t/evil.example", "", "javascript:1",
     "/a\r\nset-cookie: x=y", "/" + "a" * 5000, "/\u202e"],
)  # fmt: skip
async def test_a_login_leads_to_no_other_site(target: str) -> None:
    async with Site().browser() as browser:
        answer = await browser.post("/login", data={"token": OWN, "next": target})
        assert answer.headers["location"] == "/"
        assert len(answer.headers.get_list("set-cookie")) == 1


async def test_what_a_request_brought_stands_in_the_page_escaped() -> None:
    async with Site().browser() as browser:
        page = await browser.get("/login", params={"next": '/"><script>alert(1)</script>'})
        assert "<script" not in page.text
        assert 'name="next" value="/%22%3E%3Cscript%3Ealert(1)%3C/script%3E"' in page.text
        once = await browser.get("/login", params={"once": "<script>"})
        assert "<script" not in once.text


@pytest.mark.parametrize("right", [True, False])
async def test_one_address_may_try_ten_times_a_minute(right: bool) -> None:
    site = Site()
    async with site.browser() as browser:

        async def attempt(token: str) -> int:
            return (await browser.post("/login", json={"token": token})).status_code

        assert [await attempt("wrong") for _ in range(10)] == [401] * 10
        late = await browser.post("/login", json={"token": OWN if right else "wrong"})
        assert late.status_code == 429
        assert int(late.headers["retry-after"]) <= 60
        assert (await browser.get("/login", params={"once": "x"})).status_code == 429
        # who sends a token with each request has not to do with it
        assert (await browser.get("/api/status", headers={"authorization": f"Bearer {OWN}"})).status_code == 200
        assert [reason for _, reason, _, _ in site.api.refusals] == ["unauthorized"] * 10 + ["rate_limited"] * 2


@pytest.mark.parametrize(
    ("request_of", "status"),
    [
        ({"json": []}, 400),
        ({"json": {}}, 400),
        ({"json": {"token": 7}}, 400),
        ({"json": {"token": OWN, "more": 1}}, 400),
        ({"json": {"token": ""}}, 401),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400),
        ({"content": b"token=" + b"%ff" * 10, "headers": FORM}, 401),
        ({"content": b"\xff", "headers": FORM}, 400),
        ({"content": b"&a=b" * 200, "headers": FORM}, 400),
        ({"content": b"token=" + b"a" * 100_000, "headers": FORM}, 413),
        ({"json": {"token": "a" * 10_000}}, 413),
        ({"content": b"token=x", "headers": {"content-type": "text/plain"}}, 415),
        ({"content": b"token=x"}, 415),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 415),
    ],
)
async def test_a_login_that_is_no_login_says_so(request_of: dict[str, Any], status: int) -> None:
    async with Site().browser() as browser:
        answer = await browser.post("/login", **request_of)
        assert answer.status_code == status, answer.text
        assert "set-cookie" not in answer.headers


async def test_where_no_token_is_needed_the_login_leads_on() -> None:
    async with Site(token=None).browser() as browser:
        page = await browser.get("/login", params={"next": "/events"})
        assert (page.status_code, page.headers["location"]) == (303, "/events")
        assert (await browser.post("/login", json={"token": OWN})).status_code == 409
        assert (await browser.post("/api/login-addresses")).status_code == 409
        assert (await browser.post("/logout")).status_code == 400
        assert (await browser.get("/api/session")).json()["scopes"] == ["admin"]


async def test_a_session_ends_with_its_token() -> None:
    site = Site()
    _, value = await site.access.create_token("some", [AccessScope.READ])
    async with site.browser() as browser:
        await logged_in(browser, value)
        assert (await browser.get("/api/session")).json()["scopes"] == ["read"]
        await asyncio.sleep(0)
        await site.access.revoke_token("some")
        assert (await browser.get("/api/session")).status_code == 401


async def test_commands_of_a_named_token_are_on_record_under_its_name() -> None:
    from whenthen.engine.audit import CALLER

    site = Site()
    seen: list[str] = []

    async def resume(name: str) -> Any:
        seen.append(CALLER.get())
        return await site.api.pause_automation(name, type("Request", (), {"lasts": None, "reason": "", "by": ""})())

    site.api.__dict__["resume_automation"] = resume
    site.app = app_over(site.api, access=site.access)
    _, value = await site.access.create_token("night-shift", [AccessScope.OPERATE])
    async with site.browser() as browser:
        for token in (value, OWN):
            await browser.post("/api/automations/a/resume", headers={"authorization": f"Bearer {token}"})
    assert seen == ["night-shift at 127.0.0.1", "127.0.0.1"]
