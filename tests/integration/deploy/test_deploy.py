"""What is shipped beside the code: alert rules, compose file, configurations. Each is checked by its own tool."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.patience import limit
from whenthen.engine.metrics import Metrics
from whenthen.engine.process.observation import Observation
from whenthen.engine.process.settings import Settings
from whenthen.rules import load_rules

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "whenthen.rules.yaml"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


COMPOSE = read(ROOT / "compose.yaml")


needs_promtool = pytest.mark.requires("promtool")


def promtool(*arguments: str, cwd: Path = DEPLOY / "prometheus") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *arguments], cwd=cwd, capture_output=True, text=True, timeout=limit(60), check=False
    )


@needs_promtool
def test_the_alerts_fire_when_they_should_and_not_when_they_should_not() -> None:
    done = promtool("test", "rules", "whenthen.rules.test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


#: what is written in the expression of an alert, and what spoils it
SPOILT = [
    ('up{job="whenthen"} == 0', 'up{job="whenthen"} == 2'),
    ("whenthen_bus_connected == 0", "whenthen_bus_connected == 2"),
    (">= 3", ">= 300"),
    ('+ min_over_time(whenthen_actions_total{outcome=~"failed|dead"}[10m])', ""),
    ("(max by (automation, job) (whenthen_dead_letters))", "(whenthen_dead_letters)"),
    ("whenthen_evaluation_lag_seconds) > 30", "whenthen_evaluation_lag_seconds) > 3000"),
    ("whenthen_history_lag_seconds) > 300", "whenthen_history_lag_seconds) > 30000"),
    ("unless on (automation) max by (automation) (whenthen_automation_paused) == 1", ""),
    ("min by (automation) (whenthen_automation_silent", "max by (automation) (whenthen_automation_silent"),
    ("whenthen_rules_refused == 1", "whenthen_rules_refused == 2"),
    ("> 0.85", "> 0.95"),
    ("max by (webhook) (whenthen_webhook_secrets_missing)", "min by (webhook) (whenthen_webhook_secrets_missing)"),
    ("max by (webhook) (whenthen_webhook_heard", "min by (webhook) (whenthen_webhook_heard"),
    ("max by (source) (whenthen_source_reading)", "min by (source) (whenthen_source_reading)"),
    ("whenthen_stream_stuck == 1", "whenthen_stream_stuck == 2"),
    ("max by (automation) (whenthen_automation_set_aside)", "min by (automation) (whenthen_automation_set_aside)"),
]


@needs_promtool
def test_the_tests_of_the_alerts_notice_each_spoilt_one(tmp_path: Path) -> None:
    shutil.copy(RULES.with_name("whenthen.rules.test.yaml"), tmp_path)
    left = SPOILT
    while left:
        rules, later = read(RULES), []
        touched: dict[str, tuple[str, str]] = {}
        for written, spoilt in left:
            alerts = [rule for group in rules["groups"] for rule in group["rules"] if written in rule["expr"]]
            if touched.keys() & {rule["alert"] for rule in alerts}:
                later.append((written, spoilt))  # one alert is spoilt in one way at a time
                continue
            assert alerts, written
            for rule in alerts:
                rule["expr"] = rule["expr"].replace(written, spoilt)
                touched[rule["alert"]] = (written, spoilt)
        (tmp_path / RULES.name).write_text(yaml.safe_dump(rules), encoding="utf-8")
        done = promtool("test", "rules", "whenthen.rules.test.yaml", cwd=tmp_path)
        assert done.returncode != 0
        failed = set(re.findall(r"alertname: (\w+)", done.stdout + done.stderr))
        assert failed <= touched.keys()
        assert {touched[alert] for alert in failed} == set(left) - set(later)
        left = later


@needs_promtool
def test_prometheus_takes_its_configuration() -> None:
    done = promtool("check", "config", "--syntax-only", "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert read(DEPLOY / "prometheus" / "prometheus.yml")["rule_files"] == [RULES.name]


def test_every_alert_is_tested_and_says_what_to_do() -> None:
    alerts = {rule["alert"]: rule for group in read(RULES)["groups"] for rule in group["rules"]}
    tests = read(RULES.with_name("whenthen.rules.test.yaml"))["tests"]
    firing = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]}
    silent = {case["alertname"] for test in tests for case in test["alert_rule_test"] if not case["exp_alerts"]}
    assert set(alerts) == firing == silent
    for rule in alerts.values():
        assert set(rule["annotations"]) == {"summary", "description"}


def known_metrics() -> set[str]:
    metrics = Metrics(version="1")
    metrics.take_rules({}, {})
    endings = ("", "_total", "_bucket", "_count", "_sum", "_info")
    return {f"{family.name}{ending}" for family in metrics.registry.collect() for ending in endings}


def test_every_metric_that_an_alert_uses_exists() -> None:
    used = set(re.findall(r"whenthen_[a-z_]+", " ".join(r["expr"] for g in read(RULES)["groups"] for r in g["rules"])))
    assert used
    assert used <= known_metrics()


def test_every_counter_that_is_read_stands_at_zero_when_the_rules_are_loaded() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "whenthen.json").read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += [rule["expr"] for group in read(RULES)["groups"] for rule in group["rules"]]
    used = set(re.findall(r"whenthen_[a-z_]+_(?:total|bucket|count|sum)\b", " ".join(asked)))
    assert len(used) > 5
    rules = load_rules(DEPLOY / "rules")
    metrics = Metrics(version="1")
    Observation(metrics, shards=2)
    metrics.take_rules(
        {automation.name: None for automation in rules.automations},
        rules.counts(),
        actions={
            automation.name: {action.type for action in automation.all_actions} for automation in rules.automations
        },
        webhooks=[webhook.name for webhook in rules.webhooks],
    )
    samples = [sample for family in metrics.registry.collect() for sample in family.samples if sample.name in used]
    assert {sample.name for sample in samples} == used
    assert {sample.value for sample in samples} == {0.0}


@needs_promtool
def test_every_metric_of_the_dashboard_exists_and_is_asked_for_in_valid_promql(tmp_path: Path) -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "whenthen.json").read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(asked) > 10
    assert set(re.findall(r"whenthen_[a-z_]+", " ".join(asked))) <= known_metrics()
    records = [
        {"record": f"panel:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(asked)
    ]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": records}]}))
    done = promtool("check", "rules", "panels.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_is_provided_with_the_dashboard_and_the_prometheus_that_it_asks() -> None:
    grafana = COMPOSE["services"]["grafana"]
    mounts = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    provisioning = next(ROOT / source for source, target in mounts.items() if target == "/etc/grafana/provisioning")
    # what Grafana reads is each file of these folders; a key that it does not know it passes over without a word
    (sources,) = (read(path) for path in (provisioning / "datasources").iterdir())
    (dashboards,) = (read(path) for path in (provisioning / "dashboards").iterdir())
    assert (sources["apiVersion"], dashboards["apiVersion"]) == (1, 1)
    (source,) = sources["datasources"]
    assert set(source) == {"name", "uid", "type", "access", "url", "isDefault", "jsonData"}
    assert (source["type"], source["access"], source["isDefault"]) == ("prometheus", "proxy", True)
    service, port = source["url"].removeprefix("http://").split(":")
    assert f"127.0.0.1:{port}:{port}" in COMPOSE["services"][service]["ports"]
    (job,) = (
        each
        for each in read(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"]
        if each["job_name"] == "whenthen"
    )
    assert (
        job.get("scrape_interval", read(DEPLOY / "prometheus" / "prometheus.yml")["global"]["scrape_interval"])
        == source["jsonData"]["timeInterval"]
    )
    (provider,) = dashboards["providers"]
    assert set(provider) == {"name", "type", "disableDeletion", "allowUiUpdates", "options"}
    assert (provider["type"], provider["options"]["path"]) == ("file", "/dashboards")
    shown = {source: target for source, target in mounts.items() if target.startswith("/dashboards/")}
    assert shown == {
        "./deploy/grafana/whenthen.json": grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    }
    dashboard = json.loads((DEPLOY / "grafana" / "whenthen.json").read_text(encoding="utf-8"))
    assert "id" not in dashboard  # which a provided dashboard must not have
    (variable,) = dashboard["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", source["type"])
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {f"${{{variable['name']}}}"}


def test_the_compose_file_follows_the_compose_specification() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "check_jsonschema",
            "--builtin-schema",
            "vendor.compose-spec",
            str(ROOT / "compose.yaml"),
        ],
        capture_output=True,
        text=True,
        timeout=limit(60),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_check_of_the_compose_file_notices_a_misspelt_key(tmp_path: Path) -> None:
    spoilt = tmp_path / "compose.yaml"
    spoilt.write_text((ROOT / "compose.yaml").read_text().replace("    healthcheck:", "    healthchek:", 1))
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(spoilt)],
        capture_output=True,
        text=True,
        timeout=limit(60),
        check=False,
    )
    assert done.returncode != 0


def test_the_compose_file_has_every_part() -> None:
    services = COMPOSE["services"]
    assert {"nats", "server", "worker", "minio", "prometheus", "alertmanager", "grafana"} <= set(services)
    assert [name for name, service in services.items() if service.get("profiles") == ["cluster"]] == [
        "nats-1",
        "nats-2",
        "nats-3",
    ]


def test_every_process_of_ours_is_probed_and_scraped_where_it_listens() -> None:
    ours = {name: service for name, service in COMPOSE["services"].items() if service.get("image") == "whenthen:local"}
    assert set(ours) == {"server", "worker"}
    (job,) = (
        job for job in read(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"] if job["job_name"] == "whenthen"
    )
    scraped = dict(target.split(":") for each in job["static_configs"] for target in each["targets"])
    assert set(scraped) == set(ours)
    for name, service in ours.items():
        environment, port = service["environment"], scraped[name]
        assert f"http://127.0.0.1:{port}/readyz" in service["healthcheck"]["test"][-1]
        # Prometheus asks by this name, which is no address of the process by itself
        assert environment["WHENTHEN_PUBLIC_URL"].split(",")[-1] == f"http://{name}:{port}"
        serves_api = service["command"][0] == "serve"
        assert environment["WHENTHEN_HOST" if serves_api else "WHENTHEN_MONITORING_HOST"] == "0.0.0.0"
        default = Settings.model_fields["port"].default
        assert str(default if serves_api else environment["WHENTHEN_MONITORING_PORT"]) == port
    assert "ports" not in ours["worker"]


def test_what_the_compose_file_names_exists() -> None:
    volumes = set(COMPOSE["volumes"])
    for service in COMPOSE["services"].values():
        for other in service.get("depends_on", {}):
            assert "healthcheck" in COMPOSE["services"][other]
        for secret in service.get("secrets", []):
            assert secret in COMPOSE["secrets"]
        for volume in service.get("volumes", []):
            source = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", volume).partition(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in volumes
    assert (ROOT / COMPOSE["services"]["server"]["build"]["dockerfile"]).is_file()


def test_nothing_in_the_compose_file_listens_beyond_this_machine() -> None:
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_every_user_of_nats_has_a_password_from_the_environment() -> None:
    text = (DEPLOY / "nats" / "users.conf").read_text()
    wanted = re.findall(r"password: (\S+?)[,\s}]", text)
    assert wanted
    for service in ("nats", "nats-1", "nats-2", "nats-3"):
        given = COMPOSE["services"][service]["environment"]
        assert {f"${name}" for name in given} == set(wanted)
        assert all(re.fullmatch(r'"\$\{NATS_.*\}"', value) for value in given.values())
    urls = {name: COMPOSE["services"][name]["environment"]["WHENTHEN_NATS_URL"] for name in ("server", "worker")}
    assert urls["server"].startswith("nats://server:${NATS_SERVER_PASSWORD}@")
    assert urls["worker"].startswith("nats://worker:${NATS_WORKER_PASSWORD}@")


def test_our_environment_variables_are_settings() -> None:
    text = "\n".join(
        path.read_text() for path in (ROOT / "compose.yaml", DEPLOY / "Dockerfile", DEPLOY / "cluster.env")
    )
    used = set(re.findall(r"\bWHENTHEN_[A-Z_]+(?==|:\s)", text))
    assert {"WHENTHEN_NATS_URL", "WHENTHEN_HOST", "WHENTHEN_API_TOKEN", "WHENTHEN_REPLICAS"} <= used
    known = {f"WHENTHEN_{name.upper()}" for name in Settings.model_fields}
    assert used <= known


def test_the_image_has_what_clones_the_code_of_deployments() -> None:
    image = (DEPLOY / "Dockerfile").read_text().rpartition("FROM ")[2]
    assert re.search(r"apt-get install .*\bgit\b.*\bopenssh-client\b", image)


def test_every_value_that_must_be_given_is_in_the_example() -> None:
    text = (ROOT / "compose.yaml").read_text()
    needed = set(re.findall(r"\$\{(\w+):\?", text)) | {secret["environment"] for secret in COMPOSE["secrets"].values()}
    given = set(re.findall(r"^(\w+)=", (DEPLOY / "example.env").read_text(), re.MULTILINE))
    assert needed == given


def test_minio_and_alertmanager_call_webhooks_that_the_rules_have() -> None:
    rules = load_rules(DEPLOY / "rules")
    webhooks = {webhook.name for webhook in rules.webhooks}
    environment = COMPOSE["services"]["minio"]["environment"]
    receiver = read(DEPLOY / "alertmanager" / "alertmanager.yml")["receivers"][0]["webhook_configs"][0]
    for url in (environment["MINIO_NOTIFY_WEBHOOK_ENDPOINT_WHENTHEN"], receiver["url"]):
        base, _, name = url.rpartition("/")
        assert base == "http://server:4280/hooks"
        assert name in webhooks
    (secret,) = COMPOSE["secrets"]
    assert receiver["http_config"]["authorization"]["credentials_file"] == f"/run/secrets/{secret}"
