"""Tables within a width: which cells give way, how ids are shortened, and that nothing of an id or a word is lost midway."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from whenthen.cli.lists.tables import Heading, Shape, clean, narrow_table, shorten, wide_table
from whenthen.engine.process.id_prefixes import candidates

AT = "2026-01-31 08:00:00"
HEX = "0123456789abcdef"
RUN = "e7f447132cef5e9d9bdc7165ad3093f1"
RUNS = [
    Heading("CREATED", Shape.FIXED),
    Heading("DEPLOYMENT", Shape.NAME),
    Heading("STATE", Shape.FIXED),
    Heading("TOOK", Shape.NUMBER),
    Heading("TRIGGERED BY", Shape.NAME),
    Heading("ID", Shape.ID),
    Heading("MESSAGE", Shape.TEXT),
]


def row(message: str = "", *, deployment: str = "load", by: str = "automation:load-it", run: str = RUN) -> list[str]:
    return [AT, deployment, "Failed", "12.0s", by, run, message]


def test_what_fits_is_shown_whole_with_ids_shortened() -> None:
    assert narrow_table(RUNS[:-1], [row()[:-1]], 80) == [
        "CREATED              DEPLOYMENT  STATE    TOOK  TRIGGERED BY        ID",
        "2026-01-31 08:00:00  load        Failed  12.0s  automation:load-it  e7f44713",
    ]


def test_names_end_in_an_ellipsis_the_widest_first_and_text_stands_below_its_row() -> None:
    long = row("exit code 3: " + "it did not work " * 8, deployment="load-" + "x" * 40)
    assert narrow_table(RUNS, [long, row()], 80) == [
        "CREATED              DEPLOYMENT        STATE    TOOK  TRIGGERED BY      ID",
        "2026-01-31 08:00:00  load-xxxxxxxxxx…  Failed  12.0s  automation:load…  e7f44713",
        "    exit code 3: it did not work it did not work it did not work it did not work",
        "    it did not work it did not work it did not work it did not work",
        "2026-01-31 08:00:00  load              Failed  12.0s  automation:load…  e7f44713",
    ]


def test_text_wraps_between_words_in_its_column_where_there_is_room() -> None:
    headings = [Heading("DECIDED", Shape.FIXED), Heading("EVENT", Shape.ID), Heading("DETAIL", Shape.TEXT)]
    rows = [[AT, "signup-2", "when: event.payload.orders > 0 and then " + "w" * 70], [AT, "signup-1", ""]]
    assert narrow_table(headings, rows, 80) == [
        "DECIDED              EVENT     DETAIL",
        "2026-01-31 08:00:00  signup-2  when: event.payload.orders > 0 and then",
        "                               " + "w" * 48 + "…",
        "2026-01-31 08:00:00  signup-1",
    ]


def test_an_id_is_not_cut_further_where_the_width_does_not_suffice() -> None:
    lines = narrow_table(RUNS, [row("no room")], 20)
    assert any(line.endswith("e7f44713") for line in lines)
    assert "    no room" in lines


def test_wide_shows_everything_in_full_on_one_line_each() -> None:
    long = row("exit code 3 " * 20, deployment="load-" + "x" * 40)
    lines = wide_table(RUNS, [long, row()])
    assert len(lines) == 3
    assert all(cell.strip() in lines[1] for cell in long)


def test_wide_characters_count_for_the_two_cells_that_they_take() -> None:
    headings = [Heading("NAME", Shape.NAME), Heading("STATE", Shape.FIXED)]
    lines = narrow_table(headings, [["東京" * 20, "active"], ["load", "active"]], 30)
    assert [cell_len(line) for line in lines[1:]] == [30, 30]
    assert lines[1].endswith("…   active") or lines[1].endswith("…  active")


@pytest.mark.parametrize(
    ("ids", "short"),
    [
        ([RUN], ["e7f44713"]),
        ([RUN, "e7f447132" + "0" * 23], ["e7f447132c", "e7f4471320"]),
        ([f"{RUN}-4", f"{RUN}-3"], ["e7f44713-4", "e7f44713-3"]),
        ([f"emitted-{RUN}.0"], ["emitted-e7f44713.0"]),
        ([f"{RUN}.10", f"{RUN}.1"], ["e7f44713.10", "e7f44713.1"]),
        (["3f2504e0-4f89-11d3-9a0c-0305e82c3301"], ["3f2504e0"]),
        (["3f2504e0-4f89-11d3-9a0c-0305e82c3301", "3f2504e0" + "a" * 24 + "-4"],
         ["3f2504e0-", "3f2504e0a-4"]),
        (["signup-1", "signup-10"], ["signup-1", "signup-10"]),
        (["orders/2026/01/31/08/00/customer-17"], ["orders/2026/01/31/08/00…"]),
        (["orders/2026/01/31/08/00/customer-17", "orders/2026/01/31/08/00/customer-18"],
         ["orders/2026/01/31/08/00/customer-17", "orders/2026/01/31/08/00/customer-18"]),
        (["(time)", "(time)"], ["(time)", "(time)"]),
    ],
)  # fmt: skip
def test_ids_are_shortened_in_their_generated_part_and_stay_apart(ids: list[str], short: list[str]) -> None:
    found = shorten(ids)
    assert [found[text] for text in ids] == short


_generated = st.text(HEX, min_size=2, max_size=2).map(lambda end: ("e7f44713" * 4)[:30] + end) | st.text(
    HEX, min_size=32, max_size=32
)
_uuids = st.uuids().map(str)
_ids = st.one_of(
    _generated,
    _uuids,
    st.tuples(_generated | _uuids, st.integers(0, 12)).map(lambda parts: f"{parts[0]}-{parts[1]}"),
    st.tuples(_generated, st.integers(0, 12)).map(lambda parts: f"{parts[0]}.{parts[1]}"),
    st.tuples(_generated, st.integers(0, 2)).map(lambda parts: f"emitted-{parts[0]}.{parts[1]}"),
    st.text("ab-", min_size=1, max_size=40),
    st.text(min_size=1, max_size=60).map(clean).filter(lambda text: not text.endswith("…")),
)


@given(st.lists(_ids, min_size=1, max_size=30))
def test_the_server_takes_every_shortened_id_for_the_one_that_it_stands_for(ids: list[str]) -> None:
    short = shorten(ids)
    for full, shown in short.items():
        assert len(shown) <= len(full)
        assert shown == full or candidates(shown, ids) == [full]


@given(st.lists(st.tuples(_ids, st.text(max_size=60), st.text(max_size=200)), min_size=1, max_size=8))
def test_tables_fit_eighty_columns_and_break_neither_a_word_nor_an_id(drawn: list[tuple[str, str, str]]) -> None:
    headings = [Heading("ID", Shape.ID), Heading("NAME", Shape.NAME), Heading("TEXT", Shape.TEXT)]
    rows = [[full, clean(name), clean(text)] for full, name, text in drawn]
    lines = narrow_table(headings, rows, 80)
    short = shorten(row[0] for row in rows)
    assert all(cell_len(line) <= 80 for line in lines)
    printed = "\n".join(lines)
    for full, _, text in rows:
        assert short[full].rstrip() in printed
        for word in text.split():
            assert word in printed or re.search(re.escape(word[:20].rstrip()), printed)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("two\nlines\tand a tab", "two lines and a tab"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\x9b31m", "\\x9b31m"),
    ],
)
def test_nothing_that_an_event_carries_reaches_the_terminal_as_a_command(text: str, shown: str) -> None:
    assert clean(text) == shown
