"""Secrets of webhooks that can not be read: said at the start, in the status and by a metric, until they are there."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.integration.running_server import RunningServer
from tests.patience import until
from tests.plain_http import plain_async_client
from whenthen.engine.process import webhook_secrets as module
from whenthen.engine.process.server import Server
from whenthen.engine.process.settings import load_settings

pytestmark = pytest.mark.anyio

MAP = "map: {event: x, resource: {id: y}}"


def rules(folder: Path, *, later: str = "") -> str:
    return f"""
webhooks:
  - {{name: gitlab, verify: {{type: bearer, token: "env:UNSET_TOKEN", header: x-token}}, {MAP}}}
  - {{name: rotated, verify: {{type: basic, username: u, password: ["env:SET_TOKEN", "file:{folder}/next"]}}, {MAP}}}
  - {{name: well, verify: {{type: hmac, secret: "env:SET_TOKEN", header: x-signature}}, {MAP}}}
  - {{name: open, verify: none, {MAP}}}
{later}
"""


async def test_what_is_missing_is_said_at_the_start_in_the_status_and_by_a_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.1)
    monkeypatch.setenv("SET_TOKEN", "planted-token-value")
    file = tmp_path / "rules.yaml"
    file.write_text(rules(tmp_path))
    settings = load_settings({"data_dir": tmp_path / "data", "port": 0})
    with caplog.at_level(logging.INFO):
        async with (
            Server(settings, file) as server,
            plain_async_client(base_url=server.address) as client,
        ):
            said = [record.getMessage() for record in caplog.records if record.name == module.__name__]
            assert said == [
                "webhook gitlab: a secret of it can not be read, every request is refused: env:UNSET_TOKEN: the environment variable is "
                "not set where whenthen runs; set it and restart",
                f"webhook rotated: a secret of it can not be read, it has others: file:{tmp_path}/next: can not be read: No such file or "
                "directory; check the path and who may read it",
            ]
            running = RunningServer(server, client)
            assert list((await running.get("/api/status"))["secrets_missing"]) == ["gitlab", "rotated"]

            async def shown(webhook: str, value: float) -> bool:
                return f'whenthen_webhook_secrets_missing{{webhook="{webhook}"}} {value}' in await running.metrics()

            for webhook, value in (("gitlab", 1.0), ("rotated", 1.0), ("well", 0.0), ("open", 0.0)):
                assert await shown(webhook, value)
            (tmp_path / "next").write_text("the-next-token\n")
            await until(lambda: shown("rotated", 0.0))
            assert list((await running.get("/api/status"))["secrets_missing"]) == ["gitlab"]
            assert "webhook rotated: its secrets can be read again" in caplog.text
            (tmp_path / "next").write_text(" \n")
            await until(lambda: shown("rotated", 1.0))
            later = f'  - {{name: later, verify: {{type: bearer, token: "env:UNSET_TOKEN"}}, {MAP}}}'
            file.write_text(rules(tmp_path, later=later).replace("name: gitlab", "name: renamed"))
            (await client.post("/api/rules/reload")).raise_for_status()
            await until(lambda: shown("later", 1.0))
            missing = (await running.get("/api/status"))["secrets_missing"]
            assert list(missing) == ["renamed", "rotated", "later"]
            assert missing["rotated"] == [f"file:{tmp_path}/next is blank; give it a value"]
            assert 'webhook="gitlab"' not in await running.metrics()
    # each was said once, however often it was looked at; and no value is shown
    assert caplog.text.count("webhook gitlab: a secret") == 1
    assert "planted-token-value" not in caplog.text
