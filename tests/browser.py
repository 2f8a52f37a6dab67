"""Debian's chromium, driven by playwright. What a page logs as an error, and what it asks of another server, fails the test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import Any, Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.patience import limit

__all__ = ["chromium", "faults_of_access", "looking"]

expect.set_options(timeout=limit(5) * 1000)

_WORDS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser. While it is there no test of the same process may run an event loop."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=_WORDS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def looking(browser: Browser, url: str, *, refused: tuple[int, ...] = (), **options: Any) -> Iterator[Page]:
    """A page of a browser that knows no cookie. Raises AssertionError at the end where something was logged as an error, was not answered
    with success (but for the statuses in `refused`), or was asked of another server than `url`."""
    context = browser.new_context(base_url=url, **options)
    context.set_default_timeout(limit(10) * 1000)
    wrong: list[str] = []
    home = urlsplit(url).netloc

    def watch(page: Page) -> None:
        page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))

    def answered(response: Any) -> None:
        if response.status >= 400 and response.status not in refused:
            wrong.append(f"{response.status} {response.url}")

    def asked(request: Any) -> None:
        if urlsplit(request.url).netloc != home:
            wrong.append(f"asked of another server: {request.url}")

    context.on("page", watch)
    context.on("response", answered)
    context.on("request", asked)
    try:
        yield context.new_page()
    finally:
        context.close()
    # the browser says of each refused page, and of what a test breaks, that it failed to load
    told = [text for text in wrong if not text.startswith("Failed to load resource")]
    assert told == []


def faults_of_access(page: Page) -> list[str]:
    """What axe finds on a page by the rules of WCAG 2.2 AA and its own advice that somebody may not get past, on a wide screen and on a phone,
    in light and in dark: each fault with a place of it. Details are opened.

    The text of axe runs in the page, as the console of the browser would do it: the content security policy stays what it is.
    """
    page.evaluate(_axe())
    page.locator("details").evaluate_all("all => all.forEach(each => { each.open = true; })")
    found = []
    for width in _WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for scheme, rules in _SCHEMES.items():
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # no colour on its way to another
            report = page.evaluate("rules => axe.run(document, rules)", {**_REPORT, **rules})
            found += [
                f"{scheme}, {width}: {fault['impact']}: {fault['id']}, {fault['help']}: {fault['nodes'][0]['html'][:300]} "
                f"{fault['nodes'][0]['failureSummary']}"
                for fault in report["violations"]
                if fault["impact"] in ("serious", "critical")
            ]
    return found


_WIDTHS = (1400, 390)
#: styles alone differ in the other one, and of these only colours: the rules that look at them
_SCHEMES: Mapping[Literal["light", "dark"], dict[str, Any]] = {
    "light": {},
    "dark": {"runOnly": ["color-contrast", "link-in-text-block"]},
}
_REPORT = {"resultTypes": ["violations"], "preload": False}


@cache
def _axe() -> str:
    return files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
