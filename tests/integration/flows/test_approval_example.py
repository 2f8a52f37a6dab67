"""examples/approval in a real server: a refund waits, and is decided on the page of its run, in a terminal, and by an event."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests import forks
from tests.browser import chromium, looking
from tests.integration.flows.programs import ROOT
from tests.integration.served import TOKEN, Served, environment, serving
from tests.integration.ui.page_story import log_in
from tests.patience import eventually

EXAMPLE = ROOT / "examples" / "approval"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    files = {file.name: file.read_text(encoding="utf-8") for file in EXAMPLE.iterdir() if file.is_file()}
    with serving(tmp_path_factory.mktemp("approval"), files) as found:
        yield found


def waiting(served: Served, order: str, cents: int = 12_500) -> dict[str, Any]:
    """The run of a refund that waits."""
    served.emit("refund.asked", {"cents": cents}, resource={"id": order})
    return eventually(lambda: run_of(served, order, "Paused"), within_s=60)


def run_of(served: Served, order: str, state: str) -> dict[str, Any] | None:
    runs = [run for run in served.get(f"/api/runs?state={state}") if run["parameters"].get("order") == order]
    return runs[0] if runs else None


def command(served: Served, *words: str, data: str = "") -> str:
    """What a command prints, whether it succeeds or not."""
    settings = environment(WHENTHEN_URL=served.url, WHENTHEN_API_TOKEN=TOKEN, NO_COLOR="1", COLUMNS="200")
    done = forks.run(words, env=settings, within_s=60, stdin=data)
    return done.stdout + done.stderr


def test_a_small_refund_asks_nobody(served: Served) -> None:
    served.emit("refund.asked", {"cents": 100}, resource={"id": "order.small"})
    run = eventually(lambda: run_of(served, "order.small", "Completed"), within_s=60)
    assert run["result"] == {"paid": True, "receipt": "receipt of order.small"}


def test_a_refund_is_decided_in_a_terminal(served: Served) -> None:
    run = waiting(served, "order.1")
    shown = command(served, "runs", "show", run["id"])
    assert "Give 125.00 back for order.1?" in shown
    assert f"# whenthen runs resume {run['id']} --input approved=... --input note=..." in shown
    refused = command(served, "runs", "resume", run["id"][:12], "--input", "approved=perhaps", "--input", "nte=x")
    assert "approved: 'perhaps' is not of type 'boolean'" in refused
    assert "'nte' was unexpected" in refused
    assert "is Running" in command(served, "runs", "resume", run["id"][:12], "--input", "approved=true")
    ended = eventually(lambda: run_of(served, "order.1", "Completed"), within_s=60)
    assert ended["result"]["paid"] is True
    assert "only one that is Paused or Suspended is resumed" in command(served, "runs", "resume", run["id"])


def test_a_refund_is_refused_with_a_file_of_json(served: Served) -> None:
    run = waiting(served, "order.2")
    said = command(
        served, "runs", "resume", run["id"], "--input-json", "-", data='{"approved": false, "note": "too late"}'
    )
    assert "is Running" in said
    ended = eventually(lambda: run_of(served, "order.2", "Completed"), within_s=60)
    assert (ended["result"], ended["message"]) == ({"paid": False}, "Refused: too late")


def test_a_refund_is_decided_on_the_page_of_its_run_without_scripts(served: Served) -> None:
    run = waiting(served, "order.3")
    page = served.http.get(f"/run?id={run['id']}")
    assert "Give 125.00 back for order.3?" in page.text
    form = page.text[page.text.index('action="/run/resume"') :]
    assert re.search(r'<select name="input.approved">.*?<option value="true">yes', form, re.S)
    wrong = served.http.post("/run/resume", data={"id": run["id"], "input.approved": "", "input.note": "x"})
    assert (wrong.status_code, "&#39;approved&#39; is a required property" in wrong.text) == (400, True), wrong.text
    done = served.http.post("/run/resume", data={"id": run["id"], "input.approved": "true", "input.note": "fine"})
    assert done.status_code == 303
    ended = eventually(lambda: run_of(served, "order.3", "Completed"), within_s=60)
    assert ended["inputs"] == {"1": {"approved": True, "note": "fine"}}
    assert "The run goes on." in served.http.get(done.headers["location"]).text


@pytest.mark.requires("chromium")
@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_a_refund_is_decided_in_a_browser(served: Served, scripts: bool) -> None:
    order = f"order.browser-{scripts}"
    run = waiting(served, order)
    with chromium() as browser, looking(browser, served.url, java_script_enabled=scripts) as page:
        log_in(page)
        page.goto(f"/run?id={run['id']}")
        pause = page.locator("#pause")
        expect(pause).to_contain_text(f"Give 125.00 back for {order}?")
        pause.get_by_label("approved").select_option("yes")
        pause.get_by_label("note").fill("<b>fine</b>")
        pause.get_by_role("button", name="Resume").click()
        expect(page.get_by_role("status").filter(has_text="The run goes on.")).to_be_visible()
        expect(pause.get_by_role("button", name="Resume")).to_have_count(0)
        ended = eventually(lambda: run_of(served, order, "Completed"), within_s=60)
        assert ended["inputs"] == {"1": {"approved": True, "note": "<b>fine</b>"}}
        page.goto(f"/run?id={run['id']}")
        expect(page.get_by_role("heading", level=1)).to_contain_text("Completed")
        expect(page.locator("pre", has_text="<b>fine</b>")).to_be_visible()


@pytest.mark.requires("chromium")
def test_a_browser_is_told_what_input_is_missing(served: Served) -> None:
    run = waiting(served, "order.browser-missing")
    with chromium() as browser, looking(browser, served.url, refused=(400,)) as page:
        log_in(page)
        page.goto(f"/run?id={run['id']}")
        page.locator("#pause").get_by_role("button", name="Resume").click()
        expect(page.get_by_role("alert")).to_contain_text("'approved' is a required property")
    assert run_of(served, "order.browser-missing", "Paused")


def test_a_refund_is_decided_by_an_event(served: Served) -> None:
    run = waiting(served, "order.4")

    def asked() -> list[dict[str, Any]]:
        found = served.get("/api/events?event=approval.needed&limit=100")
        return [each["payload"] for each in found if each["payload"]["flow_run"] == run["id"]]

    (needed,) = eventually(asked)
    assert needed["question"] == "Give 125.00 back for order.4?"
    served.emit("approval.given", {"flow_run": run["id"], "approved": True, "note": "by chat"})
    ended = eventually(lambda: run_of(served, "order.4", "Completed"), within_s=60)
    assert ended["inputs"]["1"] == {"approved": True, "note": "by chat"}


def test_a_suspended_run_is_listed_resumed_and_deleted_with_filters(served: Served) -> None:
    run = waiting(served, "order.5")
    assert "is Suspended" in command(served, "runs", "suspend", run["id"], "--for", "2h")
    shown = served.get(f"/api/runs/{run['id']}")
    assert shown["pause"]["description"] == "Give 125.00 back for order.5?"
    assert "is Scheduled" in command(served, "runs", "resume", run["id"], "--input", "approved=true")
    eventually(lambda: run_of(served, "order.5", "Completed"), within_s=60)
    since = run["created"]
    told = command(served, "runs", "delete", "--state", "Completed", "--since", since)
    assert re.search(r"delete \d+ runs\?|\d+ runs; nothing was changed", told), told
    gone = command(served, "runs", "delete", "--state", "Completed", "--since", since, "--yes")
    assert f"run {run['id']} is deleted" in gone
    eventually(lambda: served.http.get(f"/api/runs/{run['id']}").status_code == 404)
    assert served.http.get(f"/api/runs/{run['id']}/logs").status_code == 404
