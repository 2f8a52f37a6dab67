"""What becomes of a page that stays open: a log that grows, a run that ends, somebody who reads in it, a server that refuses, is started again or upgraded, and a session that ends."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, StorageState, expect

from tests.browser import looking
from tests.integration.served import Served, serving
from tests.integration.ui.page_story import log_in
from tests.patience import eventually, limit

pytestmark = [pytest.mark.requires("chromium", "nats-server"), pytest.mark.takes(4)]

RULES = """
automations:
  - {name: counts, trigger: {expect: order.paid}, actions: [do-nothing]}
deployments:
  - name: chatty
    command:
      - sh
      - -c
      - |
        say() { i=$1; while [ $i -lt $2 ]; do echo "line $i"; i=$((i + 1)); done; }
        wait_for() { while [ ! -e FOLDER/$1 ]; do sleep 0.1; done; }
        say 0 200; wait_for more; say 200 250; wait_for end; echo "the last line"
"""
LATER = limit(30) * 1000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("open")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    with serving(folder, {"rules.yaml": RULES.replace("FOLDER", str(folder))}) as served:
        yield served


def is_at_its_end(box: Locator) -> bool:
    return bool(
        box.evaluate(
            "box => box.scrollHeight > box.clientHeight + 100 && box.scrollTop + box.clientHeight > box.scrollHeight - 5"
        )
    )


def test_a_log_is_followed_from_its_end_until_somebody_reads_further_up_or_the_run_ends(
    page: Page, served: Served, folder: Path
) -> None:
    run = served.http.post("/api/deployments/chatty/run", json={}).raise_for_status().json()["id"]
    page.goto(f"/run?id={run}")
    log = page.locator("pre.log")
    expect(log).to_contain_text("line 199", timeout=LATER)
    eventually(lambda: is_at_its_end(log))
    log.focus()  # the keyboard scrolls it
    (folder / "more").touch()
    expect(log).to_contain_text("line 249", timeout=LATER)
    eventually(lambda: is_at_its_end(log))
    expect(log).to_be_focused()
    log.evaluate("box => { box.scrollTop = 0; }")
    (folder / "end").touch()
    expect(log).to_contain_text("the last line", timeout=LATER)
    expect(page.get_by_role("heading", level=1)).to_contain_text("Completed", timeout=LATER)
    assert log.evaluate("box => box.scrollTop") == 0
    expect(page.locator("#live")).to_be_hidden(timeout=LATER)
    expect(page.locator("main")).not_to_have_attribute("data-every", "3")


def test_a_list_stays_while_something_in_it_is_selected_and_is_fresh_afterwards(page: Page, served: Served) -> None:
    served.emit("order.paid", id="first")
    page.goto("/events?name=order.paid")
    row = page.locator("tbody tr", has_text="order.paid").first
    expect(row).to_contain_text("1 fired", timeout=LATER)
    count = page.locator("tbody tr").count()
    row.get_by_text("one", exact=True).dblclick()
    assert page.evaluate("getSelection().toString().trim()") == "one"
    with page.expect_response(re.compile("/events"), timeout=LATER):
        served.emit("order.paid", id="second")
    assert page.evaluate("getSelection().toString().trim()") == "one"
    expect(page.locator("tbody tr")).to_have_count(count)
    page.evaluate("getSelection().removeAllRanges()")
    expect(page.locator("tbody tr")).to_have_count(count + 1, timeout=LATER)


def test_what_a_form_did_is_told_once(page: Page) -> None:
    page.goto("/automation?name=counts")
    page.get_by_label("For how long").fill("1h")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("status").filter(has_text="paused")).to_be_visible()
    expect(page).to_have_url(re.compile(r"/automation\?name=counts$"))
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_contain_text("paused")
    expect(page.get_by_role("status").filter(has_text="paused")).to_have_count(0)
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("active")


def test_a_stream_that_is_refused_is_asked_for_again(browser: Browser, served: Served, session: StorageState) -> None:
    with looking(browser, served.url, refused=(503,), storage_state=session) as page:
        refusing = True

        def answer(route: Route) -> None:
            if refusing:
                route.fulfill(status=503, body="too many watch")
            else:
                route.continue_()

        page.route("**/api/stream?*", answer)
        page.goto("/events")
        expect(page.locator("#live")).to_have_text("reconnecting")
        refusing = False
        expect(page.locator("#live")).to_have_text("live", timeout=LATER)
        page.unroute_all(behavior="ignoreErrors")


def test_who_is_logged_out_meanwhile_is_told(browser: Browser, served: Served) -> None:
    with looking(browser, served.url, refused=(401,)) as page:
        log_in(page)
        page.goto("/events")
        expect(page.locator("#live")).to_have_text("live")
        other = page.context.new_page()
        other.goto("/system")
        other.get_by_role("button", name="Log out").click()
        expect(other.get_by_label("Token")).to_be_visible()
        page.bring_to_front()
        expect(page.locator("#live")).to_have_text("logged out: reload to log in", timeout=LATER)


def test_who_sends_a_form_after_the_session_has_ended_comes_back_to_its_page(browser: Browser, served: Served) -> None:
    with looking(browser, served.url, refused=(401,)) as page:  # as its stream is, too
        log_in(page)
        page.goto("/automation?name=counts")
        page.context.clear_cookies()
        page.get_by_role("button", name="Pause").click()
        page.get_by_label("Token").wait_for()
        assert urlsplit(page.url).query == "next=%2Fautomation%3Fname%3Dcounts"


def test_a_page_of_another_version_is_said_to_be_one(page: Page, served: Served) -> None:
    upgraded = False

    def answer(route: Route) -> None:
        found = route.fetch()
        text = found.text().replace("pages.js?v=", "pages.js?v=new") if upgraded else found.text()
        route.fulfill(response=found, body=text)

    page.route(re.compile(r"/events$"), answer)
    page.goto("/events")
    expect(page.locator("#live")).to_have_text("live")
    upgraded = True
    served.emit("order.paid")
    expect(page.locator("#live")).to_have_text("another version: reload", timeout=LATER)
    page.unroute_all(behavior="ignoreErrors")


def test_a_page_goes_on_when_its_server_was_started_again(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "rules.yaml").write_text(RULES)
    server = Served(tmp_path)
    try:
        server.wait_until_ready()
        with looking(browser, server.url, refused=(503,)) as page:
            log_in(page)
            page.goto("/events")
            expect(page.locator("#live")).to_have_text("live")
            server.stop()
            expect(page.locator("#live")).not_to_have_text("live", timeout=LATER)
            server = Served(tmp_path, port=urlsplit(server.url).port or 0)
            server.wait_until_ready()
            server.emit("order.paid", id="after-the-restart")
            expect(page.locator("tbody tr", has_text="order.paid")).to_be_visible(timeout=LATER)
            expect(page.locator("#live")).to_have_text("live", timeout=LATER)
    finally:
        server.kill()
