"""Flows as deployments: schedules, triggers, parameters, and the rules that they are written as."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.unit.flows.asking import connected
from tests.unit.flows.repositories import git_repository
from whenthen import deploy, flow, serve
from whenthen.client.schemas.actions import DeploymentScheduleCreate
from whenthen.client.schemas.objects import ConcurrencyLimitConfig
from whenthen.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from whenthen.deployments.runner import RunnerDeployment, adeploy
from whenthen.events import (
    CompoundTrigger,
    DeploymentCompoundTrigger,
    DeploymentEventTrigger,
    DeploymentMetricTrigger,
    DeploymentSequenceTrigger,
    EventTrigger,
    MetricTriggerQuery,
)
from whenthen.exceptions import (
    ConfigurationError,
    InvalidNameError,
    MissingFlowError,
    NeedsServer,
    NotSupported,
    ScriptError,
)
from whenthen.runner.storage import GitRepository
from whenthen.schedules import Cron, Interval, RRule, Schedule
from whenthen.schemas.deployments import Deployment

ANCHOR = datetime(2026, 1, 1, 6, tzinfo=UTC)


@flow(name="Load orders", description="loads", version="7")
def load(day: int = 1, *, where: str = "eu") -> int:
    return day


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({"cron": "0 6 * * 1-5"}, [CronSchedule]),
        ({"cron": ["0 6 * * *", "@daily"]}, [CronSchedule, CronSchedule]),
        ({"interval": 60}, [IntervalSchedule]),
        ({"interval": [1.5, timedelta(minutes=1)]}, [IntervalSchedule, IntervalSchedule]),
        ({"rrule": "FREQ=WEEKLY;BYDAY=MO"}, [RRuleSchedule]),
        ({"schedule": Cron("0 1 * * *", timezone="Europe/Paris")}, [CronSchedule]),
        ({"schedule": IntervalSchedule(interval=timedelta(hours=1))}, [IntervalSchedule]),
        ({"schedules": [Cron("0 1 * * *"), Interval(3600), RRule("FREQ=DAILY")]}, [CronSchedule, IntervalSchedule, RRuleSchedule]),
        ({"schedules": [{"schedule": {"cron": "0 1 * * *"}, "active": False}]}, [CronSchedule]),
        ({"schedules": [{"interval": 5}]}, [IntervalSchedule]),
        ({}, []),
    ],
)  # fmt: skip
def test_schedules_are_given_in_every_way_of_prefects(options: dict[str, Any], kinds: list[type]) -> None:
    assert [type(entry.schedule) for entry in load.to_deployment("d", **options).schedules] == kinds


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: load.to_deployment("d", cron="0 1 * * *", interval=5), "Only one of interval, cron, rrule, schedule, or schedules"),
        (lambda: Schedule(cron="0 1 * * *", rrule="FREQ=DAILY"), "Only one schedule type can be defined at a time. Found: cron, rrule"),
        (lambda: Schedule(), "found none"),
        (lambda: Cron("61 * * * *"), "'61 \\* \\* \\* \\*' is not a cron expression"),
        (lambda: Cron("* * * * * *"), "has 6 fields"),
        (lambda: Cron("0 0 30 2 *"), "never comes"),
        (lambda: Cron("0 0 * * *", timezone="Mars/X"), "'Mars/X' is not a known IANA time zone"),
        (lambda: Cron(3), "cron is a text; found 3"),
        (lambda: Interval(0), "the shortest interval is 1s"),
        (lambda: Interval(float("nan")), "no such number of seconds"),
        (lambda: Interval(10**20), "no such number of seconds"),
        (lambda: Interval("1h"), "an interval is seconds or a timedelta; found '1h'"),
        (lambda: RRule("FREQ=NEVER"), "is not an rrule"),
        (lambda: load.to_deployment("d", schedules=[7]), "a schedule is Cron"),
        (lambda: load.to_deployment("d", schedules=Cron("0 1 * * *")), "schedules is a list; write schedules=\\[...\\], or schedule= for one"),
        (lambda: load.to_deployment("d", cron=3), "cron is a text; found 3"),
        (lambda: load.to_deployment("d", interval="60"), "an interval is seconds or a timedelta; found '60'"),
        (lambda: load.to_deployment("d", schedules=[{"cronn": "0 1 * * *"}]), "there is no field 'cronn'; did you mean 'cron'\\? There are interval, cron"),
        (lambda: load.to_deployment("d", schedules=[Cron("0 1 * * *", slug="a"), Cron("0 2 * * *", slug="a")]), "different slugs"),
        (lambda: load.to_deployment("d", tags="nightly"), "tags is a list of texts"),
        (lambda: load.to_deployment("d", tags=3), "tags is a list of texts; found 3"),
        (lambda: load.to_deployment("d", parameters=[1]), "parameters is a mapping"),
        (lambda: load.to_deployment("d", concurrency_limit=0), "concurrency_limit is a whole number from 1, or None; found 0"),
        (lambda: ConcurrencyLimitConfig(limit=1, collision_strategy="DROP"), "one of ENQUEUE, CANCEL_NEW; found 'DROP'"),
        (lambda: serve(), "given no deployment"),
        (lambda: serve(load), "takes deployments, as flow.to_deployment"),
        (lambda: serve(load.to_deployment("d"), load.to_deployment("d")), "two deployments of one name"),
        (lambda: serve(load.to_deployment("d"), limit=0), "limit is a whole number from 1"),
        (lambda: load.serve("d", parameters={"dya": 3}), "flow 'Load orders' has no parameter 'dya'; it has day, where"),
        (lambda: load.serve("d", parameters={"day": "soon"}), "day: Input should be a valid integer"),
        (lambda: load.serve("d", schedule=Interval(5, parameters={"dya": 3})), "no parameter 'dya'"),
        (lambda: load.serve("d", triggers=[DeploymentEventTrigger(expect={"a"}, parameters={"dya": 3})]), "no parameter 'dya'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_where_it_is_written(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize("name", ["a/b", "a%", "", "  ", None, 3])
def test_a_name_that_can_be_no_deployments_is_refused(name: Any) -> None:
    with pytest.raises(InvalidNameError):
        load.to_deployment(name)


def test_a_deployment_has_what_the_flow_has() -> None:
    made = load.to_deployment("prod", parameters={"day": 2}, tags=["t"], paused=True)
    assert (made.name, made.flow_name, made.full_name) == ("prod", "Load orders", "Load orders/prod")
    assert (made.description, made.version, made.paused) == ("loads", "7", True)
    assert made.entrypoint.endswith("test_deployments_of_flows.py:load")
    assert load.to_deployment("d.py").name == "d"
    assert load.to_deployment("d", tags=(tag for tag in "ab")).tags == ["a", "b"]
    limited = load.to_deployment(
        "d", concurrency_limit=ConcurrencyLimitConfig(limit=3, collision_strategy="CANCEL_NEW")
    )
    assert (limited.concurrency_limit, limited.concurrency_options.collision_strategy) == (3, "CANCEL_NEW")
    entry = load.to_deployment(
        "d", schedule=Cron("0 1 * * *", active=False, parameters={"day": 2}, slug="s")
    ).schedules[0]
    assert isinstance(entry, DeploymentScheduleCreate)
    assert (entry.active, entry.parameters, entry.slug) == (False, {"day": 2}, "s")


def test_an_interval_has_the_time_zone_of_its_anchor() -> None:
    paris = datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Paris"))
    zones = [
        one.schedule.timezone
        for one in load.to_deployment("d", schedules=[Interval(86400, paris), Interval(5)]).schedules
    ]
    assert zones == ["Europe/Paris", "UTC"]


def test_in_an_event_loop_a_deployment_is_awaited() -> None:
    async def make() -> tuple[str, str]:
        return (await load.to_deployment("a")).name, (await load.ato_deployment("b")).name

    assert asyncio.run(make()) == ("a", "b")


def test_the_rules_have_it_as_python_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = load.to_deployment(
        "prod",
        parameters={"day": 2},
        tags=["nightly"],
        concurrency_limit=2,
        schedules=[
            Cron("0 6 * * *", timezone="Europe/Paris", slug="early"),
            Interval(90, anchor_date=ANCHOR, parameters={"day": 5}, active=False),
            RRule("FREQ=DAILY;BYHOUR=8;BYMINUTE=0;BYSECOND=0"),
        ],
    )
    monkeypatch.delenv("WHENTHEN_URL", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))  # no server of this user is at hand
    with pytest.raises(
        NeedsServer, match="deploy needs a server, and WHENTHEN_URL does not say where one is"
    ) as caught:
        deploy(made)
    [written] = yaml.safe_load(str(caught.value).partition("\n\n")[2])["deployments"]
    read = Deployment.model_validate(written)
    assert (read.name, read.parameters, read.tags, read.concurrency_limit) == (
        "Load orders/prod",
        {"day": 2},
        ["nightly"],
        2,
    )
    assert [(one.name, one.active, one.timezone) for one in read.schedules] == [
        ("early", True, "Europe/Paris"),
        ("schedule-2", False, "UTC"),
        ("schedule-3", True, "UTC"),
    ]
    assert read.schedules[1].interval == timedelta(seconds=90)
    assert read.schedules[1].anchor == ANCHOR
    for give in (lambda: load.deploy("d", work_pool_name="p"), lambda: load.to_deployment("d").apply()):
        with pytest.raises(NeedsServer, match="deploy needs a server"):
            give()
    with pytest.raises(NotSupported, match="nothing is built here"):
        load.deploy("d", image="i")


@given(interval=st.timedeltas(timedelta(seconds=1), timedelta(days=3653)))
def test_whatever_the_interval_is_the_rule_has_it_to_the_microsecond(interval: timedelta) -> None:
    [written] = yaml.safe_load(load.to_deployment("d", interval=interval).as_rule())
    assert Deployment.model_validate(written).schedules[0].interval == interval


def test_a_server_is_told_json() -> None:
    made = load.to_deployment(
        "d",
        cron="0 1 * * *",
        triggers=[DeploymentEventTrigger(expect={"a"}, within=60, parameters={"day": 3})],
        concurrency_limit=ConcurrencyLimitConfig(limit=2, collision_strategy="CANCEL_NEW"),
    )
    ids = [str(uuid4()), str(uuid4())]
    with connected(deploy=ids, serve=None) as server:
        assert deploy(made, load.to_deployment("e"), work_pool_name="p") == [UUID(one) for one in ids]
        assert load.deploy("d", image="i") == UUID(ids[0])
        serve(made, limit=3)
    assert [kind for kind, _ in server.requests] == ["deploy", "deploy", "serve"]
    body = server.requests[0][1]
    assert json.loads(json.dumps(body)) == body
    told = body["deployments"][0]
    assert told["rule"]["concurrency"] == {"limit": 2, "on_limit": "cancel-new"}
    assert told["rule"]["work_pool"] == "p"
    assert told["triggers"] == [
        {"expect": ["a"], "within": "PT1M", "parameters": {"day": 3}, "name": "d__automation_1"}
    ]


def test_an_async_caller_tells_a_server_the_same() -> None:
    made = load.to_deployment("d")
    with connected(deploy=[str(uuid4())]) as server:
        deploy(made, image=Path("i"), build=False)
        asyncio.run(adeploy(made, image=Path("i"), build=False))
    assert server.requests[0] == server.requests[1]
    with pytest.raises(TypeError, match="imge"):
        asyncio.run(adeploy(made, imge="i"))  # type: ignore[call-arg]


TEXTS = st.text(max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@given(parameters=st.dictionaries(TEXTS, VALUES, max_size=3), tags=st.lists(TEXTS, max_size=3))
def test_whatever_the_parameters_are_the_rule_reads_back(parameters: dict[str, Any], tags: list[str]) -> None:
    made = load.to_deployment("d", parameters=parameters, tags=tags)
    [read] = yaml.safe_load(made.as_rule())
    assert read.get("parameters", {}) == parameters
    assert read.get("tags", []) == tags


def test_a_flow_without_a_file_can_be_no_deployment() -> None:
    space: dict[str, Any] = {"__name__": "nowhere"}
    exec("from whenthen import flow\n@flow\ndef f(): ...", space)
    with pytest.raises(ValueError, match="was written at a prompt and is in no file"):
        space["f"].to_deployment("d")
    assert space["f"].to_deployment("d", entrypoint_type="module_path").entrypoint == "nowhere:f"


# Triggers


def test_triggers_are_objects_or_mappings_and_get_names() -> None:
    made = load.to_deployment(
        "d",
        triggers=[
            DeploymentEventTrigger(expect={"a.b"}, match={"prefect.resource.id": "x"}, parameters={"day": 3}),
            {"expect": ["c"]},
            EventTrigger(expect={"e"}),
            {"type": "sequence", "triggers": [{"expect": ["a"]}, {"expect": ["b"]}], "within": 60},
            DeploymentCompoundTrigger(require="any", triggers=[EventTrigger(expect={"a"})], name="mine"),
        ],
    )
    kinds = [DeploymentEventTrigger] * 3 + [DeploymentSequenceTrigger, DeploymentCompoundTrigger]
    assert [type(one) for one in made.triggers] == kinds
    assert [one.name for one in made.triggers] == [*(f"d__automation_{n}" for n in range(1, 5)), "mine"]
    assert made.triggers[3].within == timedelta(minutes=1)


def test_an_absence_takes_ten_seconds_at_least() -> None:
    assert DeploymentEventTrigger(posture="Proactive", expect={"a"}).within == timedelta(seconds=10)
    with pytest.raises(ValidationError, match="at least 10 seconds"):
        DeploymentEventTrigger(posture="Proactive", expect={"a"}, within=5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: DeploymentEventTrigger(expects={"a"}),
        lambda: DeploymentEventTrigger(expect={"a"}, threshold=0),
        lambda: DeploymentEventTrigger(expect={"a"}, within=-1),
        lambda: DeploymentEventTrigger(posture="Metric"),
        lambda: DeploymentCompoundTrigger(require=3, triggers=[EventTrigger(expect={"a"})]),
        lambda: DeploymentCompoundTrigger(require=0, triggers=[EventTrigger(expect={"a"})]),
        lambda: DeploymentSequenceTrigger(triggers=[]),
        lambda: CompoundTrigger(triggers=[EventTrigger(expect={"a"})]),
        lambda: DeploymentMetricTrigger(metric={"name": "speed", "threshold": 1, "operator": ">"}),
        lambda: MetricTriggerQuery(name="duration", threshold=1, operator=">", range=timedelta(seconds=1)),
        lambda: load.to_deployment("d", triggers=[{"type": "noise"}]),
        lambda: load.to_deployment("d", triggers=["a"]),
    ],
)
def test_a_trigger_that_can_not_be_understood_is_refused(make: Any) -> None:
    with pytest.raises(ValueError):
        make()


# Loading


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text("VALUE = 5\n")
    (tmp_path / "jobs.py").write_text(
        "from whenthen import flow\nfrom helper import VALUE\n"
        "@flow\ndef work(x: int = VALUE): return x\n"
        "class Group:\n    @flow\n    def inner(self): ...\n"
        "def plain(): ...\n"
        "if __name__ == '__main__': raise SystemExit('was run')\n"
    )
    (tmp_path / "broken.py").write_text("1 / 0\n")
    return tmp_path


def test_a_flow_is_loaded_from_a_folder(project: Path) -> None:
    before = list(sys.path)
    loaded = flow.from_source(source=project, entrypoint="jobs.py:work")  # type: ignore[attr-defined]
    assert loaded() == 5
    assert sys.path == before
    assert flow.from_source(str(project), "jobs.py:Group.inner").name == "inner"  # type: ignore[attr-defined]
    made = RunnerDeployment.from_entrypoint(str(project / "jobs.py:work"), "d", cron="0 1 * * *")
    assert (made.flow_name, made.entrypoint, made.code) == ("work", "jobs.py:work", {"folder": str(project)})
    of_folder = flow.from_source(project, "jobs.py:Group.inner").to_deployment("d")  # type: ignore[attr-defined]
    assert (of_folder.entrypoint, of_folder.code) == ("jobs.py:Group.inner", {"folder": str(project)})
    assert RunnerDeployment.from_storage(project, "jobs.py:work", "d").code == {"folder": str(project)}


@pytest.mark.parametrize(
    ("source", "entrypoint", "error", "said"),
    [
        ("{}", "nope.py:f", FileNotFoundError, "nope.py"),
        ("{}/none", "jobs.py:work", FileNotFoundError, "jobs.py"),
        ("{}", "jobs.py:wrok", MissingFlowError, "no flow 'wrok': there is no such name; flows there: work"),
        ("{}", "jobs.py:plain", MissingFlowError, "it is a function"),
        ("{}", "jobs.py", ValueError, "is not path/to/file.py:function"),
        ("{}", "broken.py:f", ScriptError, "ZeroDivisionError: division by zero"),
        ("s3://bucket/flows", "jobs.py:work", NotSupported, "give a folder or a git repository"),
        (7, "jobs.py:work", NotSupported, "found|7"),
        ("file://{}/none.git", "jobs.py:work", ConfigurationError, "can not be cloned from file://"),
    ],
)
def test_what_can_not_be_loaded_says_why(
    project: Path, source: Any, entrypoint: str, error: type[Exception], said: str
) -> None:
    source = source.format(project) if isinstance(source, str) else source
    with pytest.raises(error, match=said):
        flow.from_source(source=source, entrypoint=entrypoint)  # type: ignore[attr-defined]
    assert not [name for name in sys.modules if name.startswith("__whenthen_loader") and "broken" in name]


def test_a_repository_is_cloned_and_its_deployments_have_it_from_there(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "repository.git"
    git_repository(folder, {"jobs.py": "from whenthen import flow\n@flow\ndef work(x: int = 5): return x\n"})
    loaded = flow.from_source(f"file://{folder}", "jobs.py:work")  # type: ignore[attr-defined]
    assert loaded() == 5
    made = loaded.with_options(name="other").to_deployment("d")
    assert (made.full_name, made.entrypoint, made.code) == ("other/d", "jobs.py:work", {"git": f"file://{folder}"})
    asked = GitRepository(
        f"file://{folder}", branch="main", credentials={"access_token": "env:GIT_TOKEN"}, include_submodules=True
    )
    assert asked.as_code() == {
        "git": f"file://{folder}",
        "ref": "main",
        "token": "env:GIT_TOKEN",
        "submodules": True,
    }


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"credentials": {"access_token": "ghp_secret"}}, ConfigurationError, "a reference, never the token itself"),
        ({"branch": "a", "commit_sha": "b"}, ValueError, "a branch or a commit_sha, not both"),
        ({"directories": ["a"]}, NotSupported, "the whole repository is cloned"),
    ],
)
def test_a_repository_that_can_not_be_meant_is_refused(options: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said) as caught:
        GitRepository("https://x/r.git", **options)
    assert "ghp_secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"job_variables": {"image": "x"}}, "job_variables"),
        ({"version_type": "GIT"}, "version=... is a text"),
        ({"concurrency_limit": ConcurrencyLimitConfig(limit=1, grace_period_seconds=60)}, "a slot comes free"),
    ],
)
def test_an_option_that_means_nothing_here_is_refused(options: Any, said: str) -> None:
    with pytest.raises(NotSupported, match=said):
        load.to_deployment("d", **options).as_request()


def test_a_queue_of_a_pool_is_a_pool_and_the_code_is_below_the_working_directory() -> None:
    rule = load.to_deployment("d", work_pool_name="p", work_queue_name="fast").as_mapping()
    assert rule["work_pool"] == "p.fast"
    assert rule["code"] == {"folder": str(Path.cwd())}
    assert rule["entrypoint"] == "tests/unit/flows/test_deployments_of_flows.py:load"
    assert load.to_deployment("d", work_pool_name="p", work_queue_name="default").as_mapping()["work_pool"] == "p"


def test_a_number_that_json_does_not_have_is_named() -> None:
    with pytest.raises(ValueError, match="deployment 'd': parameters holds a number that is not finite"):
        load.to_deployment("d", parameters={"day": float("inf")}).as_request()


def test_a_rule_is_json_inside() -> None:
    assert json.loads(load.to_deployment("a b").as_rule().splitlines()[0].removeprefix("- name: ")) == "Load orders/a b"
