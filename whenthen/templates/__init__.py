"""Which value or text does a template render to? JSONPath and Jinja, compiled once, rendered with types kept and a budget. Pure.

Used by `sources`, `triggers` and `actions`. Meaning: docs/templates.md.
"""

from __future__ import annotations

from whenthen.templates.paths import (
    Path,
    compile_path,
)
from whenthen.templates.scalar_text import (
    scalar_text,
)
from whenthen.templates.text import (
    Text,
    compile_text,
    lookups_of,
)
from whenthen.templates.values import (
    Value,
    compile_value,
)

__all__ = [
    "Path",
    "Text",
    "Value",
    "compile_path",
    "compile_text",
    "compile_value",
    "lookups_of",
    "scalar_text",
]
