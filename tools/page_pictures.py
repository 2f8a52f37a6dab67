"""Pictures of all pages during the demo: `python -m tools.page_pictures FOLDER`. Needs chromium, as the tests of the pages do."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext

from tests.browser import chromium

SIZES = (1400, 390)
SCHEMES = ("light", "dark")
WITHIN_S = 90
_ADDRESS = re.compile(r"^\s+(http://\S+/login\?\S+)", re.MULTILINE)


def main() -> None:
    """Write `<page>-<light or dark>-<width>.png` of each page into the folder."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "pictures")
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "whenthen.cli.main", "demo", "--stay"]
    demo = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        address = _address(demo)
        with chromium() as browser:
            number = _draw(browser, address, folder)
    finally:
        demo.send_signal(signal.SIGINT)
        demo.wait(WITHIN_S)
    print(f"{number} pictures are in {folder}")


def _address(demo: subprocess.Popen[str]) -> str:
    """Where the demo's server logs a browser in."""
    assert demo.stdout is not None
    told = ""
    for line in demo.stdout:
        told += line
        if found := _ADDRESS.search(told):
            return found[1]
    raise SystemExit(f"the demo ended before it said where its pages are:\n{told}")


def _draw(browser: Browser, address: str, folder: Path) -> int:
    home, _, login = address.partition("/login")
    context = browser.new_context(base_url=home)
    context.new_page().goto(f"/login{login}", wait_until="networkidle")
    state, number = context.storage_state(), 0
    places = _places(context)
    for scheme in SCHEMES:
        for width in SIZES:
            looking = browser.new_context(
                base_url=home, storage_state=state, viewport={"width": width, "height": 900},
                color_scheme="dark" if scheme == "dark" else "light",
            )  # fmt: skip
            page = looking.new_page()
            for name, path in places.items():
                page.goto(path, wait_until="load")
                if name == "try":
                    page.get_by_role("button", name="Try").click()
                    page.locator("#outcome").wait_for()
                page.screenshot(path=folder / f"{name}-{scheme}-{width}.png", full_page=True)
                number += 1
            looking.close()
    return number


def _places(context: BrowserContext) -> dict[str, str]:
    """Every page, with something of the demo's story in it."""

    def first(path: str, **fields: str) -> dict[str, str]:
        items = context.request.get(path).json()
        fitting = [each for each in items if all(each[name] == value for name, value in fields.items())]
        return (fitting or items)[0]  # type: ignore[no-any-return]

    fired = context.request.get("/api/firings?limit=100").json()
    firing = next(each for each in fired if each["event"] is not None)
    run = first("/api/runs", state="Completed")
    event, automation = firing["event"], firing["automation"]
    return {
        "events": "/events",
        "event": f"/event?id={event}",
        "recorded": f"/recorded?firing={firing['id']}",
        "automations": "/automations",
        "automation": f"/automation?name={automation}",
        "firings": "/firings",
        "firing": f"/firing?id={firing['id']}",
        "actions": "/actions",
        "runs": "/runs",
        "run": f"/run?id={run['id']}",
        "sources": "/sources",
        "why": f"/why?automation={automation}&event={event}",
        "trace": f"/trace?id={event}",
        "try": f"/try?automation={automation}&event={event}",
        "system": "/system",
    }


if __name__ == "__main__":
    main()
