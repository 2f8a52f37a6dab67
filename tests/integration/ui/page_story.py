"""A server to which something has happened, and its pages by name: for the tests of the pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Page, expect

from tests.integration.served import TOKEN, Served, serving
from tests.patience import eventually

__all__ = ["EVIL", "PLACES", "answered", "event_id", "hook", "log_in", "places", "story"]

EVIL = "<img src=x onerror=alert(1)>\u202egnp.exe\x1b[31m"
RULES = """
automations:
  - name: big-order
    description: Large orders that were paid
    trigger: {expect: order.paid, match: {id: "order.*"}, when: event.payload.total > 100, for_each: customer}
    actions:
      - emit-event: order.checked
        resource: {id: "{{ event.resource.id }}"}
      - run-deployment: load
        parameters: {order: "{{ event.resource.id }}"}
  - name: teller
    trigger: {expect: order.checked}
    actions:
      - call-webhook: http://127.0.0.1:9/tell
        retry: {attempts: 1}
deployments:
  - name: load
    command: [sh, -c, 'echo "loads $WHENTHEN_PARAMETERS"; echo trouble >&2']
  - name: broken
    command: [sh, -c, 'echo breaks; exit 3']
  - name: slow
    command: [sh, -c, 'echo begins; sleep 300']
  - name: counting
    entrypoint: "flows.py:count"
webhooks:
  - name: shop
    verify: none
    map:
      event: "order.{{ body.kind }}"
      id: $.body.id
      resource: {id: "order.{{ body.number }}", customer: $.body.customer}
      payload: $.body
  - name: signed
    verify: {type: bearer, token: env:WHENTHEN_TEST_UNSET}
    map: {event: signed.came, resource: {id: one}}
"""


FLOWS = """
def count():
    from whenthen import task

    @task
    def fetch(page):
        return page

    @task
    def add(pages):
        return sum(pages)

    return add([fetch(page) for page in range(3)])
"""


@contextmanager
def story(folder: Path) -> Iterator[Served]:
    """A server to which something has happened."""
    with serving(folder, {"shop.yaml": RULES, "flows.py": FLOWS}) as served:
        hook(served, "small", customer="ada", total=5)
        for number in range(4):
            hook(served, f"large-{number}", customer=f"customer {number}", total=500 + number)
        hook(served, "evil", customer="<img src=x onerror=alert(1)>", total=900, note=EVIL)
        served.http.post("/hooks/shop", json={"kind": "paid"})
        served.http.post("/hooks/signed", json={}, headers={"Authorization": "Bearer wrong"})
        for name in ("broken", "slow"):
            served.http.post(f"/api/deployments/{name}/run", json={"parameters": {"note": EVIL}}).raise_for_status()
        served.http.post("/api/deployments/counting/run", json={}).raise_for_status()
        eventually(lambda: served.get("/api/actions/dead/count")["count"] == 5, within_s=30)
        wanted = {"broken": "Failed", "slow": "Running", "load": "Completed", "counting": "Completed"}
        eventually(lambda: {run["deployment"]: run["state"] for run in served.get("/api/runs")} == wanted, within_s=30)
        # pages of what has ended are not asked for again: the history has to know it all before they are looked at
        eventually(lambda: served.get("/api/status")["history"]["messages"] == 0, within_s=30)
        yield served


def hook(served: Served, id: str, **body: object) -> None:
    """Send what the shop would."""
    answer = served.http.post("/hooks/shop", json={"kind": "paid", "id": id, "number": id, **body})
    assert answer.status_code == 202, answer.text


def event_id(served: Served, number: str) -> str:
    """The id under which an order of the shop is stored."""
    found = served.get(f"/api/events?event=order.paid&resource=order.{number}")
    return str(found[0]["id"])


#: pages of what happened, by name
PLACES = (
    "events", "event", "recorded", "firings", "firing", "actions", "dead", "dead-drop", "runs", "run", "run-tasks", "run-slow", "sources", "try",
)  # fmt: skip


def places(served: Served) -> Mapping[str, str]:
    """The pages of `PLACES`."""
    runs = {run["deployment"]: run["id"] for run in served.get("/api/runs")}
    small, large = event_id(served, "small"), event_id(served, "large-1")
    firing = next(each["id"] for each in served.get("/api/firings") if each["automation"] == "teller")
    found = {
        "events": "/events",
        "event": f"/event?id={large}",
        "recorded": f"/recorded?automation=big-order&event={small}",
        "firings": "/firings",
        "firing": f"/firing?id={firing}",
        "actions": "/actions",
        "dead": "/actions?outcome=dead",
        "dead-drop": "/actions/dead?do=drop",
        "runs": "/runs",
        "run": f"/run?id={runs['load']}",
        "run-tasks": f"/run?id={runs['counting']}",
        "run-slow": f"/run?id={runs['slow']}",
        "sources": "/sources",
        "try": f"/try?automation=big-order&event={large}",
    }
    assert tuple(found) == PLACES
    return found


def answered(ask: Callable[..., httpx.Response], path: str, **options: Any) -> httpx.Response:
    """What a page answers once NATS answers it: on a busy machine that may take longer than a server waits."""

    def look() -> httpx.Response | None:
        answer = ask(path, **options)
        return None if answer.status_code == 503 else answer

    found = eventually(look)
    assert found is not None
    return found


def log_in(page: Page, path: str = "/") -> None:
    page.goto(path)
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("navigation", name="Pages")).to_be_visible()
