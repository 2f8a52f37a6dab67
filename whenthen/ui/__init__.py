"""What does a person see in a browser? Pages as HTML, made of what the queries of the engine gave; pictures as SVG; style and script.

Pure: values in, text out. `engine/http/pages` asks the queries, and serves what is made here. Meaning: docs/pages.md.
"""

from __future__ import annotations

from whenthen.ui import rule_texts
from whenthen.ui.count_rows import CountRow, count_rows
from whenthen.ui.input_forms import input_of_form, input_questions
from whenthen.ui.page_assets import ASSETS, Asset
from whenthen.ui.page_links import page_url
from whenthen.ui.page_templates import NAVIGATION, Place, render
from whenthen.ui.reason_words import REASON_WORDS, reason_tone
from whenthen.ui.refused_requests import refusals_by_cause
from whenthen.ui.run_timeline import run_timeline, task_bars
from whenthen.ui.shown_artifacts import shown_artifacts
from whenthen.ui.shown_text import inert
from whenthen.ui.trace_rows import TraceRow, trace_rows

__all__ = [
    "ASSETS",
    "NAVIGATION",
    "REASON_WORDS",
    "Asset",
    "CountRow",
    "Place",
    "TraceRow",
    "count_rows",
    "inert",
    "input_of_form",
    "input_questions",
    "page_url",
    "reason_tone",
    "refusals_by_cause",
    "render",
    "rule_texts",
    "run_timeline",
    "shown_artifacts",
    "task_bars",
    "trace_rows",
]
