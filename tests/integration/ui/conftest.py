"""A browser, and who looks through it, for the tests of a file; each file has a server of its own, `served`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, StorageState

from tests.browser import chromium, looking
from tests.integration.served import Served
from tests.integration.ui.page_story import log_in


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def session(browser: Browser, served: Served) -> StorageState:
    """The cookie of somebody who has logged in; of one address a server takes ten logins a minute."""
    with looking(browser, served.url) as page:
        log_in(page)
        return page.context.storage_state()


@pytest.fixture
def page(browser: Browser, served: Served, session: StorageState) -> Iterator[Page]:
    """A page that is logged in."""
    with looking(browser, served.url, storage_state=session) as page:
        yield page
