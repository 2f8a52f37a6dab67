"""The folder of an attempt: what the worker itself puts there costs no process to remove."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from whenthen.runs.attempts.folder_removal import remove_folder

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def entries(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_what_a_worker_itself_puts_there_is_removed_without_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("a process is started for a handful of files")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refused)
    folder = tmp_path / "attempt"
    (folder / "reports").mkdir(parents=True)
    for name in ("result.json", "imported.json", "parameters.json", "reports/lock", "reports/1-aaaaaaaa-000001.sent"):
        (folder / name).write_text("x")
    (folder / "link").symlink_to(tmp_path)
    await remove_folder(folder)
    assert entries(tmp_path) == []
    await remove_folder(folder)  # gone is gone


@pytest.mark.parametrize("spoilt", ["deep", "many"])
async def test_whatever_else_is_there_is_removed_too(tmp_path: Path, spoilt: str) -> None:
    folder = tmp_path / "attempt"
    if spoilt == "deep":
        (folder / "reports" / "deeper" / "still").mkdir(parents=True)
    else:
        (folder / "reports").mkdir(parents=True)
        for number in range(100):
            (folder / "reports" / str(number)).write_text("x")
    (folder / "kept").write_text("x")
    await remove_folder(folder)
    assert entries(tmp_path) == []
