"""What people do on the pages: look at what was sent, send again, redrive, follow links; also without scripts, and with names that do harm."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, StorageState, expect

from tests.browser import looking
from tests.integration.served import Served, serving
from tests.patience import eventually, limit

pytestmark = [pytest.mark.requires("chromium", "nats-server"), pytest.mark.takes(12)]

PAGES = "https://automation.example"
HOOK_TOKEN, TELL_TOKEN = "hook-token-planted", "tell-token-planted"
SETTINGS = {"WHENTHEN_PUBLIC_URL": PAGES, "SHOP_TOKEN": HOOK_TOKEN, "TELL_TOKEN": TELL_TOKEN}
EVIL = "<img src=x onerror=alert(1)>\u202egnp.exe\x1b[31m"
RULES = """
automations:
  - name: teller
    trigger: {expect: order.paid}
    actions:
      - call-webhook: "{receiver}/tell?sig=planted-signature"
        headers: {Authorization: "Bearer env:TELL_TOKEN", X-Order: "{{ event.resource.id }}"}
        body: {order: "{{ event.resource.id }}", password: planted-password, page: "{{ url_of(firing) }}"}
        retry: {retries: 2, delay: 50ms, jitter: 0}
  - name: patient
    trigger: {expect: order.waits}
    actions:
      - call-webhook: "{receiver}/busy"
        retry: {retries: 1, delay: 1h, max_delay: 1h}
  - name: lost
    trigger: {expect: order.lost}
    actions:
      - call-webhook: "{receiver}/gone"
        retry: {retries: 0}
  - name: news
    trigger: {expect: order.news}
    actions:
      - send-notification: team
        subject: "{{ automation }}"
        body: "{{ url_of(firing) }} {{ url_of(event) }} {{ url_of(automation) }} {{ url_of(event.related[0]) }}"
notifiers:
  - {name: team, urls: ["json://{address}/news"]}
deployments:
  - name: load
    command: [sh, -c, 'printf "\\033[31mred\\033[0m \\342\\200\\256gnp.exe <b>bold</b>\\n"']
webhooks:
  - name: shop
    verify: {type: bearer, token: env:SHOP_TOKEN}
    map: {event: shop.told, resource: {id: "order.{{ body.nmber }}"}, payload: $.body}
"""


@dataclass
class Receiver:
    """Answers as a test says, by path; what is not said is taken."""

    server: ThreadingHTTPServer
    answers: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)  #: the last one is kept
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            found.requests.append((self.path, dict(self.headers.items()), body))
            left = found.answers.get(self.path.partition("?")[0], [(200, b'{"ok": true}')])
            status, answer = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    found = Receiver(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
    thread = threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join()


def rules(receiver: Receiver) -> str:
    return RULES.replace("{receiver}", f"http://{receiver.address}").replace("{address}", receiver.address)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Served]:
    receiver.answers = {
        "/tell": [(503, b'{"error": "busy", "access_token": "planted-answer"}'), (200, b'{"ok": true}')],
        "/busy": [(503, b"later")],
        "/gone": [(410, b"gone")],
    }
    with serving(tmp_path_factory.mktemp("acting"), {"shop.yaml": rules(receiver)}, SETTINGS) as served:
        yield served


def outcomes(served: Served, automation: str) -> list[str]:
    """Of the actions of an automation."""
    return [each["outcome"] for each in served.get(f"/api/actions?automation={automation}&limit=100")]


def firing(served: Served, automation: str) -> str:
    return str(served.get(f"/api/firings?automation={automation}")[0]["id"])


def test_each_try_is_shown_with_its_request_and_the_answer_and_no_secret(page: Page, served: Served) -> None:
    served.emit("order.paid", resource={"id": "order.7"})
    eventually(lambda: outcomes(served, "teller") == ["executed"])
    page.goto(f"/firing?id={firing(served, 'teller')}")
    tries = page.locator(".tries > li")
    # the role `history` has the last one a moment later
    expect(tries).to_have_count(2, timeout=limit(20) * 1000)
    first, last = tries.first, tries.last
    first.get_by_text("What was sent and what came back").click()
    sent, answered = first.locator("pre").first, first.locator("pre").last
    expect(sent).to_contain_text(re.compile(r"^POST http://127\.0\.0\.1:\d+/tell\?sig=\*\*\*\n"))
    expect(sent).to_contain_text("authorization: ***")
    expect(sent).to_contain_text("x-order: order.7")
    expect(sent).to_contain_text('"order": "order.7"')
    expect(answered).to_contain_text(re.compile(r"^503\n"))
    expect(answered).to_contain_text('"error": "busy"')
    expect(last.locator("pre").last).to_contain_text(re.compile(r"^200\n"))
    assert "planted" not in "".join(tries.all_text_contents())


def test_an_action_that_waits_says_when_its_next_try_is_due(page: Page, served: Served) -> None:
    served.emit("order.waits")
    eventually(lambda: outcomes(served, "patient") == ["retrying"])
    page.goto(f"/firing?id={firing(served, 'patient')}")
    expect(page.locator("section.action")).to_contain_text("The next try is due")
    expect(page.locator("section.action time").first).to_have_text(re.compile("in "))
    expect(page.locator(".tries > li")).to_contain_text("later", timeout=limit(20) * 1000)


@contextmanager
def without_tries(page: Page) -> Iterator[list[int]]:
    """Let the page of a firing be answered as it is while the history has none of its tries, until a number is in what is given."""
    answered: list[int] = []

    def answer(route: Route) -> None:
        found = route.fetch()
        text = found.text()
        if not answered:
            text = re.sub('<ol class="tries">.*?</ol>', "", text, flags=re.DOTALL)
            text = re.sub('(<div id="actions" data-region)[^>]*>', r"\1 data-again>", text)
        route.fulfill(response=found, body=text)

    page.route(re.compile(r"/firing\?"), answer)
    yield answered
    page.unroute_all(behavior="ignoreErrors")


def test_tries_that_the_history_takes_later_are_shown_to_who_looks_already(page: Page, served: Served) -> None:
    id = firing(served, "patient")
    eventually(lambda: len(served.get(f"/api/actions/{id}.0")["tries"]) == 1)
    with without_tries(page) as answered:
        with page.expect_response(re.compile(r"/firing\?")):
            page.goto(f"/firing?id={id}")
        with page.expect_response(re.compile(r"/firing\?"), timeout=limit(20) * 1000):  # it asks again
            pass
        expect(page.locator(".tries > li")).to_have_count(0)
        answered.append(1)
        expect(page.locator(".tries > li")).to_contain_text("later", timeout=limit(20) * 1000)
        expect(page.locator("[data-again]")).to_have_count(0)


def test_what_comes_while_somebody_reads_a_detail_is_shown_when_it_is_closed(page: Page, served: Served) -> None:
    with without_tries(page) as answered:
        page.goto(f"/firing?id={firing(served, 'patient')}")
        detail = page.get_by_text("What is asked for, as the rule says it today")
        detail.click()
        answered.append(1)
        with page.expect_response(re.compile(r"/firing\?"), timeout=limit(20) * 1000):
            pass
        expect(page.locator("#actions details")).to_have_attribute("open", "")
        expect(page.locator(".tries > li")).to_have_count(0)
        detail.click()
        page.get_by_role("heading", level=1).click()
        page.evaluate("document.activeElement.blur()")
        expect(page.locator(".tries > li")).to_contain_text("later", timeout=limit(40) * 1000)


def test_dead_letters_are_redriven_in_bulk_with_their_number_first(
    page: Page, served: Served, receiver: Receiver
) -> None:
    for number in range(3):
        served.emit("order.lost", resource={"id": f"order.{number}"})
    eventually(lambda: outcomes(served, "lost") == ["dead"] * 3)
    receiver.answers["/gone"] = [(200, b"{}")]
    page.goto("/automation?name=lost")
    page.get_by_role("link", name="Look at them").click()
    page.get_by_role("link", name="Redrive all").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Redrive 3 dead letters?")
    page.get_by_role("button", name="Redrive 3").click()
    expect(page.get_by_role("status").filter(has_text="3 of 3 were redriven")).to_be_visible()
    eventually(lambda: outcomes(served, "lost") == ["executed"] * 3)


def test_a_dead_letter_is_redriven_from_its_firing_and_the_rest_is_dropped(
    page: Page, served: Served, receiver: Receiver
) -> None:
    receiver.answers["/gone"] = [(410, b"gone")]
    before = len(outcomes(served, "lost"))
    for number in range(2):
        served.emit("order.lost", resource={"id": f"order.again-{number}"})
    eventually(lambda: outcomes(served, "lost").count("dead") == 2 and len(outcomes(served, "lost")) == before + 2)
    dead = served.get("/api/actions?automation=lost&outcome=dead")
    receiver.answers["/gone"] = [(200, b"{}")]
    page.goto(f"/firing?id={dead[0]['firing']}")
    page.get_by_role("button", name="Redrive").click()
    expect(page.get_by_role("status").filter(has_text="redriven")).to_be_visible()
    page.goto("/actions?outcome=dead&automation=lost")
    page.get_by_role("link", name="Drop all").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Drop 1 dead letter?")
    page.get_by_role("button", name="Drop 1").click()
    expect(page.get_by_role("status").filter(has_text="1 of 1 were dropped")).to_be_visible()
    eventually(lambda: outcomes(served, "lost").count("dead") == 0)


def test_refused_requests_are_sent_again_once_their_webhook_is_mended(
    page: Page, served: Served, receiver: Receiver
) -> None:
    for number in range(3):
        answer = served.http.post(
            "/hooks/shop", json={"number": number}, headers={"Authorization": f"Bearer {HOOK_TOKEN}"}
        )
        assert answer.status_code == 400
    eventually(lambda: len(served.get("/api/sources/refused")) == 3)
    page.goto("/sources")
    expect(page.locator("#kept tbody tr")).to_have_count(3)
    expect(page.locator("#kept tbody tr").first).to_contain_text("map.resource.id")
    # as it is, it is refused again, and told why
    page.locator("#kept tbody tr").first.get_by_role("button", name="Send again").click()
    expect(page.get_by_role("status").filter(has_text="0 of 1 were taken; refused again: webhook:shop")).to_be_visible()
    file = served.data_dir.parent / "rules" / "shop.yaml"
    file.write_text(file.read_text().replace("nmber", "number"))
    served.http.post("/api/rules/reload").raise_for_status()
    page.get_by_role("link", name="Send 3 of webhook:shop again").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Send 3 refused requests again?")
    expect(page.locator("tbody tr")).to_contain_text("map.resource.id")
    page.get_by_role("button", name="Send 3 again").click()
    expect(page.get_by_role("status").filter(has_text="3 of 3 were taken, and became 3 events")).to_be_visible()
    expect(page.locator("#kept")).to_be_hidden()
    assert len(served.get("/api/events?event=shop.told")) == 3


def test_a_message_has_links_to_the_pages(page: Page, served: Served, receiver: Receiver) -> None:
    related = [{"id": "whenthen.flow-run.r-1", "role": "flow-run"}]
    served.emit("order.news", resource={"id": "order.1"}, related=related)
    eventually(lambda: outcomes(served, "news") == ["executed"])
    (message,) = (json.loads(body)["message"] for path, _, body in receiver.requests if path == "/news")
    to_firing, to_event, to_automation, to_run = message.split()
    assert to_firing == f"{PAGES}/firing?id={firing(served, 'news')}"
    assert to_run == f"{PAGES}/run?id=r-1"
    for address, heading in ((to_firing, "news fired"), (to_event, "order.news"), (to_automation, "news")):
        page.goto(address.removeprefix(PAGES))
        expect(page.get_by_role("heading", level=1)).to_contain_text(heading)


def test_what_there_is_not_is_answered_with_what_is_near(
    browser: Browser, served: Served, session: StorageState
) -> None:
    with looking(browser, served.url, refused=(404,), storage_state=session) as page:
        page.goto("/automation?name=tellr")
        expect(page.get_by_role("alert")).to_contain_text("there is no automation 'tellr'")
        page.get_by_role("link", name="teller", exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("teller")
        page.goto("/automaton")
        expect(page.get_by_role("alert")).to_contain_text("there is no page at /automaton")
        page.get_by_role("alert").get_by_role("link", name="Automations").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Automations")
        for path in ("/firing?id=nothing-of-the-kind", "/event?id=nothing", "/run?id=nothing", "/trace?id=nothing"):
            page.goto(path)
            expect(page.get_by_role("alert")).to_contain_text("nothing")


def test_an_automation_leads_to_its_firings_to_why_and_to_trying_it(page: Page) -> None:
    for name, address in (
        ("Firings", "/firings?automation=teller"),
        ("Ask why", "/why?automation=teller"),
        ("Try it", "/try?automation=teller"),
    ):
        page.goto("/automation?name=teller")
        page.locator("main .head").get_by_role("link", name=name).click()
        expect(page).to_have_url(re.compile(re.escape(address)))


def test_system_shows_who_works_and_for_which_pool(page: Page) -> None:
    page.goto("/system")
    pool = page.locator("#pools table").first.locator("tbody tr")
    expect(pool).to_contain_text("default")
    expect(pool).to_contain_text("active")
    expect(page.locator("#pools table").last.locator("tbody tr")).to_contain_text("default")
    pool.get_by_role("link", name="default").click()
    expect(page).to_have_url(re.compile("work_pool=default"))


def test_everything_is_done_without_scripts(browser: Browser, served: Served, session: StorageState) -> None:
    with looking(browser, served.url, storage_state=session, java_script_enabled=False) as page:
        page.goto("/automation?name=patient")
        page.get_by_label("For how long").fill("1h")
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("paused")
        page.get_by_role("button", name="Resume").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("active")
        page.goto("/try?automation=teller")
        page.locator("textarea[name=events]").fill("- {at: 0s, event: order.paid, resource: {id: order.1}}")
        page.get_by_role("button", name="Try").click()
        expect(page.get_by_role("status")).to_contain_text("It fires 1 time", timeout=limit(20) * 1000)
        run = served.http.post("/api/deployments/load/run", json={}).raise_for_status().json()["id"]
        eventually(lambda: served.get(f"/api/runs/{run}")["state"] == "Completed", within_s=30)
        page.goto(f"/run?id={run}")
        page.get_by_text("Run again").click()
        page.get_by_role("button", name="Run", exact=True).click()
        expect(page.get_by_role("status")).to_contain_text("The run is created")


def test_terminal_escapes_directions_and_markup_of_a_log_are_shown_and_do_nothing(page: Page, served: Served) -> None:
    run = (
        served.http.post("/api/deployments/load/run", json={"parameters": {"note": EVIL}})
        .raise_for_status()
        .json()["id"]
    )
    eventually(lambda: served.get(f"/api/runs/{run}")["state"] == "Completed", within_s=30)
    page.goto(f"/run?id={run}")
    expect(page.locator("#log pre")).to_contain_text("␛[31mred␛[0m ‹U+202E›gnp.exe <b>bold</b>")
    assert page.locator("#log b").count() == 0
    expect(page.locator("#states")).to_contain_text("Completed", timeout=limit(20) * 1000)
    expect(page.locator("[data-again]")).to_have_count(0)


@pytest.mark.parametrize("width", [390, 1400])
def test_names_of_500_characters_that_turn_and_escape_stay_inside_the_page_and_do_nothing(
    browser: Browser, served: Served, session: StorageState, width: int
) -> None:
    name, id = f"order.{'n' * 245}", f"long-{width}"
    label = f"<img src=x onerror=alert(1)>{'שלום' * 60}{'x' * 260}"
    served.emit(name, {"note": EVIL * 20, "nested": {EVIL: [EVIL]}}, id=id, resource={"id": label, "name": label})
    paths = ["/events", f"/event?id={id}", f"/why?event={id}", f"/trace?id={id}", f"/try?event={id}"]
    with looking(browser, served.url, storage_state=session, viewport={"width": width, "height": 900}) as page:
        for path in paths:
            page.goto(path)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
            assert page.locator("img[src=x]").count() == 0
            assert not re.search("[\u202a-\u202e\u2066-\u2069\x1b]", page.content()), path
        page.goto(paths[1])
        expect(page.locator("pre").last).to_contain_text("‹U+202E›gnp.exe")


def test_a_form_that_another_site_sends_with_the_cookie_does_nothing(page: Page, served: Served) -> None:
    page.goto("/automation?name=teller")
    proof = page.locator("input[name=csrf_token]").first.get_attribute("value")
    form = {"name": "teller", "csrf_token": str(proof)}
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Origin": served.url},
    ):
        answer = page.request.post("/automation/pause", form=form, headers=headers, fail_on_status_code=False)
        assert answer.status == 403, headers
    wrong = page.request.post(
        "/automation/pause", form={**form, "csrf_token": "forged"}, headers={"Origin": served.url}
    )
    assert wrong.status == 403
    assert served.get("/api/automations/teller")["state"] == "active"
