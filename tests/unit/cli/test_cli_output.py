"""Nothing that is printed is obeyed by the terminal, unless it was asked for."""

from __future__ import annotations

import json

import pytest

from whenthen.cli.lists.listings import Column, print_items
from whenthen.cli.options import Output
from whenthen.cli.output import escape, print_document, print_json, print_lines, visible

HOSTILE = "a\x1b]52;c;x\x07\x1b[31m\r\x7f\x9b2J\x85\u202eb\u2066\u2069\u2028"
OBEYED = {
    *map(chr, range(32)),
    *map(chr, range(0x7F, 0xA0)),
    *"\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
}
OBEYED -= {"\n", "\t"}


def test_what_a_terminal_obeys_is_escaped_and_the_rest_stays() -> None:
    assert not OBEYED & set(visible(HOSTILE + "".join(OBEYED)))
    assert not OBEYED & set(escape(HOSTILE))
    assert visible("é 日本 🎉 \u05d0\u200f\n\tend") == "é 日本 🎉 \u05d0\u200f\n\tend"
    assert visible("\x1b[31mred\u202e") == "\\x1b[31mred\\u202e"


def test_documents_and_json_have_nothing_that_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    print_document({"name": HOSTILE, "text": [HOSTILE]}, as_json=False)
    print_json({"name": HOSTILE})
    print_lines([{"name": HOSTILE}])
    written = capsys.readouterr().out
    assert not OBEYED & set(written)
    assert json.loads(written.splitlines()[-1]) == {"name": HOSTILE}


def test_a_column_may_be_brief_where_the_table_has_to_fit(capsys: pytest.CaptureFixture[str]) -> None:
    column = Column(title="KEY", value=lambda item: f"number={item['n']}", brief=lambda item: str(item["n"]))
    print_items([column], [{"n": 7}], output=Output.TABLE, empty="")
    assert capsys.readouterr().out.split() == ["KEY", "7"]
    print_items([column], [{"n": 7}], output=Output.WIDE, empty="")
    assert capsys.readouterr().out.split() == ["KEY", "number=7"]
