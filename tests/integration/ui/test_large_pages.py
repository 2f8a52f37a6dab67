"""Pages of 10,000 automations and of large events: each is small. How soon they are there: `benchmarks/pages.py`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.served import Served, serving
from tests.integration.ui.page_story import answered
from tests.patience import eventually

pytestmark = [pytest.mark.requires("nats-server"), pytest.mark.takes(20)]

MANY = 10_000
MOST_BYTES = 200_000
RULES = "automations:\n" + "".join(
    f"  - {{name: rule-{number}, description: Does {number}, tags: [t{number % 7}], trigger: {{expect: a{number}.b}}, "
    "actions: [do-nothing]}\n"
    for number in range(MANY)
)
RULES += "deployments:\n" + "".join(
    f"  - {{name: job-{number}, command: echo {number}, work_pool: pool-{number % 200}}}\n" for number in range(1000)
)
RULES += "webhooks:\n" + "".join(
    f"  - {{name: hook-{number}, verify: none, map: {{event: a{number}.c, resource: {{id: $.body.id}}}}}}\n"
    for number in range(500)
)
PATHS = (
    "/events",
    "/event?id=large",
    "/firings",
    "/firings?automation=rule-7",
    "/actions",
    "/runs",
    "/sources",
    "/sources?text=hook-49",
    "/sources/resend",
    "/try",
    "/try?automation=rule-7&event=large",
    "/why?automation=rule-7&event=large",
    "/why?event=large",
    "/trace?id=large",
    "/automations",
    "/automations?page=57",
    "/automations?text=RULE-99",
    "/automations?state=active&tag=t3",
    "/automation?name=rule-7",
    "/why",
    "/why?automation=rule-7",
    "/trace",
    "/system",
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("large"), {"many.yaml": RULES}) as served:
        served.emit("a7.b", {"text": "<b>&" * 100_000}, id="large")
        for number in range(120):
            served.emit(
                f"a{number}.b", {"texts": ["<b>&" * 100] * 50}, resource={"id": "<b>&" * 1000, "label": "x" * 4000}
            )
            served.http.post(f"/hooks/hook-{number}", json={"text": "<b>&" * 1000})
        eventually(lambda: sum(served.fired().values()) == 121)
        yield served


@pytest.mark.parametrize("path", PATHS)
def test_no_page_is_large(served: Served, path: str) -> None:
    answer = answered(served.http.get, path).raise_for_status()
    assert len(answer.content) < MOST_BYTES
