"""axe finds nothing serious on any page: in light and dark, on a phone and on a wide screen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from playwright.sync_api import Browser, StorageState, expect

from tests.browser import chromium, faults_of_access, looking
from tests.integration.served import Served, serving
from tests.integration.ui.page_story import event_id, log_in, places, story

pytestmark = [pytest.mark.requires("chromium", "nats-server"), pytest.mark.takes(40)]

WAYS = [(scheme, width) for scheme in ("light", "dark") for width in (390, 1400)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with story(tmp_path_factory.mktemp("access")) as served:
        yield served


@pytest.fixture(scope="module")
def pages(served: Served) -> Mapping[str, str]:
    """Every page that there is, by name."""
    small, large = event_id(served, "small"), event_id(served, "large-1")
    return {
        **places(served),
        "automations": "/automations",
        "automation": "/automation?name=big-order",
        "why": "/why",
        "why-not": f"/why?automation=big-order&event={small}",
        "why-event": f"/why?event={large}",
        "trace": "/trace",
        "trace-of": f"/trace?id={large}",
        "system": "/system",
        "not-found": "/automation?name=big-ordr",
    }


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def session(browser: Browser, served: Served) -> StorageState:
    """The cookie of somebody who has logged in."""
    with looking(browser, served.url) as page:
        log_in(page)
        return page.context.storage_state()


@pytest.mark.parametrize(("scheme", "width"), WAYS)
def test_no_page_has_a_serious_fault_for_who_reads_it_otherwise(
    browser: Browser, served: Served, session: StorageState, pages: Mapping[str, str], scheme: str, width: int
) -> None:
    ways = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
    found: dict[str, list[str]] = {}
    with looking(browser, served.url, refused=(404,), storage_state=session, **ways) as page:
        for name, path in pages.items():
            page.goto(path)
            page.locator("details").evaluate_all("all => all.forEach(each => { each.open = true; })")
            found[name] = faults_of_access(page)
        page.goto(pages["try"])
        page.get_by_role("button", name="Try").click()
        expect(page.locator("#outcome")).to_be_visible()
        found["tried"] = faults_of_access(page)
    with looking(browser, served.url, **ways) as page:
        page.goto("/login")
        found["login"] = faults_of_access(page)
    assert {name: faults for name, faults in found.items() if faults} == {}


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1400)])
def test_no_page_of_an_empty_system_has_one(browser: Browser, tmp_path: Path, scheme: str, width: int) -> None:
    ways = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
    with serving(tmp_path, {}) as empty, looking(browser, empty.url, **ways) as page:
        log_in(page)
        paths = ("events", "automations", "firings", "actions", "runs", "sources", "why", "trace", "try", "system")
        found = {}
        for path in paths:
            page.goto(f"/{path}")
            found[path] = faults_of_access(page)
    assert {path: faults for path, faults in found.items() if faults} == {}
