"""What the history needs is loaded by who has the role alone."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.takes(2)
@pytest.mark.parametrize("module", ["whenthen", "whenthen.cli.main", "whenthen.engine.process.server"])
def test_no_database_is_loaded_with(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'sqlalchemy', 'alembic', 'psycopg'}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
