"""An `Api` that keeps everything in memory, and a client over it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, cast

import httpx
import orjson

from whenthen.engine.bus.connection import Ack
from whenthen.engine.http import Api, HttpApp, Page, PauseRequest, RunRequest, create_app, why_models
from whenthen.engine.http import answer_models as answers
from whenthen.engine.metrics import Metrics
from whenthen.schemas.deployments import RunState
from whenthen.schemas.errors import Conflict, InvalidEvent, InvalidInput, NotFound, Refused
from whenthen.schemas.events import Event, new_event
from whenthen.schemas.firings import FiringState
from whenthen.schemas.times import format_time
from whenthen.schemas.webhooks import RateLimit
from whenthen.sources import Request, Translation

NOW = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)


TIME = format_time(NOW)
RUN = answers.FlowRunDetail(
    id="run-1",
    deployment="loader",
    work_pool="default",
    state=RunState.SCHEDULED,
    parameters={"a": 1},
    key="k",
    created=TIME,
    scheduled_for=TIME,
    changed=TIME,
    started=None,
    ended=None,
    attempt=0,
    message="",
    exit_code=None,
    worker=None,
    tags=[],
    lineage=None,
    trace=None,
    related=[],
    triggered_by="api",
    not_before=None,
    retries=0,
    retry_delay_s=0.0,
    result=None,
)
AUTOMATION = answers.AutomationState(name="a", state="active")
DEPLOYMENT = answers.DeploymentDetail(
    name="d",
    runs="true",
    work_pool="default",
    schedules=[],
    tags=[],
    description="",
    command=["true"],
    parameters={},
    env={},
    retries=0,
    retry_delay="10s",
)


class FakeStream:
    """A stream that ends at once."""

    async def frames(self) -> AsyncGenerator[bytes, None]:
        yield b"retry: 2000\nid: t1\n\n"

    def close(self) -> None:
        pass


#: what the fake answers to what it does not do itself
ANSWERS: dict[str, Any] = {
    "list_automations": [],
    "list_revisions": [],
    "find_automations": answers.FoundAutomations(items=[], found=0, total=0, states={}),
    "automation_names": ["a"],
    "rule_source": None,
    "system_sizes": answers.SystemSizes(streams=[], shards=[], disk_free=None, disk_reserve=0),
    "get_automation": answers.AutomationDetail(
        name="a",
        state="active",
        description="",
        enabled=True,
        tags=[],
        trigger={"type": "event"},
        actions=[],
        actions_on_trigger=[],
        actions_on_resolve=[],
        fired=0,
        last_fired=None,
        decided={},
        decisions=[],
    ),
    "list_decisions": [],
    "list_windows": [],
    "list_audit": [],
    "history_page": answers.HistoryPage(items=[], next=None, scanned=0, whole=True),
    "history_counts": [],
    "event_reasons": {},
    "action_tries": [],
    "run_states": [],
    "list_artifacts": [],
    "list_task_runs": answers.TaskRunList(task_runs=[], total=0),
    "list_webhooks": [],
    "try_rules": answers.TriedRules(firings=[], decisions=[]),
    "history_stats": answers.HistoryStats(where="", bytes=0, tables=[], streams=[]),
    "stream": FakeStream(),
    "record": why_models.RecordedTestItem(test={}, passes=True, rules=1, notes=[]),
    "trace": why_models.TraceReport(id="event:e", trace=None, items=[], links=[], cut=False, notes=[]),
    "why": why_models.WhyReport(
        automation="a",
        event="e",
        seq=1,
        at=None,
        key={},
        reason="not_expected",
        fired=False,
        firing=None,
        rules=1,
        source="computed",
        answer="",
        missing=[],
        decisions=[],
        clauses=None,
        before=[],
        after=[],
        notes=[],
    ),
    "list_firings": [],
    "get_firing": answers.FiringDetail(
        id="f",
        automation="a",
        state=FiringState.TRIGGERED,
        fired=TIME,
        at=TIME,
        key={},
        event=None,
        events=[],
        total=0,
        trace=answers.Trace(id="1" * 32, parent="2" * 16, flags="01"),
        seq=1,
        actions=[],
    ),
    "pause_automation": AUTOMATION,
    "resume_automation": AUTOMATION,
    "list_orphans": [],
    "forget_orphans": [],
    "list_deployments": [],
    "list_work_pools": [],
    "list_workers": [],
    "pause_deployment": DEPLOYMENT,
    "resume_deployment": DEPLOYMENT,
    "get_deployment": DEPLOYMENT,
    "list_runs": [RUN],
    "get_run": RUN,
    "cancel_run": RUN,
    "run_logs": answers.LogPage(lines=[], next=0, done=False),
    "run_log_end": answers.LogPage(lines=[], next=0, done=False),
    "list_actions": [],
    "get_action": answers.ActionState(
        key="f.0", automation="a", type="do-nothing", outcome="waiting", attempt=0, at=TIME, firing="f", seq=1
    ),
    "count_dead": answers.DeadLetterCount(count=7),
    "redrive_action": answers.Redriven(key="k.0", outcome="retrying", attempts=3),
    "drop_action": answers.Redriven(key="k.0", outcome="dropped", attempts=3),
}


def metrics_of(webhook: str) -> Metrics:
    """The metrics of a process whose rules have one webhook."""
    metrics = Metrics(version="1")
    metrics.take_rules({}, {}, webhooks=[webhook])
    return metrics


class FakeHook:
    """The webhook of a `FakeApi`, which decides itself."""

    needs_keys = False
    body_limit = None

    def __init__(self, api: FakeApi) -> None:
        self.api = api

    @property
    def methods(self) -> Collection[str]:
        return self.api.methods

    @property
    def rate_limit(self) -> RateLimit | None:
        return self.api.limit

    def check_head(self, request: Request, now: datetime) -> None:
        self.api.check_head(request)

    def translate(self, request: Request, now: datetime) -> Translation:
        return self.api.translate(request)


@dataclass
class FakeApi:
    """A webhook named `orders` (a token in a header); deployment `loader`."""

    stored: dict[str, Event] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    fail: dict[str, Exception] = field(default_factory=dict)  #: by event id, or "*"
    limit: RateLimit | None = None
    methods: Collection[str] = ("POST",)  #: of the webhook
    missing: list[str] = field(default_factory=list)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    refusals: list[tuple[str, ...]] = field(default_factory=list)
    kept: list[tuple[str, Request, InvalidInput]] = field(default_factory=list)
    traces: list[Any] = field(default_factory=list)  #: of the runs that were asked for
    translated: list[Request] = field(default_factory=list)
    registry: Metrics = field(default_factory=lambda: metrics_of("orders"))

    async def publish(self, event: Event) -> Ack:
        if error := self.fail.get(event.id) or self.fail.get("*"):
            raise error
        self.order.append(event.id)
        duplicate = event.id in self.stored
        self.stored.setdefault(event.id, event)
        return Ack(len(self.order), duplicate)

    def check_head(self, request: Request) -> None:
        """Nothing is known of a request before its body is there."""

    def translate(self, request: Request) -> Translation:
        if request.headers.get("x-token") != "right":
            raise Refused("x-token does not hold the token", status=401)
        if request.query.get("crash"):
            raise RuntimeError("secret detail")
        if request.query.get("drop"):
            return Translation(dropped=["when: false"])
        try:
            data = orjson.loads(request.body)
        except orjson.JSONDecodeError as error:
            raise InvalidInput(f"the body is not JSON: {error}") from None
        if not isinstance(data, dict) or "number" not in data:
            raise InvalidEvent("body.number is missing", path=("resource", "id"))
        self.translated.append(request)
        event = new_event(
            "order.created",
            resource={"id": f"order.{data['number']}"},
            now=NOW,
            source="webhook:orders",
            id=data.get("id"),
        )
        return Translation(events=[event])

    def note_refusal(self, source: str, reason: str, detail: str, who: str) -> None:
        self.refusals.append((source, reason, detail, who))

    def heard(self, webhook: str) -> None:
        pass

    def keep_refused(self, webhook: str, request: Request, error: InvalidInput) -> None:
        self.kept.append((webhook, request, error))

    def count_refused(self, webhook: str, reason: str) -> None:
        pass

    async def list_sources(self) -> list[answers.SourceItem]:
        return []

    async def list_refused(self, source: str | None, limit: int, before: int | None) -> list[answers.RefusedItem]:
        return []

    async def resend(
        self, source: str | None = None, only: str | None = None, before: int | None = None
    ) -> answers.ResendReport:
        return answers.ResendReport(sent=0, events=[], refused=[])

    async def try_request(self, webhook: str, request: Request) -> answers.TriedRequest:
        return answers.TriedRequest(events=[], dropped=[], answer=None, proof="")

    async def fetch_keys(self, webhook: str, request: Request) -> None:
        pass

    def confirm(self, webhook: str, asked: Translation) -> None:
        pass

    def hook(self, name: str) -> FakeHook | None:
        return FakeHook(self) if name in self.hook_names() else None

    def hook_names(self) -> Collection[str]:
        return {"orders"}

    def ready(self) -> list[str]:
        return self.missing

    def metrics(self) -> bytes:
        return self.registry.text()

    def notes(self) -> list[str]:
        return []

    async def asyncapi(self) -> bytes:
        return b"{}"

    async def status(self) -> answers.Status:
        rules = answers.RulesInForce(
            path="rules", revision="r1", files=[], automations=0, webhooks=0, deployments=0, notifiers=0
        )
        return answers.Status(
            version="1",
            pid=1,
            roles=["api"],
            address="",
            nats=None,
            embedded=True,
            up_seconds=0.5,
            missing=[],
            rules=rules,
            problems=[],
            shards={"0": 7},
            set_aside={},
            events_set_aside=[],
            restarts=0,
            pools=[],
        )

    async def backup(self) -> AsyncGenerator[bytes, None]:
        if self.missing:
            raise Conflict("a backup is being made already")

        async def parts() -> AsyncGenerator[bytes, None]:
            yield b"first "
            yield b"last"

        return parts()

    async def reload_rules(self) -> answers.ReloadReport:
        problem = answers.RuleProblem(file="a.yaml", line=1, column=2, field="automations", message="wrong")
        return answers.ReloadReport(taken=False, revision="r1", problems=[problem] if self.missing else [])

    async def list_events(self, page: Page) -> list[answers.StoredEvent]:
        self.calls.append(("list_events", page))
        return [answers.StoredEvent(**event.data, seq=1) for event in self.stored.values()]

    async def get_event(self, event_id: str) -> answers.StoredEvent:
        if event_id not in self.stored:
            raise NotFound(f"no event {event_id}")
        return answers.StoredEvent(**self.stored[event_id].data, seq=1)

    async def run_deployment(
        self, name: str, request: RunRequest, trace: dict[str, str] | None
    ) -> answers.FlowRunDetail:
        if name != "loader":
            raise NotFound(f'no deployment is named "{name}"; did you mean "loader"?')
        self.calls.append(("run", name, request.parameters, request.key, request.delay))
        self.traces.append(trace)
        return RUN

    async def pause_automation(self, name: str, request: PauseRequest) -> answers.AutomationState:
        self.calls.append(
            ("pause_automation", name, {"for": request.lasts, "reason": request.reason, "by": request.by})
        )
        return AUTOMATION

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)

        async def answer(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, *args, kwargs))
            if args and args[0] == "broken":
                raise RuntimeError("secret detail")
            return ANSWERS[name]

        return answer


def app_over(api: FakeApi, **options: Any) -> HttpApp:
    return create_app(api, metrics=api.registry, clock=lambda: NOW, **options)


class Standing:
    """Stands for the fake of the test that runs: an application costs more than everything that a request does in it."""

    def __init__(self) -> None:
        self.api = FakeApi()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.api, name)


@cache
def _shared() -> tuple[Standing, HttpApp]:
    standing = Standing()
    return standing, create_app(cast(Api, standing), metrics=Metrics(version="1"), clock=lambda: NOW)


def shared_app_over(api: FakeApi) -> HttpApp:
    """The one application without options, over this `api` until the next call; it counts in metrics of its own."""
    standing, app = _shared()
    standing.api = api
    return app


def client_of(app: HttpApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")
