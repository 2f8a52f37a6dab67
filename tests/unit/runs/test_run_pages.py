"""Pages of runs: whole and in order in bounded memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tests.examples import up_to
from whenthen.runs.run_pages import RunPageCollector
from whenthen.runs.run_states import new_run
from whenthen.runs.stores import RunFilter, Stored
from whenthen.schemas.deployments import Deployment, FlowRun, RunState

NOW = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
DEPLOYMENT = Deployment.model_validate({"name": "d", "command": "true"})


def a_run(number: int, second: int) -> FlowRun:
    return new_run(DEPLOYMENT, key=f"k{number}", parameters={}, now=NOW + timedelta(seconds=second))


@up_to(80, usually=80)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 50)), max_size=40),
    st.integers(1, 7),
    st.integers(1, 200),
    st.randoms(use_true_random=False),
)
def test_the_pages_one_after_the_other_are_all_runs_in_order(
    given_runs: list[tuple[int, int]], limit: int, most_bytes: int, random: object
) -> None:
    runs = [(Stored(a_run(number, second), number + 1), size) for number, (second, size) in enumerate(given_runs)]
    random.shuffle(runs)  # type: ignore[attr-defined]
    sizes = {stored.run.id: size for stored, size in runs}
    seen: list[FlowRun] = []
    before: tuple[str, str] | None = None
    while True:
        collector = RunPageCollector(RunFilter(before=before), limit, most_bytes)
        for stored, size in runs:
            collector.take(stored, size)
        page = collector.page()
        assert len(page) <= limit
        assert len(page) <= 1 or sum(sizes[stored.run.id] for stored in page) <= most_bytes
        seen += [stored.run for stored in page]
        if not page.more:
            break
        assert page
        before = (page[-1].run.created, page[-1].run.id)
    assert seen == sorted((stored.run for stored, _ in runs), key=lambda run: (run.created, run.id), reverse=True)


def test_what_is_held_is_bounded_however_many_and_large_the_runs_are() -> None:
    collector = RunPageCollector(RunFilter(), 100, 1_000)
    for number in range(5_000):
        collector.take(Stored(a_run(number, number % 7), number), 300)
        assert len(collector._found) <= 8
    assert len(collector.page()) == 3


def test_a_later_revision_stands_in_for_the_one_before() -> None:
    collector = RunPageCollector(RunFilter(states=frozenset({RunState.SCHEDULED})), 10, 1_000)
    run = a_run(1, 1)
    collector.take(Stored(run, 1), 10)
    collector.take(Stored(a_run(2, 2), 2), 10)
    collector.take(Stored(replace(run, state=RunState.RUNNING), 3), 10)
    assert [stored.version for stored in collector.page()] == [2]
