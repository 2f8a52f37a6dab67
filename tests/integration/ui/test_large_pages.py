"""Pages of 10,000 automations: each is small."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.served import Served, serving

pytestmark = [pytest.mark.requires("nats-server"), pytest.mark.takes(20)]

MANY = 10_000
MOST_BYTES = 200_000
RULES = "automations:\n" + "".join(
    f"  - {{name: rule-{number}, description: Does {number}, tags: [t{number % 7}], trigger: {{expect: a{number}.b}}, "
    "actions: [do-nothing]}\n"
    for number in range(MANY)
)
PATHS = (
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
        served.emit("a7.b", {"text": "<b>&" * 100_000})
        yield served


@pytest.mark.parametrize("path", PATHS)
def test_no_page_is_large(served: Served, path: str) -> None:
    assert len(served.http.get(path).raise_for_status().content) < MOST_BYTES
