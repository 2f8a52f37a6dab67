"""Programs written for Prefect's SDK give here what they give there; of each, the import lines alone are changed.

`flow_programs` were given with their results; `further_programs`, `fringe_programs` and `from_manual_programs` were recorded with Prefect 3.9.0. A file of programs runs as a user runs a
script: in a process of its own, in an empty folder.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.patience import limit

HERE = Path(__file__).parent
RESULT = re.compile(r"RESULT (\w+): (.*)  \([\d.]+s\)")
#: the record of p25 is of a machine on which its second run looked for a kept result more than 15 seconds after the first one had kept it.
#: Prefect 3.9.0 gives this where it looks in time, in any time zone; where it can not keep results it gives the record too, but then
#: ((2, 2), (4, 4)) for p27, of which the record is ((1, 2), (2, 4)). To give the record always would be to ignore what is kept.
IN_TIME = {"p25_cache_key_fn_and_expiration": "(1, 1, 3, [1, 3])"}


def recorded(name: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
    return {**found, **{program: result for program, result in IN_TIME.items() if program in found}}


EXPECTED = {
    name: recorded(name) for name in ("flow_programs", "further_programs", "fringe_programs", "from_manual_programs")
}
CASES = [(name, program) for name, programs in EXPECTED.items() for program in programs]


class Programs:
    """The files as processes, started when the first result is asked for; p25 waits sixteen seconds, and does so alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._results: dict[str, str] = {}

    def start(self) -> None:
        first = [program[:3] for program in EXPECTED["flow_programs"] if program not in IN_TIME]
        files = {**{name: [] for name in EXPECTED}, "flow_programs": first, "flow_programs ": ["p25"]}
        for name, only in files.items():
            folder = self._folder / name.replace(" ", "-late")
            folder.mkdir()
            self._processes[name] = subprocess.Popen(
                [sys.executable, HERE / f"{name.strip()}.py", folder, *only],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )

    def result(self, file: str, program: str) -> str:
        key = f"{file} " if program in IN_TIME else file
        if key in self._processes:
            output, _ = self._processes.pop(key).communicate(timeout=limit(120))
            self._results.update(match.groups() for line in output.splitlines() if (match := RESULT.fullmatch(line)))
        return self._results.get(program, "nothing")

    def stop(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    running = Programs(tmp_path_factory.mktemp("programs"))
    running.start()
    yield running
    running.stop()


def test_there_are_as_many_programs_of_our_own() -> None:
    assert (len(EXPECTED["flow_programs"]), len(EXPECTED["further_programs"])) == (22, 99)


@pytest.mark.takes(25)
@pytest.mark.parametrize(("file", "program"), CASES, ids=[program for _, program in CASES])
def test_a_program_gives_what_was_recorded(programs: Programs, file: str, program: str) -> None:
    assert programs.result(file, program) == EXPECTED[file][program]
