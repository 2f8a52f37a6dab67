"""The names of the files of a set of rules that are deployments registered by scripts. Pure.

`.registered/<serve or deploy>/<the script>/<the deployment>.yaml`, each part encoded as in a URL. No file of a rules folder has such a name,
as hidden folders are not read.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote, unquote

__all__ = ["RegisteredName", "is_registered", "registered_name"]

_FOLDER = ".registered/"
_ENDING = ".yaml"
_SERVED, _DEPLOYED = "serve", "deploy"


class RegisteredName(NamedTuple):
    """What the name of a file says."""

    deployment: str
    script: str  #: a path on the machine of the script; empty when it has none
    served: bool  #: whether the script works for it, too

    def file(self) -> str:
        """The name of the file."""
        kind = _SERVED if self.served else _DEPLOYED
        return f"{_FOLDER}{kind}/{quote(self.script, safe='') or '-'}/{quote(self.deployment, safe='')}{_ENDING}"


def is_registered(file: str) -> bool:
    """Whether a file of this name is a deployment that a script has registered."""
    return file.startswith(_FOLDER)


def registered_name(file: str) -> RegisteredName | None:
    """What the name of a file says; None when it is none of a registered deployment."""
    parts = file.removesuffix(_ENDING).split("/")
    if not is_registered(file) or len(parts) != 4:
        return None
    script = "" if parts[2] == "-" else unquote(parts[2])
    return RegisteredName(unquote(parts[3]), script, parts[1] == _SERVED)
