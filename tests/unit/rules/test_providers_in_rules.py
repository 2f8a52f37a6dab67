"""`providers:` in rules: checked where they are written, used by the webhooks of every file, planned, and printed by the command."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from whenthen.cli.main import app
from whenthen.rules import changes, load_rules
from whenthen.rules.folder import check_rules
from whenthen.schemas.automations import RuleFile
from whenthen.sources import WebhookTranslator, builtin_names

ACME = """\
providers:
  - name: acme
    facts: [https://acme.example/webhooks]
    verify: [{type: hmac, header: X-Acme-Signature}]
    event: [acme, $.body.kind]
    resource: {id: "acme.{{ body.number }}"}
"""
HOOK = "webhooks: [{name: shop, preset: acme, secret: env:ACME}]\n"


def written(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def test_provider_of_one_file_serves_the_webhook_of_another(tmp_path: Path) -> None:
    rules = load_rules(written(tmp_path, a=HOOK, b=ACME))
    assert [provider.name for provider in rules.providers] == ["acme"]
    assert rules.counts()["providers"] == 1


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"a": HOOK}, "a.yaml:1:33: webhooks[0].preset: no provider is named 'acme'"),
        ({"a": HOOK.replace("acme", "githb")}, "did you mean 'github'"),
        ({"a": ACME.replace("$.body.kind", "$.bdy.kind")}, "a.yaml:5:19: providers[0].event[1]: column 2"),
        ({"a": ACME.replace("resource: {id:", "resource: {ident:")}, "providers[0]: resource needs an id"),
        ({"a": ACME.replace("header:", "heder:")}, "providers[0].verify[0].heder: unknown field"),
        (
            {"a": ACME.replace("resource: {id:", "occurred: 3\n    resource: {id:")},
            "providers[0].occurred: wanted text",
        ),
        (
            {"a": ACME.replace("resource: {id:", "occurred: {b: 2}\n    resource: {id:")},
            "providers[0].occurred.b: unknown field",
        ),
        ({"a": ACME + ACME.removeprefix("providers:\n")}, 'provider "acme" is defined twice'),
        ({"a": ACME + "    extends: acmee\n"}, "providers[0].extends: no provider is named 'acmee'"),
        ({"a": ACME + HOOK.replace("secret", "labels: {x: '$.bdy'}, secret")}, "webhooks[0].labels.x"),
    ],
)
def test_problem_of_a_provider_is_told_with_its_place(tmp_path: Path, files: dict[str, str], problem: str) -> None:
    found = "\n".join(map(str, check_rules(written(tmp_path, **files))))
    assert problem in found


def test_webhook_of_a_provider_that_does_not_validate_is_no_second_problem(tmp_path: Path) -> None:
    problems = check_rules(written(tmp_path, a=HOOK, b=ACME.replace("header:", "heder:")))
    assert {problem.file for problem in problems} == {"b.yaml"}


def test_changed_provider_stands_in_a_plan(tmp_path: Path) -> None:
    before = load_rules(written(tmp_path, a=ACME + HOOK))
    after = load_rules(written(tmp_path, a=ACME.replace("[acme,", "[acme2,") + HOOK))
    assert [(change.kind, change.name, change.change) for change in changes.planned_changes(before, after)] == [
        ("provider", "acme", "changed")
    ]


@pytest.mark.parametrize("name", builtin_names())
def test_ready_rules_of_every_provider_load_and_compile(name: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["providers", "show", name, "--rules"])
    assert result.exit_code == 0, result.output
    rules = load_rules(written(tmp_path, a=result.output))
    assert [webhook.name for webhook in rules.webhooks] == [name]


def test_list_of_providers_has_those_of_the_rules_with_their_facts(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["providers", "--json", "--rules-from", str(written(tmp_path, a=ACME))])
    rows = {row["name"]: row for row in yaml.safe_load(result.output)}
    assert rows.keys() == {*builtin_names(), "acme"}
    assert rows["acme"]["proof"] == "hmac sha256 in X-Acme-Signature"
    assert rows["slack"]["handshake"] == "POST"
    assert all(row["facts"] for row in rows.values())
    table = CliRunner().invoke(app, ["providers"])
    assert table.exit_code == 0
    assert all(name in table.output for name in builtin_names())


@pytest.mark.parametrize(("arguments", "code"), [(["providers", "show", "gitlb"], 1), (["schema", "provider"], 2)])
def test_wrong_name_is_told(arguments: list[str], code: int) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code


def test_what_is_shown_is_the_provider_itself(tmp_path: Path) -> None:
    shown = yaml.safe_load(CliRunner().invoke(app, ["providers", "show", "gitlab"]).output)
    file = RuleFile.model_validate(
        {"providers": [shown], "webhooks": [{"name": "w", "preset": "gitlab", "secret": "env:A"}]}
    )
    providers = {provider.name: provider for provider in file.providers}
    assert WebhookTranslator(file.webhooks[0], resolve_secret=str, providers=providers).secrets == 1
