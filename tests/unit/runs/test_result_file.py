"""A run's result file: only a regular file of bounded size is read, without waiting, and what is dropped says why."""

from __future__ import annotations

import json
import os
import socket
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from whenthen.runs.attempts.run_handling import ending_of
from whenthen.runs.result_file import MAX_FILE_BYTES, MAX_RESULT_BYTES, Report, read_report
from whenthen.runs.runner import MAX_RESULT_BYTES as RUNNERS_BYTES
from whenthen.runs.runner import MAX_RESULT_DEPTH, result_of
from whenthen.schemas.base import MAX_DEPTH
from whenthen.schemas.deployments import RunState


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "result.json"


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_no_file_is_an_empty_report(file: Path) -> None:
    assert read_report(file) == Report()


def test_a_result_is_read_as_it_was_written(file: Path) -> None:
    value = {"rows": 3, "name": "größe", "share": 0.5, "none": None, "big": 2**64 - 1, "small": -(2**63)}
    file.write_text(json.dumps({"result": value}))
    assert read_report(file) == Report(result=value)


@pytest.mark.parametrize("target", ["there", "nowhere"])
def test_a_symbolic_link_is_not_followed(file: Path, target: str) -> None:
    (file.parent / "there").write_text('{"result": "secret"}')
    file.symlink_to(file.parent / target)
    assert read_report(file).note == "the result file was not used: it is a symbolic link; write a regular file"


def test_a_folder_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "result.json").write_text('{"result": "secret"}')
    (tmp_path / "scratch").symlink_to(tmp_path / "other")
    found = read_report(tmp_path / "scratch" / "result.json")
    assert found.result is None
    assert "not used" in found.note


def test_a_fifo_is_not_waited_for(file: Path) -> None:
    os.mkfifo(file)
    assert read_report(file).note == "the result file was not used: it is a FIFO; write a regular file"


def test_a_socket_is_not_used(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(file.name)
        assert read_report(file).note == "the result file was not used: it is a socket; write a regular file"


def test_a_directory_is_not_used(file: Path) -> None:
    file.mkdir()
    assert read_report(file).note == "the result file was not used: it is a directory; write a regular file"


def test_a_device_is_not_used() -> None:
    assert read_report(Path("/dev/zero")).note == "the result file was not used: it is a device; write a regular file"


def test_a_file_that_never_ends_is_cut(file: Path) -> None:
    with file.open("wb") as writing:
        writing.truncate(1 << 40)
    assert read_report(file).note.startswith(
        f"the result file was not used: it has more than {MAX_FILE_BYTES >> 10} KiB"
    )


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (b'{"result": NaN}', "the result file was not used: NaN is not a JSON value"),
        (b'{"result": -Infinity}', "the result file was not used: -Infinity is not a JSON value"),
        (b'{"result": 1e999}', "the result file was not used: 1e999 is too large for a number"),
        (b'{"result": "\xff"}', "the result file was not used: it is not UTF-8, at byte 12"),
        (b'{"result": 1', "the result file was not used: it is not JSON: "),
        (b"[1]", "the result file was not used: it is not a JSON object"),
        (b'{"result": "\\ud800"}', "the result was dropped: it can not be written as JSON"),
        (b'{"result": {"\\ud800": 1}}', "the result was dropped: it can not be written as JSON"),
        (b'{"result": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "the result file was not used: it is nested"),
    ],
)
def test_what_is_not_json_is_dropped_with_its_place(file: Path, content: bytes, note: str) -> None:
    file.write_bytes(content)
    found = read_report(file)
    assert found.result is None
    assert found.note.startswith(note)


def test_integers_beyond_64_bits_become_their_decimal_text(file: Path) -> None:
    file.write_text('{"result": [18446744073709551616, -9223372036854775809, 1%s]}' % ("0" * 9_000))
    assert read_report(file).result == ["18446744073709551616", "-9223372036854775809", "1" + "0" * 9_000]


@pytest.mark.parametrize(("depth", "kept"), [(MAX_DEPTH, True), (MAX_DEPTH + 1, False), (252, False), (253, False)])
def test_a_result_may_be_nested_a_hundred_deep(file: Path, depth: int, kept: bool) -> None:
    file.write_text(json.dumps({"result": nested(depth)}))
    found = read_report(file)
    assert (found.result is not None) is kept
    assert ("nested more than 100 deep" in found.note) is not kept


def test_a_result_may_have_64_kib(file: Path) -> None:
    file.write_text(json.dumps({"result": "x" * (MAX_RESULT_BYTES - 2)}))
    assert read_report(file).note == ""
    file.write_text(json.dumps({"result": "x" * (MAX_RESULT_BYTES - 1)}))
    assert "65,537 bytes of JSON; at most 64 KiB are kept" in read_report(file).note


def test_an_error_with_half_a_surrogate_pair_can_be_stored(file: Path) -> None:
    file.write_text(json.dumps({"error": "no file 'a\udcff'" + "x" * 100_000}))
    found = read_report(file).error
    assert found.startswith("no file 'a?'")
    assert len(found) == 4_000


def test_a_dropped_result_does_not_change_the_state() -> None:
    completed = ending_of(0, None, None, Report(note="the result was dropped: why"), "")
    assert (completed.state, completed.message) == (RunState.COMPLETED, "the result was dropped: why")
    failed = ending_of(3, None, None, Report(note="the result file was not used: why"), "said")
    assert failed.state is RunState.FAILED
    assert failed.message.endswith("said; the result file was not used: why")


@pytest.mark.parametrize(
    ("value", "note"),
    [
        ({"t": datetime(2026, 1, 1)}, "Object of type datetime is not JSON serializable"),
        (float("nan"), "Out of range float values are not JSON compliant"),
        ("x" * 70_000, "70,002 bytes of JSON; at most 64 KiB are kept"),
        (timedelta(1), "Object of type timedelta is not JSON serializable"),
        pytest.param(10**5_000, "Exceeds the limit", id="a number of thousands of digits"),
        pytest.param(nested(100_000), "nested more than 100 deep", id="deep"),
    ],
)
def test_the_runner_says_why_it_drops_what_a_function_returned(value: Any, note: str) -> None:
    found = result_of(value)
    assert "result" not in found
    assert found["note"].startswith("the result was dropped: ")
    assert note in found["note"]


def test_runner_and_worker_have_the_same_limits() -> None:
    assert (RUNNERS_BYTES, MAX_RESULT_DEPTH) == (MAX_RESULT_BYTES, MAX_DEPTH)
