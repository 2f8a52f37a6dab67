"""The commands about rules run where neither the NATS client nor a web framework is installed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.patience import limit

from .conftest import environment, installed_python
from .wheel import ROOT

EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/rules.yaml"))
ORDER = {
    "id": "e-1",
    "event": "order.paid",
    "resource": {"id": "order.17"},
    "occurred": "2026-01-31T08:00:00Z",
    "received": "2026-01-31T08:00:00Z",
}
SHIPPED = {**ORDER, "id": "e-2", "event": "order.shipped"}
PREFECT = {
    "name": "retry",
    "trigger": {"expect": ["prefect.flow-run.Failed"], "posture": "Reactive"},
    "actions": [{"type": "do-nothing"}],
}
#: hides what is not to be needed, then runs commands one after the other; gives code and output of each as a line of JSON
HIDING = """
import contextlib, io, json, sys

HIDDEN = {"nats", "faststream", "fastapi", "starlette", "uvicorn", "nats_server"}

class Hiding:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hiding())
from whenthen.cli.main import main

for line in sys.stdin:
    sys.argv = ["whenthen", *json.loads(line)]
    printed, code = io.StringIO(), 0
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
    print(json.dumps([code, printed.getvalue()]), flush=True)
assert not HIDDEN & {name.partition(".")[0] for name in sys.modules}
"""


def run(*commands: list[str]) -> list[tuple[int, str]]:
    """Exit code and output of each command, all in one process without the hidden packages."""
    done = subprocess.run(
        [installed_python(), "-c", HIDING],
        input="".join(json.dumps(command) + "\n" for command in commands),
        env=environment({"WHENTHEN_WATCHDOG": "false"}),  # what goes wrong is seen in this very process
        capture_output=True,
        text=True,
        timeout=limit(60),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [(code, text) for code, text in map(json.loads, done.stdout.splitlines())]


def test_check_and_test_pass_on_every_example() -> None:
    commands = [[command, str(folder)] for folder in EXAMPLES for command in ("check", "test")]
    for command, (code, text) in zip(commands, run(*commands), strict=True):
        assert code == 0, f"{command}: {text}"
        assert text.startswith("ok: ") if command[0] == "check" else " 0 failed" in text


def test_replay_explain_schema_and_import_do_their_work(tmp_path: Path) -> None:
    event, log, prefect = tmp_path / "event.json", tmp_path / "log.jsonl", tmp_path / "prefect.json"
    event.write_text(json.dumps(ORDER))
    log.write_text(f"{json.dumps(ORDER)}\n{json.dumps(SHIPPED)}\n")
    prefect.write_text(json.dumps([PREFECT]))
    orders = str(ROOT / "examples" / "orders")
    found = run(
        ["replay", orders, "--events", str(log)],
        ["explain", "paid-then-shipped", str(event), "--rules", orders],
        ["schema"],
        ["import", "prefect", str(prefect)],
        ["check", orders, "--against", orders],
        ["check", str(tmp_path / "nowhere")],
    )
    codes, texts = zip(*found, strict=True)
    assert codes == (0, 0, 0, 0, 0, 1)
    replayed, explained, schema, imported, against, refused = texts
    assert json.loads(replayed)["automation"] == "paid-then-shipped"
    assert "expect: order.paid" in explained
    assert "automations" in json.loads(schema)["properties"]
    assert "- flow-run.Failed" in imported
    assert against.startswith("ok: ")
    assert "nowhere" in refused


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_what_needs_the_engine_does_miss_it_there(command: str) -> None:
    with pytest.raises(AssertionError, match="No module named 'nats'"):
        run([command, str(EXAMPLES[0])])
