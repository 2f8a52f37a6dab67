"""What holds for every test: its layer's mark, its limit, what it requires of the machine, and an order in which the run ends soonest.

Marks that a test gives itself: `takes(seconds)`, about so long on an idle machine, when that is more than a second or two; `requires(...)`,
names of `tests.machine.REQUIREMENTS`. `quick` is given here, by folder, to what does not say that it takes longer.
"""

from __future__ import annotations

import gc
import signal
from collections import Counter
from collections.abc import Generator, Iterator
from typing import Any

import hypothesis
import pytest

from tests.machine import REQUIREMENTS, missing

PREFIX = "tests/"  #: of all ids
QUICK = ("unit", "conformance")  #: folders of pure tests
#: folders whose own files start nats-server; those in the folder of a room do not
SERVERS = ("contract", "integration", "acceptance")
MISSING = "requires "  #: begins the reason of a test that is skipped because the machine lacks something
#: limits are far above what a test takes, on a machine with a load of eight too: a limit is there for what hangs
LIMIT_S, LIMIT_FACTOR = 900.0, 100.0

# A busy machine is no fault of the code: examples have no deadline, and drawing them may take its time.
hypothesis.settings.register_profile(
    "whenthen",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    print_blob=True,
)
hypothesis.settings.load_profile("whenthen")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nothing-missing", action="store_true", help="fail when a test did not run")


def pytest_configure(config: pytest.Config) -> None:
    if (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):  # as in the background of a shell; what tests start would ignore it, too
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "quick: pure, a matter of milliseconds; given by folder, where `takes` is not")
    config.addinivalue_line("markers", "takes(seconds): about how long it takes on an idle machine")
    config.addinivalue_line("markers", "requires(*names): what the machine must have, see tests/machine.py")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collecting makes 400,000 objects that stay; the garbage collector looks at them neither meanwhile nor later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        layer = _layer(item)
        if layer in QUICK and item.get_closest_marker("takes") is None:
            item.add_marker("quick")
        if layer in SERVERS and not _in_room(item):
            item.add_marker(pytest.mark.requires("nats-server"))
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(max(LIMIT_S, LIMIT_FACTOR * _takes(item))))
        if unknown := set(_required(item)) - set(REQUIREMENTS):
            raise pytest.UsageError(f"{item.nodeid}: requires {unknown}; tests/machine.py knows {sorted(REQUIREMENTS)}")
    _arrange(items)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if lacking := [name for name in _required(item) if missing(name)]:
        remedies = "; ".join(f"{name} is missing ({REQUIREMENTS[name].remedy})" for name in lacking)
        pytest.skip(MISSING + remedies)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name what did not run, and why."""
    if reasons := _not_run(terminalreporter):
        terminalreporter.section("not run here")
        for reason, count in reasons.most_common():
            terminalreporter.line(f"not run here: {count} tests, {reason.removeprefix(MISSING)}", yellow=True)
        if config.getoption("nothing_missing"):
            terminalreporter.line("with --nothing-missing that is a failure", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("nothing_missing") and reporter is not None and _not_run(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _not_run(reporter: pytest.TerminalReporter) -> Counter[str]:
    """How many tests were skipped, by reason."""
    skipped = reporter.stats.get("skipped", [])
    return Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)


def _layer(item: pytest.Item) -> str:
    return _parts(item)[0]


def _in_room(item: pytest.Item) -> bool:
    """Whether it lies in a room's folder, as tests/integration/actions: one room, over sockets and processes of the test's own."""
    return len(_parts(item)) > 2


def _parts(item: pytest.Item) -> list[str]:
    """Its file, as a path from the folder of the tests; by the id, as pathlib takes seconds for thousands of tests."""
    return item.nodeid.partition("::")[0].removeprefix(PREFIX).split("/")


def _takes(item: pytest.Item) -> float:
    mark = item.get_closest_marker("takes")
    if mark is not None:
        return float(mark.args[0])
    if _layer(item) not in QUICK:
        return 0.1 if _in_room(item) else 0.5
    return 2.0 if hypothesis.is_hypothesis_test(getattr(item, "obj", None)) else 0.02


def _required(item: pytest.Item) -> Iterator[str]:
    for mark in item.iter_markers("requires"):
        yield from mark.args


def _arrange(items: list[pytest.Item]) -> None:
    """Long groups first, each on the first worker that is free; the pure ones last."""
    groups = {item: _group(item.nodeid) for item in items}
    weights: Counter[str] = Counter()
    for item, group in groups.items():
        weights[group] += _takes(item)
    items.sort(key=lambda item: (_layer(item) in QUICK, -weights[groups[item]], groups[item]))


def _group(nodeid: str) -> str:
    """What keeps tests together on one worker: the file of short tests, and of those that share a `whenthen serve`."""
    file = nodeid.partition("::")[0]
    _, *folders, _ = ("", *file.split("/"))
    return nodeid if folders in (["tests", "contract"], ["tests", "integration"]) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Workers of pytest-xdist take groups, whatever `--dist` says; `--no-loadscope-reorder` keeps the order of the groups."""
    from xdist.scheduler import LoadScopeScheduling  # not installed where the hook is not called

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid)

    return ByGroup(config, log)
