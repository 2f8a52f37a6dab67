"""A `whenthen serve` and a `whenthen worker` with a real Prometheus and a real Alertmanager around it, on the shipped configurations with shorter times."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests import forks
from tests.integration.served import Served, environment
from tests.patience import eventually, limit
from tests.plain_http import plain_client
from tests.ports import free_port

__all__ = ["DEPLOY", "Monitored"]

DEPLOY = Path(__file__).parents[3] / "deploy"
TOKEN = "alert-token-of-this-test-0123456789"


class Monitored:
    """Prometheus scrapes the two five times a second; Alertmanager posts to the server's webhook `alertmanager`."""

    def __init__(self, folder: Path, rules: str) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        token = folder / "token"
        token.write_text(TOKEN)
        (folder / "rules").mkdir()
        # the webhook that is shipped, its token where this test has it
        shipped = yaml.safe_load((DEPLOY / "rules" / "compose.yaml").read_text())
        (webhook,) = (each for each in shipped["webhooks"] if each["name"] == "alertmanager")
        webhook["verify"]["token"] = f"file:{token}"
        (folder / "rules" / "webhooks.yaml").write_text(yaml.safe_dump({"webhooks": [webhook]}))
        (folder / "rules" / "rules.yaml").write_text(rules)
        self.server = Served(folder)
        self._alertmanager, self._port = free_port(), free_port()
        self._worker: forks.Forked | None = None
        self.worker = f"127.0.0.1:{free_port()}"  #: where a worker beside the server is scraped
        self.http = plain_client(base_url=f"http://127.0.0.1:{self._port}", timeout=limit(10))

    def start(self) -> None:
        self.server.wait_until_ready()
        self._start_worker()
        host = self.server.url.removeprefix("http://")
        alertmanager = (DEPLOY / "alertmanager" / "alertmanager.yml").read_text()
        for written, here in (
            ("http://server:4280", self.server.url),
            ("/run/secrets/alert_token", str(self._folder / "token")),
            ("group_wait: 10s", "group_wait: 1s"),
        ):
            assert written in alertmanager
            alertmanager = alertmanager.replace(written, here)
        (self._folder / "alertmanager.yml").write_text(alertmanager)
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "200ms"}
        (job,) = (each for each in config["scrape_configs"] if each["job_name"] == "whenthen")
        job["static_configs"] = [{"targets": [host, self.worker]}]
        config["scrape_configs"] = [job]
        (targets,) = config["alerting"]["alertmanagers"]
        targets["static_configs"] = [{"targets": [f"127.0.0.1:{self._alertmanager}"]}]
        (self._folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        alerts = (DEPLOY / "prometheus" / "whenthen.rules.yaml").read_text()
        (self._folder / "whenthen.rules.yaml").write_text(alerts.replace("for: 1m", "for: 1s"))
        self._start(
            "prometheus-alertmanager",
            f"--config.file={self._folder / 'alertmanager.yml'}",
            f"--storage.path={self._folder / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{self._alertmanager}",
            "--cluster.listen-address=",
        )
        self._start(
            "prometheus",
            f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
        )
        eventually(self._answers, within_s=20)

    def _start_worker(self) -> None:
        nats = f"nats://127.0.0.1:{(self.server.data_dir / 'nats' / 'port').read_text().strip()}"
        words = ["worker", str(self._folder / "rules"), "--nats", nats, "--data-dir", str(self.server.data_dir)]
        with (self._folder / "worker.log").open("wb") as log:
            self._worker = forks.start(
                words,
                env=environment(WHENTHEN_MONITORING_PORT=self.worker.partition(":")[2]),
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )

    def end_worker(self) -> None:
        if self._worker is not None and self._worker.poll() is None:
            self._worker.send_signal(signal.SIGTERM)
            self._worker.wait(limit(40))

    def _start(self, *words: str) -> None:
        with (self._folder / f"{words[0]}.log").open("wb") as log:
            # a process of Go takes no proxy that the machine of the tests may have
            env = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
            self._processes.append(subprocess.Popen(words, stdout=log, stderr=log, cwd=self._folder, env=env))

    def _answers(self) -> bool:
        for process in self._processes:
            assert process.poll() is None, "\n".join(log.read_text() for log in self._folder.glob("*.log"))
        try:
            return self.http.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def query(self, promql: str) -> dict[tuple[str, ...], float]:
        """The values by label values, in the order of label names."""
        found = self._get("/api/v1/query", query=promql)["result"]
        return {tuple(value for _, value in sorted(each["metric"].items())): float(each["value"][1]) for each in found}

    def firing(self) -> Sequence[dict[str, str]]:
        """The labels of the alerts that fire."""
        return [each["labels"] for each in self._get("/api/v1/alerts")["alerts"] if each["state"] == "firing"]

    def _get(self, path: str, **parameters: str) -> Any:
        return self.http.get(path, params=parameters).raise_for_status().json()["data"]

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(limit(20))
            except subprocess.TimeoutExpired:
                process.kill()
        self.http.close()
        self.end_worker()
        self.server.stop()
