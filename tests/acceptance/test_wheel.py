"""The wheel has what users need, and the commands of these tests come from it."""

from __future__ import annotations

import subprocess
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

from .conftest import environment, installed_python
from .wheel import ROOT


@pytest.fixture
def wheel() -> ZipFile:
    (found,) = Path(installed_python()).parents[2].glob("whenthen-*.whl")
    return ZipFile(found)


def test_the_command_under_test_is_the_one_of_the_wheel() -> None:
    words = [installed_python(), "-c", "import whenthen; print(whenthen.__file__)"]
    done = subprocess.run(words, cwd=ROOT.parent, env=environment(), capture_output=True, text=True, check=True)
    package = Path(done.stdout.strip())
    assert package.is_relative_to(Path(installed_python()).parents[1])
    assert not package.is_relative_to(ROOT)


def test_every_file_of_the_package_is_in_the_wheel_and_nothing_else(wheel: ZipFile) -> None:
    listed = subprocess.run(["git", "ls-files", "whenthen"], cwd=ROOT, capture_output=True, text=True, check=True)
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}


def test_types_are_announced_and_the_metadata_leads_to_the_project(wheel: ZipFile) -> None:
    assert "whenthen/py.typed" in wheel.namelist()
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(wheel.read(name).decode())
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert {one.partition(",")[0] for one in metadata.get_all("Project-URL", [])} >= {"Homepage", "Issues", "Changelog"}
    assert metadata["License-Expression"] == "Apache-2.0"
