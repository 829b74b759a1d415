"""SQLite of the runner: intentions before the wire, the fallback file, readers, kill -9."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from live import storage as storage_module
from live import storage_fallback
from live.storage import Record, Storage, StorageError, reader, unresolved_orders

ROOT = Path(__file__).resolve().parents[2]


def order(key: str, **changes) -> dict:
    fields = {
        "client_order_id": key, "session_id": "s1", "trace_id": "t", "ticker": "SIMP", "side": 1, "lots": 2,
        "order_type": "market", "price_ticks": None, "tif": "fak", "reduce_only": 0, "reason": "SIGNAL",
        "created_ns": 10, "updated_ns": 10,
    }  # fmt: skip
    return {**fields, **changes}


@pytest.fixture
def opened(tmp_path):
    storage = Storage.open(tmp_path / "scalper.db", tmp_path / "fallback.jsonl")
    yield storage
    storage.close()


def rows(storage: Storage, sql: str) -> list[tuple]:
    with reader(storage.path) as connection:
        return [tuple(row) for row in connection.execute(sql)]


def test_an_intent_is_readable_as_soon_as_it_is_awaited(opened):
    asyncio.run(_await(lambda: opened.intent(order("a"))))
    assert rows(opened, "SELECT client_order_id, status FROM orders") == [("a", "INTENT")]


async def _await(*calls):
    for call in calls:
        await call()


def test_an_order_is_written_once_only(opened):
    with pytest.raises(StorageError, match="written before"):
        asyncio.run(_await(lambda: opened.intent(order("a")), lambda: opened.intent(order("a", lots=9))))
    assert rows(opened, "SELECT lots FROM orders") == [(2,)]


def test_updates_change_an_order_but_never_invent_one(opened):
    async def work():
        await opened.intent(order("a"))
        opened.put(Record("orders", {"client_order_id": "ghost", "status": "FILLED"}))
        await opened.commit(
            Record("orders", {"client_order_id": "a", "status": "FILLED", "lots_executed": 2})
        )

    asyncio.run(work())
    assert rows(opened, "SELECT client_order_id, status, lots_executed FROM orders") == [("a", "FILLED", 2)]


def test_an_unknown_column_is_a_defect_not_a_silent_loss(opened):
    with pytest.raises(StorageError, match="has no column colour"):
        asyncio.run(_await(lambda: opened.commit(Record("orders", {"client_order_id": "a", "colour": 1}))))
    asyncio.run(_await(lambda: opened.intent(order("b"))))
    assert rows(opened, "SELECT client_order_id FROM orders") == [("b",)]


def test_a_locked_database_sends_records_to_the_fallback_and_takes_them_back(tmp_path, monkeypatch):
    monkeypatch.setattr(storage_module, "BUSY_TIMEOUT_MS", 50)
    storage = Storage.open(tmp_path / "scalper.db", tmp_path / "fallback.jsonl")
    blocker = sqlite3.connect(storage.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    asyncio.run(_await(lambda: storage.intent(order("a")), lambda: storage.intent(order("b"))))
    assert "SQLite does not take writes" in storage.degraded
    written = [
        json.loads(line)["fields"]["client_order_id"] for line in storage.fallback.read_text().splitlines()
    ]
    assert written == ["a", "b"]
    blocker.execute("ROLLBACK")
    blocker.close()
    storage.close()
    assert not storage.fallback.exists()
    assert rows(storage, "SELECT client_order_id, status FROM orders ORDER BY 1") == [
        ("a", "INTENT"),
        ("b", "INTENT"),
    ]


def test_when_nothing_can_be_written_the_intent_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(storage_module, "BUSY_TIMEOUT_MS", 50)
    storage = Storage.open(tmp_path / "scalper.db", tmp_path / "fallback.jsonl")
    (tmp_path / "fallback.jsonl").mkdir()
    blocker = sqlite3.connect(storage.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match="neither"):
        asyncio.run(_await(lambda: storage.intent(order("a"))))
    blocker.close()
    (tmp_path / "fallback.jsonl").rmdir()
    storage.close()


@contextmanager
def locked(storage: Storage) -> Iterator[None]:
    """SQLite takes no writes meanwhile."""
    blocker = sqlite3.connect(storage.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        blocker.close()


@pytest.fixture
def hasty(tmp_path, monkeypatch):
    """A storage that gives up on a locked database soon."""
    monkeypatch.setattr(storage_module, "BUSY_TIMEOUT_MS", 50)
    storage = Storage.open(tmp_path / "scalper.db", tmp_path / "fallback.jsonl")
    yield storage
    storage.close()


def test_an_order_is_written_once_only_whatever_takes_it(hasty):
    async def work():
        await hasty.intent(order("in the database"))
        with locked(hasty):
            await hasty.intent(order("in the file"))
            handoffs = [hasty.queue_intent(order("in one batch", lots=n)) for n in (2, 9)]
            hasty.hold_still(handoffs)
            twice = [one.future for one in handoffs]
            await twice[0]
            for again in (
                hasty.intent(order("in the database", lots=9)),
                hasty.intent(order("in the file", lots=9)),
                twice[1],
            ):
                with pytest.raises(StorageError, match="written before"):
                    await again

    asyncio.run(work())
    hasty.close()
    assert rows(hasty, "SELECT lots FROM orders") == [(2,)] * 3
    assert hasty.lost == 0


def test_an_order_of_an_earlier_run_is_not_written_again_either(tmp_path, monkeypatch):
    monkeypatch.setattr(storage_module, "BUSY_TIMEOUT_MS", 50)
    monkeypatch.setattr(storage_module, "MAX_ACCEPTED", 2)
    paths = tmp_path / "scalper.db", tmp_path / "fallback.jsonl"
    earlier = Storage.open(*paths)
    asyncio.run(_await(*(lambda n=n: earlier.intent(order(f"k{n}")) for n in range(5))))
    earlier.close()
    storage = Storage.open(*paths)
    with locked(storage), pytest.raises(StorageError, match="k4 was written before"):
        asyncio.run(_await(lambda: storage.intent(order("k4", lots=9))))
    assert len(storage._accepted) == 2
    storage.close()


def test_an_intention_that_is_merged_overwrites_nothing_and_is_told(tmp_path):
    path, fallback = tmp_path / "scalper.db", tmp_path / "fallback.jsonl"
    storage = Storage.open(path, fallback)
    asyncio.run(_await(lambda: storage.intent(order("a")), lambda: storage.intent(order("b"))))
    filled = Record("orders", {"client_order_id": "a", "status": "FILLED", "lots_executed": 2})
    asyncio.run(_await(lambda: storage.commit(filled)))
    storage.close()
    same, other = (
        Record("orders", {**o, "status": "INTENT"}, must_be_new=True)
        for o in (order("a"), order("b", lots=9))
    )
    storage_fallback.append(fallback, [storage_fallback.line(same)])
    storage = Storage.open(path, fallback)  # as after a commit that failed for us and not on the disk
    assert (storage.lost, storage.degraded) == (0, "")
    storage.close()
    storage_fallback.append(fallback, [storage_fallback.line(other)])
    storage = Storage.open(path, fallback)
    assert storage.lost == 1
    storage.close()
    assert json.loads((tmp_path / "fallback.jsonl.damaged").read_text())["fields"]["lots"] == 9
    assert rows(storage, "SELECT client_order_id, lots, status FROM orders ORDER BY 1") == [
        ("a", 2, "FILLED"),
        ("b", 2, "INTENT"),
    ]


def test_rows_that_the_database_refuses_at_the_merge_are_kept_and_told(hasty, tmp_path):
    async def work():
        with locked(hasty):
            hasty.put(Record("orders", order("bad", status=None)))
            await hasty.commit(Record("meta", {"key": "k", "value": "v"}))
            with pytest.raises(StorageError, match="has no column colour"):
                await hasty.commit(Record("meta", {"key": "k", "colour": 1}))

    asyncio.run(work())
    hasty.close()
    assert hasty.lost == 1
    assert (
        "refused 1 records of fallback.jsonl (a row of orders cannot be written: NOT NULL" in hasty.degraded
    )
    assert json.loads((tmp_path / "fallback.jsonl.damaged").read_text())["fields"]["client_order_id"] == "bad"
    assert rows(hasty, "SELECT value FROM meta WHERE key='k'") == [("v",)]


def test_a_line_torn_in_the_middle_of_a_letter_is_kept_and_the_others_are_merged(tmp_path):
    fallback = tmp_path / "fallback.jsonl"
    whole = storage_fallback.line(Record("orders", order("a", status="NEW"))).encode()
    inside = whole.replace(b"SIMP", b"S\xd0MP")
    torn = b'{"table":"orders","fields":{"client_order_id":"b","reason":"\xd0'
    fallback.write_bytes(b"\n".join((whole, inside, torn)))
    storage = Storage.open(tmp_path / "scalper.db", fallback)
    asyncio.run(_await(lambda: storage.intent(order("c"))))
    storage.close()
    assert (tmp_path / "fallback.jsonl.damaged").read_bytes() == inside + b"\n" + torn + b"\n"
    assert rows(storage, "SELECT client_order_id FROM orders ORDER BY 1") == [("a",), ("c",)]


def test_a_fallback_that_cannot_be_read_is_refused_by_name(tmp_path):
    (tmp_path / "fallback.jsonl").mkdir()
    with pytest.raises(StorageError, match=r"cannot merge .*fallback\.jsonl.*move it away"):
        Storage.open(tmp_path / "scalper.db", tmp_path / "fallback.jsonl")


def test_a_fallback_that_cannot_be_read_later_stops_neither_the_writer_nor_the_end(hasty, monkeypatch):
    monkeypatch.setattr(storage_module, "RETRY_SECONDS", 0.0)

    async def work():
        with locked(hasty):
            await hasty.intent(order("a"))
        hasty.fallback.rename(hasty.fallback.with_suffix(".kept"))
        hasty.fallback.mkdir()
        for key in "bc":
            with pytest.raises(StorageError, match="neither"):
                await hasty.intent(order(key))

    asyncio.run(work())
    hasty.close()
    assert "cannot be merged: IsADirectoryError" in hasty.degraded
    hasty.fallback.rmdir()


def test_a_batch_that_the_fallback_takes_in_part_only_leaves_nothing_in_it(tmp_path):
    fallback = tmp_path / "fallback.jsonl"
    storage_fallback.append(fallback, ["first"])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            storage_fallback.append(fallback, ["second", "third, which does not fit"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    storage_fallback.append(fallback, ["fourth"])
    assert fallback.read_text() == "first\nfourth\n"


def test_a_fallback_file_merged_before_a_crash_does_not_undo_newer_states(tmp_path):
    path, fallback = tmp_path / "scalper.db", tmp_path / "fallback.jsonl"
    text = json.dumps({"table": "orders", "fields": order("a", status="INTENT")}) + "\n" + '{"table": "ord'
    fallback.write_text(text)
    storage = Storage.open(path, fallback)
    asyncio.run(
        _await(lambda: storage.commit(Record("orders", {"client_order_id": "a", "status": "FILLED"})))
    )
    storage.close()
    assert (tmp_path / "fallback.jsonl.damaged").read_text() == '{"table": "ord\n'
    fallback.write_text(text)  # the crash came between the commit and the removal
    Storage.open(path, fallback).close()
    assert rows(storage, "SELECT status FROM orders") == [("FILLED",)]
    assert not fallback.exists()


def test_a_database_of_another_version_is_refused(tmp_path):
    connection = sqlite3.connect(tmp_path / "scalper.db")
    connection.execute("CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT)")
    connection.execute("INSERT INTO meta VALUES('schema_version', '99')")
    connection.commit()
    connection.close()
    with pytest.raises(StorageError, match="schema version 99"):
        Storage.open(tmp_path / "scalper.db", tmp_path / "fallback.jsonl")


def test_readers_cannot_write(opened):
    with pytest.raises(StorageError, match="readonly"), reader(opened.path) as connection:
        connection.execute("DELETE FROM orders")


def test_unresolved_orders_know_their_account_and_newer_finished_ones(opened):
    async def work():
        opened.put(Record("sessions", {"session_id": "s1", "account": "sandbox:1"}))
        for key, status, updated in (
            ("a", "UNKNOWN", 1),
            ("b", "FILLED", 50),
            ("c", "FILLED", 5),
            ("d", "SHADOW", 90),
        ):
            await opened.intent(order(key, created_ns=updated))
            await opened.commit(
                Record("orders", {"client_order_id": key, "status": status, "updated_ns": updated})
            )

    asyncio.run(work())
    assert [(r["client_order_id"], r["account"]) for r in unresolved_orders(opened.path)] == [
        ("a", "sandbox:1")
    ]
    assert [r["client_order_id"] for r in unresolved_orders(opened.path, since_ns=20)] == ["a", "b"]


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_storage import order
from live.storage import Storage
async def work():
    storage = Storage.open(Path({db!r}), Path({fallback!r}))
    for n in range(20):
        await storage.intent(order(f"k{{n}}"))
        os.write(1, b".")
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(work())
"""


def test_every_awaited_intent_survives_kill_9(tmp_path):
    script = KILLED.format(
        tests=str(Path(__file__).parent),
        db=str(tmp_path / "scalper.db"),
        fallback=str(tmp_path / "fallback.jsonl"),
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == b"." * 20
    storage = Storage.open(tmp_path / "scalper.db", tmp_path / "fallback.jsonl")
    storage.close()
    assert len(unresolved_orders(storage.path)) == 20


# ---- versions and damage

VERSION_1 = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE sessions(session_id TEXT PRIMARY KEY, session_key TEXT, mode TEXT, account TEXT,
    alias TEXT, model_version TEXT,
    manifest_sha256 TEXT, watermark TEXT, started_wall_ns INTEGER, ended_wall_ns INTEGER, summary TEXT);
CREATE TABLE signals(session_id TEXT, trace_id TEXT, now_ns INTEGER, ticker TEXT, side INTEGER, source TEXT,
    p_down_e6 INTEGER, p_flat_e6 INTEGER, p_up_e6 INTEGER, expected_move_millibps INTEGER,
    cost_millibps INTEGER, edge_millibps INTEGER, confidence_e6 INTEGER, outcome TEXT,
    PRIMARY KEY(session_id, trace_id));
CREATE TABLE orders(client_order_id TEXT PRIMARY KEY, session_id TEXT, trace_id TEXT, ticker TEXT,
    side INTEGER, lots INTEGER, order_type TEXT, price_ticks INTEGER, tif TEXT,
    reduce_only INTEGER, reason TEXT,
    status TEXT NOT NULL, exchange_order_id TEXT NOT NULL DEFAULT '',
    lots_executed INTEGER NOT NULL DEFAULT 0,
    created_ns INTEGER, updated_ns INTEGER, note TEXT NOT NULL DEFAULT '');
CREATE TABLE fills(client_order_id TEXT, trade_id TEXT, session_id TEXT, ticker TEXT, side INTEGER,
    price_ticks INTEGER, lots INTEGER, fee_nano INTEGER, realised_nano INTEGER, now_ns INTEGER,
    PRIMARY KEY(client_order_id, trade_id));
CREATE TABLE positions(session_id TEXT, ticker TEXT, lots INTEGER, cost_nano INTEGER, stop_ticks INTEGER,
    realised_nano INTEGER, fees_nano INTEGER, updated_ns INTEGER, PRIMARY KEY(session_id, ticker));
CREATE TABLE trips(session_id TEXT, trace_id TEXT, ticker TEXT, side INTEGER, lots INTEGER, entry_ns INTEGER,
    exit_ns INTEGER, gross_nano INTEGER, fees_nano INTEGER, net_nano INTEGER, exit_reason TEXT,
    PRIMARY KEY(session_id, ticker, entry_ns, exit_ns));
CREATE TABLE holds(session_id TEXT, name TEXT, scope TEXT, raised_ns INTEGER, severity TEXT, reason TEXT,
    lifted_ns INTEGER, PRIMARY KEY(session_id, name, scope, raised_ns));
CREATE TABLE equity(session_id TEXT, now_ns INTEGER, gross_nano INTEGER, fees_nano INTEGER, net_nano INTEGER,
    PRIMARY KEY(session_id, now_ns));
CREATE INDEX signals_by_time ON signals(session_id, now_ns);
CREATE INDEX orders_by_time ON orders(session_id, created_ns);
CREATE INDEX fills_by_time ON fills(session_id, now_ns);
CREATE INDEX orders_by_status ON orders(status);
INSERT INTO meta VALUES('schema_version', '1');
INSERT INTO sessions(session_id, account) VALUES('old', 'sandbox:1');
INSERT INTO orders(client_order_id, session_id, status, ticker, lots)
    VALUES('o1', 'old', 'UNKNOWN', 'SIMP', 3);
"""
"""What the first release wrote, letter by letter."""


def old_database(path: Path) -> Path:
    connection = sqlite3.connect(path)
    connection.executescript(VERSION_1)
    connection.close()
    return path


def shape(path: Path) -> dict[str, set[str]]:
    with reader(path) as connection:
        tables = [r[0] for r in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        indices = {r[0] for r in connection.execute("SELECT name FROM sqlite_master WHERE type='index'")}
        columns = {t: {r[1] for r in connection.execute(f"PRAGMA table_info({t})")} for t in tables}
    return {**columns, "indices": indices}


def test_a_database_of_the_first_version_is_migrated_and_kept(tmp_path):
    old = old_database(tmp_path / "old.db")
    with pytest.raises(StorageError, match="the next start of the runner migrates it"), reader(old):
        pass
    Storage.open(old, tmp_path / "a.jsonl").close()
    Storage.open(tmp_path / "new.db", tmp_path / "b.jsonl").close()
    assert shape(old) == shape(tmp_path / "new.db")
    assert [(r["client_order_id"], r["account"]) for r in unresolved_orders(old)] == [("o1", "sandbox:1")]
    kept = sqlite3.connect(tmp_path / "old.db.v1")
    assert kept.execute("SELECT value FROM meta").fetchall() == [("1",)]
    assert kept.execute("SELECT count(*) FROM orders").fetchall() == [(1,)]
    kept.close()
    Storage.open(old, tmp_path / "a.jsonl").close()  # the second time there is nothing to do


def test_a_migration_that_fails_leaves_the_database_as_it_was(tmp_path):
    old = old_database(tmp_path / "old.db")
    connection = sqlite3.connect(old)
    connection.execute("CREATE INDEX orders_by_exchange_id ON orders(lots)")
    connection.close()
    with pytest.raises(StorageError, match="it is as it was"):
        Storage.open(old, tmp_path / "a.jsonl")
    connection = sqlite3.connect(old)
    assert connection.execute("SELECT value FROM meta").fetchall() == [("1",)]
    assert "config" not in [r[1] for r in connection.execute("PRAGMA table_info(sessions)")]
    connection.close()


def test_a_damaged_database_is_found_at_the_start(tmp_path):
    path = tmp_path / "scalper.db"
    storage = Storage.open(path, tmp_path / "f.jsonl")
    for n in range(300):
        storage.put(Record("orders", order(f"k{n}", status="NEW")))
    storage.close()
    content = bytearray(path.read_bytes())
    page = 4096
    for at in range(5 * page, len(content), page):
        content[at : at + 200] = b"\x5a" * 200
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"is damaged.*live-runner restore"):
        Storage.open(path, tmp_path / "f.jsonl")


# ---- how long the caller holds still


def test_a_healthy_disk_has_an_intention_before_the_caller_goes_on(opened, monkeypatch):
    monkeypatch.setattr(storage_module, "PATIENCE_S", 60.0)

    async def work():
        intents = [opened.queue_intent(o) for o in (order("a"), order("b"), order("a", lots=9))]
        opened.hold_still(intents)
        assert [one.future.done() for one in intents] == [True] * 3
        assert isinstance(intents[2].future.exception(), StorageError)

    asyncio.run(work())
    assert rows(opened, "SELECT client_order_id, lots FROM orders ORDER BY 1") == [("a", 2), ("b", 2)]


def test_after_a_slow_intention_nobody_holds_still_for_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(storage_module, "BUSY_TIMEOUT_MS", 60_000)
    opened = Storage.open(tmp_path / "scalper.db", tmp_path / "fallback.jsonl")

    async def work():
        blocker = sqlite3.connect(opened.path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        opened._impatient_s = 60
        monkeypatch.setattr(storage_module, "PATIENCE_S", 0.01)
        first = opened.intent(order("a"))
        assert not first.done()
        monkeypatch.setattr(storage_module, "PATIENCE_S", 60.0)
        second = opened.intent(order("b"))  # would hold still until the writer gives up
        assert not second.done()
        blocker.execute("ROLLBACK")
        blocker.close()
        await asyncio.gather(first, second)
        opened._impatient_until = 0.0
        assert opened.intent(order("c")).done()

    asyncio.run(work())
    opened.close()
    assert rows(opened, "SELECT count(*) FROM orders") == [(3,)]


def test_the_log_goes_into_the_database_between_transactions(opened, monkeypatch):
    monkeypatch.setattr(storage_module, "PATIENCE_S", 60.0)
    monkeypatch.setattr(storage_module, "CHECKPOINT_BATCHES", 8)
    log = opened.path.with_name(opened.path.name + "-wal")
    sizes = []

    async def work():
        for n in range(80):
            await opened.intent(order(f"k{n}"))
            while opened.handled <= n:  # and the writer is back at its queue, the log tidied
                await asyncio.sleep(0.001)
            sizes.append(log.stat().st_size)

    asyncio.run(work())
    assert rows(opened, "SELECT count(*) FROM orders") == [(80,)]
    assert max(sizes[16:]) <= 2 * sizes[15]  # written over, not grown
