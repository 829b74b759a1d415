"""The part of ``runtime/status.json`` that shows the market and our place in it.

Taken once a second from the running parts, in the event loop's thread and without copying more than is shown;
nothing here is called while a book is being handled.
"""

from __future__ import annotations

import math
from typing import Any

from features.schema import WARMUP
from live.clock import MarketClock
from live.core.books import MILLIBPS
from live.core.engine import Engine
from live.ledger import Ledger
from live.loop import EngineLoop
from market.types import SECOND_NS

LEVELS = 10
MAX_WORKING = 50


def view(loop: EngineLoop, clock: MarketClock) -> dict[str, Any]:
    """Instruments with the age of their data, books, positions with stops, working orders, limits."""
    engine, now_ns = loop.engine, clock.now_ns()
    return {
        "speed": clock.speed,
        "instruments": {t: _instrument(loop, t, now_ns, clock) for t in engine.instruments},
        "books": {t: book for t in engine.instruments if (book := _book(loop.ledger, t))},
        "positions": _positions(engine, loop.ledger),
        "working": _working(engine),
        "limits": _limits(engine),
        "day": {
            "realised_nano": engine.risk.day_realised_nano,
            "loss_limit_nano": engine.config.risk.day_loss_nano,
            "consecutive_losses": engine.risk.consecutive_losses,
        },
        "valid_until_ns": engine.model.valid_until_ns,
        "refusals": loop.refusals,
    }


def _instrument(loop: EngineLoop, ticker: str, now_ns: int, clock: MarketClock) -> dict[str, Any]:
    engine, book = loop.engine, loop.ledger.last_books.get(ticker)
    instrument, status = engine.instruments[ticker], loop.pipeline.status.get(ticker, WARMUP)
    age_s = None
    spread = None
    if book is not None:
        age_s = round(max(0.0, clock.wall_seconds((now_ns - book.now_ns) / SECOND_NS)), 3)
        if book.bid_px and book.ask_px:
            bid_ticks, ask_ticks = book.bid_px[0], book.ask_px[0]
            spread = 2 * (ask_ticks - bid_ticks) * MILLIBPS // (bid_ticks + ask_ticks)
    return {
        "name": instrument.name,
        "tick_nano": instrument.tick_nano,
        "tick_value_nano": instrument.tick_value_nano,
        "book_age_s": age_s,
        "spread_millibps": spread,
        "trusted": not engine.quarantined(ticker),
        "threshold_millibps": engine.model.threshold_millibps.get(ticker),
        "rotated_out": ticker in engine.rotated_out,
        "warming_up": bool(status & WARMUP),
    }


def _book(ledger: Ledger, ticker: str) -> dict[str, Any] | None:
    book = ledger.last_books.get(ticker)
    if book is None:
        return None
    return {
        "now_ns": book.now_ns,
        "bid": [list(level) for level in zip(book.bid_px[:LEVELS], book.bid_qty[:LEVELS], strict=True)],
        "ask": [list(level) for level in zip(book.ask_px[:LEVELS], book.ask_qty[:LEVELS], strict=True)],
    }


def _positions(engine: Engine, ledger: Ledger) -> dict[str, dict[str, Any]]:
    stops = engine.stops
    rows = ledger.open_positions()
    return {
        ticker: {
            **row,
            "stop_ticks": stops.get(ticker),
            "unrealised_nano": ledger.unrealised_of(ticker),
            "entry_ticks": _entry_ticks(engine, ticker, row),
        }
        for ticker, row in rows.items()
    }


def _entry_ticks(engine: Engine, ticker: str, row: dict[str, Any]) -> float | None:
    """The mean price paid, in ticks; for the eyes only."""
    worth = row["lots"] * engine.instruments[ticker].tick_value_nano
    price = row["cost_nano"] / worth if worth else math.nan
    return round(price, 2) if math.isfinite(price) else None


def _working(engine: Engine) -> list[dict[str, Any]]:
    return [
        {
            "client_order_id": o.client_order_id, "ticker": o.ticker, "side": o.side, "lots": o.lots,
            "lots_filled": o.lots_filled, "order_type": o.order_type, "price_ticks": o.price_ticks,
            "role": o.role, "reason": o.reason, "state": o.state, "placed_ns": o.placed_ns,
        }
        for o in engine.orders.all_working()[:MAX_WORKING]
    ]  # fmt: skip


def _limits(engine: Engine) -> dict[str, Any]:
    config = engine.config
    return {
        "latency_us": dict(config.latency.thresholds_us),
        "book_age_s": config.books.max_age_ns / SECOND_NS,
        "spread_millibps": config.monitoring.spread_alert_millibps,
        "max_position_lots": config.risk.max_position_lots,
    }
