"""`serve` and `deploy`: giving deployments to the server at hand. Everything is checked here, before anything is asked or started."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, TypedDict
from uuid import UUID

from whenthen.flows.argument_kinds import COUNT, TEXT, TRUTH, checked_arguments
from whenthen.flows.deploying.deployment_values import RunnerDeployment
from whenthen.flows.deploying.loading_now import is_loading
from whenthen.flows.execution.reporter import REPORTER, SILENT
from whenthen.flows.flow_errors import ConfigurationError
from whenthen.flows.services.sync_or_awaited import asked, connected, in_thread, sync_or_awaited
from whenthen.flows.unsupported import needs_server, not_supported

__all__ = ["adeploy", "aserve", "deploy", "give_deployments", "serve"]

DEPLOY = {
    "work_pool_name": TEXT.or_none,
    "build": TRUTH,
    "push": TRUTH,
    "print_next_steps_message": TRUTH,
    "ignore_warnings": TRUTH,
}


@checked_arguments(pause_on_shutdown=TRUTH, print_starting_message=TRUTH, limit=COUNT.or_none, webserver=TRUTH)
def serve(
    *args: RunnerDeployment,
    pause_on_shutdown: bool = True,
    print_starting_message: bool = True,
    limit: int | None = None,
    webserver: bool = False,
) -> None:
    """Start runs of these deployments, by their schedules, triggers and when asked, until interrupted: with the server at hand, or one
    that is started for them. The first Ctrl-C lets runs finish, the second one ends at once.

    Raises:
        ValueError: a deployment, or a parameter of one, is not valid.
        ConfigurationError: this is a run, or a file that is only loaded.
        ServerError: the server refuses, or does not go on.
    """
    options = _Options(limit=limit, pause_on_shutdown=pause_on_shutdown)
    if _asked_to_serve(args, options, webserver=webserver):
        return
    from whenthen.flows.serving.served_script import ServedScript

    ServedScript(args, quiet=not print_starting_message, **options).run()


@checked_arguments("serve", pause_on_shutdown=TRUTH, print_starting_message=TRUTH, limit=COUNT.or_none, webserver=TRUTH)
async def aserve(
    *args: RunnerDeployment,
    pause_on_shutdown: bool = True,
    print_starting_message: bool = True,
    limit: int | None = None,
    webserver: bool = False,
) -> None:
    """`serve` for async callers; cancelled, it drains, and cancelled again it ends at once."""
    options = _Options(limit=limit, pause_on_shutdown=pause_on_shutdown)
    if await in_thread(lambda: _asked_to_serve(args, options, webserver=webserver)):
        return
    from whenthen.flows.serving.served_script import ServedScript

    await ServedScript(args, quiet=not print_starting_message, **options).run_in_loop()


class _Options(TypedDict):
    """Of serving."""

    limit: int | None
    pause_on_shutdown: bool


def _asked_to_serve(deployments: Sequence[RunnerDeployment], options: _Options, *, webserver: bool) -> bool:
    """Check the deployments; whether the reporter of this program serves them."""
    if webserver:
        not_supported("serve(webserver=True)")
    check_deployments(deployments, "serve")
    if connected("serve"):
        requests = [one.as_request() for one in deployments]
        asked("serve", {"deployments": requests, **options})
        return True
    _refuse_where_loaded("serve")
    return False


def _refuse_where_loaded(kind: str) -> None:
    """
    Raises:
        ConfigurationError: this is a run, or a file that is only loaded.
    """
    if REPORTER.get() is not SILENT or is_loading():
        raise ConfigurationError(
            f"{kind}(...) is called where its file is loaded, to run a flow of it or to register one; put it below "
            '`if __name__ == "__main__":`'
        )


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
    """Give these deployments to the server at hand, and get their ids, which are their names.

    Raises:
        ValueError: a deployment, or a parameter of one, is not valid.
        NeedsServer: there is no server at hand.
        ServerError: it refuses.
    """
    return sync_or_awaited(
        lambda: give_deployments(deployments, work_pool_name, image, quiet=not print_next_steps_message)
    )


@checked_arguments("deploy", **DEPLOY)
async def adeploy(
    *deployments: RunnerDeployment,
    work_pool_name: str | None = None,
    image: Any = None,
    build: bool = True,
    push: bool = True,
    print_next_steps_message: bool = True,
    ignore_warnings: bool = False,
) -> list[Any]:
    """`deploy` for async callers."""
    return await in_thread(
        lambda: give_deployments(deployments, work_pool_name, image, quiet=not print_next_steps_message)
    )


def give_deployments(
    deployments: Sequence[RunnerDeployment], work_pool_name: str | None, image: Any, *, quiet: bool = False
) -> list[Any]:
    """What all of `deploy` come to.

    Raises:
        ValueError, NeedsServer, NotSupported, ServerError
    """
    check_deployments(deployments, "deploy")
    if work_pool_name is not None:
        for one in deployments:
            one.work_pool_name = one.work_pool_name or work_pool_name
    if connected("deploy"):
        options = {"work_pool_name": work_pool_name, "image": None if image is None else str(image)}
        answer = asked("deploy", {"deployments": [one.as_request() for one in deployments], **options})
        return [UUID(str(one)) for one in answer or []]
    if image is not None:
        not_supported("deploy(image=...)", f"{image!r:.80}")
    from whenthen.flows.serving.registering import Registering, server_at_hand

    _refuse_where_loaded("deploy")
    if (server := server_at_hand()) is None:
        rules = textwrap.indent("\n".join(one.as_rule() for one in deployments), "  ")
        raise needs_server("deploy", f". Or put it into a file of its rules folder:\n\ndeployments:\n{rules}\n")
    registering = Registering(server, quiet=quiet)
    registering.register(deployments, served=False)
    for one in deployments:
        if one.paused:
            registering.pause(one.full_name)
    return [one.full_name for one in deployments]


def check_deployments(deployments: Sequence[RunnerDeployment], kind: str) -> None:
    """
    Raises:
        ValueError: there are none, they are no deployments, two have one name, or a parameter does not fit its flow.
    """
    if not deployments:
        raise ValueError(f"{kind}() was given no deployment; write {kind}(flow.to_deployment(name=...))")
    for one in deployments:
        if not isinstance(one, RunnerDeployment):
            raise ValueError(f"{kind}() takes deployments, as flow.to_deployment(...) makes them; found {one!r:.100}")
        one.check_parameters()
    names = [one.full_name for one in deployments]
    if len(set(names)) < len(names):
        raise ValueError(f"{kind}() was given two deployments of one name; found {', '.join(sorted(names))}")
