"""Runs `whenthen` commands in forks of one process that has imported the package: a command starts in milliseconds.

A script of its own, run by the Python whose whenthen is tested; `tests.forks` starts it and says what to run. Standard input is a
socket that listens. A request is one message over a connection to it: JSON with `arguments`, `env`, `cwd`, `session` and `namespaces_of`, and four descriptors: the command's three, and a
socket that gets its process id and, at its end, its exit status. The command runs as the console script does, at the top of the module
and to the end of the interpreter.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import tempfile
import time

from whenthen.cli.main import COMMANDS, main

#: what commands import when they run, beside their own modules; their libraries' own late imports too
LATE = (
    "whenthen.engine.process",
    "whenthen.engine.process.wiring.history.history_role",
    "encodings.idna",
    "httpcore",
    "rich.table",
)
MESSAGE_BYTES = 1 << 20
LIBC = ctypes.CDLL(None, use_errno=True)


def become(request: dict, descriptors: list[int]) -> None:
    """Make a fork look like a process that was started for the command."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if request["session"]:
        os.setsid()
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    if (pid := request["namespaces_of"]) is not None:
        for kind in ("user", "mnt"):
            with open(f"/proc/{pid}/ns/{kind}") as namespace:
                if LIBC.setns(namespace.fileno(), 0):
                    raise OSError(ctypes.get_errno(), f"can not enter the {kind} namespace of process {pid}")
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    time.tzset()
    tempfile.tempdir = None  # read again from the environment
    for folder in request["env"].get("PYTHONPATH", "").split(os.pathsep):
        if os.path.exists(file := os.path.join(folder, "sitecustomize.py")):
            runpy.run_path(file)
    sys.argv = ["whenthen", *request["arguments"]]


def serve() -> bool:
    """Start commands as they are asked for; true in the fork that is one, false when the last connection has ended."""
    listening = socket.socket(fileno=os.dup(0))
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    running: dict[int, socket.socket] = {}
    connections: list[socket.socket] = []
    with listening, woken, wake, selectors.DefaultSelector() as selector:
        selector.register(listening, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            for ready in [key.fileobj for key, _ in selector.select()]:
                if ready is woken:
                    woken.recv(4096)
                elif ready is listening:
                    connections.append(listening.accept()[0])
                    selector.register(connections[-1], selectors.EVENT_READ)
                elif start(ready, running, connections):
                    return True
                elif ready not in connections:
                    selector.unregister(ready)
                    ready.close()
            while running:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                with running.pop(pid) as ended:
                    tell(ended, os.waitstatus_to_exitcode(status))
            if not connections and not selector.select(0):
                return False


def start(requests: socket.socket, running: dict[int, socket.socket], connections: list[socket.socket]) -> bool:
    """Start the command that is asked for; true in the fork that is it. A connection that has ended is taken out of `connections`."""
    message, descriptors, _, _ = socket.recv_fds(requests, MESSAGE_BYTES, 4)
    if not message:
        connections.remove(requests)
        return False
    *own, report = descriptors
    pid = os.fork()
    if pid == 0:
        for kept in (report, *(one.detach() for one in (*connections, *running.values()))):
            os.close(kept)
        become(json.loads(message), own)
        return True
    for descriptor in own:
        os.close(descriptor)
    running[pid] = socket.socket(fileno=report)
    tell(running[pid], pid)
    return False


def tell(report: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):  # who asked has gone
        report.send(str(number).encode())


for name in (*{command.module for command in COMMANDS.values()}, *LATE):
    importlib.import_module(name)
gc.collect()
gc.freeze()
if serve():
    sys.exit(main())
