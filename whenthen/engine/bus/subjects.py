"""NATS subjects: how event names and other texts become legal subjects, and which filters cover a set of globs. Pure.

Called by everything in the engine that publishes or reads. A token keeps `A-Z a-z 0-9 _ - : / @ = + , ; ! #`; every
other character is written as `%XX` for each of its UTF-8 bytes, and an empty token is a lone `%`. So any text is a
legal token, no two texts share one, and it can be read back. Keys of buckets and names of consumers are `legal_key`s. Ids
of flow runs are put into subjects as they are, so every other text is refused in their place.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from whenthen.schemas.deployments import is_run_id
from whenthen.schemas.errors import InvalidInput

__all__ = [
    "ALL_EVENTS",
    "FIRINGS",
    "HISTORY_QUESTIONS",
    "PAUSES",
    "RULE_MARKERS",
    "action_prefix",
    "action_subject",
    "artifact_subject",
    "aside_subject",
    "audit_subject",
    "dead_subject",
    "dead_subjects",
    "decisions_subject",
    "escape_token",
    "event_subject",
    "filters_for",
    "firing_prefix",
    "header_id",
    "heard_subject",
    "legal_key",
    "log_subject",
    "marker_number",
    "marker_subject",
    "offset_subject",
    "outcome_of",
    "outcome_subject",
    "pause_subject",
    "pool_consumer",
    "pool_subject",
    "prepared_subject",
    "probe_subject",
    "queued_run_subject",
    "reader_subject",
    "refused_subject",
    "revision_subject",
    "rule_text_subject",
    "run_key",
    "seen_rules_subject",
    "shard_subjects",
    "short_token",
    "task_runs_subject",
    "tick_subject",
    "told_event_subject",
    "unescape_token",
    "unreadable_subject",
    "webhook_report_subject",
    "window_part_subject",
    "window_subject",
]

EVENTS_PREFIX = "events."
ALL_EVENTS = "events.>"
RULE_MARKERS = "rules.*"
PAUSES = "pauses.*"
FIRINGS = "engine.firing."  #: begins the subjects of all firings
#: where a process that has a history is asked
HISTORY_QUESTIONS = "history.ask"
#: more filters than this on one consumer cost the server more than it saves
MAX_FILTERS = 200
#: longer tokens are cut and end in a hash; a subject must fit the server's control line of 4096 bytes
MAX_TOKEN_CHARS = 160
_UNSAFE = re.compile(r"[^A-Za-z0-9_\-:/@=+,;!#]")
_LEGAL = re.compile(r"[A-Za-z0-9_\-:/@=+,;!#]+(?:\.[A-Za-z0-9_\-:/@=+,;!#]+)*")
_WILD = re.compile(r"[*?\[\\]")
_ARTIFACT_KEY = re.compile(r"[a-z0-9-]*")
_UNSAFE_KEY = re.compile(rb"[^A-Za-z0-9_-]")
_UNSAFE_HEADER = re.compile(r"[^!-$&-~]")


def _percent(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogatepass"))


def escape_token(text: str) -> str:
    """One legal subject token for any `text`, dots included. `unescape_token` reads it back."""
    return _UNSAFE.sub(_percent, text) or "%"


def unescape_token(token: str) -> str:
    """The text that `escape_token` was given."""
    return "" if token == "%" else unquote_to_bytes(token).decode("utf-8", "surrogatepass")


def short_token(text: str) -> str:
    """Like `escape_token`, but never longer than `MAX_TOKEN_CHARS`: a longer one ends in a hash and can not be read
    back.

    `~` before the hash occurs in no escaped token, so a shortened text never meets a short one.
    """
    token = _UNSAFE.sub(_percent, text) or "%"  # `escape_token`, without a call for each
    if len(token) <= MAX_TOKEN_CHARS:
        return token
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{token[:48]}~{digest}"


def header_id(text: str) -> str:
    """`text` for use as a header's value: NATS trims values, so spaces and anything not plain ASCII are escaped."""
    return _UNSAFE_HEADER.sub(_percent, text)


def legal_key(text: str) -> str:
    """A key of a bucket or the name of a consumer for any text: `=XX` for bytes that are not letters, digits, `_` or `-`.

    Long ones are cut and end in a hash; `=-` before it occurs in no other key.
    """
    key = _UNSAFE_KEY.sub(lambda found: b"=%02X" % found[0][0], text.encode(errors="surrogatepass")).decode()
    if len(key) <= MAX_TOKEN_CHARS:
        return key or "="
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return f"{key[:48]}=-{digest}"


def run_key(run_id: str) -> str:
    """The key of a flow run in the buckets of runs and heartbeats.

    Raises:
        InvalidInput: it is no id of a flow run.
    """
    if not is_run_id(run_id):
        raise InvalidInput(f"{run_id[:80]!r} is no id of a flow run; `whenthen runs` lists them")
    return run_id


def log_subject(run_id: str) -> str:
    """Where the lines of a flow run are. Raises `InvalidInput`, see `run_key`."""
    return f"logs.{run_key(run_id)}"


def task_runs_subject(run_id: str) -> str:
    """Where the moves of the task runs of a flow run are. Raises `InvalidInput`, see `run_key`."""
    return f"task-runs.{run_key(run_id)}"


def artifact_subject(key: str | None, run_id: str | None, id: str | None) -> str:
    """Where an artifact is, or with None for a part those of every one. Without a key it is the empty text.

    Raises:
        InvalidInput: see `run_key`, and for an id or a key that is none.
    """
    if id is not None and not is_run_id(id):
        raise InvalidInput(f"{id[:80]!r} is no id of an artifact; `whenthen artifacts` lists them")
    if key is not None and _ARTIFACT_KEY.fullmatch(key) is None:
        raise InvalidInput(f"the key of an artifact has lowercase letters, digits and dashes; found {key[:80]!r}")
    parts = ("*" if key is None else short_token(key), "*" if run_id is None else run_key(run_id), id or "*")
    return f"artifacts.{'.'.join(parts)}"


def told_event_subject(run_id: str) -> str:
    """Where events of a flow run wait for being published. Raises `InvalidInput`, see `run_key`."""
    return f"told-events.{run_key(run_id)}"


def pool_subject(pool: str) -> str:
    """All runs that wait for a worker of the pool."""
    return f"runs.{short_token(pool)}.>"


def queued_run_subject(pool: str, deployment: str, run_id: str) -> str:
    """Where a run waits for a worker. Raises `InvalidInput`, see `run_key`."""
    return f"runs.{short_token(pool)}.{short_token(deployment)}.{run_key(run_id)}"


def pool_consumer(pool: str) -> str:
    """The consumer that the pool's workers share."""
    return f"workers-{legal_key(pool)}"


def event_subject(name: str) -> str:
    """The subject of events called `name`: its dots separate tokens, everything else is escaped."""
    if _LEGAL.fullmatch(name):  # as nearly every name is
        return EVENTS_PREFIX + name
    return EVENTS_PREFIX + ".".join(map(escape_token, name.split(".")))


def filters_for(patterns: Iterable[str], *, limit: int = MAX_FILTERS) -> list[str]:
    """The filter subjects that cover every event name which one of the globs can match.

    A star matches any characters, dots included, so a glob is covered by its complete literal tokens and `>`. The
    result is sorted, and no filter overlaps another one (the server refuses such consumers). More than `limit`
    become `events.>`. What a filter lets through in addition is left to the evaluator.
    """
    exact: set[str] = set()
    prefixes: set[str] = set()
    for pattern in patterns:
        wild = _WILD.search(pattern)
        if pattern.startswith("!"):
            prefixes.add(EVENTS_PREFIX)
        elif wild is None:
            exact.add(event_subject(pattern))
        else:
            tokens = pattern[: wild.start()].split(".")[:-1]
            prefixes.add(EVENTS_PREFIX + "".join(escape_token(token) + "." for token in tokens))
    if EVENTS_PREFIX in prefixes:
        return [ALL_EVENTS]
    filters = {subject for subject in exact if not _covered(subject, prefixes)}
    filters |= {prefix + ">" for prefix in prefixes if not _covered(prefix[:-1], prefixes)}
    return sorted(filters) if len(filters) <= limit else [ALL_EVENTS]


def _covered(subject: str, prefixes: set[str]) -> bool:
    """Whether a prefix, other than `subject` itself, leads to `subject`."""
    end = subject.rfind(".")
    while end > 0:
        if subject[: end + 1] in prefixes:
            return True
        end = subject.rfind(".", 0, end)
    return False


def tick_subject(shard: int) -> str:
    """Where a shard tells itself the time."""
    return f"ticks.{shard}"


def marker_subject(number: int) -> str:
    """Where `EVENTS` says from which position on a revision of the rules is in force."""
    return f"rules.{number}"


def marker_number(subject: str) -> int | None:
    """The revision that a marker names; None when `subject` is something else's."""
    if not subject.startswith("rules."):  # asked for each event
        return None
    number = subject.removeprefix("rules.")
    return int(number) if number.isascii() and number.isdigit() else None


def pause_subject(automation: str) -> str:
    """Where `EVENTS` says from which position on an automation is paused, or is not; its name is in the message."""
    return f"pauses.{short_token(automation)}"


def revision_subject(number: int | str) -> str:
    """The record of a revision of the rules; `*` for all."""
    return f"rulesets.revision.{number}"


def rule_text_subject(digest: str, part: int | str) -> str:
    """A part of a text that revisions name by its digest; `*` for all parts."""
    return f"rulesets.text.{digest}.{part}"


def seen_rules_subject(digest: str) -> str:
    """The last revision that had the rules with this digest."""
    return f"rulesets.seen.{digest}"


def shard_subjects(shard: int) -> str:
    """Everything that a shard remembers."""
    return f"engine.shard.{shard}.>"


def decisions_subject(shard: int) -> str:
    """Where a shard's decisions are on record."""
    return f"decisions.{shard}"


def audit_subject(kind: str) -> str:
    """Where acts of one kind are on record, such as refused requests; `*` for all."""
    return f"audit.{kind}"


def refused_subject(webhook: str, request: str) -> str:
    """Where a refused request of a webhook is kept."""
    return f"senders.refused.{short_token(webhook)}.{request}"


def aside_subject(source: str, message: str) -> str:
    """Where a message of a source is kept that became no event."""
    return f"senders.aside.{short_token(source)}.{message}"


def reader_subject(member: str) -> str:
    """How the sources do that a process reads; `*` for all."""
    return f"senders.reader.{member}"


def webhook_report_subject(member: str) -> str:
    """What came to the webhooks at a process that answers requests; `*` for all."""
    return f"senders.webhooks.{member}"


def heard_subject(webhook: str) -> str:
    """When a webhook was heard last; `*` for all."""
    return f"senders.heard.{webhook if webhook == '*' else short_token(webhook)}"


def offset_subject(shard: int) -> str:
    """The shard's position; every commit ends with it."""
    return f"engine.shard.{shard}.offset"


def prepared_subject(shard: int, index: int) -> str:
    """One pack of a commit that is larger than an atomic batch."""
    return f"engine.shard.{shard}.prepared.{index}"


def window_subject(shard: int, trigger: str, key: str) -> str:
    """A window of a trigger; trigger and key are in the message, as long ones can not be read from the subject."""
    return f"engine.shard.{shard}.window.{short_token(trigger)}.{short_token(key)}"


def window_part_subject(window: str, number: int) -> str:
    """A further part of a window that is larger than a message; `window` is the window's own subject."""
    return f"{window.replace('.window.', '.part.', 1)}.{number}"


def unreadable_subject(shard: int, trigger: str, key: str) -> str:
    """Where a window is put away that can not be read. No shard reads it."""
    return f"engine.unreadable.{shard}.{short_token(trigger)}.{short_token(key)}"


def probe_subject(shard: int, index: int) -> str:
    """Where a message is stored only to learn whether the server takes it. No shard reads it."""
    return f"engine.probe.{shard}.{index}"


def firing_prefix(automation: str) -> str:
    """Begins the subjects of an automation's firings; the firing's `short_token` follows."""
    return f"{FIRINGS}{short_token(automation)}."


def action_prefix(automation: str) -> str:
    """Begins the subjects of an automation's action tasks; the firing's `short_token`, a dot and the index follow."""
    return f"engine.action.{short_token(automation)}."


def action_subject(automation: str, firing: str, index: int) -> str:
    return f"{action_prefix(automation)}{short_token(firing)}.{index}"


def outcome_subject(automation: str, firing: str, index: int) -> str:
    return f"engine.outcome.{short_token(automation)}.{short_token(firing)}.{index}"


def outcome_of(subject: str) -> str | None:
    """The outcome's subject of an action task's; None when `subject` is something else's."""
    prefix = "engine.action."
    return "engine.outcome." + subject[len(prefix) :] if subject.startswith(prefix) else None


def dead_subjects(firing: str, index: int) -> str:
    """Matches the dead letter of an action whose automation is not known."""
    return f"engine.dead.*.{short_token(firing)}.{index}"


def dead_subject(automation: str, firing: str, index: int) -> str:
    return f"engine.dead.{short_token(automation)}.{short_token(firing)}.{index}"
