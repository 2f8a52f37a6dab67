"""Webhook requests a second that JetStream has acknowledged, beside the same HTTP server with a handler that does nothing.

    python -m benchmarks.ingest [--seconds 4] [--rounds 5] [--connections 256]

`whenthen serve --role api` takes requests at `/hooks/orders`: read, checked for a bearer token, mapped to an event, published
and acknowledged, then answered 202. Beside it, the same HTTP server, FastAPI on uvicorn with the same settings and event loop,
serves a handler that returns at once (`route`). The goal is held against that. To show how much of the least possible is left, the
same is measured without FastAPI (`bare`): uvicorn and an ASGI callable that answers without looking at its request. All are processes of their own; the load comes from `wrk`
where it is installed and otherwise from a process with raw sockets, over kept connections, with the same requests. Rounds
alternate, medians count.

Checked: every answer is a 2xx, and the stream holds an event for each request that was answered.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from benchmarks._shared import ServerProcess, folder, free_port, machine, main_loop, wait_for
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.streams import EVENTS

__all__ = ["main"]

#: the goal: this share of what the same HTTP server does with a handler that returns at once
SHARE = 0.5

TOKEN = "a-token-for-the-benchmark"
RULES = """
webhooks:
  - name: orders
    verify: {type: bearer, token: env:BENCH_TOKEN}
    map:
      event: "order.{{ body.status }}"
      resource: {id: "order.{{ body.order }}", country: $.body.country}
      payload: $.body
"""
BODY = json.dumps(
    {
        "order": 4711,
        "status": "paid",
        "country": "de",
        "total": 129.5,
        "items": [{"sku": f"sku-{number}", "count": number, "price": 9.5} for number in range(1, 6)],
    }
).encode()


async def answer_at_once(scope: Any, receive: Any, send: Any) -> None:
    """The application of the other server."""
    body = b'{"ids":["0a0b0c0d-0000-4000-8000-000000000000"],"duplicates":[]}'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def route_at_once() -> FastAPI:
    """The same as a route."""
    app = FastAPI()

    @app.post("/hooks/{name}", status_code=202)
    async def hook(name: str) -> dict[str, list[str]]:
        return {"ids": ["0a0b0c0d-0000-4000-8000-000000000000"], "duplicates": []}

    return app


async def serve_at_once(port: int, form: str) -> None:
    """As `engine.process.server` runs uvicorn."""
    config = uvicorn.Config(
        answer_at_once if form == "bare" else route_at_once(),
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        lifespan="off",
        timeout_keep_alive=75,
        backlog=4096,
    )
    await uvicorn.Server(config).serve()


# -- load


def load(url: str, seconds: float, connections: int, scratch: Path) -> tuple[int, float]:
    """Post `BODY` to `url` over kept connections; how many were answered 2xx, and in how many seconds."""
    wrk = shutil.which("wrk")
    if wrk is None:
        command = [sys.executable, "-m", "benchmarks.ingest", "--load", url]
        command += ["--seconds", str(seconds), "--connections", str(connections)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        answered, took = json.loads(done.stdout)
        return answered, took
    script = scratch / "post.lua"
    script.write_text(
        f"wrk.method = 'POST'\nwrk.body = [==[{BODY.decode()}]==]\n"
        f"wrk.headers['content-type'] = 'application/json'\nwrk.headers['authorization'] = 'Bearer {TOKEN}'\n"
    )
    command = [wrk, "-t1", "--timeout", "60s", f"-c{connections}", f"-d{seconds:g}s", "-s", str(script), url]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+) requests in ([\d.]+)(m?s)", text)
    if found is None or "Non-2xx" in text or "Socket errors" in text:
        raise SystemExit(f"{url}: not every request was answered 2xx:\n{text}")
    return int(found[1]), float(found[2]) / (1000 if found[3] == "ms" else 1)


async def load_here(url: str, seconds: float, connections: int) -> tuple[int, float]:
    host, _, path = url.removeprefix("http://").partition("/")
    name, _, port = host.partition(":")
    head = f"POST /{path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    head += f"authorization: Bearer {TOKEN}\r\ncontent-length: {len(BODY)}\r\n\r\n"
    request = head.encode() + BODY
    answered = 0
    began = time.perf_counter()

    async def one() -> None:
        nonlocal answered
        reader, writer = await asyncio.open_connection(name, int(port))
        while time.perf_counter() < began + seconds:
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", answer)
            if not answer.startswith(b"HTTP/1.1 2") or length is None:
                raise SystemExit(f"{url}: {answer!r}")
            await reader.readexactly(int(length[1]))
            answered += 1
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return answered, time.perf_counter() - began


# -- the measurement


async def stored(nats_url: str) -> int:
    bus = Bus(nats_url)
    await bus.connect()
    try:
        return int((await bus.js.stream_info(EVENTS)).state.messages)
    finally:
        await bus.close()


def measure(seconds: float, rounds: int, connections: int) -> dict[str, Any]:
    rates: dict[str, list[float]] = {"ours": [], "bare": [], "route": []}
    answered = 0
    with folder() as scratch, contextlib.ExitStack() as others:
        server = ServerProcess(scratch, RULES, "--role", "api", environment={"BENCH_TOKEN": TOKEN})
        others.enter_context(server)
        hooks = {"ours": f"{server.url}/hooks/orders"}
        for form in ("bare", "route"):
            port = free_port()
            command = [sys.executable, "-m", "benchmarks.ingest", "--serve-at-once", str(port), "--form", form]
            other = others.enter_context(subprocess.Popen(command))
            others.callback(other.terminate)
            hooks[form] = f"http://127.0.0.1:{port}/hooks/orders"
            wait_for(functools.partial(_listens, port), "the empty server")
        for number in range(rounds + 1):
            for form, url in hooks.items():
                count, took = load(url, seconds if number else 1, connections, scratch)
                answered += count if form == "ours" else 0
                if number:  # the first round warms up
                    rates[form].append(count / took)
        kept = main_loop(stored(server.nats_url))
    # wrk leaves with requests under way, which it does not count; those were stored as well
    if not answered <= kept <= answered + connections * (rounds + 1):
        raise SystemExit(f"{answered} requests were answered, {kept} events are stored")
    shares = {
        form: round(statistics.median(mine / theirs for mine, theirs in zip(rates["ours"], found, strict=True)), 2)
        for form, found in rates.items()
        if form != "ours"
    }
    return {
        "benchmark": "ingest",
        **machine(),
        "load": "wrk" if shutil.which("wrk") else "asyncio",
        "connections": connections,
        "body_bytes": len(BODY),
        "rounds": rounds,
        "requests_per_s": round(statistics.median(rates["ours"])),
        "empty_handler_per_s": {form: round(statistics.median(rates[form])) for form in shares},
        "events_stored": kept,
        "share": shares,
        "limits": {"route": SHARE},
        "holds": shares["route"] >= SHARE,
    }


def _listens(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main() -> int:
    """Print the figures; 1 when the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--load", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--serve-at-once", type=int, metavar="PORT", help=argparse.SUPPRESS)
    parser.add_argument("--form", choices=("bare", "route"), default="bare", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve_at_once:
        main_loop(serve_at_once(given.serve_at_once, given.form))
        return 0
    if given.load:
        print(json.dumps(main_loop(load_here(given.load, given.seconds, given.connections))))
        return 0
    report = measure(given.seconds, given.rounds, given.connections)
    print(json.dumps(report))
    return 0 if report["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
