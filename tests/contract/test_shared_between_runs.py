"""What runs share through their workers: variables, secrets of the rules, artifacts, named limits, and runs and deployments of a client."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_flow_worker import House
from whenthen.runs.shared.named_limits import Lease, NamedLimits, NoSuchLimit, Wanted
from whenthen.runs.shared.variables import MAX_VALUE_CHARS, Variables
from whenthen.runs.stores import Stores
from whenthen.schemas.deployments import RunState
from whenthen.schemas.errors import Conflict, InvalidInput, NotFound
from whenthen.schemas.work_pools import NamedLimit, NamedSecret

pytestmark = pytest.mark.anyio


@pytest.fixture
def house(stores: Stores, tmp_path: Path, unique: str, eventually: Callable[..., Awaitable[None]]) -> House:
    root = tmp_path / "rules"
    root.mkdir()
    return House(stores, root, unique, eventually)


@pytest.fixture
def word(unique: str) -> str:
    """A name of a variable, a limit or an artifact that no other test uses."""
    return unique.replace(".", "-")


async def ended(house: House, code: str, *, parameters: dict[str, Any] | None = None, **fields: Any) -> Any:
    (house.root / "job.py").write_text(textwrap.dedent(code))
    house.deploy(**({"entrypoint": "job.py:main"} | fields))
    run = await house.orchestrator.run_deployment(house.pool, parameters or {}, key=f"{house.pool}/k")
    async with house.worker():
        return await house.ends(run)


# Variables


async def test_a_variable_is_kept_changed_and_forgotten_by_runs(house: House, word: str) -> None:
    run = await ended(
        house,
        """
        from whenthen import flow
        from whenthen.exceptions import ObjectAlreadyExists
        from whenthen.variables import Variable

        @flow
        def main(name: str):
            found = [Variable.get(name), Variable.get(name, default=7)]
            Variable.set(name, {"rows": [1, None]}, tags=["a"])
            found.append(Variable.get(name))
            try:
                Variable.set(name, 3)
            except ValueError as error:
                found.append(f"{type(error).__name__}: {error}")
            Variable.set(name, "eu", overwrite=True)
            found += [Variable.get(name), Variable.unset(name), Variable.unset(name), Variable.get(name)]
            Variable.set(name, "kept")
            return found
        """,
        parameters={"name": word},
    )
    assert run.state is RunState.COMPLETED, run.message
    assert run.result == [
        None,
        7,
        {"rows": [1, None]},
        f"ObjectAlreadyExists: variable {word!r} already exists; set it with overwrite=True to change it",
        "eu",
        True,
        False,
        None,
    ]
    kept = await house.stores.variables.get(word)
    assert kept is not None
    assert (kept[0].value, kept[0].by) == ("kept", f"run:{run.id}")


async def test_async_flows_await_variables(house: House, word: str) -> None:
    run = await ended(
        house,
        """
        from whenthen import flow
        from whenthen.variables import Variable

        @flow
        async def main(name: str):
            await Variable.aset(name, 1)
            return [await Variable.get(name), await Variable.aget(name), await Variable.aunset(name)]
        """,
        parameters={"name": word},
    )
    assert run.result == [1, 1, True], run.message


@pytest.mark.parametrize("name", ["", "a/b", "../x", "Upper", "a b", "x" * 256, "a.b", "*", ">", None, 3, ["a"]])
async def test_a_name_that_is_none_is_refused(stores: Stores, name: Any) -> None:
    variables = Variables(stores.variables, clock=lambda: datetime.now(UTC))
    for change in (variables.set(name, 1, by="api"), variables.get(name), variables.unset(name)):
        with pytest.raises(InvalidInput, match="lowercase letters, digits"):
            await change


async def test_a_value_that_is_too_large_or_deep_is_refused_and_changes_nothing(stores: Stores, word: str) -> None:
    variables = Variables(stores.variables, clock=lambda: datetime.now(UTC))
    await variables.set(word, "before", by="api")
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    for value in ("x" * 1_000_000, deep, {"a": "x" * MAX_VALUE_CHARS}):
        with pytest.raises(InvalidInput, match="value"):
            await variables.set(word, value, overwrite=True, by="api")
    with pytest.raises(InvalidInput, match="tags"):
        await variables.set(word, 1, tags=[3], overwrite=True, by="api")
    assert (await variables.of_name(word)).value == "before"


async def test_of_many_who_set_one_name_one_wins_and_the_others_are_told(stores: Stores, word: str) -> None:
    variables = Variables(stores.variables, clock=lambda: datetime.now(UTC))
    results = await asyncio.gather(
        *(variables.set(word, number, by="api") for number in range(10)), return_exceptions=True
    )
    won = [result for result in results if not isinstance(result, BaseException)]
    assert len(won) == 1
    assert all(isinstance(result, Conflict) for result in results if isinstance(result, BaseException))
    assert (await variables.of_name(word)).value == won[0].value
    await asyncio.gather(*(variables.set(word, number, overwrite=True, by="api") for number in range(10)))
    assert (await variables.of_name(word)).value in range(10)
    assert sorted(await asyncio.gather(*(variables.unset(word) for _ in range(5)))) == [False] * 4 + [True]
    with pytest.raises(NotFound, match="whenthen variables"):
        await variables.of_name(word)


async def test_more_variables_than_are_kept_are_refused(
    stores: Stores, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = Variables(stores.variables, clock=lambda: datetime.now(UTC))
    await variables.set(word, 1, by="api")
    monkeypatch.setattr("whenthen.runs.shared.variables.MOST_VARIABLES", await stores.variables.count())
    with pytest.raises(InvalidInput, match="unset one first"):
        await variables.set(f"{word}-2", 1, by="api")
    await variables.set(word, 2, overwrite=True, by="api")
    await variables.unset(word)
    await variables.set(f"{word}-2", 1, by="api")
    assert word not in [each.name for each in await variables.all()]
    assert f"{word}-2" in [each.name for each in await variables.all()]


# Secrets


async def test_a_secret_of_the_rules_is_read_and_masked(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text("hunter2-hunter2\n")
    house.deployments.secrets = [
        NamedSecret(name="api-key", value=f"file:{tmp_path / 'key'}"),
        NamedSecret(name="of-others", value=f"file:{tmp_path / 'key'}", deployments=["another"]),
        NamedSecret(name="gone", value="env:WHENTHEN_TEST_NO_SUCH"),
    ]
    run = await ended(
        house,
        """
        from whenthen import flow, get_run_logger
        from whenthen.artifacts import create_markdown_artifact
        from whenthen.blocks.system import Secret

        @flow(log_prints=True)
        def main():
            value = Secret.load("api_key").get()
            print("the key is", value)
            get_run_logger().info("again %s", value)
            create_markdown_artifact(f"key: {value}", key="shown")
            said = []
            for name in ("of-others", "none", "gone"):
                try:
                    Secret.load(name)
                except Exception as error:
                    said.append(f"{type(error).__name__}: {error}")
            return [value, len(value), *said]
        """,
    )
    assert run.state is RunState.COMPLETED, run.message
    value, size, *said = run.result
    assert (value, size) == ("***", 15)
    assert all(text.startswith("BlockNotFound:") for text in said)
    assert "`secrets:` of the rules" in said[0]
    assert "WHENTHEN_TEST_NO_SUCH" in said[2]
    lines = [line.text for line in await house.stores.logs.read(run.id)]
    assert "the key is ***" in lines
    assert not [line for line in lines if "hunter2" in line]
    (artifact,) = await house.stores.artifacts.page(run_id=run.id, limit=10)
    assert artifact.data == "key: ***"


async def test_json_is_a_variable_of_the_server(house: House, word: str) -> None:
    run = await ended(
        house,
        """
        from whenthen import flow
        from whenthen.blocks.system import JSON
        from whenthen.exceptions import BlockNotFound

        @flow
        def main(name: str):
            try:
                JSON.load(name)
            except BlockNotFound as error:
                said = str(error)
            JSON(value={"a": 1}).save(name)
            JSON(value={"a": 2}).save(name, overwrite=True)
            return [said, JSON.load(name).value]
        """,
        parameters={"name": word},
    )
    assert run.state is RunState.COMPLETED, run.message
    assert f"there is no variable {word!r}" in run.result[0]
    assert run.result[1] == {"a": 2}


# Artifacts


async def test_artifacts_are_kept_with_their_newest_version(house: House, word: str) -> None:
    run = await ended(
        house,
        """
        from whenthen import flow, task
        from whenthen.artifacts import (
            Artifact, MarkdownArtifact, create_image_artifact, create_link_artifact, create_markdown_artifact,
            create_progress_artifact, create_table_artifact, update_progress_artifact,
        )

        @task
        def load(key):
            artifact = create_progress_artifact(0.0, key=f"{key}-progress", description="rows")
            for percent in range(1, 501):
                update_progress_artifact(artifact, percent / 5)

        @flow
        def main(key: str):
            create_markdown_artifact("# one", key=key)
            create_markdown_artifact("# two", key=key, description="newer")
            create_table_artifact([{"a": 1, "b": float("nan")}], key=f"{key}-table")
            create_link_artifact("https://example.org/", "site")
            create_image_artifact("https://example.org/x.png")
            MarkdownArtifact(markdown="m", metadata_={"rows": "3"}).create()
            load(key)
        """,
        parameters={"key": word},
    )
    assert run.state is RunState.COMPLETED, run.message
    page = await house.stores.artifacts.page(run_id=run.id, limit=100)
    found = {(each.key, each.type): each for each in page}
    assert len(page) == 7
    progress = found[f"{word}-progress", "progress"]
    assert (progress.data, progress.description) == (100.0, "rows")
    assert progress.task_run != ""
    assert progress.updated > progress.created
    assert found[f"{word}-table", "table"].data == '[{"a": 1, "b": null}]'
    assert {each.data for each in page if not each.key} == {
        "[site](https://example.org/)",
        "https://example.org/x.png",
        "m",
    }
    assert [each.metadata for each in page if each.data == "m"] == [{"rows": "3"}]
    newest = await house.stores.artifacts.of_key(word)
    assert newest is not None
    assert (newest.data, newest.run, newest.deployment) == ("# two", run.id, house.pool)
    assert await house.stores.artifacts.get(newest.id) == newest
    assert await house.stores.artifacts.get("0" * 32) is None
    lines = [line.text for line in await house.stores.logs.read(run.id) if "artifact" in line.text]
    assert len(lines) == 7  # an update is no line


async def test_a_run_reads_what_another_has_shown(house: House, word: str) -> None:
    run = await ended(
        house,
        """
        import time
        from whenthen import flow
        from whenthen.artifacts import Artifact, create_markdown_artifact

        @flow
        def main(key: str):
            nothing = Artifact.get(key)
            create_markdown_artifact("first", key=key)
            for _ in range(600):
                if (found := Artifact.get(key)) is not None:
                    break
                time.sleep(0.05)
            again, made = Artifact.get_or_create(key)
            return [nothing, found.data, found.type, again.id == found.id, made]
        """,
        parameters={"key": word},
    )
    assert run.result == [None, "first", "markdown", True, False], run.message


async def test_of_a_flood_of_artifacts_some_are_kept_and_the_log_says_how_many_not(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whenthen.runs.reports.told_artifacts.MOST_ARTIFACTS", 20)
    monkeypatch.setattr("whenthen.runs.reports.told_artifacts.MAX_DATA_BYTES", 10_000)
    run = await ended(
        house,
        """
        from whenthen import flow
        from whenthen.artifacts import create_markdown_artifact

        @flow
        def main():
            create_markdown_artifact("x" * 20_000, key="large")
            for number in range(100):
                create_markdown_artifact(f"{number}", key="flood")
        """,
    )
    assert run.state is RunState.COMPLETED, run.message
    assert len(await house.stores.artifacts.page(run_id=run.id, limit=1000)) == 20
    system = await house.text(run, "system")
    assert [line for line in system if line.startswith("artifact large is not kept: it has 20,0")]
    assert [line for line in system if line.startswith("80 further artifacts are not kept")]


async def test_artifacts_come_page_by_page(house: House, word: str) -> None:
    run = await ended(
        house,
        """
        from whenthen import flow
        from whenthen.artifacts import create_markdown_artifact

        @flow
        def main(key: str):
            for number in range(5):
                create_markdown_artifact(f"{number}", key=key)
        """,
        parameters={"key": word},
    )
    first = await house.stores.artifacts.page(key=word, limit=2)
    rest = await house.stores.artifacts.page(key=word, limit=10, before=first[-1].seq)
    assert [each.data for each in [*first, *rest]] == ["4", "3", "2", "1", "0"], run.message


# Named limits


def limits_of(house: House, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> NamedLimits:
    return NamedLimits(house.stores, house.deployments, clock=clock)


async def test_a_limit_of_the_rules_holds_among_runs_of_several_workers(house: House, word: str) -> None:
    house.deployments.limits = [NamedLimit(name=word, slots=1)]
    (house.root / "job.py").write_text(
        textwrap.dedent(
            """
            import os, time
            from pathlib import Path
            from whenthen import flow
            from whenthen.concurrency.sync import concurrency

            @flow
            def main(name: str):
                inside = Path("inside")
                inside.mkdir(exist_ok=True)
                most = 0
                for _ in range(3):
                    with concurrency(name, strict=True):
                        mine = inside / str(os.getpid())
                        mine.touch()
                        most = max(most, len(list(inside.iterdir())))
                        mine.unlink()
                return most
            """
        )
    )
    house.deploy(entrypoint="job.py:main")
    runs = [
        await house.orchestrator.run_deployment(house.pool, {"name": word}, key=f"{house.pool}/{number}")
        for number in range(3)
    ]
    async with house.worker(concurrency=2), house.worker(concurrency=2, name="second"):
        ends = [await house.ends(run) for run in runs]
    assert [run.result for run in ends] == [1, 1, 1], [run.message for run in ends]
    (state,) = await limits_of(house).states()
    assert (state.taken, state.holders) == (0, ())


async def test_a_rate_holds_among_all_who_ask(house: House, word: str) -> None:
    house.deployments.limits = [NamedLimit(name=word, slots=2, per_second=1.0)]
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    ahead, behind = limits_of(house, lambda: now), limits_of(house, lambda: now - timedelta(seconds=60))
    wanted = Wanted(names=(word,), occupy=1, mode="rate_limit")
    known = ahead.known(wanted, {})
    assert known is not None
    assert [await ahead.take(["a"], known), await behind.take(["b"], known)] == [0.0, 0.0]
    assert await ahead.take(["c"], known) == pytest.approx(1.0)
    assert await behind.take(["c"], known) == pytest.approx(1.0)  # a clock that is behind gives none away
    now += timedelta(seconds=1)
    assert await ahead.take(["c"], known) == 0.0
    assert await ahead.take(["d"], known) == pytest.approx(1.0)
    now += timedelta(days=365)
    taken = await asyncio.gather(*(ahead.take([str(number)], known) for number in range(10)))
    assert sorted(taken)[:2] == [0.0, 0.0]
    assert all(sorted(taken)[2:])


async def test_rate_limit_in_a_run_waits_for_what_others_took(house: House, word: str) -> None:
    house.deployments.limits = [
        NamedLimit(name=word, slots=1, per_second=4.0),
        NamedLimit(name=f"{word}-held", slots=3),
    ]
    run = await ended(
        house,
        """
        import time
        from whenthen import flow
        from whenthen.concurrency.sync import rate_limit

        @flow
        def main(name: str):
            began = time.monotonic()
            for _ in range(5):
                rate_limit(name)
            took = time.monotonic() - began
            said = []
            for limit, more in ((name, {"occupy": 2}), (f"{name}-held", {})):
                try:
                    rate_limit(limit, **more)
                except Exception as error:
                    said.append(f"{type(error).__name__}: {error}")
            return [took >= 0.9, *said]
        """,
        parameters={"name": word},
    )
    assert run.state is RunState.COMPLETED, run.message
    slow, too_many, no_rate = run.result
    assert slow
    assert f"2 slots of {word!r} will never be free: there are 1" in too_many
    assert "give the limit `per_second` in the rules" in no_rate


async def test_a_lease_of_slots_that_come_free_with_time_is_renewed_and_given_back(house: House, word: str) -> None:
    house.deployments.limits = [NamedLimit(name=word, slots=2, per_second=0.001)]
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    limits = limits_of(house, lambda: now)
    held = await limits.lease(Wanted(names=(word,), occupy=2, mode="concurrency"), 60)
    assert isinstance(held, Lease)
    now += timedelta(seconds=50)
    await limits.renew(held.id)
    (state,) = await limits.states()
    assert state.taken == pytest.approx(1.95)
    await limits.release(held.id)
    (state,) = await limits.states()
    assert state.taken == 0
    used = await limits.lease(Wanted(names=(word,), occupy=2, mode="rate_limit"), 60)
    assert isinstance(used, Lease)
    with pytest.raises(NotFound, match="there is no lease"):
        await limits.release(used.id)
    (state,) = await limits.states()
    assert state.taken == 2


async def test_a_lease_ends_with_its_time(house: House, word: str) -> None:
    house.deployments.limits = [NamedLimit(name=word, slots=2)]
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    limits = limits_of(house, lambda: now)
    both = Wanted(names=(word,), occupy=2, mode="concurrency")
    held = await limits.lease(both, 60)
    assert isinstance(held, Lease)
    assert isinstance(await limits.lease(both, 60), float)
    (state,) = await limits.states()
    assert (state.taken, state.holders) == (2, (f"lease-{held.id}",))
    now += timedelta(seconds=50)
    renewed = await limits.renew(held.id)
    assert renewed.until > held.until
    now += timedelta(seconds=59)
    assert isinstance(await limits.lease(both, 60), float)
    now += timedelta(seconds=2)
    with pytest.raises(NotFound, match="is over"):
        await limits.renew(held.id)
    other = await limits.lease(both, 60)
    assert isinstance(other, Lease)
    await limits.release(other.id)
    with pytest.raises(NotFound):
        await limits.release(other.id)
    assert isinstance(await limits.lease(both, 60), Lease)
    with pytest.raises(NoSuchLimit, match="3 slots"):
        await limits.lease(Wanted(names=(word,), occupy=3, mode="concurrency"), 60)
    assert await limits.lease(Wanted(names=("unknown",), occupy=1, mode="concurrency"), 60) is None
    with pytest.raises(InvalidInput, match="from 5 to"):
        await limits.lease(both, 1)


async def test_a_lease_whose_slots_went_to_others_by_another_clock_is_not_renewed(house: House, word: str) -> None:
    house.deployments.limits = [NamedLimit(name=word, slots=2)]
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    limits = limits_of(house, lambda: now)
    ahead = limits_of(house, lambda: now + timedelta(seconds=10))
    both = Wanted(names=(word,), occupy=2, mode="concurrency")
    held = await limits.lease(both, 60)
    assert isinstance(held, Lease)
    now += timedelta(seconds=55)
    others = await ahead.lease(both, 60)
    assert isinstance(others, Lease)
    with pytest.raises(NotFound, match="others have its slots"):
        await limits.renew(held.id)
    with pytest.raises(NotFound, match="there is no lease"):
        await limits.renew(held.id)
    assert (await ahead.renew(others.id)).id == others.id


# A client in a run


async def test_a_client_in_a_run_asks_its_worker(house: House) -> None:
    house.deploy(
        name=f"{house.pool}.other",
        command="true",
        parameters={"a": 1},
        tags=["t"],
        schedules=[{"name": "nightly", "cron": "0 3 * * *"}],
    )
    run = await ended(
        house,
        """
        import os
        from whenthen import flow, get_client
        from whenthen.client.schemas.filters import (
            DeploymentFilter, DeploymentFilterName, FlowRunFilter, FlowRunFilterId, FlowRunFilterState,
            FlowRunFilterStateName, FlowRunFilterTags,
        )
        from whenthen.exceptions import NotSupported, ObjectNotFound
        from whenthen.states import Cancelled, Completed

        @flow
        def main(name: str):
            me = os.environ["WHENTHEN_RUN_ID"]
            with get_client(sync_client=True) as client:
                assert client.api_healthcheck() is None
                other = client.read_deployment_by_name(name)
                assert (other.parameters, other.tags, other.paused) == ({"a": 1}, ["t"], False), other
                named = DeploymentFilter(name=DeploymentFilterName(any_=[name]))
                assert [each.name for each in client.read_deployments(deployment_filter=named)] == [name]
                assert name in [each.name for each in client.read_deployments()]
                client.pause_deployment(name)
                assert client.read_deployment(name).paused
                client.resume_deployment(name)
                made = client.create_flow_run_from_deployment(name, parameters={"b": 2}, idempotency_key=f"{me}/other")
                again = client.create_flow_run_from_deployment(name, parameters={"b": 2}, idempotency_key=f"{me}/other")
                assert made.id == again.id and made.parameters == {"a": 1, "b": 2}, made
                found = client.read_flow_runs(
                    flow_run_filter=FlowRunFilter(
                        id=FlowRunFilterId(any_=[made.id]), tags=FlowRunFilterTags(all_=["t"])
                    ),
                    deployment_filter=named,
                )
                assert [each.id for each in found] == [made.id], found
                running = FlowRunFilter(state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["Running"])))
                assert me in [each.id.hex for each in client.read_flow_runs(flow_run_filter=running)]
                client.set_flow_run_state(made.id, Cancelled())
                assert isinstance(client.read_flow_run_logs(me), list)
                said = []
                for ask in (
                    lambda: client.read_flow_run("0" * 32),
                    lambda: client.read_deployment_by_name("no-such/thing"),
                    lambda: client.set_flow_run_state(me, Completed()),
                    lambda: FlowRunFilter(parent_flow_run_id=3),
                    lambda: client.update_deployment(name),
                    lambda: client.read_work_pools(),
                    lambda: client.read_flow_runs(flow_filter=3),
                ):
                    try:
                        ask()
                    except (NotSupported, ObjectNotFound) as error:
                        said.append(f"{type(error).__name__}: {error}")
                return said
        """,
        parameters={"name": f"{house.pool}.other"},
    )
    assert run.state is RunState.COMPLETED, run.message
    assert len(run.result) == 7
    assert [text.partition(":")[0] for text in run.result] == ["ObjectNotFound"] * 2 + ["NotSupported"] * 5


async def test_an_async_client_in_a_run_asks_its_worker(house: House) -> None:
    run = await ended(
        house,
        """
        import os
        from whenthen import flow, get_client

        @flow
        async def main():
            async with get_client() as client:
                run = await client.read_flow_run(os.environ["WHENTHEN_RUN_ID"])
                return [run.state_name, len(await client.read_flow_runs(limit=1)), client.api_url]
        """,
    )
    assert run.result == ["Running", 1, "worker:/api"], run.message


async def test_what_no_worker_does_says_at_once_what_to_do_instead(house: House) -> None:
    run = await ended(
        house,
        """
        import os
        from whenthen import flow
        from whenthen.blocks.system import Secret
        from whenthen.exceptions import NeedsServer, NotSupported
        from whenthen.input import RunInput, receive_input, send_input

        class Approval(RunInput):
            approved: bool

        @flow
        def main():
            me = os.environ["WHENTHEN_RUN_ID"]
            said = []
            for ask in (
                lambda: Secret(value="x").save("key"),
                lambda: Approval(approved=True).send_to(me),
                lambda: next(iter(Approval.receive())),
                lambda: Approval.receive().next(),
                lambda: send_input(3, me),
                lambda: receive_input(int).next(),
                lambda: main.deploy("d", work_pool_name="p", image="i:1"),
            ):
                try:
                    ask()
                except (NeedsServer, NotSupported) as error:
                    said.append(str(error))
            return said
        """,
        timeout="60s",
    )
    assert run.state is RunState.COMPLETED, run.message
    secret, *inputs, image = run.result
    unanswered = "needs a server, and the worker of this run does not answer this"
    assert secret.startswith(f"Secret.save {unanswered}: secrets are kept outside")
    assert len(inputs) == 5
    for text in inputs:
        assert text.startswith(
            f"RunInput {unanswered}: give it as a parameter of the flow, or have the run wait for it"
        )
    assert image.startswith("deploy(image=...) is not supported ('i:1'): leave it out: nothing is built here")
