"""Where the code of a deployment is, when it is not in the rules folder: a folder of the worker's machine, or a git repository. Data only.

A run of a repository's code clones it (`whenthen.checkout`). Meaning: docs/deployments.md, "Where the code is".
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from whenthen.schemas.base import CONTROL, Model, SecretRef

__all__ = ["CodePlace"]

#: `git@github.com:owner/name`: no dash in front, which git would read as an option
_SSH = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]*@[A-Za-z0-9][A-Za-z0-9.-]*:[^\s:][^\s]*")
_SCHEMES = ("https", "http", "ssh", "git", "file")
_REF = re.compile(r"[A-Za-z0-9_.@/+#=%{}-]+")


class CodePlace(Model):
    """One of a folder and a repository. Entry point, working_dir and python are then relative to it."""

    folder: str | None = Field(default=None, min_length=1, max_length=4096)
    """An absolute path on the worker's machine."""
    git: str | None = Field(default=None, min_length=1, max_length=4096)
    """The URL of a repository, which is cloned for each run: https://host/owner/name.git, or git@host:owner/name.git."""
    ref: str | None = Field(default=None, min_length=1, max_length=256)
    """A branch, a tag or a whole commit id of the repository; left out: its default branch."""
    token: SecretRef | None = None
    """By which an https repository admits the worker, `env:NAME` or `file:/path`; read where the run starts."""
    submodules: bool = False
    """Whether the submodules of the repository are cloned, too."""

    @field_validator("folder")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        if value is not None and (not PurePosixPath(value).is_absolute() or CONTROL.search(value)):
            raise ValueError(f"{value[:200]!r} is no absolute path; write one such as /srv/etl")
        return value

    @field_validator("git")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is None or _SSH.fullmatch(value):
            return value
        try:
            split = urlsplit(value)
            secret = split.password is not None or (split.scheme in ("http", "https") and split.username is not None)
        except ValueError as error:
            raise ValueError(f"{value[:200]!r} is no address: {error}") from None
        if split.scheme not in _SCHEMES or CONTROL.search(value) or " " in value:
            raise ValueError(
                f"{value[:200]!r} is no address of a repository; write https://host/owner/name.git or git@host:owner/name.git"
            )
        if secret:
            raise ValueError("the address holds a secret; leave it out and give `token: env:NAME`")
        return value

    @field_validator("ref")
    @classmethod
    def _name(cls, value: str | None) -> str | None:
        if value is not None and (value.startswith("-") or ".." in value or not _REF.fullmatch(value)):
            raise ValueError(f"{value[:200]!r} is no name of a branch or tag, nor a commit id")
        return value

    @model_validator(mode="after")
    def _one(self) -> CodePlace:
        if (self.folder is None) == (self.git is None):
            raise ValueError("code is in a `folder` or in `git`; write one of them")
        if self.git is None and (self.ref or self.token or self.submodules):
            raise ValueError("`ref`, `token` and `submodules` belong to a `git` repository")
        if self.token is not None and not (self.git or "").startswith("https://"):
            raise ValueError("a `token` is shown to an https address alone")
        return self

    @property
    def shown(self) -> str:
        """For people."""
        return self.folder or f"{self.git}{f' at {self.ref}' if self.ref else ''}"
