"""The simulated broker and the backtest: latency, fill models, money, determinism, equal to a replay."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from core_bench import SECOND_NS, instrument

from live import backtest, backtest_cli, replay
from live.backtest_assumptions import sensitivity
from live.backtest_result import BacktestResult
from live.backtest_tape import Tape
from live.core import commands as cmd
from live.core import events as ev
from live.core.config import EngineConfig, ModelParams, RiskConfig, SessionConfig
from live.journal import Header, JournalWriter
from live.pipeline import Row
from live.simbroker import SimBroker
from market.errors import ScalperError
from market.fees import fee_nano
from market.latency import Latency
from market.matching import FillModel
from market.recording import Recording
from market.simulator import SimSpec, simulate_recording

MS = 1_000_000
CONFIG = EngineConfig(session=SessionConfig(enabled=False), risk=RiskConfig(atr_min_bars=1))


# ---- the simulated broker


def order(
    n: int = 1, side: int = 1, lots: int = 5, kind: str = "market", price: int | None = None
) -> cmd.PlaceOrder:
    tif = "fak" if kind == "market" else "day"
    return cmd.PlaceOrder("t", f"id-{n}", "AAA", side, lots, kind, price, tif, False, "test")  # type: ignore[arg-type]


def broker(fill_model: FillModel = "queue", slippage_ticks: int = 0) -> SimBroker:
    made = SimBroker(
        {"AAA": instrument()}, {"AAA": 50}, Latency(entry_ns=100 * MS, response_ns=20 * MS), fills=fill_model,
        slippage_ticks=slippage_ticks,
    )  # fmt: skip
    book(made, 0)
    return made


def book(made: SimBroker, now_ns: int, bid: int = 99, ask: int = 101, lots: int = 10) -> None:
    made.on_book("AAA", (bid, bid - 1), (lots, lots), (ask, ask + 1), (lots, lots), now_ns)


def test_an_order_meets_the_book_of_its_arrival_and_its_answer_takes_time() -> None:
    made = broker()
    made.send(order(), 0)
    assert made.next_ns() == 100 * MS
    book(made, 50 * MS, bid=104, ask=106)
    assert made.poll(119 * MS) == []
    (update,) = made.poll(120 * MS)
    assert (update.now_ns, update.status, update.fills[0].price_ticks) == (120 * MS, "FILLED", 106)
    assert update.fills[0].fee_nano == fee_nano(106 * 5 * 10**8, 50)


def test_a_market_order_never_fills_beyond_the_visible_book() -> None:
    made = broker()
    made.send(order(lots=30), 0)
    (update,) = made.poll(SECOND_NS)
    assert (update.status, update.lots_executed, [f.price_ticks for f in update.fills]) == (
        "CANCELLED",
        20,
        [101, 102],
    )
    assert made.positions["AAA"] == 20


def test_a_client_order_id_is_an_idempotency_key() -> None:
    made = broker()
    made.send(order(), 0)
    made.send(order(), MS)
    updates = made.poll(SECOND_NS)
    assert len(updates) == 2 and updates[0].fills == updates[1].fills and made.positions["AAA"] == 5


def test_slippage_is_added_against_us_to_what_takes() -> None:
    for side, price in ((1, 103), (-1, 97)):
        made = broker(slippage_ticks=2)
        made.send(order(side=side), 0)
        assert made.poll(SECOND_NS)[0].fills[0].price_ticks == price


def test_resting_orders_fill_by_the_chosen_model() -> None:
    """At our price 10 lots are ahead of us; then 12 are printed there."""
    filled = {}
    for name in ("pessimistic", "queue", "optimistic"):
        made = broker(name)  # type: ignore[arg-type]
        made.send(order(kind="limit", price=99), 0)
        made.poll(SECOND_NS)
        made.on_trade("AAA", 99, 12, -1, 2 * SECOND_NS)
        filled[name] = made.positions["AAA"]
    assert filled == {"pessimistic": 0, "queue": 2, "optimistic": 5}


def test_a_cancel_withdraws_what_rests_and_a_query_repeats_the_deals() -> None:
    made = broker()
    made.send(order(kind="limit", price=100), 0)
    made.poll(SECOND_NS)
    made.send(cmd.CancelOrder("id-1", "why"), SECOND_NS)
    (update,) = made.poll(2 * SECOND_NS)
    assert update.status == "CANCELLED"
    made.send(order(2), 2 * SECOND_NS)
    made.poll(3 * SECOND_NS)
    made.send(cmd.QueryOrder("id-2", 1), 3 * SECOND_NS)
    (update,) = made.poll(4 * SECOND_NS)
    assert update.status == "FILLED" and update.lots_executed == 5 and len(update.fills) == 1
    assert made.reconciled(0) == ev.Reconciled(0, {"AAA": 5})


def test_a_stop_order_waits_for_its_price() -> None:
    made = broker()
    made.send(order(side=-1, kind="stop", price=95), 0)
    assert [u.status for u in made.poll(SECOND_NS)] == ["NEW"]
    book(made, 2 * SECOND_NS, bid=96, ask=98)
    assert made.positions["AAA"] == 0
    book(made, 3 * SECOND_NS, bid=95, ask=97)
    assert made.positions["AAA"] == -5


# ---- the backtest


@dataclass
class Answer:
    p: np.ndarray
    expected_move_millibps: int


class Follower:
    """A small real score model: it follows the first features. State: rows since the reset."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    def step(self, ticker: str, x: Row) -> Answer | None:
        self.seen[ticker] = self.seen.get(ticker, 0) + 1
        if self.seen[ticker] < 10:
            return None
        lean = float(np.tanh(np.nan_to_num(x[:8]).sum()))
        p = np.array([0.3 - 0.2 * lean, 0.4, 0.3 + 0.2 * lean])
        return Answer(p, round(9_000 * lean))

    def reset(self, ticker: str) -> None:
        self.seen[ticker] = 0

    def use_only(self, names: Collection[str] | None) -> None:
        self.seen.clear()


MODEL = ModelParams(
    "toy", 5 * SECOND_NS, 1 << 62, fee_ppm={"SIMP": 50, "SIMA": 50}, threshold_millibps={"SIMP": 0, "SIMA": 0}
)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    specs = (SimSpec("SIMP", "SMALL", planted=True), SimSpec("SIMA", "SMALL"))
    return simulate_recording(tmp_path_factory.mktemp("bt") / "rec", specs, hours=0.12)[0]


def run(recording: Recording, **changes: object) -> BacktestResult:
    given = {"ensemble": Follower(), "model": MODEL, "latency": Latency(entry_ns=100 * MS), **changes}
    return backtest.run(recording, None, given.pop("config", CONFIG), **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def result(recording: Recording) -> BacktestResult:
    return run(recording)


def test_it_trades_and_its_money_adds_up(result: BacktestResult) -> None:
    assert result.watermark == "SIMULATED" and len(result.trips) > 5
    assert result.open_lots == {} and result.unrealised_nano == 0
    assert result.gross_nano == sum(t["gross_nano"] for t in result.trips)
    assert result.fees_nano == sum(t["fees_nano"] for t in result.trips) > 0
    assert result.net_nano == sum(t["net_nano"] for t in result.trips) == result.gross_nano - result.fees_nano
    assert result.equity[-1][1] == result.net_nano and result.max_drawdown_nano >= 0
    for trip in result.trips:
        assert trip["exit_ns"] > trip["entry_ns"] and trip["net_bps"] < trip["gross_bps"]
    assert json.loads(json.dumps(result.to_dict()))["orders"] == result.orders


def test_equal_inputs_give_equal_orders(recording: Recording, result: BacktestResult) -> None:
    assert run(recording).to_dict() == result.to_dict()
    slower = run(recording, latency=Latency(entry_ns=500 * MS))
    assert slower.trips != result.trips


def test_orders_do_not_depend_on_what_comes_after_them(recording: Recording, result: BacktestResult) -> None:
    """Truncate and compare: a backtest of the first part equals the first part of the backtest."""
    cut_ns = result.from_ns + (result.to_ns - result.from_ns) * 2 // 3
    shorter = run(recording, to_ns=cut_ns)
    whole = [t for t in result.trips if t["exit_ns"] < cut_ns - SECOND_NS]
    assert shorter.trips[: len(whole)] == whole and len(whole) > 3


def test_fill_models_bracket_each_other_over_the_same_scores(recording: Recording) -> None:
    first = run(recording, fill_models=("queue", "pessimistic", "optimistic"))
    assert set(first.other_fill_models) == {"pessimistic", "optimistic"}
    assert {r.scores for r in first.other_fill_models.values()} == {first.scores}
    assert first.other_fill_models["optimistic"].fills >= first.other_fill_models["pessimistic"].fills


def test_with_a_later_feed_everything_happens_later_and_on_older_news(
    recording: Recording, result: BacktestResult
) -> None:
    late = run(recording, latency=Latency(feed_ns=300 * MS, entry_ns=100 * MS))
    assert (late.books, late.prints, late.scores) == (result.books, result.prints, result.scores)
    assert late.open_lots == {} and len(late.trips) > 5
    # What a book triggers is sent when the book is heard of: 300 ms later than it was.
    assert late.trips[0]["entry_ns"] == result.trips[0]["entry_ns"] + 300 * MS
    assert run(recording, latency=Latency(feed_ns=300 * MS, entry_ns=100 * MS)).to_dict() == late.to_dict()
    shaken = run(recording, latency=Latency(feed_ns=300 * MS, entry_ns=100 * MS, jitter_ns=200 * MS))
    assert shaken.order_list_hash and shaken.trips != late.trips
    assert shaken.books == result.books and shaken.open_lots == {}


def test_a_variant_is_what_a_run_of_its_own_gives(recording: Recording, result: BacktestResult) -> None:
    varied = run(recording, vary=sensitivity)
    assert set(varied.variants) == {
        "queue probabilistic", "100 ms later", "250 ms later", "500 ms later"
    }  # fmt: skip
    alone = run(recording, latency=Latency(entry_ns=350 * MS))
    assert varied.variants["250 ms later"].trips == alone.trips
    assert varied.variants["250 ms later"].order_list_hash == alone.order_list_hash
    assert varied.order_list_hash == result.order_list_hash and varied.trips == result.trips
    assert json.loads(json.dumps(varied.to_dict()))["variants"]["250 ms later"]["trips"] == len(alone.trips)


def test_the_printed_table_puts_the_fill_models_side_by_side(recording: Recording) -> None:
    first = run(recording, fill_models=("queue", "pessimistic", "optimistic"), vary=sensitivity)
    text = backtest_cli.lines(first)
    assert text[1].split("fills: ")[1:] == ["pessimistic        ", "queue   ", "optimistic"]
    (net,) = [line.split()[2:] for line in text if line.startswith("net")]
    assert net == [
        f"{first.by_fill_model[name].net_nano / 1e9:+.2f}" for name in ("pessimistic", "queue", "optimistic")
    ]
    assert sum(" ms later" in line for line in text) == 3


def test_warm_up_before_the_start_trades_nothing(recording: Recording, result: BacktestResult) -> None:
    start_ns = result.from_ns + 240 * SECOND_NS
    warmed = run(recording, from_ns=start_ns, warmup_ns=200 * SECOND_NS)
    cold = run(recording, from_ns=start_ns)
    assert min(t["entry_ns"] for t in warmed.trips) >= start_ns
    assert warmed.refusals["HOLD_NOT_RECONCILED"] > 0
    assert min(t["entry_ns"] for t in warmed.trips) < min(
        (t["entry_ns"] for t in cold.trips), default=1 << 62
    )


def test_max_orders_ends_the_run_early_and_flat(recording: Recording) -> None:
    few = run(recording, max_orders=6)
    assert few.truncated and few.orders <= 12 and few.open_lots == {}


def test_higher_fees_never_help(recording: Recording, result: BacktestResult) -> None:
    dear = run(recording, config=replace(CONFIG, fee_ppm={"SIMP": 3_000, "SIMA": 3_000}))
    assert dear.orders == 0 and result.orders > 0  # no edge is left after 30 bps a side


def test_a_part_without_data_is_one_clear_error(recording: Recording) -> None:
    with pytest.raises(ScalperError, match="holds nothing"):
        run(recording, from_ns=0, to_ns=1)


def test_a_backtest_replays_from_its_journal_to_the_same_orders(
    recording: Recording, result: BacktestResult, tmp_path: Path
) -> None:
    def journal(tape: Tape) -> JournalWriter:
        header = Header("bt", backtest.BACKTEST_KEY, CONFIG, tape.instruments, MODEL, "SIMULATED")
        return JournalWriter(tmp_path, header)

    assert run(recording, journal=journal).order_list_hash == result.order_list_hash
    again = replay.run(tmp_path, None, make_model=lambda sha256, tickers: Follower())
    assert again.equal and again.first_difference is None
    assert again.orders == result.orders and again.order_list_hash == result.order_list_hash
    assert again.journal_order_list_hash == result.order_list_hash
    assert again.score_differences == 0 and not again.torn
