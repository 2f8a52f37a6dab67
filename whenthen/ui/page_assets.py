"""The style, the script and the icon of the pages: files of this room, each at an address that changes with its content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

__all__ = ["ASSETS", "Asset"]

_FOLDER = Path(__file__).parent / "static"
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that pages refer to."""

    name: str
    type: str
    content: bytes
    url: str  #: its address, with the digest of the content


def _read(path: Path) -> Asset:
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:12]
    return Asset(path.name, _TYPES[path.suffix], content, f"/ui/{path.name}?v={digest}")


#: by name; at most a dozen files of some kilobytes
ASSETS: Final[Mapping[str, Asset]] = MappingProxyType(
    {path.name: _read(path) for path in sorted(_FOLDER.iterdir()) if path.suffix in _TYPES}
)
