"""A deployment as data: made of a flow or of the place of one, checked when it is made, and written as `deployments:` of the rules."""

from __future__ import annotations

import inspect
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from whenthen.flows.argument_kinds import COUNT, LISTED, MAPPING, NAMES, TEXT, TRUTH, Kind, check, checked_arguments
from whenthen.flows.definitions.option_checks import BANNED_IN_NAMES
from whenthen.flows.deploying.schedule_values import DeploymentScheduleCreate, IntervalSchedule, Seconds, schedules_of
from whenthen.flows.flow_errors import InvalidNameError, ParameterTypeError
from whenthen.flows.unsupported import not_supported

if TYPE_CHECKING:
    from uuid import UUID

    from whenthen.flows.definitions.flow_definition import Flow
    from whenthen.flows.deploying.deployment_triggers import AnyTrigger

__all__ = ["ConcurrencyLimitConfig", "RunnerDeployment", "entrypoint_of"]

NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
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
            entrypoint=entrypoint_of(flow, getattr(entrypoint_type, "value", entrypoint_type)),
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
        made.entrypoint = entrypoint
        made.flow_name = flow_name or made.flow_name
        return made

    @classmethod
    def from_storage(cls, *args: Any, **options: Any) -> NoReturn:
        """Not supported.

        Raises:
            NotSupported: always.
        """
        not_supported("RunnerDeployment.from_storage")

    afrom_storage = from_storage

    @checked_arguments(work_pool_name=TEXT.or_none)
    def apply(
        self,
        schedules: list[dict[str, Any]] | None = None,
        work_pool_name: str | None = None,
        image: str | None = None,
        version_info: Any = None,
    ) -> UUID:
        """Give the deployment to the server; with `schedules`, these in the place of its own.

        Raises:
            ValueError: a parameter does not fit the flow.
            NeedsServer: no reporter connects the run to a server.
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
        sets = [self.parameters, *(entry.parameters for entry in self.schedules)]
        sets += [trigger.parameters for trigger in self.triggers if trigger.parameters is not None]
        for given in sets:
            self._check(given)

    def _check(self, given: Mapping[str, Any]) -> None:
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
            self.flow.validate_parameters(dict(given))
        except ParameterTypeError as error:
            raise ValueError(f"deployment {self.name!r}: {error}") from None

    def as_request(self) -> dict[str, Any]:
        """What a server is told: JSON, with the deployment itself as a rule and its triggers as Prefect writes them."""
        return {
            "name": self.name,
            "flow_name": self.flow_name,
            "version": self.version,
            "description": self.description,
            "paused": self.paused,
            "rule": self.as_rule(),
            "triggers": [one.model_dump(mode="json", exclude_defaults=True) for one in self.triggers],
            "collision_strategy": None
            if self.concurrency_options is None
            else self.concurrency_options.collision_strategy,
            "work_queue_name": self.work_queue_name,
            "job_variables": self.job_variables,
        }

    def as_rule(self) -> str:
        """The deployment as an item of `deployments:` in a file of rules, in YAML."""
        lines = [f"- name: {_flow_style(self.name)}", f"entrypoint: {_flow_style(self.entrypoint)}"]
        if self.parameters:
            lines.append(f"parameters: {_flow_style(self.parameters)}")
        if self.tags:
            lines.append(f"tags: {_flow_style(self.tags)}")
        if self.concurrency_limit is not None:
            lines.append(f"concurrency_limit: {self.concurrency_limit}")
        if self.work_pool_name:
            lines.append(f"work_pool: {_flow_style(self.work_pool_name)}")
        if self.schedules:
            lines.append("schedules:")
            lines += [f"  - {_flow_style(self._schedule(*one))}" for one in enumerate(self.schedules)]
        return "\n  ".join(lines)

    def _schedule(self, number: int, entry: DeploymentScheduleCreate) -> dict[str, Any]:
        item: dict[str, Any] = {"name": entry.slug or ("default" if number == 0 else f"schedule-{number + 1}")}
        if isinstance(entry.schedule, IntervalSchedule):
            from whenthen.schemas.times import format_duration  # not before it is written: it imports pydantic

            item["interval"] = format_duration(entry.schedule.interval)
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


def entrypoint_of(flow: Flow[..., Any], kind: str | None = None) -> str:
    """Where a flow is found: `path/to/file.py:function` from the working directory, or `package.module:function`.

    Raises:
        ValueError: the flow was written at a prompt or in a notebook.
    """
    check("deployment", {"entrypoint_type": ENTRYPOINT.or_none}, {"entrypoint_type": kind})
    fn = flow.fn
    name = getattr(fn, "__qualname__", type(fn).__name__)
    if kind == "module_path":
        return f"{fn.__module__}:{name}"
    module = sys.modules.get(fn.__module__)
    path = getattr(module, "__file__", None) or inspect.unwrap(fn).__code__.co_filename
    if not path or path.startswith("<") or not Path(path).exists():
        raise ValueError(
            f"flow {flow.name!r} was written at a prompt and is in no file, so that no server can load it; write it into a file"
        )
    return f"{os.path.relpath(path)}:{name}"


def checked_deployment_name(name: Any) -> str:
    if not isinstance(name, str) or not name.strip():
        raise InvalidNameError(f"the name of a deployment is a text that is not empty; found {name!r:.80}")
    if found := [character for character in BANNED_IN_NAMES if character in name]:
        raise InvalidNameError(
            f"Name {name!r} contains an invalid character: {found[0]!r}. Must not contain any of: {list(BANNED_IN_NAMES)}"
        )
    return Path(name).stem if name.endswith(".py") else name


def _flow_style(value: Any) -> str:
    """A value as JSON that YAML reads as the same: it allows fewer characters, and takes 1e+16 for a text."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow_style(str(key))}: {_flow_style(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_flow_style, value)) + "]"
    if isinstance(value, float) and math.isfinite(value):
        digits, e, exponent = repr(value).partition("e")
        return f"{digits}.0e{exponent}" if e and "." not in digits else repr(value)
    written = json.dumps(value, default=str, ensure_ascii=False)
    return NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", written)
