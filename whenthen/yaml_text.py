"""Values as YAML text that is read back as the same. Pure.

Called where deployments that come from Python are written as rules.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["flow_style", "list_item"]

NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def flow_style(value: Any) -> str:
    """A value as JSON that YAML reads as the same: it allows fewer characters, and takes 1e+16 for a text."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{flow_style(str(key))}: {flow_style(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(flow_style, value)) + "]"
    if isinstance(value, float) and math.isfinite(value):
        digits, e, exponent = repr(value).partition("e")
        return f"{digits}.0e{exponent}" if e and "." not in digits else repr(value)
    written = json.dumps(value, default=str, ensure_ascii=False)
    return NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", written)


def list_item(fields: Mapping[str, Any]) -> str:
    """A mapping as an item of a list, a line for each field; a list of mappings has a line for each of these, too."""
    lines = []
    for name, value in fields.items():
        if isinstance(value, (list, tuple)) and value and all(isinstance(one, Mapping) for one in value):
            lines += [f"{name}:", *(f"  - {flow_style(one)}" for one in value)]
        else:
            lines.append(f"{name}: {flow_style(value)}")
    return "- " + "\n  ".join(lines)
