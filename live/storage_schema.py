"""The tables of the runner's database, and one way to write a row.

Statements are upserts keyed by natural keys, so writing a record twice (a merge after a crash) changes
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from market.errors import ScalperError

SCHEMA_VERSION = 2

SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE sessions(session_id TEXT PRIMARY KEY, session_key TEXT, mode TEXT, account TEXT,
    alias TEXT, model_version TEXT,
    manifest_sha256 TEXT, watermark TEXT, started_wall_ns INTEGER, ended_wall_ns INTEGER, summary TEXT,
    code_commit TEXT, config TEXT);
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
CREATE INDEX orders_by_trace ON orders(trace_id);
CREATE INDEX orders_by_exchange_id ON orders(exchange_order_id);
"""

MIGRATIONS: dict[int, tuple[str, ...]] = {
    1: (
        "ALTER TABLE sessions ADD COLUMN code_commit TEXT",
        "ALTER TABLE sessions ADD COLUMN config TEXT",
        "CREATE INDEX orders_by_trace ON orders(trace_id)",
        "CREATE INDEX orders_by_exchange_id ON orders(exchange_order_id)",
    ),
}
"""What turns a database of a version into one of the next; a step that was released never changes."""

COLUMNS: dict[str, tuple[str, ...]] = {
    "meta": ("key", "value"),
    "sessions": ("session_id", "session_key", "mode", "account", "alias", "model_version",
                 "manifest_sha256", "watermark",
                 "started_wall_ns", "ended_wall_ns", "summary", "code_commit", "config"),
    "signals": ("session_id", "trace_id", "now_ns", "ticker", "side", "source", "p_down_e6",
                "p_flat_e6", "p_up_e6",
                "expected_move_millibps", "cost_millibps", "edge_millibps", "confidence_e6", "outcome"),
    "orders": ("client_order_id", "session_id", "trace_id", "ticker", "side", "lots", "order_type",
               "price_ticks",
               "tif", "reduce_only", "reason", "status", "exchange_order_id", "lots_executed", "created_ns",
               "updated_ns", "note"),
    "fills": ("client_order_id", "trade_id", "session_id", "ticker", "side", "price_ticks", "lots",
              "fee_nano",
              "realised_nano", "now_ns"),
    "positions": ("session_id", "ticker", "lots", "cost_nano", "stop_ticks", "realised_nano", "fees_nano",
                  "updated_ns"),
    "trips": ("session_id", "trace_id", "ticker", "side", "lots", "entry_ns", "exit_ns", "gross_nano",
              "fees_nano",
              "net_nano", "exit_reason"),
    "holds": ("session_id", "name", "scope", "raised_ns", "severity", "reason", "lifted_ns"),
    "equity": ("session_id", "now_ns", "gross_nano", "fees_nano", "net_nano"),
}  # fmt: skip
KEYS: dict[str, tuple[str, ...]] = {
    "meta": ("key",), "sessions": ("session_id",), "signals": ("session_id", "trace_id"),
    "orders": ("client_order_id",), "fills": ("client_order_id", "trade_id"),
    "positions": ("session_id", "ticker"),
    "trips": ("session_id", "ticker", "entry_ns", "exit_ns"),
    "holds": ("session_id", "name", "scope", "raised_ns"), "equity": ("session_id", "now_ns"),
}  # fmt: skip
CHANGING = frozenset({"status", "exchange_order_id", "lots_executed", "updated_ns", "note"})
"""What becomes of an order after its intention; the other columns stay."""


class StorageError(ScalperError):
    """Neither SQLite nor the fallback file takes a record, or the database is damaged or of another
    version.
    """


@dataclass(frozen=True, slots=True)
class Record:
    """One row to insert, or (where the key exists) the columns to change. ``fields`` must hold the key."""

    table: str
    fields: Mapping[str, Any]
    must_be_new: bool = False
    """Refuse the record (StorageError to its writer) if its key exists: an order is written before it is
    sent, once.
    """


def statement(record: Record) -> tuple[str, list[Any]]:
    """SQL and its values. Raises ValueError for a column that the table does not have."""
    sql, columns = _sql(record.table, tuple(record.fields), record.must_be_new)
    return sql, [record.fields[c] for c in columns]


@cache
def _sql(table: str, columns: tuple[str, ...], must_be_new: bool) -> tuple[str, tuple[str, ...]]:
    """The statement, and the columns whose values it takes, in their order."""
    unknown = set(columns) - set(COLUMNS[table])
    if unknown:
        raise ValueError(f"{table} has no column {', '.join(sorted(unknown))}")
    keys = KEYS[table]
    if table == "orders" and "lots" not in columns:
        # An update of an order that must exist: an intention is never invented from an update.
        changed = tuple(c for c in columns if c not in keys)
        sets = ", ".join(f"{c}=?" for c in changed)
        return f"UPDATE orders SET {sets} WHERE client_order_id=?", (*changed, "client_order_id")
    replaced = [] if must_be_new else [c for c in columns if c not in keys]
    action = "UPDATE SET " + ", ".join(f"{c}=excluded.{c}" for c in replaced) if replaced else "NOTHING"
    places = ", ".join("?" * len(columns))
    return (
        f"INSERT INTO {table}({', '.join(columns)}) VALUES({places}) ON CONFLICT({', '.join(keys)}) "
        f"DO {action}",
        columns,
    )
