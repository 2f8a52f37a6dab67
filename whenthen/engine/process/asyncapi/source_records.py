"""What is remembered of sources, as it is stored."""

from __future__ import annotations

from typing import Any

from pydantic import RootModel

__all__ = ["SourceStateMessage"]


class SourceStateMessage(RootModel[dict[str, Any] | list[Any]]):
    """For a folder `{"generation": n}` and lists of `[path, size, modified, inode]`; for an address the ids that it had."""
