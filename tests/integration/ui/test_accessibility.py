"""axe finds nothing serious on any page: in light and dark, on a phone and on a wide screen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, StorageState, expect

from tests.browser import faults_of_access, looking
from tests.integration.served import Served, serving
from tests.integration.ui.page_story import PLACES, event_id, log_in, places, story

pytestmark = [pytest.mark.requires("chromium", "nats-server"), pytest.mark.takes(2)]

PAGES = (*PLACES, "automations", "automation", "why", "why-not", "why-event", "trace", "trace-of", "system")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with story(tmp_path_factory.mktemp("access")) as served:
        yield served


@pytest.fixture(scope="module")
def page(browser: Browser, served: Served, session: StorageState) -> Iterator[Page]:
    """One for all pages: a browser takes a second to open another."""
    with looking(browser, served.url, storage_state=session) as page:
        yield page


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
    }


@pytest.mark.parametrize("name", PAGES)
def test_no_page_has_a_serious_fault_for_who_reads_it_otherwise(
    page: Page, pages: Mapping[str, str], name: str
) -> None:
    page.goto(pages[name])
    assert faults_of_access(page) == []


def test_nor_has_one_that_says_what_came_of_a_rule_that_was_tried(page: Page, pages: Mapping[str, str]) -> None:
    page.goto(pages["try"])
    page.get_by_role("button", name="Try").click()
    expect(page.locator("#outcome")).to_be_visible()
    assert faults_of_access(page) == []


def test_nor_have_the_login_and_a_refusal(browser: Browser, served: Served, session: StorageState) -> None:
    with looking(browser, served.url) as page:
        page.goto("/login")
        assert faults_of_access(page) == []
    with looking(browser, served.url, refused=(404,), storage_state=session) as page:
        page.goto("/automation?name=big-ordr")
        assert faults_of_access(page) == []


def test_no_page_of_an_empty_system_has_one(browser: Browser, tmp_path: Path) -> None:
    with serving(tmp_path, {}) as empty, looking(browser, empty.url) as page:
        log_in(page)
        paths = ("events", "automations", "firings", "actions", "runs", "sources", "why", "trace", "try", "system")
        found = {}
        for path in paths:
            page.goto(f"/{path}")
            found[path] = faults_of_access(page)
    assert {path: faults for path, faults in found.items() if faults} == {}
