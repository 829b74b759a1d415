"""`live-runner explain ORDER`: everything that led to one order, found again from what was written down.

The order's row names its session and its trace; the trace names the signal, its siblings and the lines of
the audit; the session names the model, the code and the configuration; the session's journal, replayed up to
that moment, gives back the book, the features and the scores; the bundle's manifest names data and code of
the training. What cannot be found is said in ``missing``, never left out silently.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from live import explain_replay, registry
from live.audit import read_all
from live.config_schema import RunnerConfig
from live.storage import reader
from market.errors import ScalperError
from market.types import Instrument

MIN_PREFIX = 4
MAX_AUDIT_LINES = 100
OF_THE_MANIFEST = (
    "data_hash", "code_hash", "feature_schema_hash", "watermark", "horizon_ns", "trained_from_ns",
    "trained_to_ns", "live_from_ns", "valid_until_ns", "seeds", "params",
)  # fmt: skip


class UnknownOrder(ScalperError):
    """No order, or more than one, has that id."""


def explain(
    config: RunnerConfig, order_id: str, *, bundle: Path | None = None, replay: bool = True
) -> dict[str, Any]:
    """The whole story of one order, JSON-able. ``replay`` False: no features (fast). Raises ScalperError."""
    runtime, missing = Path(config.system.runtime_dir), []
    with reader(Path(config.storage.path)) as connection:
        order = _find(connection, order_id)
        session_id, trace = order["session_id"], order["trace_id"]
        session = _one(connection, "SELECT * FROM sessions WHERE session_id=?", session_id) or {}
        signal = _one(
            connection, "SELECT * FROM signals WHERE session_id=? AND trace_id=?", session_id, trace
        )
        fills = _all(
            connection,
            "SELECT * FROM fills WHERE client_order_id=? ORDER BY now_ns",
            order["client_order_id"],
        )
        siblings = _all(
            connection,
            "SELECT client_order_id, order_type, side, lots, status, reason FROM orders "
            "WHERE session_id=? AND trace_id=? AND client_order_id<>? ORDER BY created_ns",
            session_id, trace, order["client_order_id"],
        )  # fmt: skip
        trips = _all(
            connection, "SELECT * FROM trips WHERE session_id=? AND trace_id=? ORDER BY exit_ns",
            session_id, trace,
        )  # fmt: skip
    if signal is None:
        missing.append(f"no signal has trace {trace}: the order was not caused by one ({order['reason']})")
    settings = session.pop("config", None)
    session.pop("summary", None)
    moment = explain_replay.moment(
        runtime / "session" / str(session_id), order["client_order_id"], trace, missing,
        pulled=runtime / "models", bundle=bundle, features=replay,
    )  # fmt: skip
    story: dict[str, Any] = {
        "order": order,
        "session": session,
        "signal": signal,
        "moment": moment,
        "plan": _plan(runtime, order, trace),
        "orders_of_the_same_signal": siblings,
        "fills": fills,
        "round_trips": trips,
        "model": _model(config, session, moment, runtime, bundle, missing),
        "code_commit": session.get("code_commit") or "",
        "config": json.loads(settings) if settings else None,
        "audit": _audit(runtime, order["client_order_id"], trace),
        "missing": missing,
    }
    story["costs"] = _costs(order, fills, moment, story["plan"])
    if not story["code_commit"]:
        missing.append("the session did not write down its code commit (it ran before that was kept)")
    return story


# ---- the database


def _find(connection: sqlite3.Connection, order_id: str) -> dict[str, Any]:
    wanted = order_id.strip()
    rows = _all(
        connection, "SELECT * FROM orders WHERE client_order_id=? OR exchange_order_id=?", wanted, wanted
    )
    if not rows and len(wanted) >= MIN_PREFIX:
        rows = _all(
            connection, "SELECT * FROM orders WHERE substr(client_order_id, 1, ?)=? LIMIT 10",
            len(wanted), wanted,
        )  # fmt: skip
    if not rows:
        raise UnknownOrder(
            f"no order has the id {wanted!r} (client id, its first {MIN_PREFIX} characters or more, or the "
            "broker's id); `live-runner audit show --event ORDER_PLACED` lists the last ones"
        )
    if len(rows) > 1:
        ids = ", ".join(str(row["client_order_id"]) for row in rows)
        raise UnknownOrder(f"{wanted!r} fits several orders: {ids}; write more of the id")
    return rows[0]


def _all(connection: sqlite3.Connection, sql: str, *values: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(sql, values)]


def _one(connection: sqlite3.Connection, sql: str, *values: Any) -> dict[str, Any] | None:
    rows = _all(connection, sql, *values)
    return rows[0] if rows else None


# ---- audit


def _audit(runtime: Path, client_order_id: str, trace: str) -> list[dict[str, Any]]:
    lines = []
    for line in read_all(runtime / "audit.log"):
        if line.trace == trace or line.fields.get("client_order_id") == client_order_id:
            lines.append(
                {"wall": line.wall, "seq": line.seq, "tag": line.tag, "event": line.event, **line.fields}
            )
    return lines[:MAX_AUDIT_LINES]


def _plan(runtime: Path, order: dict[str, Any], trace: str) -> dict[str, Any] | None:
    """What risk allowed, from the audit's ORDER_PLAN; None for an order that follows no plan (exits)."""
    if order["reduce_only"]:
        return None
    for line in read_all(runtime / "audit.log"):
        if line.event == "ORDER_PLAN" and line.trace == trace:
            numbers = {k: int(v) for k, v in line.fields.items() if v.lstrip("-").isdigit()}
            return {**line.fields, **numbers}
    return None


# ---- the model


def _model(
    config: RunnerConfig,
    session: dict[str, Any],
    moment: dict[str, Any],
    runtime: Path,
    bundle: Path | None,
    missing: list[str],
) -> dict[str, Any]:
    sha = str(moment.get("manifest_sha256") or session.get("manifest_sha256") or "")
    found: dict[str, Any] = {
        "alias": session.get("alias"), "version": session.get("model_version"), "manifest_sha256": sha,
        "swapped_during_session": bool(sha and sha != session.get("manifest_sha256")),
    }  # fmt: skip
    manifest = (bundle or runtime / "models" / sha) / "manifest.json"
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        missing.append(f"the bundle's manifest cannot be read ({error}); name the folder with --bundle")
    else:
        found |= {name: content.get(name) for name in OF_THE_MANIFEST}
    if not found["swapped_during_session"]:
        _registry(config, found, missing)
    return found


def _registry(config: RunnerConfig, found: dict[str, Any], missing: list[str]) -> None:
    """The training's run, by the version that the session wrote down."""
    version = str(found["version"] or "")
    if not version.isdecimal():
        missing.append("the model came from a folder, not from a registry: it has no run")
        return
    try:
        resolved = registry.resolve(config.model.registry, config.model.name, f"prod@{version}")
    except ScalperError as error:
        missing.append(f"the registry does not tell the run of version {version}: {error}")
        return
    found["run_id"] = resolved.run
    if resolved.manifest_sha256 and resolved.manifest_sha256 != found["manifest_sha256"]:
        missing.append(
            f"version {version} of the registry is another bundle now ({resolved.manifest_sha256[:12]})"
        )


# ---- money


def _costs(
    order: dict[str, Any],
    fills: list[dict[str, Any]],
    moment: dict[str, Any],
    plan: dict[str, Any] | None,
) -> dict[str, Any] | None:
    """What the order paid, in nano-roubles and ticks; positive is against us. None without a fill."""
    if not fills:
        return None
    lots = sum(fill["lots"] for fill in fills)
    side, paid = int(order["side"]), sum(fill["lots"] * fill["price_ticks"] for fill in fills)
    costs: dict[str, Any] = {
        "lots": lots,
        "average_ticks": round(paid / lots, 4),
        "fee_nano": sum(fill["fee_nano"] for fill in fills),
        "realised_nano": sum(fill["realised_nano"] for fill in fills),
    }
    instrument = Instrument.from_dict(moment["instrument"]) if moment.get("instrument") else None
    book = moment.get("book")
    if instrument is not None:
        value = instrument.tick_value_nano
        if plan is not None and "entry_ticks" in plan:
            ticks = side * (paid / lots - plan["entry_ticks"])
            costs["slippage_ticks"] = round(ticks, 4)
            costs["slippage_nano"] = round(ticks * lots * value)
        if book and book["bids"] and book["asks"]:
            mid = (book["bids"][0][0] + book["asks"][0][0]) / 2
            costs["over_mid_ticks"] = round(side * (paid / lots - mid), 4)
            costs["over_mid_nano"] = round(side * (paid / lots - mid) * lots * value)
    return costs
