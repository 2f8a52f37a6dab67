"""Each page is asked its question in a browser, of a `whenthen serve` that got real webhooks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, StorageState, expect

from tests.browser import looking
from tests.integration.served import Served, serving
from tests.integration.ui.page_story import log_in
from tests.patience import eventually, limit

pytestmark = [pytest.mark.requires("chromium", "nats-server"), pytest.mark.takes(6)]

MARKUP = "<img src=x onerror=alert(1)> שלום"
EVIL = f"{MARKUP}\u202egnp.exe\x1b[31m"  #: with what labels may not have
LONG = f"שלום <b>{'x' * 180}"  #: the name of an automation
RULES = """
# what the shop does
automations:
  - name: big-order
    description: Large orders that were paid
    tags: [shop]
    trigger:
      expect: order.paid
      match: {id: "order.*"}
      when: event.payload.total > 100
      for_each: customer
      threshold: 3
      within: 1h
    actions:
      - emit-event: order.checked
        resource: {id: "{{ event.resource.id }}"}

  - name: checked
    trigger: {expect: order.checked}
    actions: [do-nothing]
  - name: "{LONG}"
    trigger: {expect: order.long}
    actions: [do-nothing]
  - name: never
    enabled: false
    trigger: {expect: order.lost}
    actions: [do-nothing]
webhooks:
  - name: shop
    verify: none
    map:
      event: "order.{{ body.kind }}"
      id: $.body.id
      resource: {id: "order.{{ body.number }}", customer: $.body.customer}
      payload: $.body
""".replace("{LONG}", LONG)
IDS: dict[str, str] = {}  #: of the events, by what the shop calls them
PATHS = ("/automations", "/automation?name=big-order", f"/automation?name={quote(LONG)}", "/why", "/trace", "/system")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("pages"), {"shop.yaml": RULES}) as served:
        hook(served, "small", customer="ada", total=5)
        for number in range(3):
            hook(served, f"large-{number}", customer="ada", total=500 + number)
        hook(served, "one-more", customer="bob", total=900)
        hook(served, "evil", customer=MARKUP, total=900, note=EVIL)
        eventually(lambda: served.fired() == {"big-order": 1, "checked": 1}, within_s=20)
        yield served


def hook(served: Served, id: str, **body: object) -> None:
    """Send what the shop would."""
    answer = served.http.post("/hooks/shop", json={"kind": "paid", "id": id, "number": id, **body})
    assert answer.status_code == 202, answer.text
    IDS[id] = answer.json()["ids"][0]


def test_who_is_not_logged_in_is_led_to_the_login_and_back_to_what_was_asked_for(
    browser: Browser, served: Served
) -> None:
    with looking(browser, served.url) as page:
        path = f"/why?automation=big-order&event={IDS['small']}"
        log_in(page, path)
        expect(page).to_have_url(served.url + path)
        expect(page.locator(".answer")).to_contain_text("did not fire")


def test_a_wrong_token_and_an_old_cookie_lead_to_the_login_that_says_what_is_wrong(
    browser: Browser, served: Served
) -> None:
    with looking(browser, served.url, refused=(401,)) as page:
        log_in(page)
        (cookie,) = page.context.cookies()
        page.context.add_cookies([{**cookie, "value": "old" * 20}])  # type: ignore[list-item]
        page.goto("/system")
        expect(page).to_have_url(re.compile(r"/login\?next=%2Fsystem$"))
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_be_visible()


def test_automations_says_which_rules_there_are_and_finds_one(page: Page) -> None:
    page.goto("/automations")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(4)
    expect(rows.filter(has=page.get_by_role("link", name="never", exact=True))).to_contain_text("disabled")
    page.get_by_role("searchbox").fill("LARGE orders")
    page.get_by_role("button", name="Show").click()
    expect(page).to_have_url(re.compile("text=LARGE"))
    expect(rows).to_have_count(1)
    page.get_by_role("link", name="big-order").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("big-order")


def test_an_automation_says_how_it_goes_why_and_what_it_remembers(page: Page) -> None:
    page.goto("/automation?name=big-order")
    expect(page.locator("#facts")).to_contain_text("Fired")
    expect(page.locator("#reasons .counts")).to_contain_text("condition_false", timeout=limit(20) * 1000)
    windows = page.locator("#windows .window")
    expect(windows.filter(has_text="bob")).to_contain_text("1 of 3")
    expect(page.locator("pre").first).to_contain_text("when: event.payload.total > 100")
    expect(page.get_by_text("shop.yaml:4", exact=True)).to_be_visible()
    page.locator("#decisions tr", has_text="condition_false").get_by_role("link", name="Why?").click()
    expect(page.locator(".answer")).to_contain_text("It did not fire: its condition is false.")


def test_an_automation_is_paused_and_resumed_by_forms(page: Page, served: Served) -> None:
    page.goto("/automation?name=checked")
    page.get_by_label("For how long").fill("2h")
    page.get_by_label("Reason").fill(EVIL)
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("status").filter(has_text="paused")).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_contain_text("paused")
    assert served.get("/api/automations/checked")["pause"]["reason"] == EVIL
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("active")


def test_why_shows_the_clause_its_value_and_what_would_have_been_needed(page: Page) -> None:
    page.goto("/why")
    page.get_by_label("Automation").fill("big-order")
    page.get_by_label("Event").fill(IDS["small"])
    page.get_by_role("button", name="Ask").click()
    expect(page.locator(".clauses .fails").first).to_contain_text("event.payload.total")
    expect(page.locator(".missing")).to_be_visible()
    page.goto(f"/why?automation=big-order&event={IDS['large-2']}")
    expect(page.locator(".answer")).to_have_class(re.compile("good"))
    expect(page.locator(".card", has_text="Window before").last).to_contain_text("2 of 3")


def test_why_leads_from_an_event_to_those_who_decided_about_it(page: Page) -> None:
    page.goto(f"/why?event={IDS['one-more']}")
    page.locator("tr", has_text="big-order").get_by_role("link", name="Why?").click(timeout=limit(20) * 1000)
    expect(page.locator(".answer")).to_contain_text("below_threshold")


def test_a_trace_goes_from_the_webhook_to_the_last_decision(page: Page) -> None:
    page.goto("/trace")
    page.get_by_label("Id").fill(IDS["large-2"])
    page.get_by_role("button", name="Follow").click()
    rows = page.locator(".trace li")
    expect(rows.first).to_contain_text("order.paid")
    expect(page.locator(".trace")).to_contain_text("order.checked")
    expect(page.locator(".trace .asked")).to_have_count(1)
    expect(page.locator(".trace")).to_contain_text("do-nothing")


def test_system_says_whether_all_is_well_and_how_much_room_there_is(page: Page) -> None:
    page.goto("/system")
    expect(page.get_by_role("heading", level=1)).to_contain_text("all is well")
    events = page.locator("#streams tr", has_text="EVENTS")
    expect(events).to_contain_text("%")
    expect(page.locator("#shards")).to_contain_text("this process")
    expect(page.locator("#rules")).to_contain_text("current")


def test_a_page_that_is_open_shows_what_happens_without_being_asked_again(page: Page, served: Served) -> None:
    page.goto("/automation?name=big-order&reason=below_threshold")
    expect(page.locator("#live")).to_have_text("live")
    before = page.locator("#decisions tbody tr").count()
    hook(served, "while-open", customer="eve", total=1000)
    expect(page.locator("#decisions tbody tr")).to_have_count(before + 1, timeout=limit(20) * 1000)


def test_text_of_others_is_inert(page: Page, served: Served) -> None:
    page.goto("/automation?name=big-order")
    expect(page.locator("#windows .window", has_text="onerror")).to_contain_text(MARKUP)
    page.goto(f"/why?automation=big-order&event={IDS['evil']}")
    expect(page.locator(".answer")).to_contain_text(MARKUP)
    page.locator("summary", has_text="order.paid on order.evil").click()
    expect(page.locator("details pre")).to_contain_text("<img src=x onerror=alert(1)> שלום‹U+202E›gnp.exe\\u001b[31m")
    served.http.post("/api/automations/checked/pause", json={"reason": EVIL}).raise_for_status()
    page.goto("/system")
    expect(page.locator("#now")).to_contain_text(f"{MARKUP}‹U+202E›gnp.exe␛[31m")
    served.http.post("/api/automations/checked/resume").raise_for_status()
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("path", PATHS)
def test_every_page_reads_without_scripts_and_in_utc(
    browser: Browser, served: Served, session: StorageState, path: str
) -> None:
    with looking(browser, served.url, storage_state=session, java_script_enabled=False) as page:
        page.goto(path)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        for text in page.locator("time").all_text_contents():
            assert text.endswith(" UTC")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("width", [390, 1400])
def test_no_page_is_wider_than_the_window(
    browser: Browser, served: Served, session: StorageState, path: str, width: int
) -> None:
    with looking(browser, served.url, storage_state=session, viewport={"width": width, "height": 900}) as page:
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_name_that_there_is_not_and_a_bad_parameter_are_told_on_a_page(
    browser: Browser, served: Served, session: StorageState
) -> None:
    with looking(browser, served.url, refused=(400, 404), storage_state=session) as page:
        page.goto("/automation?name=big-ordr")
        expect(page.get_by_role("alert")).to_contain_text("big-order")
        page.goto("/automations?page=0")
        expect(page.get_by_role("alert")).to_contain_text("page")


def test_a_system_without_anything_says_what_to_do_first(browser: Browser, tmp_path: Path) -> None:
    with serving(tmp_path, {}) as empty, looking(browser, empty.url) as page:
        log_in(page)
        expect(page.get_by_role("heading", name="There are no automations yet")).to_be_visible()
        for path in ("/why", "/trace"):
            page.goto(path)
            expect(page.get_by_text("No event is stored yet")).to_be_visible()
        page.goto("/system")
        expect(page.get_by_role("heading", level=1)).to_contain_text("all is well")


def test_two_tabs_that_act_on_one_automation_end_in_what_the_last_one_asked_for(
    browser: Browser, served: Served, session: StorageState
) -> None:
    with looking(browser, served.url, storage_state=session) as one:
        other = one.context.new_page()
        for page in (one, other):
            page.goto("/automation?name=checked")
        one.get_by_role("button", name="Pause").click()
        expect(one.get_by_role("heading", level=1)).to_contain_text("paused")
        other.get_by_label("Reason").fill("the second tab")
        other.get_by_role("button", name="Pause").click()
        expect(other.locator(".trouble")).to_contain_text("the second tab")
        for page in (one, other):  # the second one resumes what is not paused any more
            page.get_by_role("button", name="Resume").click()
            expect(page.get_by_role("heading", level=1)).to_contain_text("active")


def test_a_page_works_by_keyboard_and_an_exact_time_is_shown_on_focus(page: Page) -> None:
    page.goto("/automations")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the content")).to_be_focused()
    page.get_by_role("searchbox").focus()
    page.keyboard.type("big")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("text=big"))
    moment = page.locator("tbody time").first
    moment.focus()
    expect(moment).to_have_attribute("data-exact", re.compile(r" · \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} UTC$"))
    shown = moment.evaluate("element => getComputedStyle(element, '::after').content")
    assert shown.endswith(' UTC"')
    for field in page.locator("input:not([type=hidden]), select").all():
        assert field.evaluate("element => element.labels.length") == 1


def test_a_stream_that_breaks_is_taken_up_again_with_what_was_missed(
    browser: Browser, served: Served, session: StorageState
) -> None:
    with looking(browser, served.url, storage_state=session) as page:
        broken = True
        page.route("**/api/stream?*", lambda route: route.abort() if broken else route.continue_())
        page.goto("/automation?name=big-order&reason=below_threshold")
        expect(page.locator("#live")).to_have_text("reconnecting")
        before = page.locator("#decisions tbody tr").count()
        hook(served, "while-broken", customer="zoe", total=1000)
        eventually(lambda: any(each["event"] == IDS["while-broken"] for each in decided(served)))
        broken = False
        expect(page.locator("#decisions tbody tr")).to_have_count(before + 1, timeout=limit(30) * 1000)
        expect(page.locator("#live")).to_have_text("live")


def decided(served: Served) -> list[dict[str, str]]:
    found: list[dict[str, str]] = served.get("/api/automations/big-order/decisions?reason=below_threshold")
    return found
