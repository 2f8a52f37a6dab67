"""What of Prefect is not here, and what needs a server, each with what to do instead. The errors are made of these tables, and
docs/prefect.md lists them; a test holds the page to them.

A module of Prefect's that is not here is a file that imports its name from here, which raises.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NoReturn

from whenthen.flows.flow_errors import NeedsServer, NotSupported

__all__ = ["NEEDS_SERVER", "NOT_SUPPORTED", "needs_server", "not_supported"]

#: names below `whenthen`, and what to do instead
NOT_SUPPORTED = {
    # modules
    "assets": "let a task write the asset and call emit_event(...) when it has",
    "automations": "write the automation as a rule (docs/rules.md); `whenthen import prefect FILE` translates Prefect's",
    "blocks.abstract": "write a class of your own, and make it in the task that uses it",
    "blocks.core": "pass a pydantic model as a parameter of the flow, and keep what is secret in blocks.system.Secret",
    "blocks.notifications": "write a notifier into the rules (docs/actions.md), or call the service in a task",
    "blocks.webhook": "use the action call-webhook in the rules, or an HTTP client in a task",
    "docker": "build the image where you build your software, and start a worker in it",
    "filesystems": "use pathlib or fsspec in a task; result_storage takes the path of a folder",
    "infrastructure": "start a worker where the flow is to run",
    "locking": "give isolation_level=IsolationLevel.SERIALIZABLE alone; runs of this machine then wait for each other",
    "server": "start `whenthen serve`",
    "settings": "set environment variables; docs/settings.md lists them",
    "task_worker": "submit the task in a flow, or start a deployment (run_deployment)",
    "testing": "leave the harness out: a flow in a test starts no server and needs none",
    "workers": "start `whenthen worker` where the flow is to run",
    # names at the top
    "get_cloud_client": "use get_client() with WHENTHEN_URL",
    "materialize": "let a task write the asset and call emit_event(...) when it has",
    # names in modules
    "events.Automation": "write the automation as a rule (docs/rules.md); `whenthen import prefect FILE` translates Prefect's",
    "events.RunDeployment": "write the action run-deployment into the rule (docs/actions.md)",
    "events.get_events_client": "use emit_event(...)",
    "events.get_events_subscriber": "write a rule that starts a deployment (docs/rules.md)",
    "deployments.Deployment": "use flow.to_deployment(...), or `deployments:` in the rules (docs/deployments.md)",
    "deployments.initialize_project": "write a file of rules with `deployments:` (docs/deployments.md)",
    "blocks.system.DateTime": "pass a datetime as a parameter, or keep its text in a Variable",
    "blocks.system.String": "keep the text in a Variable",
    # methods and options
    "Flow.from_source(<bucket>)": "give a folder or a git repository; or copy the code to where the worker runs, and give the path of the folder",
    "Flow.visualize": "run the flow, and look at its task runs",
    "RunnerDeployment.apply(version_info=...)": "give the deployment a version=...",
    "serve(webserver=True)": "leave it out: `whenthen serve` answers /healthz for all that it runs",
    "GitRepository(directories=...)": "leave it out: the whole repository is cloned, without its history",
    "runner.Runner": "use serve(...)",
    "runner.storage.RemoteStorage": "copy the code to where the worker runs, and give the path of the folder; or use GitRepository",
    "deploy(image=...)": "leave it out: nothing is built here; install what the code needs where `whenthen worker` runs for the pool, or give the "
    "deployment a command that starts a container",
    "deploy(job_variables=...)": "env and working_dir mean something here; the machine is that of the worker that takes the run",
    "to_deployment(version_type=...)": "leave it out: version=... is a text",
    "ConcurrencyLimitConfig(grace_period_seconds=...)": "leave it out: a slot comes free with the end of its run, also where its worker died",
    "Task.apply_async": "use .submit(...) in a flow, or start a deployment (run_deployment)",
    "Task.delay": "use .submit(...) in a flow, or start a deployment (run_deployment)",
    "Task.serve": "use .submit(...) in a flow, or start a deployment (run_deployment)",
    "schedules.Cron(day_or=False)": "use RRule: FREQ=MONTHLY;BYDAY=2FR;BYHOUR=8;BYMINUTE=0;BYSECOND=0 is the second Friday",
    "concurrency(max_retries=...)": "use timeout_seconds=...; 0 does not wait",
    "receive_input(exclude_keys=...)": "leave it out: each input is given once; skip in the loop what is not wanted",
    "receive_input(with_metadata=True)": "receive a RunInput: its `metadata` has key, sender and receiver",
    "run_deployment(flow_run_name=...)": "leave it out; a run is known by its id, and a flow may have a flow_run_name",
    "run_deployment(job_variables=...)": "set env, working_dir and work_pool of the deployment (docs/deployments.md)",
    "run_deployment(tags=...)": "set the tags of the deployment; its runs have them",
    "run_deployment(work_queue_name=...)": "give the deployment a work_pool of its own",
    "get_client(): filters": "give flow_run_filter=FlowRunFilter(...) or deployment_filter=DeploymentFilter(...) of "
    "whenthen.client.schemas.filters, and choose among the objects that you get",
    "get_client(): update_deployment": "change it in the rules; pause_deployment and resume_deployment switch its schedules",
    "get_client(): set_flow_run_state": "Cancelling and Cancelled are the states that can be asked for; a run finds the others itself",
    "get_client(): options of a run": "leave it out; what a run is to know is a parameter of its flow",
    "get_client(httpx_settings=...)": "leave it out: the client is not made of httpx, and waits 30 seconds for an answer",
    "get_client(): create_flow_run": "call the flow, or start a deployment (create_flow_run_from_deployment)",
}

#: what no run can do by itself, and what to do instead
NEEDS_SERVER = {
    "pause_flow_run": "run the flow as a deployment; then `whenthen runs resume RUN`, the page of the run or an action lets it go on "
    "(docs/flows.md, Waiting for people)",
    "suspend_flow_run": "run the flow as a deployment; then `whenthen runs resume RUN`, the page of the run or an action starts it again "
    "(docs/flows.md, Waiting for people)",
    "resume_flow_run": "call it in a run of a deployment, or use `whenthen runs resume RUN`",
    "RunInput": "give it as a parameter of the flow, or have the run wait for it: pause_flow_run(wait_for_input=...), which `whenthen runs "
    "resume RUN --input` and the page of the run answer",
    "deploy": "set WHENTHEN_URL to the address of one, such as http://127.0.0.1:4280, and WHENTHEN_API_TOKEN to its token, or start "
    "`whenthen serve RULES` on this machine",
    "run_deployment": "set WHENTHEN_URL to the address of one, such as http://127.0.0.1:4280, and WHENTHEN_API_TOKEN to its token; where the "
    "other flow can be imported, call it",
    "get_client": "set WHENTHEN_URL to the address of one, such as http://127.0.0.1:4280, and WHENTHEN_API_TOKEN to its token",
    "Variable.get": "set WHENTHEN_URL to the address of one; without a server the value comes from the environment",
    "Variable.set": "set WHENTHEN_URL to the address of one; without a server values come from the environment, which is not written",
    "Secret.load": "in a script the value comes from the environment; in a worker it may be one of the `secrets:` of the rules",
    "Secret.save": "secrets are kept outside: in the environment of the script, or where `secrets:` of the rules say",
    "JSON.load": "set WHENTHEN_URL to the address of one; without a server the value comes from the environment",
    "JSON.save": "set WHENTHEN_URL to the address of one; without a server values come from the environment, which is not written",
    "Artifact.get": "artifacts are kept by a server, at WHENTHEN_URL; without one an artifact is a line in the log of the run",
    "concurrency": "a limit of the environment holds within one process: in a process pool, or among several processes, a server has to "
    "count (`limits:` in its rules, and WHENTHEN_URL); use ThreadPoolTaskRunner where one process is enough",
}

#: those of them that ask the server at `WHENTHEN_URL`; the others ask through the reporter of the run
BY_ADDRESS = (
    "deploy", "get_client", "run_deployment", "Variable.get", "Variable.set", "JSON.load", "JSON.save", "Artifact.get",
)  # fmt: skip


def not_supported(name: str, found: str = "") -> NoReturn:
    """
    Raises:
        NotSupported: always; says what to do instead of `name`, a key of the table.
    """
    raise NotSupported(f"{name} is not supported{found and f' ({found})'}: {NOT_SUPPORTED[name]}")


def needs_server(name: str, more: str = "", kind: type[NeedsServer] = NeedsServer) -> NeedsServer:
    """The error of what a run can not do by itself; `name` is a key of the table."""
    from whenthen.flows.execution.reporter import REPORTER, SILENT  # which imports what asks for errors

    if REPORTER.get() is not SILENT:
        missing = "the worker of this run does not answer this"
    elif name in BY_ADDRESS:
        missing = "WHENTHEN_URL does not say where one is"
    else:
        missing = "a script is connected to none"
        if os.environ.get("WHENTHEN_URL"):
            missing += " (WHENTHEN_URL is not used for this)"
    return kind(f"{name} needs a server, and {missing}: {NEEDS_SERVER[name]}{more}")


def _names_of(module: str) -> Callable[[str], Any]:
    """The `__getattr__` of a module that is here, and of which some names are not."""

    def missing(name: str) -> Any:
        key = f"{module}.{name}"
        if key in NOT_SUPPORTED:
            not_supported(key)
        raise AttributeError(f"module 'whenthen.{module}' has no attribute {name!r}; docs/prefect.md lists what it has")

    return missing


names_of_blocks_system = _names_of("blocks.system")
names_of_deployments = _names_of("deployments")
names_of_events = _names_of("events")
names_of_runner = _names_of("runner")
names_of_runner_storage = _names_of("runner.storage")


def __getattr__(name: str) -> Any:
    for key in NOT_SUPPORTED:
        if key.replace(".", "_") == name:
            not_supported(key)
    raise AttributeError(name)
