"""The backtest: the real pipeline and the real engine over a recording, in simulated time.

Nothing of the trading logic is repeated here. Market events come in the recording's order, orders reach the
simulated exchange after the entry latency and meet the book as it is then, answers come back after the
response latency. Several fill models for resting orders run side by side over the same scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live.core import commands as cmd
from live.core import events as ev
from live.core.config import TIMER_NS, EngineConfig, ModelParams
from live.core.engine import Engine
from live.journal import JournalWriter, order_list_hash
from live.pipeline import ScoreModel, SignalPipeline, model_params
from live.simbroker import FillModel, SimBroker
from market import stream
from market.errors import ScalperError
from market.recording import Recording
from market.types import BOOK_CONSISTENT, SECOND_NS, Books, Instrument, Trades
from models.bundle import Bundle
from models.inference import Ensemble

BACKTEST_KEY = "00000000-0000-5000-8000-000000000001"
"""Session key of every backtest, so that equal backtests have equal order ids."""
DRAIN_NS = 30 * SECOND_NS
"""How long the end of a backtest waits for working orders and open positions."""
MAX_CURVE_POINTS = 500
MAX_HOLDS_LISTED = 1_000
CURVE_STEP_NS = 10 * SECOND_NS


# ---- the market, one event at a time


@dataclass(frozen=True, slots=True)
class Tape:
    """The events of several instruments in one sequence: by receive time, then by instrument, then as
    recorded.

    ``source`` int32 [m] indexes ``tickers``, ``kind`` int8 [m] is ``stream.TRADE`` or ``stream.BOOK``,
    ``row`` int64 [m].
    """

    tickers: tuple[str, ...]
    instruments: dict[str, Instrument]
    books: tuple[Books, ...]
    trades: tuple[Trades, ...]
    recv_ns: NDArray[np.int64]
    source: NDArray[np.int32]
    kind: NDArray[np.int8]
    row: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        recording: Recording,
        tickers: Sequence[str] | None = None,
        *,
        from_ns: int | None,
        to_ns: int | None,
    ) -> Tape:
        """The part of ``recording`` with from_ns <= receive time < to_ns (None: no bound). Raises
        ScalperError.
        """
        chosen = tuple(tickers or (i.ticker for i in recording.info.instruments))
        low, high = (
            from_ns if from_ns is not None else 0,
            to_ns if to_ns is not None else np.iinfo(np.int64).max,
        )
        books, trades, columns = [], [], []
        for index, ticker in enumerate(chosen):
            days = [recording.read(ticker, day) for day in recording.info.days[ticker]]
            b = _joined(Books, [d.books for d in days], low, high)
            t = _joined(Trades, [d.trades for d in days], low, high)
            kind, row = stream.merge(b, t)
            recv = np.empty(len(kind), np.int64)
            is_book = kind == stream.BOOK
            recv[is_book], recv[~is_book] = b.recv_ns[row[is_book]], t.recv_ns[row[~is_book]]
            books.append(b)
            trades.append(t)
            columns.append((recv, np.full(len(kind), index, np.int32), kind, row))
        recv_ns, source, kind, row = (np.concatenate(c) for c in zip(*columns, strict=True))
        if not len(recv_ns):
            raise ScalperError(f"the recording holds nothing of {', '.join(chosen)} between {low} and {high}")
        order = np.lexsort((source, recv_ns))  # stable: events of one instrument keep their order
        return cls(
            chosen, {t: recording.info.instrument(t) for t in chosen}, tuple(books), tuple(trades),
            recv_ns[order], source[order], kind[order], row[order],
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.recv_ns)

    def events(self) -> Iterator[ev.Book | ev.Trade]:
        """The events, as the engine is told them."""
        for now_ns, source, kind, row in zip(
            self.recv_ns.tolist(), self.source.tolist(), self.kind.tolist(), self.row.tolist(), strict=True
        ):
            ticker = self.tickers[source]
            if kind == stream.BOOK:
                yield book_event(self.books[source], row, ticker, now_ns)
            else:
                t = self.trades[source]
                yield ev.Trade(
                    now_ns, ticker, int(t.exch_ns[row]), int(t.px[row]), int(t.qty[row]), int(t.side[row])
                )


def _joined(kind: Any, parts: list[Any], low: int, high: int) -> Any:
    """Days one after another, cut to [low, high)."""
    cut = [p.rows((p.recv_ns >= low) & (p.recv_ns < high)) for p in parts]
    return kind(*(np.concatenate([getattr(p, name) for p in cut]) for name in kind.__slots__))


def book_event(books: Books, row: int, ticker: str, now_ns: int) -> ev.Book:
    """Row ``row`` of ``books`` as an event: present levels only."""
    bid_px, bid_qty = _present(books.bid_px[row], books.bid_qty[row])
    ask_px, ask_qty = _present(books.ask_px[row], books.ask_qty[row])
    consistent = bool(books.flags[row] & BOOK_CONSISTENT)
    return ev.Book(now_ns, ticker, int(books.exch_ns[row]), bid_px, bid_qty, ask_px, ask_qty, consistent)


def _present(px: NDArray[np.int32], qty: NDArray[np.int32]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    prices, sizes = px.tolist(), qty.tolist()
    if sizes[-1] == 0:
        levels = [(p, q) for p, q in zip(prices, sizes, strict=True) if q != 0]
        return tuple(p for p, _ in levels), tuple(q for _, q in levels)
    return tuple(prices), tuple(sizes)


# ---- results


@dataclass(slots=True)
class BacktestResult:
    """What one fill model gave. Money in nano-roubles; ``trips`` are round trips with bps of their entry
    value.
    """

    watermark: str
    manifest_sha256: str
    fill_model: str
    tickers: tuple[str, ...]
    from_ns: int
    to_ns: int
    entry_latency_ns: int
    response_latency_ns: int
    slippage_ticks: int
    books: int = 0
    prints: int = 0
    scores: int = 0
    inference_failures: int = 0
    signals: int = 0
    orders: int = 0
    fills: int = 0
    gross_nano: int = 0
    fees_nano: int = 0
    net_nano: int = 0
    """Realised result after fees plus the open result at the last touch."""
    unrealised_nano: int = 0
    max_drawdown_nano: int = 0
    order_list_hash: str = ""
    truncated: bool = False
    """``max_orders`` ended the run early."""
    trips: list[dict[str, Any]] = field(default_factory=list)
    equity: list[tuple[int, int]] = field(default_factory=list)
    """(time ns, result so far nano-roubles), at most ``MAX_CURVE_POINTS``."""
    holds_raised: int = 0
    holds: list[dict[str, Any]] = field(default_factory=list)
    """The first ``MAX_HOLDS_LISTED`` of them."""
    refusals: dict[str, int] = field(default_factory=dict)
    exit_reasons: dict[str, int] = field(default_factory=dict)
    open_lots: dict[str, int] = field(default_factory=dict)
    other_fill_models: dict[str, BacktestResult] = field(default_factory=dict)

    @property
    def wins(self) -> int:
        return sum(1 for trip in self.trips if trip["net_nano"] > 0)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        out["wins"] = self.wins
        out["other_fill_models"] = {name: r.to_dict() for name, r in self.other_fill_models.items()}
        return out


def run(
    recording: Recording,
    bundle: Bundle | None,
    engine_config: EngineConfig,
    *,
    from_ns: int | None = None,
    to_ns: int | None = None,
    fill_models: Sequence[FillModel] = ("queue",),
    tickers: Sequence[str] | None = None,
    warmup_ns: int = 0,
    latency_ns: int | None = None,
    response_latency_ns: int = 0,
    slippage_ticks: int = 0,
    max_orders: int | None = None,
    ensemble: ScoreModel | None = None,
    model: ModelParams | None = None,
    journal: Callable[[Tape], JournalWriter] | None = None,
) -> BacktestResult:
    """Trade ``recording`` from ``from_ns`` to ``to_ns`` with ``bundle`` and return the first fill model's
    result.

    ``warmup_ns`` before ``from_ns`` feed features and bars without trading. ``latency_ns`` (default: what the
    model was trained for) is the way to the exchange. ``ensemble`` and ``model`` stand in for the bundle
    where there is none yet. ``journal`` receives the first fill model's session, for replay.
    """
    start_ns = None if from_ns is None else from_ns - warmup_ns
    tape = Tape.of(recording, tickers, from_ns=start_ns, to_ns=to_ns)
    if ensemble is None or model is None:
        if bundle is None:
            raise ScalperError("a backtest needs a bundle, or an ensemble with its parameters")
        built = Ensemble(bundle, tape.tickers)
        ensemble, model = ensemble or built, model or model_params(built)
    if latency_ns is None:
        latency_ns = int(bundle.manifest["latency_ns"]) if bundle is not None else 0
    assumptions = _Assumptions(latency_ns, response_latency_ns, slippage_ticks, max_orders, from_ns)
    writer = journal(tape) if journal is not None else None
    runs = [
        _Run(
            tape,
            engine_config,
            model,
            recording.info.watermark,
            assumptions,
            name,
            journal=None if index else writer,
        )
        for index, name in enumerate(fill_models)
    ]
    pipeline = SignalPipeline(tape.tickers, ensemble, BACKTEST_KEY)
    for event in tape.events():
        answer = None
        if isinstance(event, ev.Trade):
            pipeline.on_trade(event)
        else:
            answer = pipeline.on_book(event)
        for each in runs:
            each.market(event, answer)
    results = [each.finish() for each in runs]
    first = results[0]
    first.other_fill_models = {r.fill_model: r for r in results[1:]}
    if writer is not None:
        writer.close()
    return first


@dataclass(frozen=True, slots=True)
class _Assumptions:
    latency_ns: int
    response_latency_ns: int
    slippage_ticks: int
    max_orders: int | None
    from_ns: int | None


class _Run:
    """One engine with one simulated broker."""

    def __init__(
        self,
        tape: Tape,
        config: EngineConfig,
        model: ModelParams,
        watermark: str,
        assumed: _Assumptions,
        fill_model: FillModel,
        *,
        journal: JournalWriter | None,
    ) -> None:
        fee_ppm = {t: config.fee_ppm.get(t, model.fee_ppm.get(t, 0)) for t in tape.tickers}
        self._engine = Engine(config, tape.instruments, model, BACKTEST_KEY)
        self._broker = SimBroker(
            tape.instruments,
            fee_ppm,
            assumed.latency_ns,
            response_latency_ns=assumed.response_latency_ns,
            fill_model=fill_model,
            slippage_ticks=assumed.slippage_ticks,
        )
        self._instruments = tape.instruments
        self._journal = journal
        self._max_orders = assumed.max_orders
        first_ns = int(tape.recv_ns[0])
        self._trade_from_ns = first_ns if assumed.from_ns is None else max(assumed.from_ns, first_ns)
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
            fill_model,
            tape.tickers,
            self._trade_from_ns,
            int(tape.recv_ns[-1]),
            assumed.latency_ns,
            assumed.response_latency_ns,
            assumed.slippage_ticks,
        )

    # ---- time

    def market(self, event: ev.Book | ev.Trade, answer: ev.Scores | ev.InferenceFailed | None) -> None:
        """One recorded event: first everything that is due before it, then exchange, engine and score."""
        self._advance(event.now_ns)
        if not self._reconciled and event.now_ns >= self._trade_from_ns:
            self._reconciled = True
            self._tell(self._broker.reconciled(event.now_ns))
        if isinstance(event, ev.Trade):
            self.result.prints += 1
            self._broker.on_trade(event.ticker, event.price_ticks, event.lots, event.side, event.now_ns)
            self._tell(event)
            return
        self.result.books += 1
        self._broker.on_book(
            event.ticker, event.bid_px, event.bid_qty, event.ask_px, event.ask_qty, event.now_ns
        )
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
        result.max_drawdown_nano = _max_drawdown(self._curve)
        result.equity = _thinned(self._curve)


def _max_drawdown(curve: list[tuple[int, int]]) -> int:
    """Largest fall from an earlier high of the curve (which starts at 0), >= 0."""
    high = worst = 0
    for _, value in curve:
        high = max(high, value)
        worst = max(worst, high - value)
    return worst


def _thinned(curve: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """At most ``MAX_CURVE_POINTS`` points, first and last kept, evenly chosen between."""
    if len(curve) <= MAX_CURVE_POINTS:
        return curve
    step = (len(curve) - 1) / (MAX_CURVE_POINTS - 1)
    return [curve[round(i * step)] for i in range(MAX_CURVE_POINTS)]
