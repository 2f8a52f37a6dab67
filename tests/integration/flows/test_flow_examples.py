"""docs/flows.md: every example is a program that prints what the page says, by itself, in an empty folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.integration.flows.programs import ROOT, run_program
from tests.integration.flows.served_scripts import serving_program
from tests.integration.served import TOKEN, serving

TEXT = (ROOT / "docs" / "flows.md").read_text(encoding="utf-8")
AT = "http://127.0.0.1:4280"  #: where a server is in the page
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


def examples(kind: str) -> list[object]:
    """Each python block with the block of this kind behind it, named after its section: `text` of programs that end, `console` of those that need
    a server or serve."""
    found: list[object] = []
    blocks = list(BLOCK.finditer(TEXT))
    assert [block[1] for block in blocks[::2]] == ["python"] * (len(blocks) // 2)
    for program, output in zip(blocks[::2], blocks[1::2], strict=True):
        if output[1] != kind:
            continue
        section = re.findall(r"^#+ (.*)$", TEXT[: program.start()], re.M)[-1]
        found.append(
            pytest.param(program[2], output[2], id=f"{section}, line {TEXT.count(chr(10), 0, program.start()) + 1}")
        )
    return found


@pytest.mark.parametrize(("program", "output"), examples("text"))
def test_an_example_prints_what_the_page_says(tmp_path: Path, program: str, output: str) -> None:
    file = tmp_path / "example.py"
    file.write_text(program, encoding="utf-8")
    done = run_program(file, cwd=tmp_path)
    assert done.stdout == output, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.takes(5)
@pytest.mark.parametrize(("program", "output"), examples("console"))
def test_an_example_that_serves_or_deploys_says_what_the_page_says(tmp_path: Path, program: str, output: str) -> None:
    file = tmp_path / "example.py"
    file.write_text(program, encoding="utf-8")
    if "serve(" in program:
        with serving_program(file, cwd=tmp_path) as served:
            said = [line for line in served.output.splitlines() if line.startswith(("+", "revision", "serving"))]
            assert "\n".join(said).replace(served.url, AT) + "\n" == output
            assert served.interrupt() == 0
    else:
        with serving(tmp_path, {}) as server:
            done = run_program(file, cwd=tmp_path, WHENTHEN_URL=server.url, WHENTHEN_API_TOKEN=TOKEN)
            assert done.stdout.replace(server.url, AT) == output, done.stderr


def test_every_setting_stands_in_the_page() -> None:
    read = {
        name
        for path in (ROOT / "whenthen" / "flows").rglob("*.py")
        for name in re.findall(r'"(WHENTHEN_[A-Z_]+)"', path.read_text(encoding="utf-8"))
    }
    assert {name for name in read if f"`{name}`" not in TEXT} == set()
