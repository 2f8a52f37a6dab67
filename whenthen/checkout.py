"""The code of a git repository at one commit, in a folder. Needs the standard library and git alone.

The SDK calls `clone` for `flow.from_source(...)`. A worker starts this file as the program of a run whose deployment has its code in a
repository: it clones, and becomes the run's command. So it is in the process group of the run, and time-outs, cancellation and the log hold for
it as for the command.

    python -I -S whenthen/checkout.py FOLDER WORKING_DIR -- COMMAND [WORD...]

What to clone is in `WHENTHEN_CHECKOUT`, JSON with the fields of a `CodePlace`, `token` as its value; the command is given none of it.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

__all__ = ["VARIABLE", "CloneFailed", "clone", "main"]

VARIABLE = "WHENTHEN_CHECKOUT"
NO_PROGRAM = 127  #: as shells have it
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class CloneFailed(Exception):
    """The code can not be had. `final`: nor at another time."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


def clone(wanted: Mapping[str, Any], folder: Path) -> None:
    """Have the commit of the repository in `folder`, without its history. `wanted` has `git`, and maybe `ref`, `token`, `submodules`. What git
    says goes to standard error.

    Raises:
        CloneFailed: it can not be had.
    """
    url, ref = wanted["git"], wanted.get("ref") or "HEAD"
    env = {**os.environ, "GIT_TERMINAL_PROMPT": "0", **_admission(url, wanted.get("token"))}

    def git(*words: str) -> int:
        try:
            return subprocess.run(
                ["git", *words], env=env, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno(), check=False
            ).returncode
        except OSError as error:
            message = f"git can not be started: {error.strerror}; install it where the code is to be cloned"
            raise CloneFailed(message, final=True) from None

    there = ("-C", str(folder))
    if git("init", "--quiet", str(folder)):
        raise CloneFailed(f"git can not make the folder {folder}; it says why above")
    fetched = git(*there, "fetch", "--quiet", "--depth", "1", "--no-tags", url, ref)
    if fetched and _COMMIT.fullmatch(ref):  # some servers give commits only with the branches that have them
        fetched = git(*there, "fetch", "--quiet", "--tags", url, "+refs/heads/*:refs/remotes/origin/*")
    else:
        ref = "FETCH_HEAD"
    if fetched or git(*there, "checkout", "--quiet", "--detach", ref):
        place = f"{url} at {wanted.get('ref') or 'its default branch'}"
        raise CloneFailed(f"the code can not be cloned from {place}; git says why above")
    modules = ("submodule", "--quiet", "update", "--init", "--recursive", "--depth", "1")
    if wanted.get("submodules") and git(*there, *modules):
        raise CloneFailed(f"the submodules of {url} can not be cloned; git says why above")


def main(arguments: list[str]) -> NoReturn:
    folder, working_dir, _, *words = arguments
    wanted = json.loads(os.environ.pop(VARIABLE))
    try:
        clone(wanted, Path(folder))
    except CloneFailed as error:
        _end(str(error), retry=not error.final)
    place = Path(folder, working_dir)
    if not place.resolve().is_relative_to(Path(folder).resolve()) or not place.is_dir():
        _end(f"working_dir {working_dir!r} is no folder of {wanted['git']}", retry=False)
    os.chdir(place)
    try:
        os.execvpe(words[0], words, os.environ)
    except OSError as error:
        _end(f"command {words[0]!r} can not be started: {error.strerror}", code=NO_PROGRAM, retry=False)


def _admission(url: str, token: str | None) -> dict[str, str]:
    """Settings of git by which the server admits this process; not on its command line, and for this server alone."""
    if not token:
        return {}
    pair = token if ":" in token else f"x-access-token:{token}"
    header = f"Authorization: Basic {base64.b64encode(pair.encode()).decode()}"
    split = urlsplit(url)
    key = f"http.{split.scheme}://{split.netloc}/.extraHeader"
    return {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": key, "GIT_CONFIG_VALUE_0": header}


def _end(message: str, code: int = 1, *, retry: bool = True) -> NoReturn:
    """End the run's attempt."""
    print(message, file=sys.stderr, flush=True)
    if target := os.environ.get("WHENTHEN_RESULT_FILE"):
        Path(target).write_text(json.dumps({"error": message, "retry": retry}), encoding="utf-8")
    sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
