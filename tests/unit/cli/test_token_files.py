"""The token that a server makes for itself, and how commands of the same user find it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from whenthen.cli.token_files import FILE_NAME, find_token, forget_token, note_token, state_folder, token_of
from whenthen.schemas.errors import SetupError


@pytest.fixture
def state(tmp_path: Path) -> dict[str, str]:
    return {"XDG_STATE_HOME": str(tmp_path / "state")}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_token_is_made_once_and_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    data = tmp_path / "deep" / "data"
    token = token_of(data)
    assert len(token) >= 32
    assert token_of(data) == token
    assert token_of(tmp_path / "other") != token
    assert (mode(data), mode(data / FILE_NAME)) == (0o700, 0o600)
    assert [path.name for path in data.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize("text", ["", "short", "two words of one token", "\x00" * 40, "ä" * 40])
def test_a_file_without_a_token_is_refused_with_the_remedy(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    (tmp_path / FILE_NAME).chmod(0o600)
    with pytest.raises(SetupError, match="remove the file"):
        token_of(tmp_path)


def test_a_token_that_others_can_read_is_refused(tmp_path: Path) -> None:
    token_of(tmp_path)
    (tmp_path / FILE_NAME).chmod(0o644)
    with pytest.raises(SetupError, match="others can read"):
        token_of(tmp_path)


def test_a_link_or_a_pipe_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("x" * 40)
    (tmp_path / FILE_NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SetupError, match="can not be kept here"):
        token_of(tmp_path)
    (tmp_path / FILE_NAME).unlink()
    os.mkfifo(tmp_path / FILE_NAME, 0o600)
    with pytest.raises(SetupError, match="not a regular file"):
        token_of(tmp_path)


def test_commands_find_the_token_by_the_url(state: dict[str, str]) -> None:
    note_token("http://127.0.0.1:4280", "token-of-the-first", state)
    note_token("http://127.0.0.1:4281", "token-of-the-second", state)
    for url in (
        "http://127.0.0.1:4280",
        "http://127.0.0.1:4280/",
        "127.0.0.1:4280",
        "localhost:4280",
        "http://LOCALHOST:4280",
    ):
        assert find_token(url, state) == "token-of-the-first"
    assert find_token("http://127.0.0.1:4281", state) == "token-of-the-second"
    for url in (
        "http://127.0.0.1:4282",
        "https://127.0.0.1:4280",
        "http://example:4280",
        "http://127.0.0.1",
        "http://x:y",
    ):
        assert find_token(url, state) is None
    folder = state_folder(state)
    assert mode(folder) == 0o700
    assert {mode(path) for path in folder.iterdir()} == {0o600}


def test_an_older_note_is_overwritten_and_forgotten_only_by_whom_it_is_of(state: dict[str, str]) -> None:
    note_token("http://127.0.0.1:4280", "token-of-the-first", state)
    note_token("http://127.0.0.1:4280", "token-of-the-second", state)
    forget_token("http://127.0.0.1:4280", "token-of-the-first", state)
    assert find_token("http://127.0.0.1:4280", state) == "token-of-the-second"
    forget_token("http://127.0.0.1:4280", None, state)
    assert find_token("http://127.0.0.1:4280", state) is None
    forget_token("http://127.0.0.1:4280", None, state)


def test_a_note_that_others_can_read_is_refused(state: dict[str, str]) -> None:
    note_token("http://127.0.0.1:4280", "token-of-the-first", state)
    next(state_folder(state).iterdir()).chmod(0o604)
    with pytest.raises(SetupError, match="others can read"):
        find_token("http://127.0.0.1:4280", state)


def test_a_relative_state_folder_is_ignored() -> None:
    assert state_folder({"XDG_STATE_HOME": "relative"}) == Path.home() / ".local" / "state" / "whenthen"
    assert state_folder({}) == Path.home() / ".local" / "state" / "whenthen"


def test_a_note_of_a_process_that_was_killed_is_given_to_nobody(state: dict[str, str]) -> None:
    code = "import sys, time; from whenthen.cli.token_files import note_token; note_token(sys.argv[1], 'token-of-the-killed'); print(1, flush=True); time.sleep(60)"
    url = "http://127.0.0.1:4280"
    with subprocess.Popen(
        [sys.executable, "-c", code, url], env={**os.environ, **state}, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        server.stdout.readline()
        assert find_token(url, state) == "token-of-the-killed"
        server.kill()
        server.wait()
        assert find_token(url, state) is None
    note_token(url, "token-of-the-next-server", state)
    assert find_token(url, state) == "token-of-the-next-server"


@pytest.mark.parametrize("about", ["", "1", "x y", "own another-start", "999999999 1", "own "])
def test_a_note_that_does_not_name_the_process_that_runs_counts_for_nothing(state: dict[str, str], about: str) -> None:
    note_token("http://127.0.0.1:4280", "token-of-the-first", state)
    (note,) = state_folder(state).iterdir()
    note.write_text(f"token-of-the-first\n{about.replace('own', str(os.getpid()))}\n")
    assert find_token("http://127.0.0.1:4280", state) is None
