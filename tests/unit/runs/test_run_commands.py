"""The words of a command: what a parameter becomes in one."""

from __future__ import annotations

from typing import Any

import pytest

from whenthen.runs.commands import render_words
from whenthen.schemas import RenderError


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("a b", "n=a b"),
        ("", "n="),
        (True, "n=true"),
        (1.5, "n=1.5"),
        ([1, None], "n=[1,null]"),
        ({"a": 1}, 'n={"a":1}'),
    ],
)
def test_parameter_is_one_word_with_text_as_it_is_and_other_values_as_json(value: Any, word: str) -> None:
    assert render_words(["echo", "n={{ name }}"], {"name": value}) == ["echo", word]


def test_null_parameter_is_an_error_that_names_it() -> None:
    with pytest.raises(RenderError) as caught:
        render_words(["rm", "-r", "/backups/{{ day }}"], {"day": None})
    assert str(caught.value).startswith("parameter 'day' is null")
