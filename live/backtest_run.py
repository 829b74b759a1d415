"""One engine with one simulated broker: a backtest under one set of assumptions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from live.backtest_assumptions import Assumptions
from live.backtest_result import BacktestResult, max_drawdown, thinned
from live.backtest_tape import Tape
from live.core import commands as cmd
from live.core import events as ev
from live.core.config import TIMER_NS, EngineConfig, ModelParams
from live.core.engine import Engine
from live.journal import JournalWriter, order_list_hash
from live.simbroker import SimBroker
from market.types import SECOND_NS

BACKTEST_KEY = "00000000-0000-5000-8000-000000000001"
"""Session key of every backtest, so that equal backtests have equal order ids."""
DRAIN_NS = 30 * SECOND_NS
"""How long the end of a backtest waits for working orders and open positions."""
MAX_HOLDS_LISTED = 1_000
CURVE_STEP_NS = 10 * SECOND_NS


class BacktestRun:
    """One engine with one simulated broker. Time is one for both: ``exchange`` and ``see`` are called in its
    order.
    """

    def __init__(
        self,
        tape: Tape,
        config: EngineConfig,
        model: ModelParams,
        assumed: Assumptions,
        *,
        watermark: str,
        from_ns: int | None,
        max_orders: int | None,
        journal: JournalWriter | None,
    ) -> None:
        fee_ppm = {t: config.fee_ppm.get(t, model.fee_ppm.get(t, 0)) for t in tape.tickers}
        self._engine = Engine(config, tape.instruments, model, BACKTEST_KEY)
        self._broker = SimBroker(
            tape.instruments, fee_ppm, assumed.latency, fills=assumed.fills, queue=assumed.queue,
            slippage_ticks=assumed.slippage_ticks,
        )  # fmt: skip
        self._instruments = tape.instruments
        self._journal = journal
        self._max_orders = max_orders
        first_ns = int(tape.recv_ns[0])
        self._trade_from_ns = first_ns if from_ns is None else max(from_ns, first_ns)
        self._reconciled = False
        self._stopped = False
        self._next_timer_ns = first_ns
        self._next_point_ns = first_ns
        self._touch: dict[str, tuple[int, int]] = {}
        self._placed: list[cmd.PlaceOrder] = []
        self._curve: list[tuple[int, int]] = []
        self._open_holds: dict[tuple[str, str], dict[str, Any]] = {}
        self.result = BacktestResult(
            watermark,
            model.manifest_sha256,
            tape.tickers,
            self._trade_from_ns,
            int(tape.recv_ns[-1]),
            assumed,
        )

    # ---- time

    def exchange(self, event: ev.Book | ev.Trade) -> None:
        """The market at the exchange is now this; first everything that is due before it."""
        now_ns = event.now_ns
        self._advance(now_ns)
        if isinstance(event, ev.Trade):
            self._broker.on_trade(event.ticker, event.price_ticks, event.lots, event.side, now_ns)
        else:
            self._broker.on_book(
                event.ticker, event.bid_px, event.bid_qty, event.ask_px, event.ask_qty, now_ns
            )

    def see(self, event: ev.Book | ev.Trade, answer: ev.Scores | ev.InferenceFailed | None) -> None:
        """The market event has reached the engine, with the score that was made of it."""
        self._advance(event.now_ns)
        if not self._reconciled and event.now_ns >= self._trade_from_ns:
            self._reconciled = True
            self._tell(self._broker.reconciled(event.now_ns))
        if isinstance(event, ev.Trade):
            self.result.prints += 1
            self._tell(event)
            return
        self.result.books += 1
        if event.bid_px and event.ask_px:
            self._touch[event.ticker] = (event.bid_px[0], event.ask_px[0])
        self._tell(event)
        if answer is not None:
            if isinstance(answer, ev.Scores):
                self.result.scores += 1
            else:
                self.result.inference_failures += 1
            self._tell(answer)
        if event.now_ns >= self._next_point_ns:
            self._next_point_ns = event.now_ns + CURVE_STEP_NS
            self._point(event.now_ns)

    def _advance(self, until_ns: int) -> None:
        """Timers and the broker's news due before ``until_ns``, in order, news first at equal times."""
        while True:
            news_ns = self._broker.next_ns()
            due_ns = self._next_timer_ns if news_ns is None else min(news_ns, self._next_timer_ns)
            if due_ns >= until_ns:
                return
            for update in self._broker.poll(due_ns):
                self._tell(update)
            if due_ns == self._next_timer_ns:
                self._next_timer_ns += TIMER_NS
                self._tell(ev.Timer(due_ns))

    def finish(self) -> BacktestResult:
        """Close what is open at the last touch, let the rest of the news in, and sum up."""
        end_ns = max(self._engine.now_ns, self.result.to_ns)
        self._stop(end_ns, "the recording ends")
        deadline_ns = end_ns + DRAIN_NS
        while end_ns < deadline_ns and self._unfinished():
            end_ns += TIMER_NS
            self._advance(end_ns)
        self._sum_up(self._engine.now_ns)
        return self.result

    def _unfinished(self) -> bool:
        working = bool(self._engine.orders.all_working())
        return working or any(position.lots for position in self._engine.positions.values())

    def _stop(self, now_ns: int, reason: str) -> None:
        if not self._stopped:
            self._stopped = True
            self._tell(ev.StopRequested(now_ns, reason, flatten=True))

    # ---- the engine

    def _tell(self, event: ev.Event) -> None:
        if self._journal is not None:
            self._journal.event(event)
        commands = self._engine.on(event)
        if not commands:
            return
        if self._journal is not None:
            self._journal.commands(commands)
        reconcile = False
        for command in commands:
            match command:
                case cmd.PlaceOrder():
                    self._placed.append(command)
                    self._broker.send(command, event.now_ns)
                case cmd.CancelOrder() | cmd.QueryOrder():
                    self._broker.send(command, event.now_ns)
                case cmd.RequestReconcile():
                    reconcile = True
                case cmd.FillBooked():
                    self.result.fills += 1
                case cmd.TripClosed():
                    self._trip(command)
                case cmd.HoldChanged():
                    self._hold(command)
        if reconcile:
            self._tell(self._broker.reconciled(event.now_ns))
        if self._max_orders is not None and len(self._placed) >= self._max_orders and not self._stopped:
            self.result.truncated = True
            self._stop(event.now_ns, f"{self._max_orders} orders were simulated")

    # ---- results

    def _trip(self, trip: cmd.TripClosed) -> None:
        row = asdict(trip)
        row["gross_bps"] = round(1e4 * trip.gross_nano / trip.entry_value_nano, 4)
        row["net_bps"] = round(1e4 * trip.net_nano / trip.entry_value_nano, 4)
        self.result.trips.append(row)
        reasons = self.result.exit_reasons
        reasons[trip.exit_reason] = reasons.get(trip.exit_reason, 0) + 1

    def _hold(self, change: cmd.HoldChanged) -> None:
        key = (change.hold.name, change.hold.scope)
        if change.raised:
            row = self._open_holds[key] = {**change.hold.to_dict(), "lifted_ns": None}
            if len(self.result.holds) < MAX_HOLDS_LISTED:
                self.result.holds.append(row)
            self.result.holds_raised += 1
        elif key in self._open_holds:
            self._open_holds.pop(key)["lifted_ns"] = change.now_ns

    def _open_result(self) -> int:
        total = 0
        for ticker, position in self._engine.positions.items():
            if position.lots:
                bid_ticks, ask_ticks = self._touch[ticker]
                price = bid_ticks if position.lots > 0 else ask_ticks
                total += position.unrealised_nano(self._instruments[ticker], price)
        return total

    def _point(self, now_ns: int) -> None:
        positions = self._engine.positions.values()
        booked = sum(p.realised_nano - p.fees_nano for p in positions)
        self._curve.append((now_ns, booked + self._open_result()))

    def _sum_up(self, now_ns: int) -> None:
        result, positions = self.result, self._engine.positions
        self._point(now_ns)
        result.signals, result.refusals = self._engine.signals, dict(self._engine.refusals)
        result.orders, result.order_list_hash = len(self._placed), order_list_hash(self._placed)
        result.gross_nano = sum(p.realised_nano for p in positions.values())
        result.fees_nano = sum(p.fees_nano for p in positions.values())
        result.unrealised_nano = self._open_result()
        result.net_nano = result.gross_nano - result.fees_nano + result.unrealised_nano
        result.open_lots = {t: p.lots for t, p in positions.items() if p.lots}
        result.max_drawdown_nano = max_drawdown(self._curve)
        result.equity = thinned(self._curve)
        result.taken_lots, result.rested_lots = self._broker.taken_lots, self._broker.rested_lots
        result.crossed_spread_nano = self._broker.crossed_spread_nano
