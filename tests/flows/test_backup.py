"""Backups: brought back and compared, while others write, encrypted, pruned, and never half."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from flows import backup, restore
from flows.backup import BackupError, Place
from flows.cli import main
from market.errors import ConfigError

SECRET = b"the very words that must not lie open"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    for name, content in {
        "params.yaml": b"seed: 1\n",
        "dvc.lock": b"schema: '2.0'\n",
        ".dvc/config": b"[core]\n    analytics = false\n",
        ".dvc/cache/files/md5/ab/cdef": SECRET * 5000,
        "keys/signing.pub": b"public",
        "keys/signing.key": b"PRIVATE",
        ".env": b"TOKEN=1",
        "runtime/checkpoint.json": b"{}",
        "runtime/session/s1/events.jsonl": b'{"a":1}\n{"b":2}\n{"half',
        "runtime/mlflow/artifacts/models/m-1/manifest.json": b"{}",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with closing(sqlite3.connect(folder / "runtime" / "scalper.db")) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE fills(n INTEGER, m INTEGER)")
        database.commit()
    return folder


def test_what_is_restored_is_what_was_there(work: Path, tmp_path: Path) -> None:
    place = Place.of(work, tmp_path / "backups", None)
    made = backup.create(work, place)
    found = restore.restore(place, "latest", tmp_path / "back")
    assert found == made and any("DVC's cache was taken" in note for note in found.notes)
    back = {
        p.relative_to(tmp_path / "back").as_posix(): p for p in (tmp_path / "back").rglob("*") if p.is_file()
    }
    assert back["dvc-remote/files/md5/ab/cdef"].read_bytes() == SECRET * 5000
    assert back["runtime/session/s1/events.jsonl"].read_bytes() == b'{"a":1}\n{"b":2}\n'
    for name in ("params.yaml", "dvc.lock", "keys/signing.pub", "runtime/checkpoint.json"):
        assert back[name].read_bytes() == (work / name).read_bytes()
    assert "keys/signing.key" not in back and ".env" not in back and "keys/backup.key" not in back
    assert any("databases open" in text for text in restore.verify(tmp_path / "back", found))


def test_nothing_lies_open(work: Path, tmp_path: Path) -> None:
    place = Place.of(work, tmp_path / "backups", None)
    backup.create(work, place)
    for path in (tmp_path / "backups").rglob("*"):
        assert not path.is_file() or (SECRET not in path.read_bytes() and b"params" not in path.read_bytes())
    assert (work / backup.KEY).stat().st_mode & 0o777 == 0o600


def test_a_database_that_is_written_to_comes_back_whole(work: Path, tmp_path: Path) -> None:
    stop = threading.Event()

    def trade() -> None:
        with closing(sqlite3.connect(work / "runtime" / "scalper.db", timeout=30)) as database:
            n = 0
            while not stop.is_set():
                # Two columns that always agree within a transaction.
                database.executemany("INSERT INTO fills VALUES(?, ?)", [(n, n)] * 50)
                database.execute("UPDATE fills SET m = n")
                database.commit()
                n += 1

    writer = threading.Thread(target=trade)
    writer.start()
    place = Place.of(work, tmp_path / "backups", None)
    try:
        for number in range(3):
            snapshot = backup.create(work, place)
            restore.restore(place, snapshot.name, tmp_path / f"back{number}")
    finally:
        stop.set()
        writer.join()
    for number in range(3):
        with closing(sqlite3.connect(tmp_path / f"back{number}" / "runtime" / "scalper.db")) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            rows = database.execute("SELECT COUNT(*), SUM(n != m) FROM fills").fetchone()
            assert rows[0] % 50 == 0 and not rows[1]


def test_only_what_changed_costs_space_and_old_ones_go(work: Path, tmp_path: Path) -> None:
    from datetime import UTC, datetime

    place = Place.of(work, tmp_path / "backups", None)

    def objects() -> int:
        return len(list((tmp_path / "backups" / "objects").glob("??/*")))

    backup.create(work, place, now=datetime(2026, 1, 1, tzinfo=UTC))
    first = objects()
    (work / "params.yaml").write_bytes(b"seed: 2\n")
    backup.create(work, place, now=datetime(2026, 1, 2, tzinfo=UTC))
    assert objects() == first + 1
    backup.create(work, place, keep=1, now=datetime(2026, 1, 3, tzinfo=UTC))
    assert [s.name for s in backup.snapshots(place)] == ["20260103T000000Z"]
    assert objects() == first
    restore.restore(place, "latest", tmp_path / "back")
    assert (tmp_path / "back" / "params.yaml").read_bytes() == b"seed: 2\n"


@pytest.mark.parametrize("harm", ["alter", "cut", "remove", "swap"])
def test_a_damaged_backup_is_refused_by_name_and_leaves_nothing(
    work: Path, tmp_path: Path, harm: str
) -> None:
    place = Place.of(work, tmp_path / "backups", None)
    snapshot = backup.create(work, place)
    sizes = {e.path: e for e in snapshot.entries}
    victim = place.object(sizes["dvc-remote/files/md5/ab/cdef"].sha256)
    if harm == "alter":
        data = bytearray(victim.read_bytes())
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
    elif harm == "cut":
        victim.write_bytes(b"")
    elif harm == "remove":
        victim.unlink()
    else:
        victim.write_bytes(place.object(sizes["params.yaml"].sha256).read_bytes())
    with pytest.raises(BackupError, match="dvc-remote/files/md5/ab/cdef"):
        restore.restore(place, "latest", tmp_path / "back")
    assert not (tmp_path / "back").exists() and not list(tmp_path.glob(".back*"))


def test_bad_input_is_one_sentence(work: Path, tmp_path: Path) -> None:
    place = Place.of(work, tmp_path / "backups", None)
    with pytest.raises(BackupError, match=r"no snapshot 'latest'.*there: none"):
        restore.restore(place, "latest", tmp_path / "back")
    backup.create(work, place)
    other = Place(place.folder, Fernet.generate_key())
    with pytest.raises(BackupError, match="another key"):
        backup.read_snapshot(other, "latest")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(BackupError, match="is not empty"):
        restore.restore(place, "latest", tmp_path / "full")
    with pytest.raises(ConfigError, match="cannot read the Fernet key"):
        Place.of(work, None, tmp_path / "nokey")
    with pytest.raises(BackupError, match="nothing to back up"):
        (tmp_path / "empty").mkdir()
        backup.create(tmp_path / "empty", place)


def test_a_full_disk_keeps_the_snapshots_before_it(work: Path, tmp_path: Path) -> None:
    import resource

    place = Place.of(work, tmp_path / "backups", None)
    kept = backup.create(work, place)
    (work / "params.yaml").write_bytes(b"x" * 400_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))  # what a full disk looks like to a writer
    try:
        with pytest.raises(BackupError, match="the snapshots before it are whole"):
            backup.create(work, place)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert backup.snapshots(place) == [kept]
    assert not list((tmp_path / "backups").rglob(".draft*"))


def test_the_commands_say_what_they_did(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(work)
    assert main(["backup"]) == 0
    assert main(["backup", "--list"]) == 0
    assert main(["restore", "latest", "--into", str(tmp_path / "back"), "--verify"]) == 0
    said = capsys.readouterr().out
    assert "files, " in said and "every hash as backed up" in said and "databases open and are whole" in said
