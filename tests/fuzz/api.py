"""The HTTP API by its OpenAPI document: a real `whenthen serve` on loopback, asked by schemathesis for a bounded time.

    python -m fuzz.api SECONDS

Checks that no answer is 5xx, and that status codes, content types, headers and bodies are those of the document.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.ports import free_port

__all__ = ["main"]

READY_S = 60
RULES = """
automations:
  - name: counted
    trigger: {expect: "*", for_each: id, threshold: 3, within: 60s, cooldown: 60s}
    actions: [do-nothing]
  - name: chained
    trigger: {expect: order.*, match: {id: "*"}, when: event.payload.total > 1}
    actions:
      - emit-event: order.checked
        resource: {id: "{{ event.resource.id }}"}
      - run-deployment: load
        parameters: {order: $.resource.id}
deployments:
  - name: load
    command: ["true"]
    parameters: {order: none}
    schedules: [{name: nightly, cron: "0 3 * * *", timezone: Europe/Berlin}]
webhooks:
  - {name: open, verify: none, map: {event: "hook.{{ body.kind }}", resource: {id: $.body.id}}}
  - {name: github, preset: github, verify: none}
"""


def main() -> int:
    """Start the server, run schemathesis against it, stop it. 0 when nothing was found."""
    seconds = int(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="whenthen-fuzz-") as name:
        folder = Path(name)
        (folder / "rules").mkdir()
        (folder / "rules" / "rules.yaml").write_text(RULES)
        port = free_port()
        kept = {key: value for key, value in os.environ.items() if not key.startswith("WHENTHEN_")}
        kept["WHENTHEN_OPEN_LOOPBACK"] = "true"  # the generator of requests knows no token
        command = [sys.executable, "-m", "whenthen.cli.main", "serve", str(folder / "rules")]
        command += ["--port", str(port), "--data-dir", str(folder / "data")]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, env=kept, cwd=folder)
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(server, url, folder / "log")
            found = _ask(url, seconds, folder)
        finally:
            server.send_signal(signal.SIGTERM)
            ended = server.wait(60)
        text = (folder / "log").read_text(encoding="utf-8", errors="replace")
        if "Traceback" in text or ended:
            print(text[-20_000:], f"the server ended with {ended}", sep="\n")
        return 1 if found or ended or "Traceback" in text else 0


def _wait_until_ready(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            opener.open(f"{url}/readyz", timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise SystemExit(f"the server did not become ready:\n{log.read_text(errors='replace')}")


def _ask(url: str, seconds: int, folder: Path) -> int:
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    checks += "response_schema_conformance,negative_data_rejection,unsupported_method,allow_header_conformance"
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--checks", checks]
    command += ["--max-time", str(seconds), "--request-timeout", "10", "--suppress-health-check", "all"]
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "COLUMNS": "160"}
    return subprocess.run(command, cwd=folder, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
