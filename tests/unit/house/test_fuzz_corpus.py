"""Every fuzz target holds for its stored corpus: the seeds, and whatever was ever found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from fuzz.draws import Draws
from fuzz.targets import CORPUS, TARGETS, corpus_of

INPUTS = [(target, path) for target in TARGETS for path in corpus_of(target)]


@pytest.mark.parametrize(("target", "path"), INPUTS, ids=[f"{target}-{path.name}" for target, path in INPUTS])
def test_a_target_holds_for_a_stored_input(target: str, path: Path) -> None:
    TARGETS[target](path.read_bytes())


def test_every_stored_folder_belongs_to_a_target_and_none_is_empty() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert all(corpus_of(target) for target in TARGETS)


def test_the_same_bytes_draw_the_same_values_and_bytes_may_run_out() -> None:
    assert Draws(b"\x07\x03\x09").json() == Draws(b"\x07\x03\x09").json()
    assert (Draws(b"").byte(), Draws(b"").text(), Draws(b"").json()) == (0, "", None)
    assert all(
        low <= Draws(bytes([first, 200])).number(low, low + 999) <= low + 999 for low in (0, 5) for first in range(256)
    )
