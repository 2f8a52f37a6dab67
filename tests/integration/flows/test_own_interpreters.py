"""Deployments with an interpreter of their own: with the wheel and pydantic alone it is enough, and what it lacks is said."""

from __future__ import annotations

import fcntl
import importlib.util
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.contract.test_flow_worker import House
from tests.patience import limit, until
from whenthen.runs.memory_stores import memory_stores
from whenthen.schemas.deployments import FlowRun, RunState

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]
#: pydantic, and what that needs
LIBRARIES = ("pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection")
FLOW = """
from whenthen import flow, get_run_logger, task
from whenthen.artifacts import create_markdown_artifact
from whenthen.events import emit_event

@task(retries=1, retry_delay_seconds=0)
def double(n: int) -> int:
    get_run_logger().warning("doubling %s", n)
    return 2 * n

@flow
def main(n: int = 1):
    import sys
    emit_event("doubled", {"id": "n"}, payload={"n": n})
    create_markdown_artifact("# done", key="done")
    total = sum(double.map([n, n]).result())
    return [total, sorted({name.partition(".")[0] for name in sys.modules} & {"orjson", "faststream", "nats", "yaml"})]
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def house(tmp_path: Path) -> House:
    root = tmp_path / "rules"
    root.mkdir()
    (root / "flows.py").write_text(FLOW)

    async def eventually(condition: Callable[[], Awaitable[object]], *, within_s: float = 30.0) -> None:
        await until(condition, within_s=within_s, every_s=0.02)

    return House(memory_stores(), root, "pool", eventually)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it is installed, unpacked."""
    folder = tmp_path_factory.getbasetemp() / "own-interpreters"
    folder.mkdir(exist_ok=True)
    unpacked = folder / "unpacked"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not unpacked.exists():
            words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
            subprocess.run(words, cwd=ROOT, check=True, capture_output=True, timeout=limit(60))
            (built,) = folder.glob("*.whl")
            with zipfile.ZipFile(built) as archive:
                archive.extractall(unpacked)
    return unpacked


def environment(house: House, *, package: Path | None, libraries: tuple[str, ...] = LIBRARIES) -> Path:
    """A virtual environment in the rules folder; gives its site-packages."""
    venv.create(house.root / ".venv", with_pip=False)
    (found,) = (house.root / ".venv" / "lib").glob("python*/site-packages")
    for name in libraries:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        origin = Path(spec.origin)
        source = origin.parent if origin.name == "__init__.py" else origin
        (found / source.name).symlink_to(source)
    if package is not None:
        shutil.copytree(package, found, dirs_exist_ok=True)
    return found


async def ended(house: House, **fields: object) -> FlowRun:
    house.deploy(**({"entrypoint": "flows.py:main", "python": ".venv/bin/python", "retries": 2} | fields))
    run = await house.start(n="21")
    async with house.worker():
        return await house.ends(run)


@pytest.mark.takes(10)
async def test_the_wheel_and_pydantic_alone_are_enough_for_flows_and_tasks(house: House, wheel: Path) -> None:
    environment(house, package=wheel)
    run = await ended(house)
    assert (run.state, run.result, run.message) == (RunState.COMPLETED, [84, []], "")
    page = await house.stores.task_runs.page(run.id, after=0, limit=100)
    assert [(one.of, one.state) for one in page.task_runs if one.kind == "task"] == [("double", "COMPLETED")] * 2
    lines = [line.text for line in await house.stores.logs.read(run.id) if line.stream == "log"]
    assert "doubling 21" in lines


async def test_an_interpreter_without_the_package_fails_once_and_says_how_to_install_it(house: House) -> None:
    environment(house, package=None, libraries=())
    run = await ended(house)
    assert (run.state, run.attempt) == (RunState.FAILED, 1)
    python = house.root / ".venv" / "bin" / "python"
    assert run.message == (
        f"the interpreter {python} lacks the package whenthen, which the code of this deployment imports; "
        f"install it there: {python} -m pip install whenthen"
    )


async def test_a_module_of_somebody_elses_that_is_missing_is_an_error_of_the_program(house: House) -> None:
    environment(house, package=None, libraries=())
    (house.root / "flows.py").write_text("import whenthenish\ndef main(n): pass\n")
    run = await ended(house, retries=1, retry_delay=0)
    assert (run.state, run.attempt, run.message) == (
        RunState.FAILED,
        2,
        "ModuleNotFoundError: No module named 'whenthenish'",
    )


@pytest.mark.takes(10)
async def test_another_version_of_the_protocol_is_refused_before_the_flow_begins(house: House, wheel: Path) -> None:
    packages = environment(house, package=wheel)
    (channel,) = packages.rglob("worker_channel.py")
    channel.write_text(channel.read_text().replace("PROTOCOL: Final = 1 ", "PROTOCOL: Final = 2 "))
    run = await ended(house)
    assert (run.state, run.attempt) == (RunState.FAILED, 1)
    assert "it speaks protocol 2, the worker (whenthen " in run.message
    assert "install one version of whenthen for both" in run.message
    assert await house.text(run, "log") == []


async def test_a_package_that_no_worker_can_run_is_told(house: House) -> None:
    packages = environment(house, package=None, libraries=())
    module = packages / "whenthen" / "flows" / "definitions" / "flow_definition.py"
    module.parent.mkdir(parents=True)
    module.write_text("class Flow:\n    def __init__(self, fn): pass\n    def __call__(self, **given): pass\n")
    (packages / "whenthen" / "__init__.py").write_text(
        "__version__ = '0.0.1'\nfrom whenthen.flows.definitions.flow_definition import Flow as flow\n"
    )
    (house.root / "flows.py").write_text("from whenthen import flow\n@flow\ndef main(n): pass\n")
    run = await ended(house)
    assert (run.state, run.attempt) == (RunState.FAILED, 1)
    assert run.message.startswith("whenthen 0.0.1 of the interpreter ")
    assert "can not be run by this worker; install the worker's version there" in run.message


async def test_an_interpreter_that_is_too_old_is_told(house: House) -> None:
    old = house.root / "old-python"
    old.write_text(
        f"#!{sys.executable}\n"
        "import runpy, sys\n"
        "sys.version_info = (3, 9, 18, 'final', 0)\n"
        "del sys.argv[0]\n"
        "sys.path.insert(0, '')\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    old.chmod(0o755)
    run = await ended(house, python="./old-python")
    assert (run.state, run.attempt) == (RunState.FAILED, 1)
    assert run.message.endswith("is Python 3.9.18; whenthen needs 3.11 or newer")


async def test_a_program_that_is_no_interpreter_fails_the_run(house: House) -> None:
    (house.root / "tool").write_text("#!/bin/sh\necho 'no Python here' >&2\nexit 5\n")
    (house.root / "tool").chmod(0o755)
    run = await ended(house, python="./tool", retries=0)
    assert (run.state, run.exit_code, run.message) == (RunState.FAILED, 5, "exit code 5: no Python here")
