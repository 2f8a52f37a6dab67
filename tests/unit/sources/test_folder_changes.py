"""What a folder's changes are: decided of looks at it that lie `stable` apart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from whenthen.sources.readings import FileMark, FolderMemory


def mark(size: int = 1, modified: int = 1, inode: int = 1) -> FileMark:
    return FileMark(size, modified, inode)


def look(memory: FolderMemory, seen: dict[str, FileMark], now: float, **more: object) -> list[str]:
    """Look and take what is reported, as texts."""
    found = memory.look(seen, now=now, stable_s=2.0, **more)  # type: ignore[arg-type]
    for change in found:
        memory.took(change)
    return [f"{each.change} {each.path}" + (f" from {each.before}" if each.before else "") for each in found]


def test_a_file_is_reported_once_it_did_not_change_for_as_long_as_was_asked() -> None:
    memory = FolderMemory()
    assert look(memory, {"a": mark(1)}, 0) == []
    assert look(memory, {"a": mark(2)}, 1.5) == []
    assert look(memory, {"a": mark(2)}, 3.4) == []
    assert memory.next_due(2.0) == 3.5
    assert look(memory, {"a": mark(2)}, 3.5) == ["created a"]
    assert look(memory, {"a": mark(2)}, 9) == []
    assert memory.next_due(2.0) is None


def test_a_file_that_was_known_is_modified_and_one_that_is_away_deleted() -> None:
    memory = FolderMemory(known={"a": mark(), "b": mark(inode=2)})
    assert look(memory, {"a": mark(5)}, 0) == []
    assert look(memory, {"a": mark(5)}, 2) == ["modified a", "deleted b"]


def test_a_rename_is_a_move_and_a_write_by_deleting_and_renaming_a_change() -> None:
    memory = FolderMemory(known={"a": mark(), "b": mark(inode=2)})
    look(memory, {"c": mark(), "b": mark(7, 2, 3)}, 0)
    assert look(memory, {"c": mark(), "b": mark(7, 2, 3)}, 2) == ["modified b", "moved c from a"]
    look(memory, {"c": mark()}, 3)
    assert look(memory, {"c": mark(), "b": mark(9, 9, 9)}, 4) == []
    assert look(memory, {"c": mark(), "b": mark(9, 9, 9)}, 6) == ["modified b"]


def test_what_can_not_be_looked_at_is_not_gone() -> None:
    memory = FolderMemory(known={"x/a": mark()})
    assert look(memory, {}, 0, unseen=lambda path: path.startswith("x/")) == []
    assert look(memory, {}, 5, unseen=lambda path: path.startswith("x/")) == []
    assert look(memory, {}, 6) == []
    assert look(memory, {}, 8) == ["deleted x/a"]


def test_what_was_not_delivered_is_reported_again() -> None:
    memory = FolderMemory()
    memory.look({"a": mark()}, now=0, stable_s=0)
    assert [each.path for each in memory.look({"a": mark()}, now=1, stable_s=0)] == ["a"]


def test_a_file_that_came_and_went_is_forgotten() -> None:
    memory = FolderMemory()
    look(memory, {"a": mark()}, 0)
    look(memory, {}, 1)
    assert memory.next_due(2.0) is None


MARKS = st.builds(FileMark, st.integers(0, 2), st.integers(0, 2), st.integers(0, 3))
LOOKS = st.lists(st.dictionaries(st.sampled_from("abcd"), MARKS, max_size=4), max_size=8)


@given(LOOKS)
def test_what_was_reported_adds_up_to_what_is_there(looks: list[dict[str, FileMark]]) -> None:
    memory = FolderMemory()
    files: dict[str, FileMark] = {}
    now = 0.0
    for seen in [*looks, looks[-1] if looks else {}]:
        for _ in range(2):
            now += 3
            for change in memory.look(seen, now=now, stable_s=2.0):
                if change.change == "deleted":
                    del files[change.path]
                else:
                    assert (change.path in files) == (change.change == "modified")
                    files[change.path] = change.mark
                    if change.before is not None:
                        del files[change.before]
                memory.took(change)
        assert files == seen == memory.known
