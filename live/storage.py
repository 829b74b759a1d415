"""The runner's SQLite: intentions before the wire, and everything a person asks about afterwards.

One thread owns the only writing connection. It takes whatever waits in a bounded queue, writes it in one
transaction and commits with ``synchronous=FULL``, so one disk flush serves many records. An intention is on
the disk when its future is done: the caller holds still for it as long as a healthy disk takes, so that the
order leaves in the same turn. A disk that is slow or hangs costs the caller ``PATIENCE_S`` now and then,
never more. When SQLite cannot be written, the same records go to a JSON-lines file (flushed to disk, so an
intention stays an intention) and are merged back as soon as SQLite takes writes again. Readers open their own
read-only connections and can never block the writer (WAL).

Statements are upserts keyed by natural keys, so writing a record twice (a merge after a crash) changes
nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from live import storage_fallback
from live.handoff import Handoff
from live.storage_migrate import open_for_writing, require_current
from live.storage_schema import CHANGING, KEYS, Record, statement
from live.storage_schema import StorageError as StorageError

MAX_QUEUE = 50_000
"""Records waiting for the writer; more means the disk is gone, and intentions are refused."""
MAX_BATCH = 2_000
RETRY_SECONDS = 2.0
PATIENCE_S = 0.005
"""So long the caller's thread holds still for an intention; a healthy disk needs a tenth of it."""
IMPATIENT_S = 0.25
MAX_IMPATIENT_S = 8.0
"""For so long nobody holds still after the disk took longer: twice as long after every such time in a row."""
CHECKPOINT_BATCHES = 64
"""Transactions after which the log goes into the database, when nothing waits: SQLite would do it by itself
in the middle of a commit, with an order waiting. The log is then written over, which a disk does in half the
time that growing it takes."""
BUSY_TIMEOUT_MS = 1_000
RECORD_ERRORS = (
    sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.DataError,
    OverflowError, ValueError,
)  # fmt: skip
"""What is wrong with one record, as against the database."""
MAX_ACCEPTED = 10_000
"""Ids of intentions that the writer remembers, the last ones: an order is written once, whatever takes it."""
MAX_NS = (1 << 63) - 1
FINAL_STATUSES = ("FILLED", "CANCELLED", "REJECTED", "NOT_SENT", "SHADOW")
"""Statuses of orders about which the broker has nothing more to say."""

__all__ = ["FINAL_STATUSES", "Record", "Storage", "StorageError", "reader", "unresolved_orders"]


@dataclass(slots=True)
class _Work:
    records: tuple[Record, ...]
    done: Callable[[BaseException | None], None] | None = None


class Storage:
    """``open`` it once per process; every method may be called from the event loop's thread."""

    def __init__(self, path: Path, fallback: Path) -> None:
        self.path, self.fallback = path, fallback
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="storage-writer", daemon=True)
        self._ready = threading.Event()
        self._open_error: BaseException | None = None
        self._connection: sqlite3.Connection | None = None
        self._retry_at = 0.0
        self._impatient_s, self._impatient_until = IMPATIENT_S, 0.0
        self._batches = 0
        self._accepted: dict[str, None] = {}
        self.degraded = ""
        """Why records go to the fallback file, or did not come out of it; empty when SQLite is fine."""
        self.lost = 0
        """Records that neither place took (never intentions: those are refused instead), and such as the
        fallback file took and the database refused.
        """
        self.handled = 0
        """Batches that the writer is done with, one way or the other; stands still while the disk hangs."""

    @classmethod
    def open(cls, path: Path, fallback: Path, *, retention_days: int | None = None) -> Storage:
        """Creates or opens the database, merges the fallback file, drops old rows. Raises StorageError."""
        storage = cls(path, fallback)
        path.parent.mkdir(parents=True, exist_ok=True)
        fallback.parent.mkdir(parents=True, exist_ok=True)
        storage._retention_days = retention_days
        storage._thread.start()
        storage._ready.wait()
        if storage._open_error is not None:
            raise storage._open_error
        return storage

    _retention_days: int | None = None

    # ---- called by the runner ----

    def put(self, *records: Record) -> None:
        """Queues records and returns. A full queue counts them as lost (and ``degraded`` says so)."""
        if not self._queued(_Work(records)):
            self.lost += len(records)
            self.degraded = f"the storage queue is full ({MAX_QUEUE} records)"

    def intent(self, order: Mapping[str, Any]) -> asyncio.Future[None]:
        """Queues a new order with status INTENT and holds still for it; the future is done when it is on the
        disk, which on a healthy disk it is already when this returns.

        StorageError in the future (nothing takes it, or an order with this id was written before): the order
        must not be sent.
        """
        handoff = self.queue_intent(order)
        self.hold_still([handoff])
        return handoff.future

    def queue_intent(self, order: Mapping[str, Any]) -> Handoff:
        """As ``intent``, for who has something to do before it holds still."""
        return self._queue_up(Record("orders", {**order, "status": "INTENT"}, must_be_new=True))

    def hold_still(self, handoffs: Sequence[Handoff]) -> None:
        """Waits for intentions, but never longer than ``PATIENCE_S``; what comes later comes through the
        loop.
        """
        now = time.monotonic()
        patient = not self.degraded and now >= self._impatient_until
        until = now + PATIENCE_S if patient else now
        in_time = [handoff.wait(until - time.monotonic()) for handoff in handoffs]
        if patient and all(in_time):
            self._impatient_s = IMPATIENT_S
        elif patient:
            self._impatient_until = time.monotonic() + self._impatient_s
            self._impatient_s = min(2 * self._impatient_s, MAX_IMPATIENT_S)

    def commit(self, *records: Record) -> asyncio.Future[None]:
        """Queues records at once; the future is done when they are on the disk (StorageError: nothing took
        them).
        """
        handoff = self._queue_up(*records)
        handoff.wait(0.0)
        return handoff.future

    def _queue_up(self, *records: Record) -> Handoff:
        handoff = Handoff()
        if not self._queued(_Work(records, handoff.done)):
            handoff.done(
                StorageError(f"the storage queue is full ({MAX_QUEUE} records): the order is not sent")
            )
        return handoff

    def _queued(self, work: _Work) -> bool:
        if self._queue.qsize() >= MAX_QUEUE:
            return False
        self._queue.put(work)
        return True

    @property
    def waiting(self) -> int:
        """Pieces of work in the queue."""
        return self._queue.qsize()

    def close(self) -> None:
        """Writes what is queued and closes. Safe to call twice."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    # ---- the writer thread ----

    def _run(self) -> None:
        self._open_error = self._start()
        self._ready.set()
        if self._open_error is not None:
            if self._connection is not None:
                self._connection.close()
            return
        stop = False
        while not stop:
            batch, stop = self._take()
            try:
                if batch:
                    self._write(batch)
                elif self.degraded and time.monotonic() >= self._retry_at:
                    self._merge_back()
            except Exception as error:  # noqa: BLE001 - a dead writer would leave orders waiting for ever
                self.degraded = f"the storage writer failed: {type(error).__name__}: {error}"
                for work in batch:
                    if work.done is not None:
                        work.done(StorageError(self.degraded))
            self._tidy_log()
            self.handled += 1
        if self.degraded:
            self._merge_back()
        if self._connection is not None:
            self._connection.close()

    def _start(self) -> StorageError | None:
        try:
            self._connection = open_for_writing(self.path, BUSY_TIMEOUT_MS)
            self._prune()
            self.degraded = self._merge()
            last = self._connection.execute(
                "SELECT client_order_id FROM orders ORDER BY rowid DESC LIMIT ?", (MAX_ACCEPTED,)
            ).fetchall()
            self._accepted = dict.fromkeys(row[0] for row in reversed(last))
        except sqlite3.Error as error:
            return StorageError(
                f"cannot open the database {self.path}: {error}; check the disk and the rights, or set "
                "storage.path"
            )
        except StorageError as error:
            return error
        except Exception as error:  # noqa: BLE001 - a writer that dies unheard leaves orders waiting for ever
            return StorageError(
                f"cannot merge {self.fallback} into {self.path}: {type(error).__name__}: {error}; check its "
                "rights, or move it away (what is in it then stays out of the database)"
            )
        return None

    def _take(self) -> tuple[list[_Work], bool]:
        batch: list[_Work] = []
        try:
            work = self._queue.get(timeout=RETRY_SECONDS if self.degraded else 60.0)
            while work is not None:
                batch.append(work)
                if len(batch) >= MAX_BATCH:
                    return batch, False
                work = self._queue.get_nowait()
        except queue.Empty:
            return batch, False
        return batch, True

    def _write(self, batch: list[_Work]) -> None:
        records = [record for work in batch for record in work.records]
        if self.degraded and time.monotonic() < self._retry_at:
            refused = self._divert(records)
        else:
            try:
                told = self._merge() if self.degraded else ""
                refused = self._commit(records)
                self._remember(r for r in records if id(r) not in refused)
                self.degraded = told
            except (sqlite3.Error, OSError) as failure:
                self._degrade(failure)
                refused = self._divert(records)
        for work in batch:
            problem = next((refused[id(r)] for r in work.records if id(r) in refused), None)
            if work.done is not None:
                work.done(problem)
            elif problem is not None:
                self.lost += sum(id(r) in refused for r in work.records)
                self.degraded = self.degraded or str(problem)

    def _commit(self, records: Iterable[Record]) -> dict[int, StorageError]:
        """One transaction. Returns ``id`` of the records that had to be new and were not."""
        refused: dict[int, StorageError] = {}
        self._batches += 1
        connection = self._connection
        if connection is None:
            connection = self._connection = open_for_writing(self.path, BUSY_TIMEOUT_MS)
        try:
            connection.execute("BEGIN IMMEDIATE")
            for record in records:
                try:
                    cursor = connection.execute(*statement(record))
                except RECORD_ERRORS as error:  # this record is impossible; the others are not
                    refused[id(record)] = _impossible(record, error)
                else:
                    if record.must_be_new and cursor.rowcount == 0:
                        refused[id(record)] = _already_there(record)
            connection.execute("COMMIT")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return refused

    def _tidy_log(self) -> None:
        """Checkpoints the write-ahead log between two transactions, when nobody waits."""
        if self._batches < CHECKPOINT_BATCHES or self._connection is None or not self._queue.empty():
            return
        self._batches = 0
        with suppress(sqlite3.Error):  # readers hold it, or the disk fails: the next commit will tell
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _divert(self, records: Iterable[Record]) -> dict[int, StorageError]:
        """Into the fallback file. Returns ``id`` of the records that it did not take, and why."""
        refused: dict[int, StorageError] = {}
        taken: dict[int, Record] = {}
        new: set[str] = set()
        lines: list[str] = []
        for record in records:
            if record.must_be_new and (_key(record) in self._accepted or _key(record) in new):
                refused[id(record)] = _already_there(record)
                continue
            try:
                lines.append(storage_fallback.line(record))
            except ValueError as error:
                refused[id(record)] = _impossible(record, error)
                continue
            taken[id(record)] = record
            if record.must_be_new:
                new.add(_key(record))
        try:
            storage_fallback.append(self.fallback, lines)
        except OSError as error:
            nothing = StorageError(
                f"neither {self.path} ({self.degraded}) nor {self.fallback} ({error}) can be written"
            )
            return {**refused, **dict.fromkeys(taken, nothing)}
        self._remember(taken.values())
        return refused

    def _remember(self, records: Iterable[Record]) -> None:
        self._accepted.update((_key(record), None) for record in records if record.must_be_new)
        while len(self._accepted) > MAX_ACCEPTED:
            del self._accepted[next(iter(self._accepted))]

    def _degrade(self, error: Exception) -> None:
        if isinstance(error, sqlite3.Error):
            self.degraded = f"SQLite does not take writes: {error}"
        else:
            self.degraded = f"{self.fallback} cannot be merged: {type(error).__name__}: {error}"
        self._retry_at = time.monotonic() + RETRY_SECONDS

    def _merge_back(self) -> None:
        try:
            self.degraded = self._merge()
        except Exception as error:  # noqa: BLE001 - at the stop nobody else would close the connection
            self._degrade(error)

    def _merge(self) -> str:
        """Writes the fallback file's records in one transaction, then removes it. Returns what is wrong with
        records that the database refuses: they are kept beside the file, and so are torn lines.

        The file's digest is written with them: after a crash between commit and removal the same file is only
        removed, so that its old statuses cannot overwrite newer ones. An intention in it overwrites nothing.
        """
        if not self.fallback.exists():
            return ""
        content = self.fallback.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if self._connection is None:
            self._connection = open_for_writing(self.path, BUSY_TIMEOUT_MS)
        row = self._connection.execute("SELECT value FROM meta WHERE key='merged_fallback'").fetchone()
        told = ""
        if row is None or row[0] != digest:
            records, damaged = storage_fallback.parse(content)
            refused = self._commit([*records, Record("meta", {"key": "merged_fallback", "value": digest})])
            lost = [r for r in records if id(r) in refused and not (r.must_be_new and self._has(r))]
            if lost:
                self.lost += len(lost)
                told = (
                    f"the database refused {len(lost)} records of {self.fallback.name} "
                    f"({refused[id(lost[0])]}); they are in {self.fallback.name}.damaged"
                )
                damaged += [storage_fallback.line(record).encode() for record in lost]
            if damaged:
                storage_fallback.keep_damaged(self.fallback, damaged)
        self.fallback.unlink()
        return told

    def _has(self, intention: Record) -> bool:
        """Whether it is in the database already, whatever became of it since: the file is merged again."""
        columns = [c for c in intention.fields if c not in CHANGING]
        same = " AND ".join(f"{c} IS ?" for c in columns)
        assert self._connection is not None
        values = [intention.fields[c] for c in columns]
        found = self._connection.execute(f"SELECT 1 FROM {intention.table} WHERE {same}", values)
        return found.fetchone() is not None

    def _prune(self) -> None:
        if not self._retention_days or self._connection is None:
            return
        limit = time.time_ns() - self._retention_days * 86_400 * 1_000_000_000
        old = "(SELECT session_id FROM sessions WHERE ended_wall_ns IS NOT NULL AND ended_wall_ns < ?)"
        with self._connection as connection:
            for table in ("signals", "fills", "positions", "trips", "holds", "equity"):
                connection.execute(f"DELETE FROM {table} WHERE session_id IN {old}", (limit,))
            finals = ",".join("?" * len(FINAL_STATUSES))
            connection.execute(
                f"DELETE FROM orders WHERE session_id IN {old} AND status IN ({finals})",
                (limit, *FINAL_STATUSES),
            )


def _key(record: Record) -> str:
    return str(record.fields[KEYS[record.table][0]])


def _already_there(record: Record) -> StorageError:
    return StorageError(f"{record.table[:-1]} {_key(record)} was written before; it is not sent again")


def _impossible(record: Record, error: Exception) -> StorageError:
    return StorageError(f"a row of {record.table} cannot be written: {error}")


@contextmanager
def reader(path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection with rows by name. StorageError where there is no database."""
    if not path.exists():
        raise StorageError(f"no database {path}; it appears with the first run of `live-runner --model prod`")
    # mode=ro, not immutable: the -wal file beside it must be honoured.
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_MS / 1000)
    connection.row_factory = sqlite3.Row
    try:
        require_current(connection, path)
        yield connection
    except sqlite3.Error as error:
        raise StorageError(f"cannot read {path}: {error}") from None
    finally:
        connection.close()


def unresolved_orders(path: Path, *, since_ns: int | None = None) -> list[dict[str, Any]]:
    """Orders about which the broker may know more than we do, oldest first, each with the ``account`` of its
    session.

    These are all orders whose status is not final, and, with ``since_ns`` (engine time of the checkpoint that
    was restored), also the finished ones that changed later: the checkpoint does not know their deals.
    """
    finals = ",".join("?" * len(FINAL_STATUSES))
    later = MAX_NS if since_ns is None else since_ns
    with reader(path) as connection:
        rows = connection.execute(
            f"""SELECT o.*, COALESCE(s.account, '') AS account FROM orders o
                LEFT JOIN sessions s ON s.session_id = o.session_id
                WHERE o.status NOT IN ({finals})
                OR (o.updated_ns >= ? AND o.status IN ('FILLED', 'CANCELLED'))
                ORDER BY o.created_ns, o.client_order_id""",
            (*FINAL_STATUSES, later),
        ).fetchall()
    return [dict(row) for row in rows]
