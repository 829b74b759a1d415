"""What a start takes over from earlier sessions: the checkpoint, and orders whose end is not known.

A checkpoint speaks of one account; every embedded exchange is another account, because its orders and
positions end with its process. A damaged checkpoint is never silently replaced by a fresh start: it is set
aside and the runner starts halted until a person resumes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from live import checkpoint
from live.core.commands import Role
from live.core.engine import MAX_AHEAD_NS, Engine
from live.core.errors import BadSnapshot
from live.core.events import Event, KnownOrder
from live.storage import FINAL_STATUSES, Record, Storage, unresolved_orders
from market.types import SECOND_NS

AuditFn = Callable[..., None]

MAX_WAIT_NS = 3600 * SECOND_NS
"""A clock further behind its checkpoint is not waited for: a person must look which of the two is wrong."""
WAY_OUT = (
    "Put that right (the machine's clock, the version of the program, the list of instruments) and start "
    "again. Where that cannot be: `live-runner halt` first, then move the file away, compare orders and "
    "positions with the broker's terminal, start, `live-runner resume`. Holds, positions and the day's loss "
    "go with the file: without the halt the next start would trade as if the day had had no loss"
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """``body`` is what ``Engine.restore`` takes, ``pipeline`` what ``SignalPipeline.restore`` takes; ``halt``
    is why the runner must start halted.
    """

    body: dict[str, Any] | None
    halt: str = ""
    pipeline: dict[str, Any] | None = None


def read_checkpoint(path: Path, account: str, audit: AuditFn) -> Checkpoint:
    """The checkpoint of ``account`` in ``path``, or none. Never raises for a damaged one."""
    try:
        content = checkpoint.load(path)
        if content is not None:
            _look_inside(path, content)
    except checkpoint.CheckpointError as error:
        kept = checkpoint.set_aside(path)
        audit("SESSION", "CHECKPOINT_DAMAGED", reason=str(error), kept=kept.name)
        return Checkpoint(
            None,
            f"the checkpoint was damaged (kept as {kept.name}): look at positions, orders and the day's "
            "loss, "
            "then `live-runner resume`",
        )
    if content is None:
        return Checkpoint(None)
    if content["account"] != account:
        audit("SESSION", "CHECKPOINT_OF_ANOTHER_ACCOUNT", found=content["account"], wanted=account)
        return Checkpoint(None)
    audit("SESSION", "CHECKPOINT_FOUND", session=content["session_id"], now_ns=content["engine"]["now_ns"])
    return Checkpoint(content["engine"], pipeline=content.get("pipeline"))


def _look_inside(path: Path, content: dict[str, Any]) -> None:
    """Raises CheckpointError for a whole file that lacks what every checkpoint has."""
    engine = content.get("engine")
    missing = [name for name in ("account", "session_id") if not isinstance(content.get(name), str)]
    if missing or not isinstance(engine, dict) or type(engine.get("now_ns")) is not int:
        what = ", ".join(missing) or "the engine's state"
        raise checkpoint.CheckpointError(f"the checkpoint {path} was not written by this program: no {what}")


def wait_ns(body: dict[str, Any], now_ns: int) -> int:
    """How long until the clock has come near enough to the checkpoint ``body``; 0: no wait is needed, or
    none short enough would help (``restore`` refuses it then).
    """
    excess_ns: int = body["now_ns"] - now_ns - MAX_AHEAD_NS
    return excess_ns if 0 < excess_ns <= MAX_WAIT_NS else 0


def restore(engine: Engine, path: Path, body: dict[str, Any], now_ns: int | None) -> None:
    """``Engine.restore`` with the file's name and the way out in the error.

    ``now_ns``: the machine's time; None on a paper market, whose time is not known before its first ping.
    """
    try:
        engine.restore(body, now_ns)
    except BadSnapshot as error:
        raise BadSnapshot(f"{path} cannot be restored: {error}. {WAY_OUT}") from None


def adopt_orders(
    storage: Storage,
    account: str,
    tickers: tuple[str, ...],
    since_ns: int | None,
    now_ns: int,
    *,
    post: Callable[[Event], object],
    remember: Callable[[str, str], None],
    adopt_stop: Callable[[dict[str, Any]], None],
    audit: AuditFn,
) -> int:
    """Hands the engine every order on disk that the checkpoint may not know; it asks the broker about each.

    Returns how many. They are never sent again: their ids stay their own.
    """
    adopted = 0
    for row in unresolved_orders(storage.path, since_ns=since_ns):
        key = row["client_order_id"]
        if row["account"] != account:
            _leave_alone(storage, row)
        elif row["ticker"] not in tickers:
            audit(
                "ORDER",
                "ORDER_OF_ANOTHER_INSTRUMENT",
                client_order_id=key,
                ticker=row["ticker"],
                status=row["status"],
            )
        else:
            remember(key, row["exchange_order_id"])
            if row["order_type"] == "stop":
                adopt_stop(row)
            role: Role = "STOP" if row["order_type"] == "stop" else "EXIT" if row["reduce_only"] else "ENTRY"
            post(
                KnownOrder(
                    now_ns,
                    key,
                    row["trace_id"],
                    row["ticker"],
                    row["side"],
                    row["lots"],
                    row["order_type"],
                    row["price_ticks"],
                    role,
                    row["reason"],
                    row["created_ns"],
                )
            )
            audit("ORDER", "ORDER_ADOPTED", client_order_id=key, ticker=row["ticker"], status=row["status"])
            adopted += 1
    return adopted


def _leave_alone(storage: Storage, row: dict[str, Any]) -> None:
    """Orders of a paper exchange that is gone can never be asked about again; another real account's stay as
    they are.
    """
    if row["account"].startswith("paper:") and row["status"] not in FINAL_STATUSES:
        fields = {
            "client_order_id": row["client_order_id"],
            "status": "NOT_SENT",
            "note": f"was {row['status']} at a paper exchange that is gone",
        }
        storage.put(Record("orders", fields))
