"""docs/settings.md is what the settings class says."""

from __future__ import annotations

from pathlib import Path

from tools.settings_page import settings_page
from whenthen.engine.process import Settings

PAGE = Path(__file__).parents[4] / "docs" / "settings.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == settings_page(), "run `make docs`"


def test_every_setting_has_a_row_with_its_environment_variable_and_its_meaning() -> None:
    rows = {line.split("|")[1].strip(" `"): line.split("|")[2:] for line in settings_page().splitlines() if "|" in line}
    for name in Settings.model_fields:
        variable, default, value, meaning = (cell.strip() for cell in rows[name][:4])
        assert variable == f"`WHENTHEN_{name.upper()}`"
        assert default
        assert value
        assert meaning.endswith(".")
