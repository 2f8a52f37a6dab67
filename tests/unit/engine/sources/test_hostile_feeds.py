"""Feeds that are wrong, empty or made to harm: what can be read is read, and nothing else is fetched or unfolded."""

from __future__ import annotations

from typing import Any

import pytest

from whenthen.engine.sources.edges.feeds import MAX_ENTRIES, read_feed


def feed(items: str, head: str = "") -> dict[str, Any]:
    text = f'<?xml version="1.0"?>{head}<rss version="2.0"><channel><title>News</title>{items}</channel></rss>'
    return read_feed(text.encode(), "application/rss+xml")


@pytest.mark.parametrize(
    "date", ["0000-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "1e9", "yesterday", ""]
)
def test_entry_with_a_date_that_no_calendar_has_is_read_without_it(date: str) -> None:
    items = f"<item><guid>1</guid><pubDate>{date}</pubDate></item><item><guid>2</guid></item>"
    assert feed(items)["entries"] == [{"id": each, "link": each, "tags": []} for each in ("1", "2")]


def test_entries_that_have_only_a_text_are_told_apart() -> None:
    one, other = feed("<item><description>one</description></item><item><description>other</description></item>")[
        "entries"
    ]
    assert one["id"]
    assert one["id"] != other["id"]


def test_entities_are_neither_unfolded_nor_fetched() -> None:
    tens = "".join(
        f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefghi", "bcdefghij", strict=True)
    )
    bomb = f'<!DOCTYPE x [<!ENTITY a "lol lol lol lol">{tens}]>'
    assert len(str(feed("<item><guid>1</guid><title>&j;</title></item>", bomb))) < 1000
    outside = '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>'
    assert "root:" not in str(feed("<item><guid>1</guid><title>&f;</title></item>", outside))


def test_feed_of_many_entries_gives_the_first_of_them() -> None:
    entries = feed("".join(f"<item><guid>{number}</guid></item>" for number in range(2 * MAX_ENTRIES)))["entries"]
    assert [entry["id"] for entry in entries] == [str(number) for number in range(MAX_ENTRIES)]
