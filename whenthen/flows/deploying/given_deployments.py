"""`serve` and `deploy`: giving deployments to a server. Everything is checked here; without a server the error says how the same is
written in the rules, which a server reads today."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from whenthen.flows.argument_kinds import COUNT, TEXT, TRUTH, checked_arguments
from whenthen.flows.deploying.deployment_values import RunnerDeployment
from whenthen.flows.services.sync_or_awaited import asked, connected, in_thread, sync_or_awaited
from whenthen.flows.unsupported import needs_server, not_supported

__all__ = ["adeploy", "aserve", "deploy", "give_deployments", "serve"]


@checked_arguments(pause_on_shutdown=TRUTH, print_starting_message=TRUTH, limit=COUNT.or_none, webserver=TRUTH)
def serve(
    *args: RunnerDeployment,
    pause_on_shutdown: bool = True,
    print_starting_message: bool = True,
    limit: int | None = None,
    webserver: bool = False,
) -> None:
    """Start runs of these deployments, by their schedules, triggers and when asked, until interrupted.

    Raises:
        ValueError: a deployment, or a parameter of one, is not valid.
        NeedsServer: no reporter connects the run to a server.
    """
    if webserver:
        not_supported("serve(webserver=True)")
    give_to_server(args, kind="serve", options={"limit": limit, "pause_on_shutdown": pause_on_shutdown})


async def aserve(*args: RunnerDeployment, **options: Any) -> None:
    """`serve` for async callers."""
    await in_thread(lambda: serve(*args, **options))


DEPLOY = {
    "work_pool_name": TEXT.or_none,
    "build": TRUTH,
    "push": TRUTH,
    "print_next_steps_message": TRUTH,
    "ignore_warnings": TRUTH,
}


@checked_arguments(**DEPLOY)
def deploy(
    *deployments: RunnerDeployment,
    work_pool_name: str | None = None,
    image: Any = None,
    build: bool = True,
    push: bool = True,
    print_next_steps_message: bool = True,
    ignore_warnings: bool = False,
) -> Any:
    """Give these deployments to the server, and get their ids.

    Raises:
        ValueError: a deployment, or a parameter of one, is not valid.
        NeedsServer: no reporter connects the run to a server.
    """
    return sync_or_awaited(lambda: give_deployments(deployments, work_pool_name, image))


@checked_arguments("deploy", **DEPLOY)
async def adeploy(
    *deployments: RunnerDeployment,
    work_pool_name: str | None = None,
    image: Any = None,
    build: bool = True,
    push: bool = True,
    print_next_steps_message: bool = True,
    ignore_warnings: bool = False,
) -> list[UUID]:
    """`deploy` for async callers."""
    return await in_thread(lambda: give_deployments(deployments, work_pool_name, image))


def give_deployments(deployments: Sequence[RunnerDeployment], work_pool_name: str | None, image: Any) -> list[UUID]:
    """What all of `deploy` come to. Raises as `give_to_server` does."""
    options = {"work_pool_name": work_pool_name, "image": None if image is None else str(image)}
    return give_to_server(deployments, kind="deploy", options=options)


def give_to_server(deployments: Sequence[RunnerDeployment], *, kind: str, options: dict[str, Any]) -> list[UUID]:
    """Check the deployments and hand them over as rules.

    Raises:
        ValueError, NeedsServer
    """
    if not deployments:
        raise ValueError(f"{kind}() was given no deployment; write {kind}(flow.to_deployment(name=...))")
    for one in deployments:
        if not isinstance(one, RunnerDeployment):
            raise ValueError(f"{kind}() takes deployments, as flow.to_deployment(...) makes them; found {one!r:.100}")
        one.check_parameters()
    names = [one.name for one in deployments]
    if len(set(names)) < len(names):
        raise ValueError(f"{kind}() was given two deployments of one name; found {', '.join(sorted(names))}")
    if not connected(kind):
        rules = textwrap.indent("\n".join(one.as_rule() for one in deployments), "  ")
        more = (
            f". `whenthen serve` runs it from a file in its rules folder; paths begin there:\n\ndeployments:\n{rules}\n"
        )
        raise needs_server(kind, more)
    answer = asked(kind, {"deployments": [one.as_request() for one in deployments], **options})
    return [UUID(str(one)) for one in answer or []]
