"""Where the code of a deployment may be."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from whenthen.schemas.code_places import CodePlace


@pytest.mark.parametrize(
    "written",
    [
        {"folder": "/srv/etl"},
        {"git": "https://github.com/o/r.git", "ref": "v1.2", "token": "env:GIT_TOKEN"},
        {"git": "git@github.com:o/r.git", "ref": "0" * 40, "submodules": True},
        {"git": "ssh://git@host:2222/o/r.git"},
        {"git": "file:///srv/r.git"},
    ],
)
def test_a_folder_or_a_repository(written: dict[str, Any]) -> None:
    assert CodePlace.model_validate(written).shown


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({}, "code is in a `folder` or in `git`; write one of them"),
        ({"folder": "/a", "git": "https://h/r.git"}, "write one of them"),
        ({"folder": "etl"}, "'etl' is no absolute path"),
        ({"folder": "/a", "ref": "main"}, "belong to a `git` repository"),
        ({"git": "https://user:secret@host/r.git"}, "the address holds a secret; leave it out"),
        ({"git": "https://ghp_secret@host/r.git"}, "the address holds a secret; leave it out"),
        ({"git": "ext::sh -c touch% /tmp/x"}, "is no address of a repository"),
        ({"git": "--upload-pack=touch /tmp/x"}, "is no address of a repository"),
        ({"git": "-oProxyCommand=x@h:r"}, "is no address of a repository"),
        ({"git": "https://h/r.git", "ref": "--upload-pack=x"}, "is no name of a branch or tag"),
        ({"git": "https://h/r.git", "ref": "a..b"}, "is no name of a branch or tag"),
        ({"git": "git@h:r", "token": "env:T"}, "shown to an https address alone"),
        ({"git": "http://h/r.git", "token": "env:T"}, "shown to an https address alone"),
        ({"git": "https://h/r.git", "token": "ghp_secret"}, "a secret is a reference"),
    ],
)
def test_what_is_none_is_refused_with_the_remedy(written: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        CodePlace.model_validate(written)
