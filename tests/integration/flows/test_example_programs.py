"""The programs of examples/flows run as a user runs them, in an empty folder, and print what they promise."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.flows.programs import ROOT, run_program

PROGRAMS = sorted((ROOT / "examples" / "flows").glob("*.py"))
PRINTED = {
    "etl_with_retries": ["orders of 01 March: Completed", "cents: 2490"],
    "map_over_files": [
        "left out: Task run encountered an exception ValueError: 0.txt: 0 words",
        "{'1.txt': 1, '2.txt': 2, '3.txt': 3, '4.txt': 4}",
    ],
    "ml_pipeline_with_caching": ["prepare 50", "train 0.05", "train 0.5", "y = 3.0 x + 2.0"],
    "subflows": ["north: 3, south: 6, sea: Flow run encountered an exception: ValueError: sea has no shops"],
    "transactions_that_roll_back": ["kept", "['page.html']", "undone: page.html", "Failed - []"],
}
LEFT = {"etl_with_retries": ["orders.db"], "ml_pipeline_with_caching": [".whenthen"]}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_an_example_prints_what_it_promises_and_leaves_what_it_should(program: Path, tmp_path: Path) -> None:
    ran = run_program(program, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    # lines of tasks side by side may be printed without the break between them
    assert [line for line in PRINTED[program.stem] if line not in ran.stdout] == [], ran.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == LEFT.get(program.stem, [])


def test_the_second_run_of_the_pipeline_computes_nothing(tmp_path: Path) -> None:
    program = ROOT / "examples" / "flows" / "ml_pipeline_with_caching.py"
    first, second = run_program(program, cwd=tmp_path), run_program(program, cwd=tmp_path)
    assert first.stdout.splitlines()[-1:] == second.stdout.splitlines() == ["y = 3.0 x + 2.0"]


def test_retries_are_told_in_the_log(tmp_path: Path) -> None:
    ran = run_program(ROOT / "examples" / "flows" / "etl_with_retries.py", cwd=tmp_path)
    assert [ran.stderr.count(f"Retry {number}/3") for number in (1, 2, 3)] == [1, 1, 0]


def test_the_readme_of_the_examples_names_each_program() -> None:
    text = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    assert [program.name for program in PROGRAMS if f"(flows/{program.name})" not in text] == []
    assert sorted(PRINTED) == [program.stem for program in PROGRAMS]
