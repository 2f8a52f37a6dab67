"""Where a flow comes from that is not written in this program: a folder or a git repository, as `flow.from_source` takes them. Objects have the
names of Prefect's `runner.storage`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from whenthen.flows.argument_kinds import TEXT, TRUTH, check
from whenthen.flows.flow_errors import ConfigurationError
from whenthen.flows.unsupported import not_supported

__all__ = ["CodeOrigin", "GitRepository", "LocalStorage", "storage_of"]

REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:.+")
_SSH = re.compile(r"[^@\s/:]+@[^\s:/]+:\S+")
_GIT = ("http", "https", "ssh", "git")
_OPTIONS = {"url": TEXT, "branch": TEXT.or_none, "commit_sha": TEXT.or_none, "include_submodules": TRUTH}


@dataclass(frozen=True, kw_only=True)
class CodeOrigin:
    """Where a flow was loaded from."""

    entrypoint: str  #: relative to `code`
    code: dict[str, Any]  #: as `code` of a deployment in the rules


@dataclass(kw_only=True)
class LocalStorage:
    """A folder of this machine, and of those whose workers run the flow."""

    path: str

    def as_code(self) -> dict[str, Any]:
        return {"folder": str(Path(self.path).absolute())}


@dataclass
class GitRepository:
    """A git repository, cloned for each run. A token is given as a reference, which is read where it is cloned: `env:NAME` or `file:/path`."""

    url: str
    credentials: Mapping[str, Any] | None = field(default=None, repr=False)
    name: str | None = None
    branch: str | None = None
    commit_sha: str | None = None
    include_submodules: bool = False
    pull_interval: int | None = 60
    directories: list[str] | None = None

    def __post_init__(self) -> None:
        check("GitRepository", _OPTIONS, vars(self))
        if self.branch is not None and self.commit_sha is not None:
            raise ValueError("GitRepository is given a branch or a commit_sha, not both")
        if self.directories:
            not_supported("GitRepository(directories=...)")
        if self.credentials is not None:
            self._token()

    def as_code(self) -> dict[str, Any]:
        code: dict[str, Any] = {"git": self.url}
        if ref := self.branch or self.commit_sha:
            code["ref"] = ref
        if token := self._token():
            code["token"] = token
        if self.include_submodules:
            code["submodules"] = True
        return code

    def _token(self) -> str | None:
        if self.credentials is None:
            return None
        found = self.credentials.get("access_token") if isinstance(self.credentials, Mapping) else None
        if not isinstance(found, str) or not REFERENCE.fullmatch(found):
            raise ConfigurationError(
                'the credentials of a GitRepository are a reference, never the token itself: {"access_token": "env:GIT_TOKEN"}, '
                "which is read where the code is cloned"
            )
        return found


def storage_of(source: Any) -> LocalStorage | GitRepository:
    """What the `source` of `flow.from_source` means.

    Raises:
        NotSupported: it is a bucket or anything else.
    """
    if isinstance(source, (LocalStorage, GitRepository)):
        return source
    written = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
    if isinstance(written, str):
        split = urlsplit(written)
        if split.scheme == "file" and not written.endswith(".git"):
            return LocalStorage(path=split.path)
        if split.scheme in (*_GIT, "file") or _SSH.fullmatch(written):
            return GitRepository(written)
        if "://" not in written:
            return LocalStorage(path=written)
    not_supported("Flow.from_source(<bucket>)", f"{source!r:.100}")
