"""A deployment as data: made of a flow or of the place of one, checked when it is made, and written as `deployments:` of the rules."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whenthen.flows.argument_kinds import COUNT, LISTED, MAPPING, NAMES, TEXT, TRUTH, Kind, check, checked_arguments
from whenthen.flows.definitions.option_checks import BANNED_IN_NAMES
from whenthen.flows.deploying.schedule_values import (
    DeploymentScheduleCreate,
    IntervalSchedule,
    MadeUpAnchor,
    Seconds,
    schedules_of,
)
from whenthen.flows.flow_errors import InvalidNameError, ParameterTypeError
from whenthen.flows.unsupported import not_supported

if TYPE_CHECKING:
    from whenthen.flows.definitions.flow_definition import Flow
    from whenthen.flows.deploying.deployment_triggers import AnyTrigger

__all__ = ["ConcurrencyLimitConfig", "RunnerDeployment", "checked_deployment_name", "place_of"]

COLLISIONS = ("ENQUEUE", "CANCEL_NEW")

ENTRYPOINT = Kind(
    "EntrypointType.FILE_PATH or MODULE_PATH, or the text file_path or module_path",
    lambda value: isinstance(value, str) and value in ("file_path", "module_path"),
)
OPTIONS = {
    "description": TEXT.or_none,
    "version": TEXT.or_none,
    "tags": NAMES,
    "paused": TRUTH,
    "parameters": MAPPING,
    "enforce_parameter_schema": TRUTH,
    "work_pool_name": TEXT.or_none,
    "work_queue_name": TEXT.or_none,
    "job_variables": MAPPING,
}


@dataclass(frozen=True, kw_only=True)
class ConcurrencyLimitConfig:
    """How many runs of a deployment there may be at once, and what becomes of the others."""

    limit: int
    collision_strategy: str = "ENQUEUE"
    grace_period_seconds: int | None = None

    def __post_init__(self) -> None:
        check("ConcurrencyLimitConfig", {"limit": COUNT, "grace_period_seconds": COUNT.or_none}, vars(self))
        strategy = getattr(self.collision_strategy, "value", self.collision_strategy)
        if strategy not in COLLISIONS:
            raise ValueError(f"collision_strategy is one of {', '.join(COLLISIONS)}; found {self.collision_strategy!r}")
        object.__setattr__(self, "collision_strategy", strategy)


@dataclass(kw_only=True)
class RunnerDeployment:
    """What can be run, when, and with which parameters. `flow.to_deployment(...)` makes one."""

    name: str
    flow_name: str | None = None
    description: str | None = None
    version: str | None = None
    tags: list[str] = field(default_factory=list)
    schedules: list[DeploymentScheduleCreate] = field(default_factory=list)
    concurrency_limit: int | None = None
    concurrency_options: ConcurrencyLimitConfig | None = None
    paused: bool = False
    parameters: dict[str, Any] = field(default_factory=dict)
    entrypoint: str | None = None
    triggers: list[AnyTrigger] = field(default_factory=list)
    enforce_parameter_schema: bool = True
    work_pool_name: str | None = None
    work_queue_name: str | None = None
    job_variables: dict[str, Any] = field(default_factory=dict)
    code: dict[str, Any] | None = None  #: where its code is, as `code` of a deployment in the rules
    flow: Flow[..., Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.name = checked_deployment_name(self.name)
        where = f"deployment {self.name!r}"
        check(where, OPTIONS, vars(self))
        self.tags = list(self.tags)
        check(where, OPTIONS, {"tags": self.tags})
        self.parameters = dict(self.parameters)
        self.job_variables = dict(self.job_variables)
        self.paused = bool(self.paused)
        if isinstance(self.concurrency_limit, ConcurrencyLimitConfig):
            self.concurrency_options = self.concurrency_limit
            self.concurrency_limit = self.concurrency_options.limit
        check(where, {"concurrency_limit": COUNT.or_none}, {"concurrency_limit": self.concurrency_limit})

    @property
    def full_name(self) -> str:
        return f"{self.flow_name}/{self.name}"

    @classmethod
    @checked_arguments("deployment", triggers=LISTED.or_none)
    def from_flow(
        cls,
        flow: Flow[..., Any],
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
    ) -> RunnerDeployment:
        """The deployment of `flow` under `name`.

        Raises:
            ValueError: an option can not be understood, or two contradict each other.
        """
        found = schedules_of(interval=interval, cron=cron, rrule=rrule, schedule=schedule, schedules=schedules)
        if version_type is not None:
            not_supported("to_deployment(version_type=...)", f"{version_type!r:.80}")
        kind = getattr(entrypoint_type, "value", entrypoint_type)
        entrypoint, code = place_of(flow, kind)
        made = cls(
            name=name,
            flow_name=flow.name,
            description=description if description is not None else flow.description,
            version=version if version is not None else flow.version,
            tags=[] if tags is None else tags,
            schedules=found,
            concurrency_limit=concurrency_limit,  # type: ignore[arg-type]  # `__post_init__` takes both
            paused=False if paused is None else paused,
            parameters={} if parameters is None else parameters,
            entrypoint=entrypoint,
            code=code,
            enforce_parameter_schema=enforce_parameter_schema,
            work_pool_name=work_pool_name,
            work_queue_name=work_queue_name,
            job_variables={} if job_variables is None else job_variables,
            flow=flow,
        )
        if triggers:
            from whenthen.flows.deploying.deployment_triggers import read_triggers

            made.triggers = read_triggers(triggers, made.name)
        return made

    @classmethod
    def from_entrypoint(
        cls, entrypoint: str, name: str, flow_name: str | None = None, **options: Any
    ) -> RunnerDeployment:
        """The deployment of the flow at `path/to/file.py:function`. Options are those of `from_flow`."""
        from whenthen.flows.deploying.flow_loading import load_flow_from_entrypoint

        made = cls.from_flow(load_flow_from_entrypoint(entrypoint), name, **options)
        file, _, function = entrypoint.rpartition(":")
        if file.endswith(".py"):
            made.entrypoint, made.code = _in_folder(Path(file), function)
        made.flow_name = flow_name or made.flow_name
        return made

    @classmethod
    def from_storage(cls, storage: Any, entrypoint: str, name: str, **options: Any) -> RunnerDeployment:
        """The deployment of the flow at an entry point of a folder or repository, as `flow.from_source` takes it. Options are those of
        `from_flow`."""
        from whenthen.flows.deploying.flow_loading import flow_from_source

        return cls.from_flow(flow_from_source(storage, entrypoint), name, **options)

    @classmethod
    async def afrom_storage(cls, storage: Any, entrypoint: str, name: str, **options: Any) -> RunnerDeployment:
        from whenthen.flows.services.sync_or_awaited import in_thread

        return await in_thread(lambda: cls.from_storage(storage, entrypoint, name, **options))

    @checked_arguments(work_pool_name=TEXT.or_none)
    def apply(
        self,
        schedules: list[dict[str, Any]] | None = None,
        work_pool_name: str | None = None,
        image: str | None = None,
        version_info: Any = None,
    ) -> Any:
        """Give the deployment to the server, and get its id, which is its name; with `schedules`, these in the place of its own.

        Raises:
            ValueError: a parameter does not fit the flow.
            NeedsServer: there is no server at hand.
            ServerError: it refuses.
        """
        from whenthen.flows.deploying.given_deployments import give_deployments

        if version_info is not None:
            not_supported("RunnerDeployment.apply(version_info=...)", f"{version_info!r:.80}")
        if schedules is not None:
            self.schedules = schedules_of(schedules=schedules)
        return give_deployments([self], work_pool_name, image)[0]

    def check_parameters(self) -> None:
        """
        Raises:
            ValueError: a parameter is not one of the flow's, or does not fit its type.
        """
        if self.flow is None or not self.enforce_parameter_schema:
            return
        for given in (self.parameters, *(entry.parameters for entry in self.schedules)):
            self._check(given, given)
        for trigger in self.triggers:
            given = trigger.parameters or {}
            self._check(given, {name: value for name, value in given.items() if not _has_template(value)})

    def _check(self, given: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Check the names that are given, and those values that are known by now."""
        assert self.flow is not None
        named = inspect.signature(self.flow.fn).parameters
        takes_all = any(one.kind is one.VAR_KEYWORD for one in named.values())
        unknown = [name for name in given if name not in named and not takes_all]
        if unknown:
            raise ValueError(
                f"deployment {self.name!r}: flow {self.flow_name!r} has no parameter {unknown[0]!r}; "
                f"it has {', '.join(named) or 'none'}"
            )
        try:
            self.flow.validate_parameters(dict(values))
        except ParameterTypeError as error:
            raise ValueError(f"deployment {self.name!r}: {error}") from None

    def as_request(self) -> dict[str, Any]:
        """What a server is told: JSON, with the deployment itself as a rule and its triggers as Prefect writes them.

        Raises:
            NotSupported: an option is given that means nothing here.
        """
        return {"rule": self.as_mapping(), "triggers": self._triggers()}

    def as_rule(self) -> str:
        """The deployment as an item of `deployments:` in a file of rules, in YAML; but for its triggers, which a server translates.

        Raises:
            NotSupported: an option is given that means nothing here.
        """
        from whenthen.yaml_text import list_item

        return list_item(self.as_mapping())

    def as_mapping(self) -> dict[str, Any]:
        """The fields of the deployment as the rules have them, but for its triggers. What says nothing is left out."""
        schedules = [self._schedule(number, entry) for number, entry in enumerate(self.schedules)]
        fields = {
            "name": self.full_name if self.flow_name else self.name,
            "description": self.description,
            "entrypoint": self.entrypoint,
            "code": self.code,
            "version": self.version,
            "parameters": self.parameters,
            "tags": self.tags,
            **self._limits(),
            "work_pool": self._work_pool(),
            **self._environment(),
            "schedules": schedules,
        }
        return {
            name: _as_json(self.name, name, value) for name, value in fields.items() if value not in (None, "", [], {})
        }

    def _triggers(self) -> list[dict[str, Any]]:
        return [one.model_dump(mode="json", exclude_defaults=True) for one in self.triggers]

    def _limits(self) -> dict[str, Any]:
        options = self.concurrency_options
        if options is not None and options.grace_period_seconds is not None:
            not_supported("ConcurrencyLimitConfig(grace_period_seconds=...)")
        if options is not None and options.collision_strategy == "CANCEL_NEW":
            return {"concurrency": {"limit": options.limit, "on_limit": "cancel-new"}}
        return {"concurrency_limit": self.concurrency_limit}

    def _work_pool(self) -> str | None:
        """A queue of a pool is a pool of its own."""
        queue = self.work_queue_name
        if queue and queue != "default":
            return f"{self.work_pool_name or 'default'}.{queue}"
        return self.work_pool_name

    def _environment(self) -> dict[str, Any]:
        given = {name: value for name, value in self.job_variables.items() if value not in (None, "", {}, [])}
        found: dict[str, Any] = {}
        if isinstance(env := given.pop("env", {}), Mapping):
            found["env"] = {str(name): str(value) for name, value in env.items() if value is not None}
        found["working_dir"] = given.pop("working_dir", None)
        for name, value in given.items():
            not_supported("deploy(job_variables=...)", f"{name}={value!r:.80}")
        return found

    def _schedule(self, number: int, entry: DeploymentScheduleCreate) -> dict[str, Any]:
        item: dict[str, Any] = {"name": entry.slug or ("default" if number == 0 else f"schedule-{number + 1}")}
        if isinstance(entry.schedule, IntervalSchedule):
            from whenthen.schemas.times import format_duration  # not before it is written: it imports pydantic

            item["interval"] = format_duration(entry.schedule.interval)
            if not isinstance(entry.schedule.anchor_date, MadeUpAnchor):
                item["anchor"] = entry.schedule.anchor_date.isoformat()
        else:
            item.update(
                {key: getattr(entry.schedule, key) for key in ("cron", "rrule") if hasattr(entry.schedule, key)}
            )
        if entry.schedule.timezone:
            item["timezone"] = entry.schedule.timezone
        if self.paused or not entry.active:
            item["active"] = False
        if entry.parameters:
            item["parameters"] = entry.parameters
        return item


def place_of(flow: Flow[..., Any], kind: str | None = None) -> tuple[str, dict[str, Any]]:
    """Where a flow is found: `path/to/file.py:function` or `package.module:function`, and the folder or repository that this is relative to. Of
    a flow of this program that is the working directory, or the folder of its file when it is elsewhere.

    Raises:
        ValueError: the flow was written at a prompt or in a notebook.
    """
    check("deployment", {"entrypoint_type": ENTRYPOINT.or_none}, {"entrypoint_type": kind})
    if flow.origin is not None:
        return flow.origin.entrypoint, flow.origin.code
    fn = flow.fn
    name = getattr(fn, "__qualname__", type(fn).__name__)
    if kind == "module_path":
        return f"{fn.__module__}:{name}", {"folder": os.getcwd()}
    module = sys.modules.get(fn.__module__)
    path = getattr(module, "__file__", None) or inspect.unwrap(fn).__code__.co_filename
    if not path or path.startswith("<") or not Path(path).exists():
        raise ValueError(
            f"flow {flow.name!r} was written at a prompt and is in no file, so that no server can load it; write it into a file"
        )
    return _in_folder(Path(path), name)


def _in_folder(path: Path, function: str) -> tuple[str, dict[str, Any]]:
    """The entry point of a function of a file, and the folder that it is relative to."""
    path, folder = path.absolute(), Path.cwd()
    if not path.is_relative_to(folder):
        folder = path.parent
    return f"{path.relative_to(folder)}:{function}", {"folder": str(folder)}


def checked_deployment_name(name: Any) -> str:
    if not isinstance(name, str) or not name.strip():
        raise InvalidNameError(f"the name of a deployment is a text that is not empty; found {name!r:.80}")
    if found := [character for character in BANNED_IN_NAMES if character in name]:
        raise InvalidNameError(
            f"Name {name!r} contains an invalid character: {found[0]!r}. Must not contain any of: {list(BANNED_IN_NAMES)}"
        )
    return Path(name).stem if name.endswith(".py") else name


def _has_template(value: Any) -> bool:
    if isinstance(value, str):
        return "{{" in value or "{%" in value or value.startswith(("$.", "$["))
    if isinstance(value, Mapping):
        return any(map(_has_template, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_has_template, value))


def _as_json(deployment: str, name: str, value: Any) -> Any:
    """A value as JSON; what is none, such as a date, as its text.

    Raises:
        ValueError: it holds a number that JSON does not have.
    """
    from pydantic_core import to_jsonable_python

    made = to_jsonable_python(value, fallback=str, inf_nan_mode="constants")
    try:
        json.dumps(made, allow_nan=False)
    except ValueError:
        raise ValueError(
            f"deployment {deployment!r}: {name} holds a number that is not finite, which JSON does not have"
        ) from None
    return made
