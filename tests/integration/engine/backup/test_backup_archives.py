"""What a backup holds, and what is no backup: refused by `whenthen restore`, and nothing is changed."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from tests.integration.backups import command, folder_of
from tests.integration.served import TOKEN, Served
from tests.patience import eventually
from whenthen.engine.backup import InvalidBackup, read_archive
from whenthen.engine.backup.archive import ArchiveHead, ending, small_entry
from whenthen.engine.bus.records import FORMAT
from whenthen.engine.bus.streams import ENGINE, EVENTS

pytestmark = pytest.mark.requires("nats-server")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small backup."""
    base = tmp_path_factory.mktemp("made")
    server = Served(folder_of(base, "server"))
    try:
        server.wait_until_ready()
        for number in range(30):
            server.emit("order.burst", id=f"e-{number}")
        eventually(lambda: server.fired()["burst"] == 30)
        result = command("backup", base / "small.tar", url=server.url)
        assert result.returncode == 0, result.stderr
        assert "streams" in result.stdout
    finally:
        server.stop()
    return base / "small.tar"


def test_a_backup_holds_the_store_and_no_logins(made: Path) -> None:
    summary = read_archive(made)
    assert summary.streams[EVENTS].messages >= 30
    assert {EVENTS, ENGINE, "RUNS", "LOGS", "KV_WT_runs", "KV_WT_state"} <= set(summary.streams)
    assert summary.head.format == FORMAT
    with tarfile.open(made) as archive:
        names = archive.getnames()
    assert names[0] == "whenthen-backup.json"
    assert names[-2:] == ["manifest.json", "end"]
    assert all(name.startswith("store/jetstream/") for name in names[1:-2])
    data = made.read_bytes()
    assert TOKEN.encode() not in data
    assert b'"password"' not in data


def test_one_that_is_cut_anywhere_is_refused_and_nothing_is_changed(made: Path, tmp_path: Path) -> None:
    data = made.read_bytes()
    cut = tmp_path / "cut.tar"
    for length in (0, 1, 511, 512, 700, 5000, len(data) // 2, len(data) - 1500, len(data) - 1536, len(data) - 2000):
        cut.write_bytes(data[:length])
        with pytest.raises(InvalidBackup):
            read_archive(cut)
    result = command("restore", cut, "--data-dir", tmp_path / "data")
    assert result.returncode == 1
    assert "ends too early" in result.stderr or "damaged" in result.stderr
    assert not (tmp_path / "data").exists()


def test_one_with_another_byte_anywhere_is_refused(made: Path, tmp_path: Path) -> None:
    data = bytearray(made.read_bytes())
    spoiled = tmp_path / "spoiled.tar"
    with tarfile.open(made) as archive:
        entries = archive.getmembers()
    # inside of the contents of the first, a middle and the last entries
    picked = [each for each in entries if each.size > 10]
    for entry in (picked[0], *picked[1 :: max(1, len(picked) // 15)], picked[-2], picked[-1]):
        position = entry.offset_data + entry.size // 2
        data[position] ^= 1
        spoiled.write_bytes(data)
        try:
            summary = read_archive(spoiled)
        except InvalidBackup:
            pass
        else:  # a file that came again later, or one that was deleted meanwhile: what it was does not matter
            later = [each for each in entries if each.name == entry.name and each.offset > entry.offset]
            assert later or entry.name.removeprefix("store/") not in summary.files
        data[position] ^= 1


@pytest.mark.parametrize("content", [b"", b"no archive" * 1000, b"\0" * 10_240])
def test_another_file_is_no_backup(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(InvalidBackup, match="no backup"):
        read_archive(tmp_path / "other")


HEAD = ArchiveHead(version="9.8.7", format=FORMAT, lowest_reader=FORMAT, created="2026-01-01T00:00:00Z")


def test_a_foreign_archive_and_one_of_a_newer_format_are_refused_by_their_head(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.tar"
    with tarfile.open(foreign, "w") as archive:
        archive.add(__file__, "readme")
    with pytest.raises(InvalidBackup, match="no backup of whenthen"):
        read_archive(foreign)
    newer = tmp_path / "newer.tar"
    head = ArchiveHead(version="9.8.7", format=FORMAT + 1, lowest_reader=FORMAT + 1, created="2026-01-01T00:00:00Z")
    newer.write_bytes(head.encode() + ending({}, {}))
    result = command("restore", newer, "--data-dir", tmp_path / "data")
    assert result.returncode == 1
    assert f"whenthen 9.8.7 made it, its data are of format {FORMAT + 1}" in result.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "name", ["/etc/x", "store/../x", "store/a/../../x", "store//x", "store/", "other/x", "store/a\nb"]
)
def test_a_path_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "bad.tar"
    file.write_bytes(HEAD.encode() + small_entry(name, b"x") + ending({}, {}))
    with pytest.raises(InvalidBackup, match="nothing that a backup holds"):
        read_archive(file)
    link = tarfile.TarInfo("store/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    file.write_bytes(HEAD.encode() + link.tobuf() + ending({}, {}))
    with pytest.raises(InvalidBackup, match="nothing that a backup holds"):
        read_archive(file)


def test_streams_that_are_not_in_it_are_missed_when_it_is_tried(made: Path, tmp_path: Path) -> None:
    """Digests say that a file is as it was written, not that what was written is a store."""
    file = tmp_path / "empty.tar"
    file.write_bytes(HEAD.encode() + ending({}, read_archive(made).streams))
    result = command("restore", file, "--data-dir", tmp_path / "data")
    assert result.returncode == 1
    assert "is not in it" in result.stderr
    assert not (tmp_path / "data").exists()


def test_nothing_is_restored_over_data_or_under_a_server(made: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "server")
    server = Served(folder)
    try:
        server.wait_until_ready()
        server.emit("order.burst", id="mine")
        running = command("restore", made, "--data-dir", folder / "data")
        assert running.returncode == 1
        assert "in use by process" in running.stderr
    finally:
        server.stop()
    stopped = command("restore", made, "--data-dir", folder / "data")
    assert stopped.returncode == 1
    assert "has data already" in stopped.stderr
    assert not list((folder / "data").glob(".restoring-*"))
    missing = command("restore", tmp_path / "nothing.tar", "--data-dir", tmp_path / "data")
    assert "there is no such file" in missing.stderr
