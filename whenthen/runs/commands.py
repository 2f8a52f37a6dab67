"""The command line, working directory and environment of a run. Pure except for reading secrets.

Called by `worker`. A parameter replaces `{{ name }}` inside one word and never becomes more words; there is no
shell. Meaning: docs/deployments.md, "Commands" and "Functions".
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from whenthen.schemas.deployments import PLACEHOLDER, Deployment, FlowRun
from whenthen.schemas.entry_points import entry_point
from whenthen.schemas.errors import NotFound, RenderError
from whenthen.schemas.trace_context import TRACE_HEADERS, trace_headers

__all__ = ["Launch", "launch_of", "read_secret", "render_words", "secrets_of"]

#: longer values are not put into the environment: Linux refuses more than 128 KiB in one variable
_MAX_VARIABLE_BYTES = 100_000
_RUNNER = Path(__file__).with_name("runner.py")
_TRACE = frozenset(name.upper() for name in TRACE_HEADERS)
_REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:.+", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One process to start."""

    words: list[str]  #: the first is an existing program
    cwd: Path
    env: dict[str, str]
    secrets: tuple[str, ...] = field(default=(), repr=False)  #: values that must not reach the log


def launch_of(
    deployment: Deployment,
    run: FlowRun,
    *,
    root: Path,
    scratch: Path,
    inherited: Mapping[str, str],
    resolve: Callable[[str], str],
    reporting: Mapping[str, str] | None = None,
) -> Launch:
    """The process to start for `run`. `root` is the rules folder; `scratch` is a temporary folder of the attempt. `reporting` are the
    variables by which it tells of itself.

    Raises:
        RenderError: a parameter is missing or can not be passed.
        NotFound: the program, the folder, the file or a secret does not exist, or is outside of the rules folder.
        OSError: a file in `scratch` can not be written.
    """
    cwd = _within(root, deployment.working_dir, "working_dir") if deployment.working_dir else root
    if not cwd.is_dir():
        raise NotFound(f"working_dir {str(cwd)!r} is not a folder")
    found = {value: resolve(value) for value in _references(deployment)}
    secret = {name: found[value] for name, value in deployment.secret_parameters.items()}
    parameters = {**secret, **run.parameters}
    variables = _run_variables(run, parameters, scratch)
    # a trace that the worker was started in is none of the run's
    env = {name: value for name, value in inherited.items() if not name.startswith("WHENTHEN_") and name not in _TRACE}
    if run.trace is not None:
        env |= {name.upper(): value for name, value in trace_headers(run.trace).items()}
    env |= {name: found.get(value, value) for name, value in deployment.env.items()}
    env |= variables
    env |= reporting or {}
    if deployment.command is not None:
        words = render_words(deployment.command, parameters)
        words[0] = _program(words[0], cwd, env.get("PATH", os.defpath))
    else:
        words = _function_words(deployment, root, env.get("PATH", os.defpath))
        env["PYTHONUNBUFFERED"] = "1"
        found_at = [env.get("PYTHONPATH", "")]
        if cwd != root:  # else it is the working folder, which is importable
            found_at.append(str(root.absolute()))
        if deployment.python is None:  # another interpreter has packages of its own, which ours would hide
            found_at.append(str(Path(__file__).resolve().parents[2]))
        env["PYTHONPATH"] = os.pathsep.join(filter(None, found_at))
    for what, text in [*(("a word of the command", word) for word in words), *env.items()]:
        if "\x00" in text:
            raise RenderError(f"{what} would have a null character, which no process can be given")
    return Launch(words=words, cwd=cwd, env=env, secrets=secrets_of(deployment, lambda reference: found[reference]))


def secrets_of(deployment: Deployment, resolve: Callable[[str], str]) -> tuple[str, ...]:
    """The values that must not reach the log; shorter ones than four characters would take the log apart.

    Raises:
        NotFound: a secret does not exist.
    """
    secrets = [resolve(value) for value in _references(deployment)]
    return tuple(secret for secret in secrets if len(secret) >= 4)


def _references(deployment: Deployment) -> list[str]:
    """The references to secrets that a run needs."""
    return [
        *(value for value in deployment.env.values() if _REFERENCE.fullmatch(value)),
        *deployment.secret_parameters.values(),
    ]


def render_words(words: list[str], parameters: Mapping[str, Any]) -> list[str]:
    """The words with each `{{ name }}` replaced: text as it is, other values as JSON.

    Raises:
        RenderError: a parameter has no value, or is null; names it.
    """

    def value_of(found: re.Match[str]) -> str:
        name = found[1].strip()
        if name not in parameters:
            given = ", ".join(sorted(parameters)) or "none"
            raise RenderError(f"the command needs parameter {name!r}; given: {given}")
        if parameters[name] is None:
            raise RenderError(f"parameter {name!r} is null, which has no text; give it a value, or leave its word out")
        return _text(parameters[name])

    return [PLACEHOLDER.sub(value_of, word) for word in words]


def read_secret(reference: str) -> str:
    """The value of `env:NAME` or `file:/path`.

    Raises:
        NotFound: the variable is not set, or the file can not be read.
    """
    kind, _, name = reference.partition(":")
    if kind == "env":
        if name not in os.environ:
            raise NotFound(f"secret {reference}: the variable is not set where the worker runs")
        return os.environ[name]
    try:
        return Path(name).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise NotFound(f"secret {reference}: the file can not be read: {type(error).__name__}") from None


def _run_variables(run: FlowRun, parameters: Mapping[str, Any], scratch: Path) -> dict[str, str]:
    encoded = orjson.dumps(parameters).decode()
    variables = {
        "WHENTHEN_RUN_ID": run.id,
        "WHENTHEN_DEPLOYMENT": run.deployment,
        "WHENTHEN_ATTEMPT": str(run.attempt),
        "WHENTHEN_SCHEDULED_FOR": run.scheduled_for,
        "WHENTHEN_RESULT_FILE": str(scratch / "result.json"),
    }
    if run.lineage is not None:
        variables["WHENTHEN_LINEAGE"] = orjson.dumps(run.lineage).decode()
    if len(encoded) <= _MAX_VARIABLE_BYTES:
        variables["WHENTHEN_PARAMETERS"] = encoded
    file = scratch / "parameters.json"
    file.write_text(encoded, encoding="utf-8")
    variables["WHENTHEN_PARAMETERS_FILE"] = str(file)
    for name, value in parameters.items():
        text = _text(value)
        if len(text.encode(errors="replace")) <= _MAX_VARIABLE_BYTES:
            variables["WHENTHEN_PARAM_" + re.sub(r"[^A-Za-z0-9_]", "_", name).upper()] = text
    return variables


def _program(word: str, cwd: Path, path: str) -> str:
    """The program's full path. A word with a slash is relative to the working folder, as a shell has it."""
    if os.sep in word:
        candidate = cwd / word
        if not candidate.is_file():
            raise NotFound(f"command {word!r} not found in {cwd}; check `command` and `working_dir`")
        if not os.access(candidate, os.X_OK):
            raise NotFound(f"command {word!r} is not executable; run chmod +x {candidate}")
        return str(candidate.absolute())
    found = shutil.which(word, path=path) if word else None
    if found is None:
        raise NotFound(f"command {word!r} not found in PATH; install it where the worker runs, or give its path")
    return str(Path(found).absolute())


def _function_words(deployment: Deployment, root: Path, path: str) -> list[str]:
    point = entry_point(deployment.entrypoint or "")
    where = point.where
    if point.file is not None:
        file = _within(root, point.file, "entrypoint")
        if not file.is_file():
            raise NotFound(f"entrypoint {deployment.entrypoint!r}: there is no file {str(file)!r}")
        where = str(file.absolute())
    python = sys.executable if deployment.python is None else _interpreter(deployment.python, root, path)
    # as a script, and not with -m: nothing of this package is imported, which would take longer than most functions do
    return [python, "-P", str(_RUNNER), where, point.function]


def _interpreter(word: str, root: Path, path: str) -> str:
    """The full path of a deployment's own interpreter. Links are kept: a virtual environment is told by the place of its link."""
    found = str(root / word) if os.sep in word else shutil.which(word, path=path)
    if found is None or not os.access(found, os.X_OK) or not Path(found).is_file():
        where = f"in {root}" if os.sep in word else "in PATH"
        raise NotFound(f"python {word!r} is not there, {where}; make the environment where the worker runs")
    return str(Path(found).absolute())


def _within(root: Path, text: str, what: str) -> Path:
    """A path in the rules folder. Rules were checked for this where they were loaded; links may be others here and now."""
    path = root / text
    if not path.resolve().is_relative_to(root.resolve()):
        raise NotFound(f"{what} {text[:200]!r} leads out of the rules folder {str(root)!r}; move it there")
    return path


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
