"""What a flow can do besides running: become a deployment, be served, be loaded from elsewhere. The base of `Flow`; imports what it
needs when it is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from whenthen.flows.argument_kinds import COUNT, TRUTH, Kind, bound_arguments, checked_arguments

if TYPE_CHECKING:
    from whenthen.flows.definitions.flow_definition import Flow
    from whenthen.flows.deploying.code_origins import CodeOrigin
    from whenthen.flows.deploying.deployment_values import ConcurrencyLimitConfig, RunnerDeployment
    from whenthen.flows.deploying.schedule_values import Seconds

__all__ = ["Deployable"]

LIMIT = Kind(
    "a whole number from 1, or a ConcurrencyLimitConfig",
    lambda value: COUNT.fits(value) or hasattr(value, "collision_strategy"),
)


class Deployable:
    """Options are Prefect's; docs/prefect.md says which mean something here."""

    origin: CodeOrigin | None = None  #: where `from_source` has it from

    @checked_arguments()
    def to_deployment(
        self,
        name: str,
        interval: Iterable[Seconds] | Seconds | None = None,
        cron: Iterable[str] | str | None = None,
        rrule: Iterable[str] | str | None = None,
        paused: bool | None = None,
        schedule: Any = None,
        schedules: Iterable[Any] | None = None,
        concurrency_limit: int | ConcurrencyLimitConfig | None = None,
        parameters: dict[str, Any] | None = None,
        triggers: list[Any] | None = None,
        description: str | None = None,
        tags: list[str] | None = None,
        version: str | None = None,
        version_type: Any = None,
        enforce_parameter_schema: bool = True,
        work_pool_name: str | None = None,
        work_queue_name: str | None = None,
        job_variables: dict[str, Any] | None = None,
        entrypoint_type: Any = None,
    ) -> Any:
        """This flow as a deployment, for `serve(...)` and `deploy(...)`; in an async run a coroutine of it.

        Raises:
            ValueError: an option can not be understood, or two contradict each other.
        """
        from whenthen.flows.services.sync_or_awaited import sync_or_awaited

        options = {key: value for key, value in locals().items() if key not in ("self", "sync_or_awaited")}
        return sync_or_awaited(lambda: self._deployment(options))

    async def ato_deployment(self, name: str, **options: Any) -> RunnerDeployment:
        given = bound_arguments(Deployable.to_deployment, self, name, **options)
        return self._deployment({key: value for key, value in given.items() if key != "self"})

    @checked_arguments(global_limit=LIMIT.or_none)
    def serve(
        self,
        name: str | None = None,
        interval: Iterable[Seconds] | Seconds | None = None,
        cron: Iterable[str] | str | None = None,
        rrule: Iterable[str] | str | None = None,
        paused: bool | None = None,
        schedule: Any = None,
        schedules: Iterable[Any] | None = None,
        global_limit: int | ConcurrencyLimitConfig | None = None,
        triggers: list[Any] | None = None,
        parameters: dict[str, Any] | None = None,
        description: str | None = None,
        tags: list[str] | None = None,
        version: str | None = None,
        enforce_parameter_schema: bool = True,
        pause_on_shutdown: bool = True,
        print_starting_message: bool = True,
        limit: int | None = None,
        webserver: bool = False,
        entrypoint_type: Any = None,
    ) -> None:
        """Start runs of this flow, by its schedules, triggers and when asked, until interrupted: with the server at hand, or one that is
        started for it.

        Raises:
            ValueError: an option can not be understood.
            ServerError: the server refuses, or does not go on.
        """
        from whenthen.flows.deploying.given_deployments import serve

        made = self._deployment(
            {
                "name": self._own_name() if name is None else name,
                "interval": interval,
                "cron": cron,
                "rrule": rrule,
                "paused": paused,
                "schedule": schedule,
                "schedules": schedules,
                "concurrency_limit": global_limit,
                "triggers": triggers,
                "parameters": parameters,
                "description": description,
                "tags": tags,
                "version": version,
                "enforce_parameter_schema": enforce_parameter_schema,
                "entrypoint_type": entrypoint_type,
            }
        )
        serve(
            made,
            limit=limit,
            pause_on_shutdown=pause_on_shutdown,
            print_starting_message=print_starting_message,
            webserver=webserver,
        )

    @checked_arguments(build=TRUTH, push=TRUTH, print_next_steps=TRUTH, ignore_warnings=TRUTH)
    def deploy(
        self,
        name: str,
        work_pool_name: str | None = None,
        image: Any = None,
        build: bool = True,
        push: bool = True,
        work_queue_name: str | None = None,
        job_variables: dict[str, Any] | None = None,
        interval: Seconds | None = None,
        cron: str | None = None,
        rrule: str | None = None,
        paused: bool | None = None,
        schedule: Any = None,
        schedules: list[Any] | None = None,
        concurrency_limit: int | ConcurrencyLimitConfig | None = None,
        triggers: list[Any] | None = None,
        parameters: dict[str, Any] | None = None,
        description: str | None = None,
        tags: list[str] | None = None,
        version: str | None = None,
        version_type: Any = None,
        enforce_parameter_schema: bool = True,
        entrypoint_type: Any = None,
        print_next_steps: bool = True,
        ignore_warnings: bool = False,
    ) -> Any:
        """Give this flow to the server at hand as a deployment, and get its id, which is its name; in an async run a coroutine of it.

        Raises:
            ValueError: an option can not be understood.
            NeedsServer: there is no server at hand.
            ServerError: it refuses.
        """
        given = dict(locals())
        from whenthen.flows.deploying.given_deployments import give_deployments
        from whenthen.flows.services.sync_or_awaited import sync_or_awaited

        not_of_deployments = ("self", "image", "build", "push", "print_next_steps", "ignore_warnings")
        made = self._deployment({key: value for key, value in given.items() if key not in not_of_deployments})
        return sync_or_awaited(lambda: give_deployments([made], work_pool_name, image, quiet=not print_next_steps)[0])

    @classmethod
    def from_source(cls, source: Any, entrypoint: str) -> Any:
        """The flow of an entry point below the folder `source`, or in the git repository; in an async run a coroutine of it.

        Raises:
            FileNotFoundError: there is no such folder or file.
            ConfigurationError: the repository can not be cloned.
            NotSupported: `source` is a bucket.
        """
        from whenthen.flows.deploying.flow_loading import flow_from_source
        from whenthen.flows.services.sync_or_awaited import sync_or_awaited

        return sync_or_awaited(lambda: flow_from_source(source, entrypoint))

    @classmethod
    async def afrom_source(cls, source: Any, entrypoint: str) -> Flow[..., Any]:
        from whenthen.flows.deploying.flow_loading import flow_from_source
        from whenthen.flows.services.sync_or_awaited import in_thread

        return await in_thread(lambda: flow_from_source(source, entrypoint))

    def visualize(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not supported.

        Raises:
            NotSupported: always.
        """
        from whenthen.flows.unsupported import not_supported

        not_supported("Flow.visualize")

    def _deployment(self, options: dict[str, Any]) -> RunnerDeployment:
        from whenthen.flows.definitions.flow_definition import Flow
        from whenthen.flows.deploying.deployment_values import RunnerDeployment

        assert isinstance(self, Flow)
        return RunnerDeployment.from_flow(self, **options)

    def _own_name(self) -> str:
        """What Prefect calls a deployment that has no name: the file that is run, without its ending."""
        import sys

        return os.path.splitext(os.path.basename(sys.argv[0]))[0] or "default"
