"""Whatever happens, in whatever order: rules that are never broken, and the same answer every time."""

from __future__ import annotations

import json
from typing import Any

from core_bench import KEY, SECOND_NS, START_NS, Bench, config, instrument, model, of
from hypothesis import given, settings
from hypothesis import strategies as st

from live.core import commands as cmd
from live.core import events as ev
from live.core.config import ExecutionConfig, RiskConfig
from live.core.engine import Engine

TICKERS = ("AAA", "BBB")
RISK = RiskConfig(
    atr_min_bars=1, max_position_lots=20, max_orders_per_minute=7, max_daily_loss_nano=2 * 10**11,
    max_consecutive_losses=3, loss_cooldown_ns=20 * SECOND_NS, reject_streak_limit=3,
    reject_pause_ns=20 * SECOND_NS,
)  # fmt: skip

COMMON = ("book", "score", "fill") * 10
RARE = (
    "part", "cancel", "reject", "unknown", "late", "timer", "timer", "override", "drift", "swap", "vix",
    "resume", "down", "up", "reconcile", "reconcile", "halt", "open", "stale", "wrong",
)  # fmt: skip
STEP = st.tuples(
    st.sampled_from(COMMON + RARE),
    st.sampled_from(TICKERS),
    st.integers(-60, 60),
    st.sampled_from((0, 10**8, 10**9, 7 * 10**9)),
)
STEPS = st.lists(STEP, min_size=20, max_size=90)


class Fuzz(Bench):
    """A bench with a broker that answers at random but keeps true books."""

    def step(self, what: str, ticker: str, x: int, after_ns: int) -> list[cmd.Command]:
        self.now_ns += after_ns
        working = self.engine.orders.working(ticker)
        order: Any = working[x % len(working)] if working else None
        if what in ("fill", "part", "cancel", "reject", "unknown", "wrong") and order is None:
            what = "book"
        left = 0 if order is None else order.lots - order.lots_filled
        match what:
            case "book":
                return self.book(ticker, bid=29_999 + x, after_ns=0)
            case "stale":
                return self.book(ticker, after_ns=0, consistent=False)
            case "score":
                return self.score(x * 1_000, ticker, after_ns=0)
            case "fill" | "part" if left > 0:
                lots = left if what == "fill" else max(1, left // 2)
                self.trades += 1
                done = order.lots_filled + lots
                status = "FILLED" if done == order.lots else "PARTIAL"
                return self.update(
                    order, status, done, [ev.FillInfo(f"t{self.trades}", 30_000 + x, lots, 10**6)]
                )
            case "cancel" | "reject" | "unknown" | "wrong":
                status = {
                    "cancel": "CANCELLED",
                    "reject": "REJECTED",
                    "unknown": "UNKNOWN",
                    "wrong": "FILLED",
                }[what]
                return self.update(order, status, order.lots_filled if what == "cancel" else 0)
            case "override":
                return self.tell(ev.Override, x > 40, "fuzz", after_ns=0)
            case "drift":
                return self.tell(ev.Drift, "psi", x, x > 40, after_ns=0)
            case "swap":
                return self.tell(ev.ModelSwapped, f"m{x}", model().to_dict(), after_ns=0)
            case "vix":
                return self.tell(ev.VolatilityIndex, 3_960 + x, after_ns=0)
            case "resume":
                return self.tell(ev.Resume, (), "fuzz", after_ns=0)
            case "down" | "up":
                return self.tell(ev.Connection, what == "up" or x < 30, after_ns=0)
            case "reconcile":
                return self.tell(ev.Reconciled, {t: self.lots(t) + (x > 55) for t in TICKERS}, after_ns=0)
            case "halt" | "open":
                return self.tell(ev.TradingStatus, ticker, what == "open" or x < 30, after_ns=0)
        return self.tell(ev.Timer, after_ns=0)


def fresh() -> Fuzz:
    settings_ = config(risk=RISK, execution=ExecutionConfig(exchange_stop=True))
    bench = Fuzz(Engine(settings_, {t: instrument(t) for t in TICKERS}, model(), KEY))
    bench.tell(ev.Reconciled, {}, after_ns=0)
    for step in range(8):
        for ticker in TICKERS:
            bench.book(ticker, bid=29_999 + step % 3, after_ns=0)
        bench.now_ns += 30 * SECOND_NS
    return bench


@given(STEPS)
@settings(max_examples=70, deadline=None)
def test_the_rules_hold_whatever_happens(steps: list[tuple[str, str, int, int]]) -> None:
    bench, twin = fresh(), fresh()
    placed: list[int] = []
    for step in steps:
        before = {t: (bench.lots(t), list(bench.engine.orders.working(t))) for t in TICKERS}
        commands = bench.step(*step)
        assert commands == twin.step(*step)  # the same events, the same commands
        for order in of(commands, cmd.PlaceOrder):
            # no order under a hold, save reducing ones where the hold lets them
            assert bench.engine.holds.blocking(order.ticker, reduces=order.reduce_only) is None
            lots, working = before[order.ticker]
            if order.reduce_only:
                position = bench.lots(order.ticker)
                assert order.side * position < 0 and order.lots == abs(position)
                closing = [o for o in bench.engine.orders.working(order.ticker) if o.role != "ENTRY"]
                assert len(closing) == 1
            else:
                assert lots == 0 and not working
            recent = [ns for ns in placed if ns > bench.now_ns - 60 * SECOND_NS]
            assert order.reduce_only or len(recent) < RISK.max_orders_per_minute
            placed.append(bench.now_ns)
        entries = [o for o in of(commands, cmd.PlaceOrder) if not o.reduce_only]
        assert sum(o.lots for o in entries) <= RISK.max_position_lots
    for ticker in TICKERS:
        assert bench.lots(ticker) == sum(
            c.side * c.lots for c in of(bench.log, cmd.FillBooked) if c.ticker == ticker
        )
    ids = [o.client_order_id for o in bench.orders()]
    assert len(set(ids)) == len(ids)
    result = sum(c.net_nano for c in of(bench.log, cmd.TripClosed))
    if not any(bench.lots(t) for t in TICKERS):
        assert result == sum(p.realised_nano - p.fees_nano for p in bench.engine.positions.values())
    assert json.loads(json.dumps(bench.engine.snapshot()))["now_ns"] == bench.now_ns > START_NS


@given(STEPS, st.integers(0, 89))
@settings(max_examples=40, deadline=None)
def test_a_restart_at_any_point_keeps_positions_and_stops(
    steps: list[tuple[str, str, int, int]], cut: int
) -> None:
    bench = fresh()
    for step in steps[:cut]:
        bench.step(*step)
    snapshot = json.loads(json.dumps(bench.engine.snapshot()))
    engine = Engine(bench.engine.config, bench.engine.instruments, bench.engine.model, KEY.replace("1", "2"))
    engine.restore(snapshot, bench.now_ns)
    kept = {"DAILY_LOSS", "LOSS_COOLDOWN", "VOLATILITY", "CRITICAL_DRIFT", "REJECT_STREAK"}
    assert {h.name for h in engine.holds} >= {h.name for h in bench.engine.holds if h.name in kept}
    assert not of(engine.on(ev.Timer(bench.now_ns)), cmd.PlaceOrder)
    for ticker in TICKERS:
        assert engine.positions[ticker].to_dict() == bench.engine.positions[ticker].to_dict()
        open_before = {o.client_order_id for o in bench.engine.orders.working(ticker)}
        assert {o.client_order_id for o in engine.orders.working(ticker)} == open_before
        assert all(o.state == "UNKNOWN" for o in engine.orders.working(ticker))
