"""Deployments of a script made part of the rules of a server, with an output as that of `whenthen plan`."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from typing import Any

from whenthen.flows.clock import sleep, steady
from whenthen.flows.deploying.deployment_values import RunnerDeployment
from whenthen.flows.flow_errors import FlowError, ObjectNotFound, ServerError
from whenthen.flows.services.server_requests import ServerAddress, part
from whenthen.machine_user import user_at_host
from whenthen.noted_tokens import TokenFileError, find_token

__all__ = ["DEFAULT_URL", "Registering", "server_at_hand"]

DEFAULT_URL = "http://127.0.0.1:4280"
FOLLOWS_WITHIN_S = 10.0  #: that a process of the server takes at most to hear of new rules
LOOK_S = 0.2
_MARKS = {"new": "+", "changed": "~", "restarted": "!", "removed": "-"}


def server_at_hand() -> ServerAddress | None:
    """The server at `WHENTHEN_URL`; without that variable one of this user that runs at the address at which `whenthen serve` listens by
    default; else None."""
    if os.environ.get("WHENTHEN_URL"):
        return ServerAddress.of_environment("deploy")
    try:
        token = find_token(DEFAULT_URL)
    except TokenFileError:
        return None
    return None if token is None else ServerAddress(DEFAULT_URL, token)


def script_path() -> str:
    """The file of this program; empty where it has none."""
    found = getattr(sys.modules.get("__main__"), "__file__", None)
    return os.path.abspath(found) if found else ""


class Registering:
    """Registers with one server, and says what became of it on standard output."""

    def __init__(self, server: ServerAddress, *, quiet: bool = False) -> None:
        self.server = server
        self._quiet = quiet

    def register(self, deployments: Sequence[RunnerDeployment], *, served: bool) -> list[str]:
        """Register them, and get their names.

        Raises:
            ServerError: the server refuses.
        """
        self._ask({"deployments": [one.as_request() for one in deployments], "script": script_path(), "served": served})
        return [one.full_name for one in deployments]

    def pause(self, name: str) -> None:
        """Pause the schedules of a deployment."""
        self.server.post(f"/api/deployments/{part(name)}/pause")

    def pause_schedules(self, name: str) -> None:
        """Pause those schedules of a deployment that are not paused, each by itself."""
        for schedule in self._schedules(name):
            if not schedule["paused"]:
                self._switch(name, schedule["name"], "pause")

    def resume_schedules(self, name: str, wanted: Collection[str]) -> None:
        """Let those of the named schedules of a deployment go on that are paused."""
        for schedule in self._schedules(name):
            if schedule["paused"] and schedule["name"] in wanted:
                self._switch(name, schedule["name"], "resume")

    def _schedules(self, name: str) -> list[dict[str, Any]]:
        until = steady() + FOLLOWS_WITHIN_S
        while True:
            try:
                found: list[dict[str, Any]] = self.server.get(f"/api/deployments/{part(name)}")["schedules"]
                return found
            except ObjectNotFound:  # another process of the server answers, which follows in a moment
                if steady() > until:
                    raise
                sleep(LOOK_S)

    def _switch(self, name: str, schedule: str, how: str) -> None:
        self.server.post(f"/api/deployments/{part(name)}/{how}?schedule={part(schedule)}")

    def _versions(self) -> str:
        """What there is to know of two versions, where the script has another one than the server."""
        from whenthen import __version__

        try:
            found = str(self.server.get("/api/status")["version"])
        except (FlowError, KeyError, TypeError):
            return ""
        if found == __version__:
            return ""
        return f"the server is whenthen {found[:40]}, and this script's is {__version__}: install one version for both"

    def say(self, text: str) -> None:
        """Tell whoever looks, unless that is not wanted."""
        if not self._quiet:
            print(text, flush=True)

    def _ask(self, body: dict[str, Any]) -> None:
        try:
            answer = self.server.post("/api/rules/deployments", {**body, "who": user_at_host()})
        except ServerError as error:
            if error.status == 400 and (versions := self._versions()):
                error.args = (f"{error}; {versions}",)
            raise
        for change in answer["changes"]:
            self.say(f"{_MARKS.get(change['change'], '*')} {change['kind']} {change['name']}: {change['detail']}")
        for name in answer["unchanged"]:
            self.say(f"= deployment {name}: as it was")
        for note in answer["notes"]:
            self.say(f"  note: {note}")
        self.say(f"revision {answer['number']} of the rules at {self.server.url} has them")
