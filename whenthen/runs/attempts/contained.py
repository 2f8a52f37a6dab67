"""Runs a container in the foreground, and has it removed however this process ends: also when it is killed, which no container notices.

`containers` has a run's process group start this file by its path, so it needs nothing but the standard library. A second process, outside of the
group, waits for the end of this one at a pipe, and then removes what is left. The exit code is the container's; for 128 + N it is signal N.

    python -I -S contained.py DOCKER NAME WORD...
    python -I -S contained.py --remove DOCKER NAME
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys

__all__ = ["main"]

REMOVE_S = 60  #: that a removal may take
_CANNOT_EXECUTE = 126  #: as shells have it


def main(arguments: list[str]) -> int:
    if arguments[0] == "--remove":
        return _remove(*arguments[1:])
    docker, name, *words = arguments
    ours, theirs = os.pipe()
    with open(ours, "rb") as stdin:
        subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, "--remove", docker, name],
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    # functions, not SIG_IGN: an ignored signal would be ignored by the command too, which passes it on to the container
    for ending in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ending, lambda *_: None)
    try:
        command = subprocess.Popen([docker, *words])
    except OSError as error:
        print(f"{docker} can not be started: {error.strerror or error}", file=sys.stderr, flush=True)
        return _CANNOT_EXECUTE
    code = command.wait()
    number = -code if code < 0 else code - 128
    if code < 0 or 0 < number <= signal.SIGRTMAX:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(ValueError, OSError):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os.close(theirs)
    return code


def _remove(docker: str, name: str) -> int:
    """Wait for the end of whoever has the other end of the pipe, and remove the container."""
    while os.read(0, 4096):
        continue
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run([docker, "rm", "--force", name], stdin=subprocess.DEVNULL, timeout=REMOVE_S, check=False)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
