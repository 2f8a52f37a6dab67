"""Deployments that scripts register, as a part of the rules: what becomes of a set of files."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from whenthen import flow
from whenthen.events import (
    DeploymentCompoundTrigger,
    DeploymentEventTrigger,
    DeploymentMetricTrigger,
    DeploymentSequenceTrigger,
    EventTrigger,
    MetricTriggerQuery,
)
from whenthen.rules import Rules, SourceFile, compile_files
from whenthen.rules.reading.source_files import absent_files
from whenthen.rules.registering import registration as registering
from whenthen.rules.registering.registered_names import RegisteredName, is_registered, registered_name
from whenthen.rules.registering.registered_triggers import own_triggers
from whenthen.schedules import Cron, Interval
from whenthen.schemas.deployments import Deployment
from whenthen.schemas.errors import Conflict, InvalidInput, InvalidRules, NotFound
from whenthen.schemas.work_pools import is_served_pool, served_pool

OWN = SourceFile(name="a.yaml", raw=b'deployments:\n  - {name: etl/filed, command: "true"}\n')
EMPTY = Rules()


def new(name: str, **more: Any) -> registering.NewDeployment:
    written = {"name": name, "entrypoint": "etl.py:run", "code": {"folder": "/srv/etl"}, **more}
    return registering.NewDeployment(written=written, model=Deployment.model_validate(written))


def together(before: Rules, files: Any) -> Rules:
    return compile_files(Path("/srv/rules"), list(files), kept=before)


def register(before: Rules, *deployments: registering.NewDeployment, script: str = "/srv/etl/main.py", served: bool = False,
             at_work: Collection[str] = ()) -> Rules:  # fmt: skip
    files = registering.registered(before, deployments, script=script, served=served, at_work=at_work)
    return together(before, files)


def test_a_registered_deployment_is_a_file_of_the_set_that_no_folder_has() -> None:
    base = together(EMPTY, [OWN])
    rules = register(base, new("etl/nightly", tags=["t"], parameters={"at": 1e16, "text": "on", "sign": "\u2028{"}))
    [file] = [file for file in rules.files_read if is_registered(file.name)]
    assert registered_name(file.name) == RegisteredName("etl/nightly", "/srv/etl/main.py", False)
    found = {each.name: each for each in rules.deployments}
    assert found["etl/nightly"].parameters == {"at": 1e16, "text": "on", "sign": "\u2028{"}
    assert set(found) == {"etl/filed", "etl/nightly"}
    assert rules.revision != base.revision
    assert rules.own_revision == base.revision == base.own_revision
    # the folder does not miss it
    assert absent_files([OWN], rules.files_read) == []
    assert registering.with_registered([OWN], rules.files_read) == list(rules.files_read)
    assert registering.with_registered([OWN], base.files_read) == [OWN]


def test_registering_the_same_again_changes_nothing() -> None:
    once = register(EMPTY, new("etl/a"), new("etl/b"))
    assert register(once, new("etl/b"), new("etl/a")).revision == once.revision


def test_a_parameter_that_became_true_is_no_longer_one() -> None:
    once = register(EMPTY, new("etl/a", parameters={"n": 1, "m": 2}))
    assert register(once, new("etl/a", parameters={"m": 2, "n": 1})).revision == once.revision
    (deployment,) = register(once, new("etl/a", parameters={"n": True, "m": 2})).deployments
    assert deployment.parameters["n"] is True


def test_the_same_program_registers_a_later_version_of_itself() -> None:
    once = register(EMPTY, new("etl/a", work_pool=served_pool("etl/a")), served=True)
    later = new("etl/a", work_pool=served_pool("etl/a"), version="2")
    again = register(once, later, served=True, at_work={"served:etl.a"}, script="/elsewhere/main.py")
    assert [each.version for each in again.deployments] == ["2"]
    assert len(again.files) == 1


def test_another_program_has_the_name_when_nobody_works_for_it() -> None:
    once = register(EMPTY, new("etl/a", work_pool="served:etl.a"), served=True)
    other = new("etl/a", work_pool="served:etl.a", code={"folder": "/srv/other"})
    with pytest.raises(
        Conflict, match=r"'etl/a' is served by etl.py:run in /srv/etl, which works at the moment; stop that"
    ):
        register(once, other, served=True, at_work={"served:etl.a"}, script="/srv/other/main.py")
    taken = register(once, other, served=True, script="/srv/other/main.py")
    assert [each.code.folder for each in taken.deployments if each.code] == ["/srv/other"]


def test_a_deployed_one_is_replaced_by_whoever_deploys_it() -> None:
    once = register(EMPTY, new("etl/a"))
    other = register(once, new("etl/a", entrypoint="other.py:run"), script="/other.py", at_work={"default"})
    assert [each.entrypoint for each in other.deployments] == ["other.py:run"]


def test_a_name_of_a_rules_file_is_refused_with_its_file() -> None:
    base = together(EMPTY, [OWN])
    with pytest.raises(
        Conflict, match=r"'etl/filed' is in the rules file a.yaml; give the one of the script another name"
    ):
        register(base, new("etl/filed"))
    with pytest.raises(Conflict, match=r"'etl/filed' is in the rules file a.yaml; take it out there"):
        registering.without_registered(base, ["etl/filed"])


def test_a_rules_file_that_takes_a_registered_name_is_refused() -> None:
    rules = register(together(EMPTY, [OWN]), new("etl/b"))
    changed = SourceFile(name="b.yaml", raw=b'deployments:\n  - {name: etl/b, command: "true"}\n')
    with pytest.raises(InvalidRules, match=r'b.yaml:2:12: deployments\[0\].name: deployment "etl/b" is defined twice'):
        together(rules, registering.with_registered([OWN, changed], rules.files_read))


def test_what_a_script_serves_no_more_goes_and_what_others_registered_stays() -> None:
    rules = register(EMPTY, new("a"), script="/one.py", served=True)
    rules = register(rules, new("b"), new("c"), script="/two.py", served=True)
    rules = register(rules, new("d"), script="/two.py")
    rules = register(rules, new("b"), script="/two.py", served=True)
    assert {each.name for each in rules.deployments} == {"a", "b", "d"}


def test_what_is_worked_for_stays_though_the_script_does_not_name_it() -> None:
    rules = register(EMPTY, new("a", work_pool="served:a"), new("b", work_pool="served:b"), served=True)
    rules = register(rules, new("a", work_pool="served:a"), served=True, at_work={"served:b"})
    assert {each.name for each in rules.deployments} == {"a", "b"}


def test_registered_deployments_are_taken_out_by_name() -> None:
    rules = register(EMPTY, new("etl/a"), new("etl/b"))
    assert {each.name for each in together(rules, registering.without_registered(rules, ["etl/a"])).deployments} == {
        "etl/b"
    }
    with pytest.raises(NotFound, match="no script has registered a deployment 'etl/aa'; did you mean"):
        registering.without_registered(rules, ["etl/aa"])


def test_a_file_name_holds_whatever_a_script_and_a_deployment_are_called() -> None:
    name = RegisteredName("ä flow/na.me", "/a b/-/../c.py", True)
    assert registered_name(name.file()) == name
    assert registered_name(RegisteredName("x", "", False).file()) == RegisteredName("x", "", False)
    assert registered_name("a.yaml") is None


def test_the_pool_of_a_served_deployment_is_its_own() -> None:
    assert served_pool("a/b") == "served:a.b"
    names = ["a/b", "a.b", "a.b/c", "a/b.c", "a.b.c"]
    assert len(set(map(served_pool, names))) == len(names)
    assert is_served_pool("served:a.b")
    assert not is_served_pool("default")
    long = [served_pool("x" * 198 + end) for end in ("/a", "/b")]
    assert len(set(long)) == 2
    assert all(len(name) <= 200 for name in long)


# From Python and from YAML


@flow
def sync(day: int = 1, where: str = "here", size: int = 0) -> None:
    """Syncs."""


def from_python(**options: Any) -> Deployment:
    """What a server registers for `sync.to_deployment(...)`."""
    request = sync.to_deployment("nightly", **options).as_request()
    triggers, _ = own_triggers(request["triggers"], request["rule"]["name"])
    return Deployment.model_validate({**request["rule"], **({"triggers": triggers} if triggers else {})})


YAML = """
deployments:
  - name: sync/nightly
    description: Syncs.
    entrypoint: {entrypoint}
    code: {{folder: {folder}}}
    version: "3"
    parameters: {{day: 2}}
    tags: [a, b]
    work_pool: etl
    concurrency: {{limit: 2, on_limit: cancel-new}}
    env: {{REGION: eu}}
    working_dir: jobs
    schedules:
      - {{name: default, cron: "0 6 * * *", timezone: Europe/Paris}}
      - {{name: often, interval: 15m, timezone: UTC, parameters: {{day: 3}}, active: false}}
    triggers:
      - name: uploads
        trigger: {{expect: s3.file.uploaded, match: {{bucket: raw}}}}
        parameters: {{where: $.resource.key, size: $.payload.size, day: 4}}
        delay: 1m
      - name: both
        trigger:
          type: compound
          require: all
          within: 1h
          triggers: [{{expect: a}}, {{expect: b, match_related: [{{role: order}}]}}]
      - name: in-turn
        trigger: {{type: sequence, triggers: [{{expect: flow-run.Completed, match: {{flow: load}}}}, {{expect: c}}]}}
      - name: three
        trigger: {{expect: d, threshold: 3, within: 5m, window: tumbling, for_each: [id]}}
      - name: slow
        trigger:
          type: metric
          expect: [flow-run.Completed, flow-run.Crashed, flow-run.Failed, flow-run.TimedOut]
          match: {{flow: load}}
          aggregate: avg
          value: $.payload.duration
          operator: ">"
          threshold: 60
          within: 1h
          for: 5m
"""


def test_python_and_yaml_give_the_same_deployment() -> None:
    from whenthen.client.schemas.objects import ConcurrencyLimitConfig

    made = from_python(
        version="3",
        parameters={"day": 2},
        tags=["a", "b"],
        work_pool_name="etl",
        concurrency_limit=ConcurrencyLimitConfig(limit=2, collision_strategy="CANCEL_NEW"),
        job_variables={"env": {"REGION": "eu"}, "working_dir": "jobs"},
        schedules=[
            Cron("0 6 * * *", timezone="Europe/Paris"),
            Interval(900, parameters={"day": 3}, active=False, slug="often"),
        ],
        triggers=[
            DeploymentEventTrigger(
                name="uploads",
                expect={"s3.file.uploaded"},
                match={"bucket": "raw"},
                parameters={"where": "{{ event.resource.key }}", "size": "$.payload.size", "day": 4},
                schedule_after=60,
            ),
            DeploymentCompoundTrigger(
                name="both",
                require="all",
                within=3600,
                triggers=[
                    EventTrigger(expect={"a"}),
                    EventTrigger(expect={"b"}, match_related={"prefect.resource.role": "order"}),
                ],
            ),
            DeploymentSequenceTrigger(
                name="in-turn",
                triggers=[
                    EventTrigger(expect={"prefect.flow-run.Completed"}, match={"flow": "load"}),
                    EventTrigger(expect={"c"}),
                ],
            ),
            DeploymentEventTrigger(
                name="three", expect={"d"}, threshold=3, within=300, for_each={"prefect.resource.id"}
            ),
            DeploymentMetricTrigger(
                name="slow",
                match={"flow": "load"},
                metric=MetricTriggerQuery(name="duration", operator=">", threshold=60, range=3600, firing_for=300),
            ),
        ],
    )
    file = Path(__file__)
    text = YAML.format(entrypoint=f"{file.relative_to(Path.cwd())}:sync", folder=Path.cwd())
    [written] = compile_files(Path.cwd(), [SourceFile(name="a.yaml", raw=text.encode())]).deployments
    assert made == written


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("duration", "$.payload.duration"),
        ("lateness", "$.payload.lateness"),
        ("successes", "$.payload.succeeded"),
    ],
)
def test_a_metric_of_runs_is_the_average_of_a_value_of_their_ends(name: Any, value: str) -> None:
    query = MetricTriggerQuery(name=name, operator="<", threshold=0.5, range=600)
    [trigger] = from_python(triggers=[DeploymentMetricTrigger(metric=query)]).triggers
    made = trigger.trigger.model_dump(include={"aggregate", "value", "operator", "threshold"})
    assert made == {"aggregate": "avg", "value": value, "operator": "<", "threshold": 0.5}


def test_an_interval_without_an_anchor_is_registered_the_same_each_time() -> None:
    assert from_python(interval=60) == from_python(interval=60)
    assert from_python(interval=60).schedules[0].anchor is None


def test_a_template_that_is_a_whole_value_keeps_its_type() -> None:
    [trigger] = from_python(
        triggers=[
            DeploymentEventTrigger(
                expect={"x"}, parameters={"size": "{{ event.payload.size }}", "where": "{{ event.id }}!"}
            )
        ]
    ).triggers
    assert trigger.parameters == {"size": "$.payload.size", "where": "{{ event.id }}!"}


@pytest.mark.parametrize(
    ("trigger", "said"),
    [
        (DeploymentMetricTrigger(metric=MetricTriggerQuery(name="successes", operator="<", threshold=90)), "from 0 to 1; found 90: write 0.9 for 90 %"),
        (DeploymentEventTrigger(expect={"x"}, job_variables={"a": 1}), "job_variables of a trigger are not supported"),
        (DeploymentEventTrigger(expect={"x"}, parameters={"day": "{% if 1 %}2{% endif %}"}), "uses what has no counterpart"),
    ],
)  # fmt: skip
def test_a_trigger_without_a_counterpart_is_refused(trigger: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        from_python(triggers=[trigger])


def test_an_absence_comes_over_with_its_seconds() -> None:
    [trigger] = from_python(
        triggers=[DeploymentEventTrigger(posture="Proactive", expect={"b"}, after={"a"}, within=30)]
    ).triggers
    assert (trigger.trigger.posture, trigger.trigger.within.total_seconds()) == ("proactive", 30)


def test_async_programs_make_the_same(tmp_path: Path) -> None:
    async def made() -> Any:
        return (await sync.to_deployment("nightly", cron="0 1 * * *")).as_request()

    assert asyncio.run(made()) == sync.to_deployment("nightly", cron="0 1 * * *").as_request()
