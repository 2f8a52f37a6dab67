"""The crash test: a seeded load against real processes that are killed, and a verdict on what was stored, called and run.

    python -m tests.chaos --seed 1 --seconds 600 --kills 220          (`make chaos`)

`scenario` has the events and the rules that judge them, `sender` delivers them as a real producer does, `house` starts the
processes and `processes` brings back what is killed, `killer` kills, `oracle` says what must have come of the stream, and
`verdict` compares. The form `runs` is another test, of runs alone: `killed_runs`. The summary is JSON on stdout. Ends with 1 when a promise was broken, and says which; the folder with
streams and logs is kept then. What is promised: docs/reliability.md.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import orjson

from tests.chaos.killed_runs import chaos_of_runs
from tests.chaos.run import run_chaos

__all__ = ["main"]


def main() -> int:
    """Run as the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Crash test.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=600.0, help="of load and kills at most, in all")
    parser.add_argument("--kills", type=int, default=220, help="in all")
    parser.add_argument("--rate", type=float, default=25.0, help="events a second, about")
    parser.add_argument("--form", choices=["embedded", "split", "runs", "all"], default="all")
    parser.add_argument("--runs", type=int, default=500, help="that are started in the form runs")
    parser.add_argument("--hung", type=int, default=2, help="events that hang whoever evaluates them, in each form")
    parser.add_argument(
        "--window", type=int, help="bytes beyond which a window grows, 0 for none; default: a message of the server"
    )
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # so that what was started is ended
    forms = ("embedded", "split", "runs") if options.form == "all" else (options.form,)
    kills, seconds = -(-options.kills // len(forms)), options.seconds / len(forms)
    faults = 0
    for form in forms:
        folder = Path(tempfile.mkdtemp(prefix=f"whenthen-chaos-{form}-"))
        if form == "runs":
            work = chaos_of_runs(
                folder,
                options.seed,
                runs=options.runs,
                kills=kills,
                every_s=seconds / max(kills, 1) / 2,
                pause_s=seconds / max(options.runs, 1) / 2,
            )
        else:
            work = run_chaos(
                folder,
                form,
                options.seed,
                kills=kills,
                every_s=seconds / max(kills, 1) / 2,
                rate=options.rate,
                until_s=seconds,
                hung=options.hung,
                window_bytes=options.window,
            )
        summary = asyncio.run(work)
        sys.stdout.write(orjson.dumps(summary, option=orjson.OPT_INDENT_2).decode() + "\n")
        sys.stdout.flush()
        faults += len(summary["faults"])
        if summary["faults"]:
            sys.stderr.write(f"streams and logs are kept in {folder}\n")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
