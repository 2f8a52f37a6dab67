"""What the loop of a shard works with beside its logs: the evaluator, the revisions of the rules, an observer.

`engine.evaluation.shard_loop` calls them; the wiring gives them, tests have their own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

from whenthen.engine.evaluation.firing_counts import FiredTotal
from whenthen.engine.hangs import Skip
from whenthen.schemas.automations import PauseChange
from whenthen.schemas.events import Event
from whenthen.schemas.firings import Decision, Firing
from whenthen.triggers import Aside, Evaluation, RuleSet, Stopped

__all__ = ["EventEvaluator", "Observer", "PublishSpecs", "RuleRevisions"]

#: stores specifications of actions by digest, where executors find them; `BusUnavailable`: call it again
PublishSpecs = Callable[[Mapping[str, bytes]], Awaitable[None]]


class EventEvaluator(Protocol):
    """What the loop needs of `whenthen.triggers.Evaluator`, which says what each means."""

    clock_us: int

    @property
    def rules(self) -> RuleSet: ...
    def process(self, event: Event, now_us: int) -> Evaluation: ...
    def advance(self, now_us: int) -> Evaluation: ...
    def next_deadline_us(self) -> int | None: ...
    def wants_all_events(self) -> bool: ...
    def remember(self, event_id: str, at_us: int | None = None) -> None: ...
    def holds(self, event_id: str) -> bool: ...
    def pending(self) -> int: ...
    def drain(self) -> list[tuple[str, str, bytes | None]]: ...
    def restore(self, trigger: str, key: str, state: bytes) -> bool: ...
    def drop_outlived(self) -> int: ...
    def remains_us(self, trigger: str) -> int | None: ...
    def replace_rules(self, rules: RuleSet) -> None: ...
    @property
    def aside(self) -> Mapping[str, Aside]: ...
    def owner(self, trigger: str) -> str | None: ...
    def set_aside(
        self, automation: str, detail: str, *, at_us: int, windows: Iterable[tuple[str, str]] = ()
    ) -> None: ...
    def give_back(self) -> list[str]: ...
    def take_pause(self, change: PauseChange) -> None: ...
    def knows_pause(self, automation: str) -> bool: ...


class Observer:
    """Notified by the loop; does nothing. Metrics and the decision log override what they want to know."""

    wants_events = False  #: whether `decided` is called

    def decided(self, shard: int, event: Event, decisions: Sequence[Decision], stored_us: int) -> None:
        """An event was evaluated that triggers decided something about; it was stored at `stored_us`."""

    def evaluated(self, shard: int, events: int, decisions: Sequence[Decision], firings: Sequence[Firing]) -> None:
        """A batch was evaluated; its firings are not committed yet."""

    def committed(self, shard: int, firings: Sequence[Firing], messages: int, seconds: float) -> None:
        """A batch is stored."""

    def counted(self, shard: int, totals: Mapping[str, FiredTotal]) -> None:
        """How often the automations of the shard have fired; told when the shard was loaded, before firings are made."""

    def stopped(self, shard: int, stopped: Sequence[Stopped]) -> None:
        """Firings that were not made, as too many firings led to them."""

    def set_aside(self, shard: int, aside: Mapping[str, Aside]) -> None:
        """Which automations of the shard are set aside now; told when they are others, and when the shard was loaded."""

    def event_set_aside(self, shard: int, skip: Skip) -> None:
        """An event that hung processes lies before the shard, which passes over it; told at each load until it has."""

    def full(self, shard: int, full: bool) -> None:
        """Whether the shard waits because the store is full and holds nothing that may go."""

    def lag(self, shard: int, messages: int, seconds: float) -> None:
        """How far the shard is behind the event log."""

    def unreadable(self, shard: int, seq: int, error: Exception) -> None:
        """The message at `seq` is no event, or the evaluator failed on it; it was skipped."""


class RuleRevisions(Protocol):
    """The revisions of the rules, each as the part of it that this shard evaluates."""

    async def current(self) -> int:
        """The newest revision; 0 before the first one.

        Raises:
            BusUnavailable: no answer.
        """

    async def find(self, number: int) -> RuleSet:
        """The triggers of a revision.

        Raises:
            RevisionDamaged: it is not there, or not whole; no process can use it.
            RevisionNotUnderstood: this process can not compile it; another version may.
            BusUnavailable: no answer.
        """
