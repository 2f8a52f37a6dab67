"""Every default, limit and setting that a page names is what the code has.

Values are written here as a page writes them and made of the code's constants, so that a change of either fails. A default of a setting is
found by itself (`name` (VALUE by default)); other numbers are rows of `CLAIMS`. What looks like a limit and is in none of them fails,
too: `LIMITS` finds it. Pages of measurements, and settings.md, which is made of the settings, are not looked at.
"""

from __future__ import annotations

import ast
import inspect
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from whenthen.actions.flow_runs import fetched_variables
from whenthen.actions.http import outgoing
from whenthen.actions.retries import MAX_HINT
from whenthen.cli.lists import listings, tables
from whenthen.cli.options import MAX_PAGE
from whenthen.cli.runs import RUNS
from whenthen.conditions import lexer, parser
from whenthen.conditions.functions import network_functions, text_format
from whenthen.conditions.runtime import conversions, cost, operators, regex
from whenthen.engine import access
from whenthen.engine.backup import live_copy
from whenthen.engine.bus import records, stream_pages, streams
from whenthen.engine.bus.embedded import embedded_server
from whenthen.engine.evaluation.commits import commit_messages, window_parts
from whenthen.engine.execution import dead_letters
from whenthen.engine.http import connections, rule_set_routes
from whenthen.engine.http.monitoring import refusal_log
from whenthen.engine.http.shared import route_tools
from whenthen.engine.live import live_client, live_feed, stored_items
from whenthen.engine.process import id_prefixes
from whenthen.engine.process.queries import event_positions, run_queries
from whenthen.engine.process.senders import kept_refusals
from whenthen.engine.process.settings import Settings, parse_bytes
from whenthen.engine.projection import history_service, history_writer
from whenthen.engine.sources.edges import folder_edge, poll_edge, sqs_edge
from whenthen.flows.reporting import report_file
from whenthen.history import history_queries, history_retention, projection
from whenthen.rules.following.playing import MOST_EVENTS, MOST_STOPS
from whenthen.rules.registering import registration
from whenthen.runs import WorkerSettings, commands, result_file, runner
from whenthen.runs.pauses import input_checks
from whenthen.runs.reports import report_lines, task_runs
from whenthen.runs.run_output import LogLimits
from whenthen.runs.schedules import backfills, overdue_runs, past_times
from whenthen.runs.shared import artifacts, variables
from whenthen.schemas import history_rows, trace_context, triggers
from whenthen.schemas.actions import CallWebhook, Retry
from whenthen.schemas.automations import Automation
from whenthen.schemas.calendar import recurrence
from whenthen.schemas.deployments import MOST_CATCH_UP
from whenthen.schemas.events import EventLimits
from whenthen.schemas.ruletests import RuleTest
from whenthen.schemas.times import format_duration, parse_duration
from whenthen.sources import hmac_signatures, json_bodies, mapping
from whenthen.sources.mapping import SourceLimits
from whenthen.sources.proofs import public_keys
from whenthen.supervision import parent_process
from whenthen.templates import bounded_text, budget, path_parser, path_query, text, values
from whenthen.triggers import predecessors, timing
from whenthen.triggers.matching import computed_labels
from whenthen.triggers.orphans import orphan_store
from whenthen.triggers.trees import trigger_compiler
from whenthen.triggers.windows import held_events, long_texts, metric, transitions

ROOT = Path(__file__).parents[3]
PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if page.name not in ("architecture.md", "performance.md", "prefect.md", "scaling.md", "security.md", "settings.md")
]
UNITS = {"seconds": "s", "minutes": "m", "hours": "h", "days": "d"}
#: `name`, then in brackets or behind a comma its default
DEFAULT = re.compile(r"`(\w+)`(?: \(|, )(?:`WHENTHEN_\w+`, )?(\d[\d.]*) ?([A-Za-z]*)\b")
LIMITS = re.compile(
    r"\b(?:[Aa]t most|[Uu]p to|the newest|(?:the )?largest,?|longest|beyond|above|below|more than|default) (\d[\d,.]*)(?!\d)"
)


def n(value: int) -> str:
    return f"{value:,}"


def binary(value: int) -> str:
    """Bytes in the largest binary unit that divides them."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value % size == 0:
            return f"{n(value // size)} {unit}"
    return f"{n(value)} bytes"


def decimal(value: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if value % size == 0:
            return f"{n(value // size)} {unit}"
    return f"{n(value)} bytes"


def words(number: object) -> str:
    """As pages write small and round numbers."""
    return {"1": "one", "8": "eight", "10": "ten", "100": "hundred"}[str(number)]


def default_of(model: Any, name: str) -> str:
    found = model.model_fields[name].default
    return format_duration(found) if isinstance(found, timedelta) else str(found)


LIST_LIMIT = next(
    parameter.default
    for parameter in inspect.signature(listings.list_command(RUNS)).parameters.values()
    if parameter.name == "limit"
)
_LOGS = LogLimits()
_KEEP_ALIVE_S = inspect.signature(outgoing.open_http_client).parameters["keepalive_s"].default
_MAPPING = SourceLimits()

#: page, and what it says
CLAIMS: list[tuple[str, str]] = [
    ("actions", f"default {default_of(CallWebhook, 'timeout')}"),
    ("actions", f"as of deployments; default {default_of(Retry, 'retries')}"),
    ("actions", f"doubles each time; default {default_of(Retry, 'delay')}"),
    ("actions", f"# default {default_of(Retry, 'max_delay')}"),
    ("actions", f"by up to this share; default {default_of(Retry, 'jitter')}"),
    ("actions", f"{default_of(CallWebhook, 'method')} (default)"),
    ("actions", f"At most {binary(outgoing.MAX_BODY_BYTES)} of the answer's body are read"),
    ("actions", f"Connections are kept for {_KEEP_ALIVE_S:g} seconds"),
    ("actions", f"the newest {n(transitions.MAX_REFS)} if there were more"),
    ("actions", f"is a lower bound, up to {words(MAX_HINT // timedelta(hours=1))} hour"),
    ("command-line", f"not more than {n(id_prefixes.MAX_IDS)} of the kind"),
    ("command-line", f"at most so many items; {LIST_LIMIT} unless given"),
    ("command-line", f"Up to {n(listings.MAX_ITEMS)} where the API has pages, otherwise up to {n(MAX_PAGE)}"),
    ("command-line", f"shown whole up to {tables.MAX_TEXT_ID_CHARS} characters"),
    ("command-line", f"There are at most {access.MOST_TOKENS};"),
    ("command-line", f"works once and for {words(access.ADDRESS_LASTS // timedelta(minutes=1))} minutes"),
    ("command-line", f"(up to {binary(rule_set_routes.RULES_LIMIT)})"),
    ("deployments", f"`all` for each (at most the last {n(past_times.MOST_CAUGHT_UP)})"),
    ("deployments", f"at most {MOST_CATCH_UP.days} days); such a run"),
    ("deployments", f"One of more than {n(backfills.MOST_BACKFILLED)} runs is refused"),
    ("deployments", f"more than {recurrence._MAX_POSITIONS} `BYSETPOS`"),
    ("deployments", f"A set has at most {n(registration.MOST_REGISTERED)} of them"),
    ("deployments", f"JSON of at most {binary(runner.MAX_RESULT_BYTES)} and {runner.MAX_RESULT_DEPTH} levels"),
    ("deployments", f"when it is at most {decimal(commands._MAX_VARIABLE_BYTES)}"),
    ("deployments", f"a regular file of at most {binary(result_file.MAX_FILE_BYTES)}"),
    ("deployments", f"at most `worker_concurrency` ({default_of(Settings, 'worker_concurrency')} by default) at once"),
    ("deployments", f"a heartbeat for each every {WorkerSettings().heartbeat.seconds} seconds"),
    ("deployments", f"SIGKILL after {WorkerSettings().kill_grace.seconds} seconds"),
    ("deployments", f"at most {binary(report_lines.MAX_LINE_BYTES)} each"),
    ("deployments", f"at most {binary(report_file.ROOM_BYTES)} of unread lines"),
    ("deployments", f"up to {binary(report_file.HELD_BYTES)}"),
    ("deployments", f"{task_runs.MAX_TASK_RUNS:,} task runs are kept"),
    ("deployments", f"lines over {_LOGS.line_chars // 1024} Ki characters are split"),
    (
        "deployments",
        f"more than {binary(_LOGS.head_bytes + _LOGS.tail_bytes)} or {n(_LOGS.head_lines + _LOGS.tail_lines)} lines",
    ),
    (
        "deployments",
        f"the first {binary(_LOGS.head_bytes)} or {n(_LOGS.head_lines)} lines and the last {binary(_LOGS.tail_bytes)} or {n(_LOGS.tail_lines)} lines are kept",
    ),
    ("flows", f"dashes and underscores, at most {n(variables.MAX_NAME_CHARS)};"),
    (
        "flows",
        f"a value has at most {n(variables.MAX_VALUE_CHARS)} characters as JSON; {n(variables.MOST_VARIABLES)} variables are kept",
    ),
    (
        "flows",
        f"Of one attempt {n(artifacts.MOST_ARTIFACTS)} artifacts are kept, each of at most {binary(artifacts.MAX_DATA_BYTES)} and all of {binary(artifacts.MOST_BYTES)}",
    ),
    ("reliability", f"{parent_process.PAUSE_S[0]:g} s, up to {parent_process.PAUSE_S[1]:g} s when it dies repeatedly"),
    (
        "reliability",
        f"{embedded_server.BACKOFF_S[0]:g} s, up to {embedded_server.BACKOFF_S[1]:g} s when it dies repeatedly",
    ),
    ("reliability", f"`engine_bytes` below {binary(streams.NEEDED_ENGINE_BYTES)}"),
    ("reliability", f"watched; below {binary(streams.NEEDED_PAYLOAD)}"),
    ("reliability", f"A window is stored in parts when it is larger, up to {binary(window_parts.MAX_WINDOW_BYTES)}"),
    ("reliability", f"or a window beyond {binary(window_parts.MAX_WINDOW_BYTES)}"),
    ("reliability", f"A triggering event of more than {binary(records.EMBED_BYTES)}"),
    ("reliability", f"firings name the newest {n(transitions.MAX_REFS)} events and how many there were"),
    ("reliability", f"of its other events a firing names the newest {n(transitions.MAX_REFS)}"),
    ("reliability", f"until at most {binary(live_copy.FREEZE_BYTES)} are left"),
    ("reliability", f"{binary(connections.HEAD_BYTES)} and {connections.HEADERS} headers"),
    ("reliability", f"`body_limit` ({decimal(route_tools.BODY_LIMIT)} for the start of a run)"),
    ("reliability", f"{binary(connections.HEAD_BYTES)} and {words(connections.FRAMING_SHARE)} times the body"),
    ("reliability", f"requests of a connection that wait for an answer | {connections.PIPELINED} |"),
    ("reliability", f"`events_per_request`; {n(_MAPPING.events)} items of a webhook's `each`"),
    ("reliability", f"bytes of a webhook's events | {decimal(_MAPPING.bytes)}, or four times the body"),
    ("reliability", f"nesting of JSON | {json_bodies.MAX_DEPTH} |"),
    ("reliability", f"items of a list | {n(MAX_PAGE)} (10,000 lines of a log)"),
    ("reliability", f"bytes behind a page of events or firings | {binary(stream_pages.MOST_BYTES)}, or one item"),
    ("reliability", f"text of a page of a log | {decimal(run_queries._PAGE_BYTES)}, or one line"),
    (
        "reliability",
        f"positions of a stream that a list looks at | {n(event_positions.MOST)}, in blocks of {binary(stream_pages._BLOCK_BYTES)}",
    ),
    (
        "reliability",
        f"up to {decimal(connections.LINGER_BYTES)} or {connections.LINGER_S:g} seconds of what still comes",
    ),
    (
        "reliability",
        "a window as long as it could change a decision and an hour, at most "
        f"{commit_messages.LONGEST_PLACE_S // 86400} days; a dead letter {dead_letters.TOMBSTONE_S // 86400} days",
    ),
    ("reliability", f"once in {refusal_log.LOG_EVERY_S:g} seconds for each reason"),
    ("rules", f"the newest {n(held_events.MAX_HELD)} are held here"),
    ("rules", f"at most {n(predecessors.MAX_HELD)} events and {binary(predecessors.MAX_HELD_BYTES)} of them"),
    ("rules", f"Composites nest, up to {trigger_compiler._MAX_DEPTH} deep"),
    (
        "rules",
        f"has more than {n(long_texts.MAX_KEY_BYTES)} bytes is replaced by the first {long_texts._SHOWN} characters",
    ),
    ("rules", f"The key itself has 16 values at most, of {n(long_texts.MAX_KEY_BYTES)} bytes each"),
    ("rules", f"While it covers up to {n(transitions.MAX_REFS)} events of a key"),
    ("rules", f"A firing carries the newest {n(transitions.MAX_REFS)} events"),
    ("rules", f"among the newest {n(transitions.MAX_REFS)} of the window"),
    ("rules", f"each of them fires, the newest {n(timing._MAX_OCCURRENCES)} at most"),
    ("rules", f"the newest {n(transitions.MAX_REFS)} events and how many there were"),
    ("rules", f"the newest {n(transitions.MAX_REFS)} events of all parts together"),
    (
        "rules",
        f"the newest {n(transitions.MAX_REFS)} events with their values, and up to {metric._SLICES_IN_WINDOW + 2} steps",
    ),
    ("rules", f"A firing names the newest {n(transitions.MAX_REFS)} of its events"),
    ("rules", f"by its id among the newest {n(transitions.MAX_REFS)}"),
    ("rules", f"of more than {long_texts.MAX_ID_BYTES} bytes as its beginning"),
    ("rules", f"40 bytes each, at most {n(held_events.MAX_HELD)}"),
    ("rules", f"exact for thresholds up to {n(triggers._MAX_DISTINCT)}"),
    ("rules", f"a label as an event could bring it: at most {n(EventLimits().label_chars)} characters"),
    ("rules", f"A trigger has at most {computed_labels.MOST_LABELS} of them"),
    ("rules", f"the newest {n(transitions.MAX_REFS)} are named"),
    ("rules", f"at most {n(orphan_store.MAX_WINDOWS)} orphaned windows and {binary(orphan_store.MAX_BYTES)}"),
    ("rules", f"as if it were paused; `{str(Automation.model_fields['enabled'].default).lower()}` by default"),
    ("rules", f"steps of one evaluation | {n(cost.MAX_STEPS)} |"),
    ("rules", f"steps of an operation outside of macros that are free | {n(cost.FREE)} |"),
    ("rules", f"steps of a clause of `format` | {text_format.STEPS_PER_CLAUSE} |"),
    ("rules", f"steps of reading an address or a range | {network_functions.STEPS_PER_ADDRESS} |"),
    ("rules", f"once in an evaluation | {n(regex.STEPS_PER_PATTERN)} |"),
    ("rules", f"that `+` or a function makes | {n(operators.MAX_RESULT)} |"),
    ("rules", f"decimal places of a clause of `format` | {text_format.MAX_PRECISION} |"),
    ("rules", f"characters of a text that is read as a number | {n(conversions.MAX_NUMBER_CHARS)} |"),
    ("rules", f"characters of a condition | {n(lexer.MAX_CHARS)} |"),
    ("rules", f"operations and values of a condition | {n(parser.MAX_NODES)} |"),
    ("rules", f"levels of nesting of a condition | {parser.MAX_DEPTH} |"),
    ("sources", f"(at most {n(_MAPPING.events)} items)"),
    ("sources", f"up to {n(kept_refusals.MOST_LISTED)} at a time"),
    ("sources", f"A folder has at most {n(folder_edge.MAX_FILES)} files"),
    ("sources", f"an answer has at most {poll_edge.MAX_BYTES // 10**6} MB"),
    ("sources", f"up to {n(sqs_edge.BATCH * sqs_edge.BATCHES)} messages at one time"),
    ("sources", f"The last {n(poll_edge.MAX_SEEN)} ids are remembered"),
    (
        "sources",
        f"At most {public_keys.MOST_FETCHES} fetches are made in a minute, and {public_keys.MOST} documents kept",
    ),
    ("sources", f"has more than {mapping.MAX_ID} characters or `source` has a `#`"),
    ("sources", f"several items in the header (at most {hmac_signatures.MOST_ITEMS})"),
    ("sources", f"the `tracestate`, at most {trace_context.MAX_STATE} characters"),
    ("sources", f"`body_limit` ({decimal(Settings.model_fields['body_limit'].default)} by default)"),
    ("templates", f"or {budget.SEARCHED_PER_STEP} that are searched | {n(budget.MAX_STEPS)} |"),
    ("templates", f"characters of a text count as one | {n(budget.MAX_VISITS)} |"),
    ("templates", f"matches of a path | {n(path_query.MAX_MATCHES)} |"),
    (
        "templates",
        f"comparisons of a path | {n(path_parser.MAX_PATH)}, {path_parser.MAX_STEPS} and {path_parser.MAX_PARTS} |",
    ),
    ("templates", f"characters of a rendered text | {n(budget.MAX_CHARS)} |"),
    ("templates", f"characters of a template | {n(text.MAX_SOURCE)} |"),
    ("templates", f"widths and counts in formats and filters | {n(bounded_text.MAX_WIDTH)} |"),
    ("templates", f"wherever it is made or used | {n(bounded_text.MAX_BITS)} |"),
    ("templates", f"levels and items of a value | {values.MAX_DEPTH} and {n(values.MAX_NODES)} |"),
    ("templates", f"It takes at most {n(budget.MAX_CHARS)} characters"),
    ("testing", f"`{RuleTest.model_fields['start'].default:%Y-%m-%dT%H:%M:%SZ}` unless"),
    ("troubleshooting", f"the last {default_of(Settings, 'decisions_kept')} of each automation and reason"),
    ("testing", f"So do more than {n(MOST_EVENTS)} events that come back, and more than {n(MOST_STOPS)} deadlines"),
    ("flows", f"All inputs of a run together have at most {binary(input_checks.MAX_INPUTS_BYTES)}"),
    ("flows", f"A run of a deployment that is cancelled gets {WorkerSettings().kill_grace.seconds} seconds"),
    ("actions", f"the last {fetched_variables.LOG_TAIL} lines of its log"),
    ("deployments", f"Runs are looked at every {overdue_runs.EVERY_S:g} seconds"),
    ("history", f"a payload of more than {binary(history_rows.PAYLOAD_BYTES)} is left out"),
    ("history", f"at most {history_rows.MOST_MARKS} an event"),
    ("history", f"Of one kind at most {n(projection.MOST_FIRST)} values"),
    ("history", f"for at most {n(history_queries.SCAN_ROWS)} rows an answer"),
    ("history", f"for at most {n(stream_pages._MAX_SCANNED)} messages a page"),
    ("history", f"id prefix (of at most {n(history_queries.MOST_IDS)} rows)"),
    ("history", f"At most {history_service.MOST_WAITING} questions wait"),
    ("history", f"at most {n(history_retention.STEP_ROWS)} rows, one transaction each"),
    ("live", f"Every {live_feed.HEARTBEAT_S:g} seconds without anything to show"),
    ("live", f"At most {n(live_client.MOST_ITEMS)} items or {binary(live_client.MOST_BYTES)} wait for a client"),
    ("live", f"of which {stored_items.PAGES_AT_ONCE} are read at one time"),
    ("history", f"pauses of up to {history_writer.RETRY_S[1]:g} s"),
]

#: numbers that are no limit of the code, or one of somebody else
OTHERS = {
    "reliability": ["fills a file system of 48 MB", "`body_limit` (1 MB for the start of a run)"],
    "sources": ["takes at most 100 requests within", "GitHub sends up to 25 MB", "bodies of up to 25 MB"],
    "templates": ["integers beyond 64 bits"],
    "rules": [
        "beyond a depth of 20",
        "`follows_wait` (10 seconds in these examples)",
        "ids of 36 characters",
        "decisions say `above 5`",
        "for each value up to the threshold",
        "beyond 2^53",
        "beyond 1,000 events",
        "with the largest, 100,000, and ids",
    ],
}


def flat(page: Path) -> str:
    """The text of a page on one line."""
    return re.sub(r"\s+", " ", page.read_text(encoding="utf-8"))


def page_of(name: str) -> Path:
    return next(page for page in PAGES if page.stem == name)


@pytest.mark.parametrize(("name", "claim"), CLAIMS, ids=[f"{name}-{number}" for number, (name, _) in enumerate(CLAIMS)])
def test_a_page_says_what_the_code_has(name: str, claim: str) -> None:
    assert claim in flat(page_of(name)), f"docs/{name}.md does not say {claim!r}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_default_of_a_setting_is_the_one_of_the_code(page: Path) -> None:
    wrong = []
    for name, number, unit in DEFAULT.findall(flat(page)):
        field = Settings.model_fields.get(name)
        if field is None or any(f"`{name}` ({number}" in other for other in OTHERS.get(page.stem, ())):
            continue
        written: object = number
        if isinstance(field.default, timedelta):
            written = parse_duration(f"{number}{UNITS.get(unit, unit)}")
        elif unit in ("KB", "MB", "GB", "KiB", "MiB", "GiB"):
            written = parse_bytes(f"{number}{unit}")
        if str(written) != str(field.default):
            wrong.append(f"`{name}` is said to be {number} {unit} and is {field.default}")
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_limit_of_a_page_is_held_by_nothing(page: Path) -> None:
    text = flat(page)
    held = [*(claim for name, claim in CLAIMS if name == page.stem), *OTHERS.get(page.stem, ())]
    spans = [found.span() for claim in held for found in re.finditer(re.escape(claim), text)]
    spans += [found.span() for found in DEFAULT.finditer(text)]
    loose = [
        text[max(0, found.start() - 60) : found.end() + 40]
        for found in LIMITS.finditer(text)
        if not any(start < found.end() and found.start() < end for start, end in spans)
    ]
    assert loose == [], "add each to CLAIMS, with the constant that it is made of"


def test_the_worker_has_the_defaults_of_the_settings() -> None:
    worker = WorkerSettings()
    for ours, theirs in (
        ("worker_concurrency", worker.concurrency),
        ("drain_grace", worker.drain_grace),
        ("worker_lost_after", worker.lost_after),
    ):
        assert theirs == Settings.model_fields[ours].default, ours


@pytest.mark.parametrize(
    ("name", "words_"),
    [
        ("README", ["deploy/grafana", "whenthen.json"]),
        ("rules", ["`expected_every`", "WhenthenAutomationSilent", "whenthen_automation_expected_every_seconds"]),
        ("deployments", ["Ctrl-C", "exit code 130"]),
    ],
)
def test_what_an_operator_looks_for_is_on_a_page(name: str, words_: list[str]) -> None:
    text = flat(page_of(name))
    assert [word for word in words_ if word not in text] == []


#: what takes a note of the audit trail, and what makes a command leave one: functions whose first text is a kind
NOTING = frozenset(["note", "_note", "audited", "done"])


def noted_kinds() -> set[str]:
    """The kinds of the audit trail that the code names."""
    kinds = set()
    for file in (ROOT / "whenthen" / "engine").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or getattr(node.func, "attr", getattr(node.func, "id", "")) not in NOTING:
                continue
            texts = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
            refused = [
                each.value.value
                for each in node.keywords
                if each.arg == "refused" and isinstance(each.value, ast.Constant)
            ]
            kinds |= {*texts[:1], *refused}
    return kinds


def test_the_page_of_commands_has_each_kind_of_the_audit_trail() -> None:
    _, table = page_of("command-line").read_text(encoding="utf-8").split("Its kinds are:\n\n", 1)
    rows = table.partition("\n\n")[0]
    assert set(re.findall(r"`([a-z-]+)`", rows)) == noted_kinds()
