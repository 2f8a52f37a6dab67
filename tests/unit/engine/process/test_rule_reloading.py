"""Rules on disk that come into force, or do not, while a process runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from whenthen.engine.metrics import Metrics
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.engine.process.rule_reloading import RuleReloading
from whenthen.rules import Rules, load_rules
from whenthen.schemas.errors import InvalidInput

GOOD = "automations:\n- {name: a, trigger: {expect: x}}\n- {name: b, trigger: {expect: y}}\n"
OTHER = "automations:\n- {name: a, trigger: {expect: x}}\n- {name: b, trigger: {expect: z}}\n"
BAD = "automations:\n- {name: a, trigger: {expct: x}}\n"


class Bed:
    """A folder whose rules are in force."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "a.yaml"
        self.file.write_text(GOOD)
        self.book = RuleRegistry(load_rules(folder), shards=2, resolve_secret=str)
        self.metrics = Metrics(version="1")
        self.taken: list[str] = []
        self.book.on_change(lambda compiled: self.taken.append(compiled.rules.revision))
        self.reloading = RuleReloading(folder, self.book, self.metrics, self.take)

    async def take(self, rules: Rules) -> None:
        self.book.apply(self.book.compile(rules))

    def reload(self, text: str) -> dict[str, object]:
        self.file.write_text(text)
        return asyncio.run(self.reloading.reload())

    def metric(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"whenthen_{name}")


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path)


def test_a_changed_set_comes_into_force_and_what_stayed_is_not_compiled_again(bed: Bed) -> None:
    before = bed.book.now
    report = bed.reload(OTHER)
    assert report == {"taken": True, "revision": bed.book.now.rules.revision, "problems": []}
    assert bed.taken == [bed.book.now.rules.revision] != [before.rules.revision]
    assert bed.book.now.automations["a"] is before.automations["a"]
    assert bed.book.automation("b") == bed.book.now.rules.automations[1] != before.rules.automations[1]


def test_a_bad_set_changes_nothing_and_its_problems_are_told(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    before = bed.book.now
    report = bed.reload(BAD)
    assert bed.book.now is before
    assert (report["taken"], report["revision"]) == (False, before.rules.revision)
    (problem,) = bed.reloading.problems()
    assert report["problems"] == [problem]
    assert (problem["file"], problem["line"], problem["column"]) == ("a.yaml", 2, 23)
    assert problem["field"] == "automations[0].trigger.expct"
    assert bed.metric("rules_refused") == 1
    assert any("a.yaml:2:23" in message for message in caplog.messages)


def test_what_the_rulebook_refuses_is_told_once_and_for_as_long_as_it_is_there(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_rules: Rules) -> None:
        raise InvalidInput("the rule_registry does not want it")

    before = bed.book.now
    with monkeypatch.context() as patched:
        patched.setattr(bed.book, "compile", refuse)
        for _ in range(2):
            report = bed.reload(OTHER)
            assert [problem["message"] for problem in bed.reloading.problems()] == [
                "the rule_registry does not want it"
            ]
            assert report["taken"] is False
            assert bed.book.now is before
    assert bed.metric("rules_rejected_total") == 1
    assert bed.reload(OTHER)["problems"] == []
    assert bed.book.now is not before


def test_a_bad_set_that_is_taken_back_leaves_no_problems(bed: Bed) -> None:
    bed.reload(BAD)
    assert bed.reload(GOOD) == {"taken": False, "revision": bed.book.now.rules.revision, "problems": []}
