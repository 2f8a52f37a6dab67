"""The history in SQLite and in a real PostgreSQL: every test of this folder that asks for `database` runs on both."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import Postgres, postgres
from whenthen.history import Database

_NAMES = itertools.count(1)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.requires("postgresql"))])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        opened = Database(tmp_path / "history.db")
    else:
        opened = Database(request.getfixturevalue("cluster").database(f"history_{next(_NAMES)}"))
    yield opened
    opened.close()
