"""docs/flows.md: every example is a program that prints what the page says, by itself, in an empty folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.integration.flows.programs import ROOT, run_program

TEXT = (ROOT / "docs" / "flows.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


def examples() -> list[object]:
    """Each python block with the text block behind it, named after its section."""
    found: list[object] = []
    blocks = list(BLOCK.finditer(TEXT))
    assert [block[1] for block in blocks] == ["python", "text"] * (len(blocks) // 2)
    for program, output in zip(blocks[::2], blocks[1::2], strict=True):
        section = re.findall(r"^#+ (.*)$", TEXT[: program.start()], re.M)[-1]
        found.append(
            pytest.param(program[2], output[2], id=f"{section}, line {TEXT.count(chr(10), 0, program.start()) + 1}")
        )
    return found


@pytest.mark.parametrize(("program", "output"), examples())
def test_an_example_prints_what_the_page_says(tmp_path: Path, program: str, output: str) -> None:
    file = tmp_path / "example.py"
    file.write_text(program, encoding="utf-8")
    done = run_program(file, cwd=tmp_path)
    assert done.stdout == output, done.stderr
    assert "Traceback" not in done.stderr


def test_every_setting_stands_in_the_page() -> None:
    read = {
        name
        for path in (ROOT / "whenthen" / "flows").rglob("*.py")
        for name in re.findall(r'"(WHENTHEN_[A-Z_]+)"', path.read_text(encoding="utf-8"))
    }
    assert {name for name in read if f"`{name}`" not in TEXT} == set()
