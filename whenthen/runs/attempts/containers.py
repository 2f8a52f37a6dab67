"""How a run is executed in a container: the command line of `docker run`, with the run's folders, its socket and its environment in it.

The values of variables stand in the environment of the program `docker`, and only their names on its command line, which everybody on the machine
can read. Called by `starting`. Meaning: docs/deployments.md, "Containers".
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from whenthen.runs.commands import Launch
from whenthen.schemas.deployments import Deployment, FlowRun
from whenthen.schemas.errors import NotFound, SetupError
from whenthen.schemas.work_pools import WorkPool

__all__ = ["Container", "container_of"]

PROGRAM: Final = "docker"
REMOVE_S: Final = 10.0  #: that the end of a run waits for the removal of what is left of its container
_CONTAINED: Final = Path(__file__).with_name("contained.py")
_PACKAGE: Final = Path(__file__).resolve().parents[2]  #: of ours
#: what the program `docker` itself reads of its environment: their values stand on the command line
_OF_DOCKER: Final = frozenset({"PATH", "HOME", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """The container of one attempt."""

    name: str
    docker: str  #: the program
    image: str
    options: tuple[str, ...]

    def launch(
        self, launch: Launch, deployment: Deployment, *, root: Path, scratch: Path, inherited: Mapping[str, str]
    ) -> Launch:
        """What starts the container in which `launch` is executed. Of the worker's own variables (`inherited`) it has none."""
        values = {
            name: value for name, value in launch.env.items() if name in deployment.env or inherited.get(name) != value
        }
        if deployment.entrypoint is not None:
            # of the folder that ours lies in nothing else is there; what is installed in the image comes after it
            found = [deployment.env.get("PYTHONPATH", ""), str(root.absolute()), str(_PACKAGE.parent)]
            values["PYTHONPATH"] = os.pathsep.join(filter(None, found))
        env = {name: value for name, value in launch.env.items() if name in inherited and name not in deployment.env}
        words = [
            *("run", "--rm", "--init", "--name", self.name, "--user", f"{os.getuid()}:{os.getgid()}"),
            *("--workdir", str(launch.cwd.absolute())),
            *_mount(root), *_mount(scratch), *_mount(_PACKAGE, read_only=True),
        ]  # fmt: skip
        for name, value in values.items():
            if name in _OF_DOCKER or name.startswith("DOCKER_"):
                words += ["--env", f"{name}={value}"]
                continue
            words += ["--env", name]
            env[name] = value
        words += [*self.options, self.image, *launch.words]
        wrapped = [sys.executable, "-I", "-S", str(_CONTAINED), self.docker, self.name, *words]
        return replace(launch, words=wrapped, env=env)

    async def remove(self) -> None:
        """Remove what is left of it. Where that takes long, it goes on by itself (`contained`)."""
        with contextlib.suppress(OSError, TimeoutError):
            process = await asyncio.create_subprocess_exec(
                *(self.docker, "rm", "--force", self.name),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            async with asyncio.timeout(REMOVE_S):
                await process.wait()


def container_of(
    deployment: Deployment, run: FlowRun, pool: WorkPool | None, inherited: Mapping[str, str]
) -> Container | None:
    """The container in which a run is executed; None for a pool whose runs are processes.

    Raises:
        NotFound: the program `docker` is not there. SetupError: there is no image.
    """
    if pool is None or pool.type != "docker":
        return None
    image = deployment.image or pool.image
    if image is None:
        raise SetupError(
            f"deployment {deployment.name!r} has no `image`, and its work pool {pool.name!r} neither; give one of them"
        )
    docker = shutil.which(PROGRAM, path=inherited.get("PATH", os.defpath))
    if docker is None:
        raise NotFound(
            f"the program {PROGRAM!r} is not in PATH; work pool {pool.name!r} is of type docker: install it where the worker runs"
        )
    return Container(
        name=f"whenthen-{run.id}-{run.attempt}",
        docker=docker,
        image=image,
        options=tuple(pool.docker_options),
    )


def _mount(folder: Path, *, read_only: bool = False) -> list[str]:
    """The same place in the container."""
    path = str(folder.absolute())
    fields = ["type=bind", f"source={path}", f"target={path}", *(["readonly"] if read_only else [])]
    # a field may have commas, as in any CSV
    written = [f'"{field.replace(chr(34), 2 * chr(34))}"' if set(field) & set(',"') else field for field in fields]
    return ["--mount", ",".join(written)]
