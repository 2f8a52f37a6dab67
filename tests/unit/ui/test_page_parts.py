"""What pages are made of: text that does nothing, addresses, counts and traces as rows, pictures."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from whenthen.schemas.firings import Reason
from whenthen.ui import ASSETS, REASON_WORDS, Place, count_rows, inert, page_url, render, trace_rows
from whenthen.ui.shown_text import shown_bytes, shown_json, shown_name, shown_seconds, shown_time
from whenthen.ui.small_pictures import bars, fill

NOW = datetime(2026, 1, 31, 8, 30, tzinfo=UTC)
SCRIPT_LINES = 600  #: that are ours, at most


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("order.paid", "order.paid"),
        ("\x1b[31mred", "␛[31mred"),
        ("a\x00b\x7f", "a␀b␡"),
        ("\u202egnp.exe", "‹U+202E›gnp.exe"),
        ("a\u2066b\u200fc\ufeff", "a‹U+2066›b‹U+200F›c‹U+FEFF›"),
        ("\ud800", "‹U+D800›"),
        ("two\nlines\tand שלום", "two\nlines\tand שלום"),
        (None, ""),
        (7, 7),
    ],
)
def test_what_does_something_in_place_of_showing_is_shown(text: object, shown: object) -> None:
    assert inert(text) == shown


@given(st.text(min_size=1))
def test_no_text_brings_markup_controls_or_directions_into_a_page(text: str) -> None:
    page = render(
        "trouble.html", Place(who=text, version="1"), title=text, message=text, field=text, near=[("/", text)]
    )
    page.encode()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)
    empty = render("trouble.html", Place(who="x", version="1"), title="x", message="x", field="x", near=[("/", "x")])
    assert (page.count("<"), page.count(">")) == (empty.count("<"), empty.count(">"))


def test_a_long_name_is_cut_in_the_middle_and_whole_in_its_title() -> None:
    shown = shown_name("a" * 300 + "<b>" + "z" * 200)
    assert shown.count("<") == 2
    assert "…" in shown
    assert len(re.sub("<[^>]*>", "", shown)) == 119
    assert "&lt;b&gt;" in shown


@pytest.mark.parametrize("name", ["..", ".", "a/b?c#d&e=f", "%2e%2e", "\ud800", "x" * 500, "名前"])
def test_a_name_in_an_address_is_a_parameter_whatever_it_is(name: str) -> None:
    address = page_url("/automation", name=name, empty="", none=None)
    assert re.fullmatch(r"/automation\?name=[A-Za-z0-9._~%+-]+", address)


def test_a_time_is_in_utc_with_the_exact_one_beside_it() -> None:
    shown = shown_time("2026-01-31T09:00:00.123456+01:00")
    assert 'datetime="2026-01-31T08:00:00.123Z"' in shown
    assert ">2026-01-31 08:00:00 UTC</time>" in shown
    assert "never" in shown_time(None)
    assert shown_time("<soon>") == "&lt;soon&gt;"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 ms"),
        (0.0154, "15 ms"),
        (1.234, "1.23 s"),
        (59.9, "59.9 s"),
        (200, "3 min 20 s"),
        (90000, "1 d 1 h"),
        (86400, "1 d"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float, shown: str) -> None:
    assert shown_seconds(seconds) == shown


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (12_345_678, "12.3 MB"), (10**15, "1e+03 TB")]
)
def test_sizes_have_three_digits(size: int, shown: str) -> None:
    assert shown_bytes(size) == shown


def test_a_value_of_a_megabyte_is_cut_and_says_so() -> None:
    shown = shown_json({"a": "x" * 1_000_000})
    assert len(shown) < 21_000
    assert shown.endswith("more characters")


def test_every_reason_has_words() -> None:
    assert {reason.value for reason in Reason} - set(REASON_WORDS) == set()


def test_counts_are_rows_of_hours_that_end_now_with_fired_first() -> None:
    found = [
        ("2026-01-31T08:00:00Z", "cooldown", 5),
        ("2026-01-31T07:00:00Z", "fired", 1),
        ("2026-01-30T09:00:00Z", "cooldown", 2),
        ("2026-01-30T08:00:00Z", "late", 9),  # 25 hours ago
        ("2026-01-31T09:00:00Z", "late", 9),  # by a clock that is ahead
    ]
    rows = count_rows(found, now=NOW)
    assert [(row.value, row.total) for row in rows] == [("fired", 1), ("cooldown", 7)]
    assert rows[0].counts == (*[0] * 22, 1, 0)
    assert (rows[1].counts[0], rows[1].counts[-1]) == (2, 5)
    assert rows[1].titles[-1] == "2026-01-31 08:00 UTC: 5 fired recently, and is quiet for a while"


@dataclass(frozen=True)
class Thing:
    id: str
    at: str | None = None
    kind: str = "event"


def names(rows: list[object]) -> list[str]:
    return [f"{'-' * row.depth}{row.item.id if row.item else row.more}" for row in rows]  # type: ignore[attr-defined]


def test_a_trace_has_each_thing_once_below_what_it_came_of() -> None:
    things = [
        Thing("a", "2026-01-31T08:00:00Z"),
        Thing("b", "2026-01-31T08:00:01Z"),
        Thing("c", "2026-01-31T08:00:04Z"),
        Thing("d"),
    ]
    links = [("event:a", "event:b"), ("event:b", "event:c"), ("event:a", "event:c"), ("event:x", "event:d")]
    rows = trace_rows(things, links, asked="event:c")
    assert names([*rows]) == ["a", "-b", "--c", "d"]
    assert [(row.asked, row.after_s, row.place) for row in rows] == [
        (False, 0.0, 0.0), (False, 1.0, 0.25), (True, 4.0, 1.0), (False, None, 0.0),
    ]  # fmt: skip


def test_things_that_led_to_each_other_are_shown_once() -> None:
    rows = trace_rows([Thing("a"), Thing("b")], [("event:a", "event:b"), ("event:b", "event:a")], asked="event:a")
    assert names([*rows]) == ["a", "-b"]


def test_a_wide_trace_shows_some_and_what_was_asked_for_and_counts_the_others() -> None:
    things = [Thing("root"), *(Thing(str(number)) for number in range(100))]
    links = [("event:root", f"event:{number}") for number in range(100)]
    rows = trace_rows(things, links, asked="event:77")
    assert names([*rows]) == ["root", *(f"-{number}" for number in range(25)), "-77", "-74 events more"]


def test_what_came_of_a_thing_that_is_left_out_is_left_out_too() -> None:
    things = [Thing("top"), *(Thing(str(number)) for number in range(30)), *(Thing(f"of {n}") for n in range(30))]
    links = [("event:top", f"event:{number}") for number in range(30)]
    links += [(f"event:{number}", f"event:of {number}") for number in range(30)]
    rows = trace_rows(things, links, asked="event:top")
    assert [row.item.id for row in rows if row.item is not None and row.depth == 0] == ["top"]
    assert rows[-1].more == "5 events more"


def test_a_long_trace_is_cut_and_says_so() -> None:
    things = [Thing(str(number)) for number in range(10_000)]
    links = [(f"event:{number}", f"event:{number + 1}") for number in range(9_999)]
    rows = trace_rows(things, links, asked="event:0")
    assert (len(rows), rows[-1].more) == (401, "9,600 more")


def test_pictures_say_their_numbers_in_words_and_have_no_styles() -> None:
    picture = bars([0, 3], ["none", '3 "<b>"'], label="3 times")
    assert 'aria-label="3 times"' in picture
    assert "&lt;b&gt;" in picture
    window = fill(2, 3)
    assert (window.count('class="full"'), window.count('class="open"')) == (2, 1)
    assert 'aria-label="5000 of 1000"' in fill(5000, 1000)
    assert 'width="99.0"' in fill(5000, 1000)
    for svg in (picture, window, fill(0, 0)):
        assert isinstance(svg, Markup)
        assert "style=" not in svg


def test_scripts_are_short_and_nothing_of_others_is_in_them() -> None:
    lines = [line for asset in ASSETS.values() if asset.name.endswith(".js") for line in asset.content.splitlines()]
    assert len(lines) < SCRIPT_LINES
    assert not re.search(rb"https?://|innerHTML\s*=|eval\(|import\(", b"\n".join(lines))
    assert all(asset.url.startswith(f"/ui/{asset.name}?v=") for asset in ASSETS.values())
