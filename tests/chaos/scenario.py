"""What is sent, and the rules that it meets: one automation for each way of remembering. Seeded, so a run can be repeated.

The moments of kills do differ from run to run; the judgement does not depend on them.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["SECRET", "Delivery", "deliveries", "write_rules"]

SECRET = "chaos-secret-of-the-shop"

_RULES = """
webhooks:
  - name: shop
    verify: {{type: hmac, secret: env:CHAOS_SECRET, header: X-Shop-Signature}}
    map:
      event: $.body.event
      resource: {{id: $.body.id, order: $.body.order}}
      payload: $.body
      occurred: $.body.occurred
      id: $.headers.x-shop-delivery
  - name: log
    verify: {{type: hmac, secret: env:CHAOS_SECRET, header: X-Shop-Signature}}
    map:
      each: $.body.lines
      event: shop.line.logged
      resource: {{id: host}}
      occurred: $.body.occurred
      id: $.item.id

deployments:
  - name: ledger
    command:
      - sh
      - -c
      - |
        printf '%s %s %s %s\\n' "$WHENTHEN_RUN_ID" "$WHENTHEN_ATTEMPT" "$WHENTHEN_PARAM_ORDER" "$CHAOS_PROCESS" >> {runs}
        sleep 1
    env: {{CHAOS_PROCESS: env:CHAOS_PROCESS}}
    retries: 20
    retry_delay: 500ms

automations:
  - name: every-order
    trigger: {{expect: shop.order.placed}}
    actions: [{call_a}]
  - name: failing-payments
    trigger: {{expect: shop.payment.failed, for_each: id, threshold: 4, within: 20s}}
    actions: [{call_b}]
  - name: logins-with-cooldown
    trigger: {{expect: shop.login, for_each: id, threshold: 2, within: 10s, cooldown: 3s}}
    actions: [{call_a}]
  - name: paid-then-shipped
    trigger:
      type: sequence
      within: 1m
      correlate: order
      triggers: [{{expect: shop.order.placed}}, {{expect: shop.order.shipped}}]
    actions: [{call_b}]
  - name: files-collected
    trigger: {{expect: shop.file.stored, collect: {{events: 25, wait: 3s}}}}
    actions: [{call_a}]
  - name: parcel-missing
    trigger:
      after: shop.parcel.sent
      expect: shop.parcel.arrived
      for_each: id
      posture: proactive
      within: 4s
    actions: [{call_b}]
  - name: book-refund
    trigger: {{expect: shop.refund, let: {{refunded: event.resource.order}}}}
    actions:
      - run-deployment: ledger
        parameters: {{order: $.resource.refunded}}
        retry: {retry}
  - name: ledger-written
    trigger: {{expect: flow-run.Completed}}
    actions: [{call_a}]
  - name: {hoarded}
    trigger: {{expect: shop.line.logged, for_each: id, threshold: 100000, within: 1h}}
    actions: [{call_a}]
  - name: lines-in-bulk
    trigger: {{expect: shop.line.logged, collect: {{events: {lines}, wait: 20s}}}}
    actions: [{call_b}]
"""
_HOARDED = "lines-within-an-hour"  #: the automation whose window grows beyond a message
_LINES = 250  #: events of one delivery of the log
_NAMED = 1000  #: of them a firing names, the most that one does
_LINE_ID_CHARS = 240
_LINE_BYTES = 260  #: of a window for each line: its id, time and position
_LONG_LINE_CHARS = 50_000  #: of the last line of a delivery: a triggering event that a firing still carries whole
_SENDER = "X-Chaos-Process: env:CHAOS_PROCESS"  #: which of the processes that share the actions performs one
#: far more tries than any outage of a receiver lasts, so that nothing may end as a dead letter
_RETRY = "{retries: 99, delay: 200ms, max_delay: 2s}"


_HANG_FROM, _HANG_EVERY = 30, 300  #: steps
_LINES_FROM, _LOGS_A_STEP = 3, 3  #: from which step on each has how many deliveries of the log, until there are enough


def write_rules(folder: Path, *, receivers: tuple[int, int], runs: Path, change: int = 0) -> Path:
    """The rules, with actions that call the two receivers and runs that write a line each to `runs`.

    With each `change` one automation remembers more than before, another one is replaced, and all others stay.
    """

    def call(port: int) -> str:
        url = f'"http://127.0.0.1:{port}/hook"'
        return f"{{call-webhook: {url}, headers: {{{_SENDER}}}, timeout: 5s, retry: {_RETRY}}}"

    folder.mkdir(parents=True, exist_ok=True)
    text = _RULES.format(
        call_a=call(receivers[0]), call_b=call(receivers[1]), retry=_RETRY, runs=runs, hoarded=_HOARDED, lines=_NAMED
    )
    if change:
        text = text.replace("threshold: 4", f"threshold: {3 + change % 3}", 1)
        text += f"  - name: of-change-{change}\n    trigger: {{expect: shop.order.shipped}}\n    actions: [{call(receivers[0])}]\n"
    written = folder / ".rules.new"
    written.write_text(text)
    written.replace(folder / "rules.yaml")  # at once, as a deploy should
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event of the producer. `again_s`: after how long it is delivered once more, though it was taken."""

    id: str
    at_s: float  #: from the beginning of the load
    event: str
    key: str
    order: str
    lag_s: float  #: how long before it is sent it occurred; negative for a producer whose clock runs ahead
    again_s: tuple[float, ...] = field(default=())
    hangs: bool = False  #: whether whoever evaluates it hangs (`hanging/sitecustomize.py`)
    lines: int = 0  #: of the log, each an event of its own

    @property
    def webhook(self) -> str:
        return "log" if self.lines else "shop"

    @property
    def event_ids(self) -> list[str]:
        """The ids of the events that come of it."""
        return [f"log/{line}" for line in self._line_ids()] if self.lines else [f"shop/{self.id}"]

    def _line_ids(self) -> list[str]:
        return [f"{self.id}-{number}-".ljust(_LINE_ID_CHARS, "i") for number in range(self.lines)]

    def body(self, occurred: str) -> dict[str, Any]:
        if self.lines:
            lines: list[dict[str, str]] = [{"id": line} for line in self._line_ids()]
            lines[-1]["text"] = "x" * _LONG_LINE_CHARS
            return {"lines": lines, "occurred": occurred}
        hang = {"hang": "spin"} if self.hangs else {}
        return {"event": self.event, "id": self.key, "order": self.order, "occurred": occurred, **hang}


def deliveries(seed: int, rate: float, *, hung: int = 0, hoard_bytes: int = 0) -> Iterator[Delivery]:
    """Deliveries without end, about `rate` events a second, nearly in the order of sending; `hung` of them hang the evaluator. Beside
    them the log, until the window of its one key has more than `hoard_bytes`."""
    logs = -(-hoard_bytes // (_LINES * _LINE_BYTES))
    chance = random.Random(seed)
    numbers = itertools.count()

    def one(at_s: float, event: str, key: str, order: str = "none") -> Delivery:
        again = tuple(chance.uniform(0, 6) for _ in range(chance.choice((0, 0, 0, 0, 0, 1, 1, 2))))
        lag_s = chance.choice((0.0, 0.0, chance.uniform(0, 0.5), chance.uniform(0, 6), -chance.uniform(0, 2)))
        return Delivery(
            id=f"{seed}-{next(numbers)}", at_s=at_s, event=event, key=key, order=order, lag_s=lag_s, again_s=again
        )

    at_s = 0.0
    for number in itertools.count():
        at_s += chance.expovariate(rate / 3.5)  # a step makes about so many events
        if number in range(_HANG_FROM, _HANG_FROM + hung * _HANG_EVERY, _HANG_EVERY):
            user = f"user-{number % 8}"
            yield Delivery(
                id=f"{seed}-hangs-{number}", at_s=at_s, event="shop.login", key=user, order="none", lag_s=0, hangs=True
            )
        for _ in range(min(_LOGS_A_STEP, logs) if number >= _LINES_FROM else 0):
            log = f"{seed}-log-{logs}"
            logs -= 1
            again_s = (2.0,) if logs % 4 == 0 else ()
            yield Delivery(id=log, at_s=at_s, event="", key="", order="", lag_s=0, lines=_LINES, again_s=again_s)
        what = chance.random()
        if what < 0.30:
            order = f"o{number}"
            yield one(at_s, "shop.order.placed", f"customer-{chance.randrange(20)}", order)
            if chance.random() < 0.7:
                yield one(at_s + chance.uniform(-0.5, 4), "shop.order.shipped", f"van-{chance.randrange(5)}", order)
        elif what < 0.50:
            for _ in range(chance.randrange(1, 9)):
                yield one(at_s + chance.uniform(0, 1), "shop.payment.failed", f"card-{chance.randrange(6)}")
        elif what < 0.65:
            for _ in range(chance.randrange(1, 4)):
                yield one(at_s, "shop.login", f"user-{chance.randrange(8)}")
        elif what < 0.80:
            parcel = f"p{number}"
            yield one(at_s, "shop.parcel.sent", parcel)
            if chance.random() < 0.6:
                yield one(at_s + chance.uniform(0, 6), "shop.parcel.arrived", parcel)
        elif what < 0.88:
            for _ in range(chance.randrange(1, 15)):
                yield one(at_s, "shop.file.stored", "bucket")
        else:
            yield one(at_s, "shop.refund", f"customer-{chance.randrange(20)}", f"r{number}")
