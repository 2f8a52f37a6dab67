"""Short programs for what surrounds flows, in the form of flow_programs.py: schedules, deployments, events, artifacts, secrets, limits, input.

The results beside them (fringe_programs.json) were recorded with Prefect 3.9.0 on Python 3.11.

    python fringe_programs.py FOLDER [r01 r02 ...]
"""
import asyncio, datetime as dt, inspect, json, sys, time, traceback, uuid
from pathlib import Path

from whenthen import flow, pause_flow_run, suspend_flow_run, task
from whenthen.artifacts import (
    ImageArtifact, LinkArtifact, MarkdownArtifact, ProgressArtifact, TableArtifact, create_link_artifact, create_markdown_artifact,
    create_progress_artifact, create_table_artifact,
)
from whenthen.blocks.system import Secret
from whenthen.concurrency.asyncio import concurrency as aconcurrency
from whenthen.concurrency.sync import concurrency, rate_limit
from whenthen.deployments.runner import RunnerDeployment
from whenthen.events import DeploymentCompoundTrigger, DeploymentEventTrigger, EventTrigger, emit_event
from whenthen.flows import load_flow_from_entrypoint
from whenthen.input import RunInput
from whenthen.runtime import deployment, flow_run, task_run
from whenthen.schedules import Cron, Interval, RRule, Schedule

WORK = Path(sys.argv[1])
only = set(sys.argv[2:])
CASES = []
def case(fn): CASES.append(fn); return fn
def tried(fn):
    try: return fn()
    except Exception as e: return type(e).__name__

(WORK / "jobs.py").write_text(f"from {flow.__module__.split('.')[0]} import flow\n@flow(name='Job')\ndef work(x: int = 2): return x * 2\ndef plain(): ...\n")

@flow
def f(x: int = 1, y: str = "a"): return x

@case
def r01_an_event_of_a_run():
    @flow
    def g():
        e = emit_event("a.b", resource={"prefect.resource.id": "x", "k": "v"}, payload={"p": [1]},
                       related=[{"prefect.resource.id": "r", "prefect.resource.role": "w"}])
        return e.event, e.resource["k"], e.payload, type(e.id).__name__, e.follows, e.occurred.tzinfo is not None, e.related[0].role
    return g()

@case
def r02_wrong_events_give_none():
    return [emit_event("a", resource=r) for r in ({"n": "x"}, {"prefect.resource.id": ""}, {"prefect.resource.id": "x", "n": 2})]

@case
def r03_events_that_follow():
    r = {"prefect.resource.id": "x"}
    old = emit_event("a", resource=r, occurred=dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc))
    new = emit_event("b", resource=r, id=uuid.UUID(int=5))
    return emit_event("c", resource=r, follows=old).follows, str(emit_event("c", resource=r, follows=new).follows)

@case
def r04_names_and_labels_of_events():
    e = emit_event("x", resource={"prefect.resource.id": "i", "prefect.resource.name": "nm", "label": "v"})
    return e.resource.name, len(e.involved_resources), e.find_resource_label("label"), e.find_resource_label("none"), e.model_dump(mode="json")["event"]

@case
def r05_limits_that_do_not_exist_let_pass():
    @flow
    def g():
        with concurrency("nope", occupy=1): pass
        rate_limit("nope")
        async def m():
            async with aconcurrency(["nope", "n2"], occupy=2): return 1
        return asyncio.run(m()), tried(lambda: concurrency("nope2", strict=True).__enter__())
    return g()

@case
def r06_artifacts_have_ids():
    @flow
    def g():
        made = (create_markdown_artifact("# x", key="k"), create_table_artifact([{"a": 1}]), create_link_artifact("http://x"), create_progress_artifact(3.0))
        return [isinstance(one, uuid.UUID) for one in made]
    return g()

@case
def r07_artifacts_are_kept_as():
    return (MarkdownArtifact(markdown="x", key="k").format(), TableArtifact(table={"a": [1, float("nan")]}).format(), LinkArtifact(link="l", link_text="t").format(),
            LinkArtifact(link="l").format(), ProgressArtifact(progress=-3).format(), ImageArtifact(image_url="u").format(),
            [a.type for a in (LinkArtifact(link="l"), ImageArtifact(image_url="u"), MarkdownArtifact(markdown="x"))])

@case
def r08_in_async_flows_artifacts_are_awaited():
    @flow
    async def g():
        made = create_markdown_artifact("x")
        return inspect.isawaitable(made), type(await made).__name__, emit_event("x", resource={"prefect.resource.id": "i"}).event
    return asyncio.run(g())

@case
def r09_outside_of_flows_nothing_is_paused():
    return tried(pause_flow_run), tried(suspend_flow_run), tried(lambda: pause_flow_run(timeout=-1))

@case
def r10_input_is_a_model():
    class In(RunInput):
        n: int
        s: str = "z"
    return In(n=1).model_dump(), In.with_initial_data(n=5)().n, tried(lambda: In(n=1, z=3)), In.with_initial_data(description="hi").__name__

@case
def r11_secrets_hide():
    @task
    def use(s): return s.get()
    @flow
    def g(s: Secret): return use(s), str(s)
    return g(Secret(value="x")), Secret(value="[1, 2]").get(), Secret(value={"a": 1}).get(), repr(Secret(value="q").value), Secret(value="a") == Secret(value="a")

@case
def r12_flows_of_files():
    loaded = flow.from_source(source=str(WORK), entrypoint="jobs.py:work")
    return (loaded(), flow.from_source(source=WORK, entrypoint="jobs.py:work").name, load_flow_from_entrypoint(f"{WORK}/jobs.py:work")(3),
            tried(lambda: load_flow_from_entrypoint(f"{WORK}/jobs.py:nope")), tried(lambda: load_flow_from_entrypoint(f"{WORK}/nope.py:x")),
            RunnerDeployment.from_entrypoint(f"{WORK}/jobs.py:work", name="z").flow_name)

@case
def r13_runtime_without_a_deployment():
    @flow
    def g(x): return deployment.parameters, deployment.name, deployment.id, flow_run.parameters
    return g(4), flow_run.id, flow_run.name, flow_run.tags, flow_run.parameters, task_run.id, deployment.id

@case
def r14_schedules_as_values():
    anchor = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)
    return (Interval(60).interval, Interval(dt.timedelta(hours=1), anchor_date=anchor).anchor_date.year, Cron("0 0 * * *").day_or,
            RRule("FREQ=DAILY", timezone="Europe/Paris").timezone, Cron("@daily").cron, Cron("0 0 * * *", slug="a").slug, Cron("0 0 * * *").active)

@case
def r15_schedules_that_are_wrong():
    return [tried(one) for one in (
        lambda: f.to_deployment("d", schedule=Cron("0 0 * * *"), schedules=[]), lambda: RRule("x"), lambda: Cron("x"), lambda: Cron("61 * * * *"),
        lambda: f.to_deployment("d", cron="0 0 * * *", rrule="FREQ=DAILY"), lambda: Schedule(cron="0 0 * * *", rrule="FREQ=DAILY"), lambda: f.to_deployment("a/b"))]

@case
def r16_schedules_of_deployments():
    one = f.to_deployment("d", interval=3600).schedules[0]
    two = f.to_deployment("d", schedules=[Cron("0 1 * * *", active=False, slug="a", parameters={"x": 2}), Cron("0 2 * * *")]).schedules
    return (one.schedule.interval, one.schedule.timezone, one.active, one.parameters), [(s.schedule.cron, s.active, s.slug, s.parameters, s.schedule.timezone) for s in two], \
        [s.schedule.interval for s in f.to_deployment("d", interval=[5, dt.timedelta(minutes=1)]).schedules], f.to_deployment("d", rrule="FREQ=DAILY").schedules[0].schedule.timezone

@case
def r17_what_a_deployment_has():
    @flow(name="My Flow", description="d", version="7")
    def g(x: int): return x
    d = g.to_deployment("prod.py", tags=["a"], work_pool_name="p", work_queue_name="q", job_variables={"a": 1}, concurrency_limit=3, paused=True)
    return (d.name, d.flow_name, d.full_name, d.parameters, d.tags, d.schedules, d.paused, d.version, d.description, d.work_pool_name, d.work_queue_name,
            d.job_variables, d.concurrency_limit, d.triggers, d.enforce_parameter_schema, d.entrypoint.rpartition(":")[2])

@case
def r18_triggers_of_deployments():
    d = f.to_deployment("d", triggers=[DeploymentEventTrigger(enabled=True, expect=["a", "b"], match={"prefect.resource.id": "x.*"}, parameters={"x": "{{ event.resource.id }}"}), {"expect": ["c"]}])
    t = d.triggers[0]
    return ((t.posture.value, t.threshold, t.within, t.enabled, t.name, sorted(t.expect), t.parameters), type(d.triggers[1]).__name__, tried(lambda: f.to_deployment("d", triggers=["x"])),
            tried(lambda: DeploymentCompoundTrigger(require=3, triggers=[EventTrigger(expect={"a"})])), DeploymentEventTrigger(expect={"a"}, posture="Proactive").within)

@case
def r19_in_a_loop_deployments_are_awaited():
    async def m():
        d = f.to_deployment("d")
        return inspect.isawaitable(d), (await d).name
    return asyncio.run(m())

if __name__ == "__main__":
    for fn in CASES:
        if only and fn.__name__[:3] not in only: continue
        t = time.monotonic()
        try: out = fn()
        except BaseException as e: out = "EXC " + "".join(traceback.format_exception_only(e)).strip(); traceback.print_exc()
        print(f"RESULT {fn.__name__}: {out!r}  ({time.monotonic()-t:.1f}s)", flush=True)
