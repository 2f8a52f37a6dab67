"""Requests a second that become events, of each provider beside a webhook with a token and a mapping, and the share of the verification.

    python -m benchmarks.providers [--seconds 0.1] [--rounds 5]

The pure part alone, a second of processor time, with the sample of each provider's file: verified and translated. What HTTP and JetStream take is the
same for all, and in `ingest`. Providers without a proof of their own are verified by a bearer token. Rounds alternate, medians count.

Checked: every sample becomes the events that its file says, and a request with one byte changed none.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from benchmarks._shared import machine
from benchmarks.ingest import BODY, TOKEN
from tests.unit.sources.provider_requests import NOW, PROVIDERS, SECRETS, request_of, time_of_sample
from whenthen.schemas.errors import WhenthenError
from whenthen.schemas.providers import Provider, Sample
from whenthen.schemas.webhooks import Webhook
from whenthen.sources import Request, WebhookTranslator

__all__ = ["main"]

GENERIC = "webhook"
BEARER = {"type": "bearer", "token": "env:TOKEN"}
MAP = {
    "event": "order.{{ body.status }}",
    "resource": {"id": "order.{{ body.order }}", "country": "$.body.country"},
    "payload": "$.body",
}


class Case:
    """One sender: its webhook, a request, and when that came."""

    def __init__(self, fields: dict[str, Any], request: Request, now: datetime, names: list[str], key: str) -> None:
        webhook = Webhook.model_validate({"name": "hook", **fields})
        secrets = {"env:MINE": key, "env:TOKEN": TOKEN}
        self.hook = WebhookTranslator(webhook, resolve_secret=secrets.__getitem__)
        self.request = request
        self.now = now
        self._names = names
        self._signed = "secret" in fields

    def check(self, name: str) -> None:
        found = [event.name for event in self.hook.translate(self.request, self.now).events]
        if found != self._names:
            raise SystemExit(f"{name}: {found} came of a request that is {self._names}")
        changed = replace(self.request, body=self.request.body + b" ")
        if not self._signed:
            changed = replace(self.request, headers={**self.request.headers, "authorization": f"Bearer {TOKEN}x"})
        try:
            self.hook.translate(changed, self.now)
        except WhenthenError:
            return
        if self._signed and not self._signs_body():
            return
        raise SystemExit(f"{name}: a request that proves nothing is taken")

    def _signs_body(self) -> bool:
        """A token in a header is right whatever the body is."""
        return "hmac" in self.hook.proof

    def whole(self) -> None:
        self.hook.translate(self.request, self.now)

    def without_proof(self) -> None:
        self.hook.read(self.request, self.now)


def case_of(provider: Provider) -> Case | None:
    """None for a provider all of whose samples are handshakes or have no body."""
    for sample in provider.samples:
        if not sample.events or sample.method != "POST":
            continue
        return _case(provider, sample)
    return None


def _case(provider: Provider, sample: Sample) -> Case:
    request, now = request_of(provider, sample), time_of_sample(sample)
    names = [str(event["event"]) for event in sample.events]
    if provider.verify:
        key = SECRETS["env:MINE"] if sample.secret is None else sample.secret
        return Case({"preset": provider.name, "secret": "env:MINE"}, request, now, names, key)
    request = replace(request, headers={**request.headers, "authorization": f"Bearer {TOKEN}"})
    return Case({"preset": provider.name, "verify": BEARER}, request, now, names, "")


def generic() -> Case:
    request = Request.of(headers={"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}, body=BODY)
    return Case({"verify": BEARER, "map": MAP}, request, NOW, ["order.paid"], "")


def rate(work: Callable[[], None], seconds: float) -> float:
    """How often in a second of processor time, which other work on the machine changes less than the clock's."""
    done, began = 0, time.thread_time()
    while (now := time.thread_time()) < began + seconds:
        for _ in range(20):
            work()
        done += 20
    return done / (now - began)


def measure(seconds: float, rounds: int) -> dict[str, Any]:
    cases = {GENERIC: generic()}
    cases |= {name: made for name, provider in PROVIDERS.items() if (made := case_of(provider)) is not None}
    for name, case in cases.items():
        case.check(name)
    whole: dict[str, list[float]] = {name: [] for name in cases}
    bare: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, case in cases.items():
            for rates, work in ((whole, case.whole), (bare, case.without_proof)):
                found = rate(work, seconds)
                if number:  # the first round warms up
                    rates[name].append(found)
    figures = {}
    for name, case in cases.items():
        shares = [1 - ours / without for ours, without in zip(whole[name], bare[name], strict=True)]
        beside = [ours / theirs for ours, theirs in zip(whole[name], whole[GENERIC], strict=True)]
        figures[name] = {
            "requests_per_s": round(statistics.median(whole[name])),
            "beside_webhook": round(statistics.median(beside), 2),
            "verification": round(max(0.0, statistics.median(shares)), 2),
            "proof": case.hook.proof,
            "body_bytes": len(case.request.body),
        }
    return {"benchmark": "providers", **machine(), "rounds": rounds, "figures": figures}


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(json.dumps(measure(given.seconds, given.rounds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
