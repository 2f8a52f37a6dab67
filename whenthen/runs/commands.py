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
from typing import Any, Final

import orjson

from whenthen import checkout
from whenthen.schemas.deployments import PLACEHOLDER, Deployment, FlowRun
from whenthen.schemas.entry_points import entry_point
from whenthen.schemas.errors import NotFound, RenderError
from whenthen.schemas.trace_context import TRACE_HEADERS, trace_headers

__all__ = [
    "IMPORTED_NAME",
    "RUNNER",
    "Launch",
    "WarmStart",
    "launch_of",
    "read_secret",
    "render_words",
    "secrets_of",
    "warm_start_of",
]

#: longer values are not put into the environment: Linux refuses more than 128 KiB in one variable
_MAX_VARIABLE_BYTES = 100_000
RUNNER: Final = Path(__file__).with_name("runner.py")
IMPORTED_NAME: Final = "imported.json"  #: of the file that says which modules a run has imported
#: variables that an interpreter, or the libraries below it, read when they start
_AT_START = frozenset({"LANG", "LANGUAGE", "PATH", "TZ", "HOME", "VIRTUAL_ENV", "GLIBC_TUNABLES"})
_AT_START_PREFIXES = ("PYTHON", "LD_", "LC_", "MALLOC_")
_CHECKOUT: Final = Path(checkout.__file__)
_TRACE = frozenset(name.upper() for name in TRACE_HEADERS)
_REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:.+", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One process to start."""

    words: list[str]  #: the first is an existing program
    cwd: Path
    env: dict[str, str]
    secrets: tuple[str, ...] = field(default=(), repr=False)  #: values that must not reach the log
    arguments: list[str] = field(default_factory=list)  #: of the runner, when a function is called


def launch_of(
    deployment: Deployment,
    run: FlowRun,
    *,
    root: Path,
    scratch: Path,
    inherited: Mapping[str, str],
    resolve: Callable[[str], str],
    reporting: Mapping[str, str] | None = None,
    contained: bool = False,
) -> Launch:
    """The process to start for `run`. `root` is the rules folder; `scratch` is a temporary folder of the attempt. `reporting` are the
    variables by which it tells of itself. One that is to be `contained` finds its program in its image. Code of a repository is brought by the
    process itself (`whenthen.checkout`).

    Raises:
        RenderError: a parameter is missing or can not be passed.
        NotFound: the program, the folder, the file or a secret does not exist, or is outside of the rules folder.
        OSError: a file in `scratch` can not be written.
    """
    if contained and deployment.code is not None:
        raise NotFound(
            "a container has the rules folder and what its image has, and not the `code` of a deployment; put the code there, and "
            "leave `code` out"
        )
    cloned = _is_cloned(deployment)
    root = _code_root(deployment, root, scratch)
    cwd = _folder(deployment, root, there=not cloned)
    found = {value: resolve(value) for value in _references(deployment)}
    secret = {name: found[value] for name, value in deployment.secret_parameters.items()}
    parameters = {**secret, **run.parameters}
    own = {name: found.get(value, value) for name, value in deployment.env.items()}
    variables = _run_variables(run, parameters, scratch)
    if run.trace is not None:
        own = {name.upper(): value for name, value in trace_headers(run.trace).items()} | own
    env = _environment(deployment, root, cwd, inherited, own) | variables | dict(reporting or {})
    arguments: list[str] = []
    if deployment.command is not None:
        words = render_words(deployment.command, parameters)
        if not contained and not cloned:
            words[0] = _program(words[0], cwd, env.get("PATH", os.defpath))
    else:
        where = _where(deployment, root, there=not cloned)
        python = contained_python(deployment, root) if contained else _python(deployment, root, env, there=not cloned)
        arguments = [where, entry_point(deployment.entrypoint or "").function, str(scratch / IMPORTED_NAME)]
        # as a script, and not with -m: nothing of this package is imported, which would take longer than most functions do
        words = [python, str(RUNNER), *arguments]
    if cloned:
        words = [sys.executable, "-I", "-S", str(_CHECKOUT), str(root), deployment.working_dir or ".", "--", *words]
        env[checkout.VARIABLE] = _checkout(deployment, found)
        cwd = scratch
        arguments = []  # none waits for it
    for what, text in [*(("a word of the command", word) for word in words), *env.items()]:
        if "\x00" in text:
            raise RenderError(f"{what} would have a null character, which no process can be given")
    secrets = secrets_of(deployment, lambda reference: found[reference])
    return Launch(words=words, cwd=cwd, env=env, secrets=secrets, arguments=arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmStart:
    """What an interpreter is started with that waits for runs of a deployment, without anything that is a run's own, and without secrets."""

    python: str
    where: str  #: the file or the module of the entry point
    cwd: Path
    env: dict[str, str]
    preload: tuple[str, ...]


def warm_start_of(deployment: Deployment, *, root: Path, inherited: Mapping[str, str]) -> WarmStart | None:
    """How to start an interpreter before there is a run; None where none can wait: for commands, for code that each run clones,
    where `preload: []` says so, and where a secret is among what an interpreter is started with.

    Raises:
        NotFound: the interpreter, the folder or the file does not exist, or is outside of the rules folder.
    """
    if deployment.entrypoint is None or deployment.preload == [] or _is_cloned(deployment):
        return None
    root = _code_root(deployment, root, root)
    secret = {name for name, value in deployment.env.items() if _REFERENCE.fullmatch(value)}
    if any(name in _AT_START or name.startswith(_AT_START_PREFIXES) for name in secret):
        return None
    cwd = _folder(deployment, root)
    own = {name: value for name, value in deployment.env.items() if name not in secret}
    env = _environment(deployment, root, cwd, inherited, own)
    return WarmStart(
        python=_python(deployment, root, env),
        where=_where(deployment, root),
        cwd=cwd,
        env={name: value for name, value in env.items() if name not in secret},
        preload=tuple(deployment.preload or ()),
    )


def _folder(deployment: Deployment, root: Path, *, there: bool = True) -> Path:
    """The working folder; `there` says whether the code is by now."""
    cwd = _within(root, deployment.working_dir, "working_dir") if deployment.working_dir else root
    if there and not cwd.is_dir():
        raise NotFound(f"working_dir {str(cwd)!r} is not a folder")
    return cwd


def _environment(
    deployment: Deployment, root: Path, cwd: Path, inherited: Mapping[str, str], own: Mapping[str, str]
) -> dict[str, str]:
    """What is inherited, with the deployment's `own` variables."""
    # a trace that the worker was started in is none of the run's
    env = {name: value for name, value in inherited.items() if not name.startswith("WHENTHEN_") and name not in _TRACE}
    env |= own
    if deployment.entrypoint is not None:
        env["PYTHONUNBUFFERED"] = "1"
        found_at = [env.get("PYTHONPATH", "")]
        if cwd != root:  # else it is the working folder, which is importable
            found_at.append(str(root.absolute()))
        if deployment.python is None:  # another interpreter has packages of its own, which ours would hide
            found_at.append(str(Path(__file__).resolve().parents[2]))
        env["PYTHONPATH"] = os.pathsep.join(filter(None, found_at))
    return env


def secrets_of(deployment: Deployment, resolve: Callable[[str], str]) -> tuple[str, ...]:
    """The values that must not reach the log.

    Raises:
        NotFound: a secret does not exist.
    """
    return tuple(resolve(value) for value in _references(deployment))


def _references(deployment: Deployment) -> list[str]:
    """The references to secrets that a run needs."""
    return [
        *(value for value in deployment.env.values() if _REFERENCE.fullmatch(value)),
        *deployment.secret_parameters.values(),
        *([] if deployment.code is None or deployment.code.token is None else [deployment.code.token]),
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


def _where(deployment: Deployment, root: Path, *, there: bool = True) -> str:
    """The file, or the module, of the entry point."""
    point = entry_point(deployment.entrypoint or "")
    if point.file is None:
        return point.where
    file = _within(root, point.file, "entrypoint")
    if there and not file.is_file():
        raise NotFound(f"entrypoint {deployment.entrypoint!r}: there is no file {str(file)!r}")
    return str(file.absolute())


def _python(deployment: Deployment, root: Path, env: Mapping[str, str], *, there: bool = True) -> str:
    if deployment.python is None:
        return sys.executable
    if not there and os.sep in deployment.python:
        return str((root / deployment.python).absolute())
    return _interpreter(deployment.python, root, env.get("PATH", os.defpath))


def contained_python(deployment: Deployment, root: Path) -> str:
    """The interpreter of a function in a container: that of the image, or one in the rules folder, which lies at the same place there."""
    word = deployment.python or "python3"
    return str(root.absolute() / word) if os.sep in word else word


def _is_cloned(deployment: Deployment) -> bool:
    return deployment.code is not None and deployment.code.git is not None


def _code_root(deployment: Deployment, root: Path, scratch: Path) -> Path:
    """What entry point, working folder and interpreter are relative to: the rules folder, or where else the code is or will be."""
    code = deployment.code
    if code is None:
        return root
    if code.folder is None:
        return scratch / "code"
    if not (folder := Path(code.folder)).is_dir():
        raise NotFound(
            f"the code folder {code.folder!r} is not on this machine; put the code there, or have a worker take the run where it is"
        )
    return folder


def _checkout(deployment: Deployment, found: Mapping[str, str]) -> str:
    """What `whenthen.checkout` is told."""
    assert deployment.code is not None
    fields = deployment.code.model_dump(exclude_none=True)
    if deployment.code.token is not None:
        fields["token"] = found[deployment.code.token]
    return orjson.dumps(fields).decode()


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
