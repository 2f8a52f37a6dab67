"""The pages of what happens, each asked its question in a browser, of a `whenthen serve` that got real webhooks and ran real flows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, StorageState, expect

from tests.browser import looking
from tests.integration.served import Served, serving
from tests.integration.ui.page_story import event_id, hook, log_in, places, story
from tests.patience import eventually, limit

pytestmark = [pytest.mark.requires("chromium", "nats-server"), pytest.mark.takes(8)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with story(tmp_path_factory.mktemp("activity")) as served:
        yield served


def test_events_says_what_came_and_what_the_rules_made_of_it(page: Page) -> None:
    page.goto("/events?name=order.paid")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(6)
    expect(rows.filter(has_text="order.small")).to_contain_text("1 condition_false")
    expect(rows.filter(has_text="order.large-1")).to_contain_text("1 fired")
    page.get_by_label("Resource").fill("order.small")
    page.get_by_role("button", name="Show").click()
    expect(page).to_have_url(re.compile("name=order.paid.*resource=order.small"))
    expect(rows).to_have_count(1)


@pytest.mark.parametrize(
    ("path", "set_one"),
    [
        ("/events", "name=order.paid"),
        ("/automations", "tag=x"),
        ("/firings", "state=Resolved"),
        ("/actions", "automation=big-order"),
        ("/runs", "deployment=load"),
    ],
)
def test_filters_are_behind_a_word_on_a_phone_unless_one_is_set_also_without_scripts(
    browser: Browser, served: Served, session: StorageState, path: str, set_one: str
) -> None:
    ways = {"java_script_enabled": False, "viewport": {"width": 390, "height": 800}}
    with looking(browser, served.url, storage_state=session, **ways) as page:
        page.goto(path)
        show = page.get_by_role("button", name="Show")
        expect(show).to_be_hidden()
        page.locator("summary", has_text="Filters").focus()
        page.keyboard.press("Enter")
        expect(show).to_be_visible()
        page.goto(f"{path}?{set_one}")
        expect(show).to_be_visible()
        page.set_viewport_size({"width": 1400, "height": 800})
        page.goto(path)
        expect(show).to_be_visible()
        expect(page.get_by_text("Filters", exact=True)).to_be_hidden()


def test_an_event_that_comes_while_the_page_is_open_is_shown(page: Page, served: Served) -> None:
    page.goto("/events?source=webhook:shop")
    expect(page.locator("#live")).to_have_text("live")
    hook(served, "while-open", customer="eve", total=1)
    expect(page.locator("tbody tr", has_text="order.while-open")).to_be_visible(timeout=limit(20) * 1000)


def test_an_event_says_who_decided_what_and_leads_to_a_test_of_it(page: Page, served: Served) -> None:
    page.goto(f"/event?id={event_id(served, 'small')}")
    row = page.locator("tbody tr", has_text="big-order")
    expect(row).to_contain_text("event.payload.total > 100 is false")
    row.get_by_role("link", name="Write a test from this").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("passes")
    expect(page.locator("pre")).to_contain_text("not_fired")
    expect(page.locator("pre")).to_contain_text("condition_false")


def test_a_rule_that_is_written_from_an_event_fires_for_it(page: Page, served: Served) -> None:
    page.goto(f"/event?id={event_id(served, 'large-1')}")
    page.get_by_role("link", name="Write a rule from this").click()
    page.get_by_role("button", name="Try").click()
    expect(page.get_by_role("status").filter(has_text="It fires")).to_be_visible(timeout=limit(20) * 1000)


def test_a_rule_is_tried_clause_by_clause_and_what_is_wrong_in_it_is_told(page: Page, served: Served) -> None:
    page.goto(f"/try?automation=big-order&event={event_id(served, 'small')}")
    page.get_by_role("button", name="Try").click()
    expect(page.locator("#outcome")).to_contain_text("It does not fire.", timeout=limit(20) * 1000)
    expect(page.locator(".clauses .fails").first).to_contain_text("event.payload.total")
    rules = page.locator("textarea[name=rules]")
    rules.fill(rules.input_value().replace("expect:", "expct:"))
    page.get_by_role("button", name="Try").click()
    expect(page.get_by_role("alert")).to_contain_text('did you mean "expect"?', timeout=limit(20) * 1000)
    assert "\u240d" not in rules.input_value()


def test_a_rule_that_fires_more_often_than_a_page_shows_is_counted(page: Page) -> None:
    page.goto("/try")
    page.locator("textarea[name=rules]").fill(
        '- {name: clock, trigger: {type: schedule, cron: "* * * * *"}, actions: [do-nothing]}'
    )
    page.locator("textarea[name=events]").fill("- {at: 0s}\n- {at: 3650d}")
    page.get_by_role("button", name="Try").click(timeout=limit(20) * 1000)
    expect(page.get_by_role("status")).to_contain_text("It fires 1,000 times", timeout=limit(60) * 1000)
    expect(page.locator(".note").last).to_contain_text("not shown")


def test_a_firing_shows_each_try_of_its_actions_and_what_it_said(page: Page, served: Served) -> None:
    path = places(served)["firing"]
    eventually(lambda: "POST http://127.0.0.1:9/tell" in served.http.get(path).text)
    page.goto(path)
    action = page.locator("section.action")
    expect(action).to_contain_text("call-webhook")
    expect(action.locator(".tries > li").first).to_contain_text("can not connect")
    expect(action.locator("pre").first).to_contain_text("POST http://127.0.0.1:9/tell")


def test_dead_letters_are_counted_before_they_are_dropped_and_another_tab_is_told(page: Page, served: Served) -> None:
    count = served.get("/api/actions/dead/count")["count"]
    page.goto("/firings")
    page.get_by_role("link", name="Look at the dead letters").click()
    page.get_by_role("link", name="Drop all").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"Drop {count} dead letters?")
    expect(page.locator("tbody tr")).to_contain_text("connection")
    other = page.context.new_page()
    other.goto("/actions/dead?do=drop")
    page.get_by_role("button", name=f"Drop {count}").click()
    expect(page.get_by_role("status").filter(has_text=f"{count} of {count} were dropped")).to_be_visible()
    assert served.get("/api/actions/dead/count")["count"] == 0
    other.get_by_role("button", name=f"Drop {count}").click()
    expect(other.get_by_role("status").filter(has_text="0 of 0 were dropped")).to_be_visible()


def test_runs_are_drawn_by_deployment_and_each_leads_to_its_page(page: Page) -> None:
    page.goto("/runs")
    lanes = page.locator(".lanes > li:not(.ends)")
    expect(lanes).to_have_count(4)
    lanes.filter(has_text="broken").locator("svg a").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Failed")
    expect(page.locator("#state")).to_contain_text("3")
    expect(page.locator("#log pre")).to_contain_text("breaks")
    expect(page.locator("#states li")).to_have_count(4, timeout=limit(20) * 1000)


def test_task_runs_of_a_run_are_drawn_as_bars(page: Page, served: Served) -> None:
    page.goto(places(served)["run-tasks"])
    tasks = page.locator("#tasks .lanes > li")
    expect(tasks).to_have_count(4)
    expect(tasks.last).to_contain_text("Completed")
    expect(tasks.first.get_by_role("img")).to_have_attribute("aria-label", re.compile("^from .* on for "))


def test_a_run_is_done_again_with_other_parameters_and_ended(page: Page, served: Served) -> None:
    page.goto(places(served)["run-slow"])
    page.get_by_text("Run again").click()
    page.get_by_label("Parameters").fill('{"note": "again"}')
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("status").filter(has_text="created")).to_be_visible()
    expect(page.locator("pre").first).to_contain_text("again")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Running", timeout=limit(30) * 1000)
    expect(page.locator("#log pre")).to_contain_text("begins", timeout=limit(30) * 1000)
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Cancelled", timeout=limit(30) * 1000)


def test_parameters_that_are_no_json_are_told(browser: Browser, served: Served, session: StorageState) -> None:
    with looking(browser, served.url, refused=(400,), storage_state=session) as page:
        page.goto(places(served)["run"])
        page.get_by_text("Run again").click()
        page.get_by_label("Parameters").fill("{no")
        page.get_by_role("button", name="Run", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("parameters")


def test_sources_says_who_was_heard_and_what_was_refused_and_why(page: Page) -> None:
    page.goto("/sources")
    webhooks = page.locator("#webhooks tbody tr")
    expect(webhooks.filter(has_text="/hooks/shop")).not_to_contain_text("not in the last")
    expect(webhooks.filter(has_text="/hooks/signed")).to_contain_text("not in the last")
    expect(page.locator("#refused li", has_text="shop")).to_contain_text("no 'number'")


def test_payloads_names_and_parameters_of_others_are_inert(page: Page, served: Served) -> None:
    shown = "<img src=x onerror=alert(1)>\u2039U+202E\u203agnp.exe"
    for path in (f"/event?id={event_id(served, 'evil')}", places(served)["run-slow"]):
        page.goto(path)
        expect(page.locator("pre", has_text="gnp.exe").first).to_contain_text(shown)
        assert page.locator("img[src=x]").count() == 0


def test_a_payload_of_a_megabyte_of_markup_does_not_make_a_large_page(page: Page, served: Served) -> None:
    hook(served, "large-payload", customer="ada", total=1, notes=["<script>alert(1)</script>" * 4] * 9000)
    answer = page.goto(f"/event?id={event_id(served, 'large-payload')}")
    assert answer is not None
    assert len(answer.body()) < 200_000
    expect(page.locator("pre", has_text="more characters").last).to_be_visible()


@pytest.mark.parametrize("width", [390, 1400])
def test_no_page_is_wider_than_the_window(browser: Browser, served: Served, session: StorageState, width: int) -> None:
    with looking(browser, served.url, storage_state=session, viewport={"width": width, "height": 900}) as page:
        for path in places(served).values():
            page.goto(path)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_every_page_reads_without_scripts(browser: Browser, served: Served, session: StorageState) -> None:
    with looking(browser, served.url, storage_state=session, java_script_enabled=False) as page:
        for path in places(served).values():
            page.goto(path)
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            for text in page.locator("time").all_text_contents():
                assert text.endswith(" UTC")


def test_an_empty_system_says_what_to_do_first(browser: Browser, tmp_path: Path) -> None:
    with serving(tmp_path, {}) as empty, looking(browser, empty.url) as page:
        log_in(page)
        for path, remedy in {
            "/events?name=nothing": "No event fits",
            "/firings": "Nothing has fired yet",
            "/actions": "No action was asked for yet",
            "/runs": "Nothing has run yet",
            "/sources": "There is no webhook yet",
        }.items():
            page.goto(path)
            expect(page.locator("main")).to_contain_text(remedy)
