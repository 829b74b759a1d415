"""The moment of an order, from its session's journal: book, features, scores, plan, positions, holds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from features.schema import NAMES
from live import replay
from live.core import commands as cmd
from live.core import events as ev
from live.core.engine import Engine
from live.journal import JournalReader
from live.pipeline import SignalPipeline
from live.why import unusual_inputs, votes
from market.errors import ScalperError
from market.types import SECOND_NS
from models.bundle import Bundle

LEVELS = 10
AFTER_S = 30


class _Enough(Exception):
    """The replay has seen what was wanted."""


def moment(
    folder: Path,
    client_order_id: str,
    trace: str,
    missing: list[str],
    *,
    pulled: Path,
    bundle: Path | None = None,
    features: bool = True,
) -> dict[str, Any]:
    """What the journal in ``folder`` tells; what it does not is added to ``missing``."""
    try:
        found = _from_journal(folder, client_order_id, trace)
    except ScalperError as error:
        missing.append(f"the journal of the session cannot be read: {error}")
        return {}
    if not found.get("decided_ns"):
        missing.append("the journal does not hold the order (it was cut short, or adopted from before)")
        return found
    if features and found.get("scores"):
        try:
            found |= _features(folder, trace, pulled, bundle)
        except ScalperError as error:
            missing.append(f"the features cannot be computed again: {error}")
        if "features" not in found and not missing:
            missing.append("the replay did not come to the same signal; `live-runner replay` says why")
    return found


def _from_journal(folder: Path, client_order_id: str, trace: str) -> dict[str, Any]:
    """Book, scores, order and the mids after it, without computing anything."""
    reader = JournalReader(folder)
    header = reader.header
    books: dict[str, ev.Book] = {}
    found: dict[str, Any] = {"manifest_sha256": header.manifest_sha256}
    last: Any = None
    ticker, until_ns = "", 0
    for record in reader:
        if isinstance(record, ev.Book):
            books[record.ticker] = record
            if until_ns and record.ticker == ticker:
                _note_mid(found, record)
        elif isinstance(record, ev.ModelSwapped) and not until_ns:
            found["manifest_sha256"] = record.manifest_sha256
        elif isinstance(record, ev.Scores | ev.InferenceFailed) and record.trace_id == trace:
            found["scores"] = _scores(record)
            found["signal_book"] = _book(books.get(record.ticker))
        elif isinstance(record, cmd.PlaceOrder) and record.client_order_id == client_order_id:
            ticker, until_ns = record.ticker, last.now_ns + AFTER_S * SECOND_NS
            found |= {
                "decided_ns": last.now_ns, "caused_by": type(last).__name__,
                "book": _book(books.get(ticker)), "mid_after": {},
                "instrument": header.instruments[ticker].to_dict(),
            }  # fmt: skip
        if not isinstance(record, cmd.PlaceOrder | cmd.CancelOrder | cmd.QueryOrder):
            last = record
            if until_ns and record.now_ns > until_ns:
                break
    return found


def _note_mid(found: dict[str, Any], book: ev.Book) -> None:
    """The first mid at or after 1, 5 and 30 seconds."""
    if not book.bid_px or not book.ask_px:
        return
    for seconds in (1, 5, AFTER_S):
        if book.now_ns >= found["decided_ns"] + seconds * SECOND_NS:
            found["mid_after"].setdefault(f"{seconds}s", (book.bid_px[0] + book.ask_px[0]) / 2)


def _scores(record: ev.Scores | ev.InferenceFailed) -> dict[str, Any]:
    if isinstance(record, ev.InferenceFailed):
        return {"now_ns": record.now_ns, "failed": record.error}
    return {
        "now_ns": record.now_ns, "p_e6": list(record.p_e6), "source": record.source,
        "expected_move_millibps": record.expected_move_millibps,
    }  # fmt: skip


def _book(book: ev.Book | None) -> dict[str, Any] | None:
    if book is None:
        return None
    return {
        "now_ns": book.now_ns, "exch_ns": book.exch_ns, "consistent": book.consistent,
        "bids": [list(level) for level in zip(book.bid_px, book.bid_qty, strict=True)][:LEVELS],
        "asks": [list(level) for level in zip(book.ask_px, book.ask_qty, strict=True)][:LEVELS],
    }  # fmt: skip


def _features(folder: Path, trace: str, pulled: Path, bundle: Path | None) -> dict[str, Any]:
    """The feature row, the members' votes and the engine's state at the signal, computed again."""
    found: dict[str, Any] = {}

    def watch(event: ev.Event, commands: list[cmd.Command], engine: Engine, pipeline: SignalPipeline) -> None:
        for command in commands:
            if isinstance(command, cmd.RecordSignal) and command.trace_id == trace:
                found.update(_at_signal(command.ticker, engine, pipeline))
                raise _Enough

    sha = JournalReader(folder).header.manifest_sha256
    start = Bundle.load(bundle or pulled / sha, None)
    others = {
        p.name: Bundle.load(p, None)
        for p in (pulled.iterdir() if pulled.is_dir() else ())
        if p.is_dir() and not p.name.startswith(".") and p.name != start.sha256
    }
    try:
        replay.run(folder, start, other_bundles=others, watch=watch)
    except _Enough:
        pass
    return found


def _at_signal(ticker: str, engine: Engine, pipeline: SignalPipeline) -> dict[str, Any]:
    answer, row = pipeline.last(ticker)
    ensemble = pipeline.ensemble
    scaler = getattr(getattr(ensemble, "members", None), "scaler", None)
    return {
        "features": {
            name: (round(float(x), 6) if math.isfinite(x) else None)
            for name, x in zip(NAMES, row, strict=True)
        },
        "unusual_inputs": unusual_inputs(row, scaler),
        "votes": votes(answer, getattr(ensemble, "weights", {})),
        "positions": {t: p.lots for t, p in engine.positions.items() if p.lots},
        "holds": [hold.to_dict() for hold in engine.holds],
        "day_realised_nano": engine.risk.day_realised_nano,
    }
