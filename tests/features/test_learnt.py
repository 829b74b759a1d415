"""What the kernel learns as it goes, against what is known of a made market."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from features.batch import compute
from features.layout import BINS, SPREADS
from features.schema import NAMES, F
from features.stoikov import lines, micro_price_table
from features.stream import FeatureStream
from flows.cli import main
from market.errors import RecordingError
from market.recording import write_recording
from market.simulator import SimSpec, simulate_market
from market.types import DEPTH, SECOND_NS, Books, Instrument, InstrumentDay, Trades

T0 = 1_768_460_400 * SECOND_NS
MADE = Instrument("u", "MADE", "TQBR", "f", "share", 1, 10_000_000, 10_000_000)


def column(X: np.ndarray, name: str) -> np.ndarray:
    return X[:, NAMES.index(name)].astype(float)


def books_of(
    bid: np.ndarray, spread: np.ndarray, qb: np.ndarray, qa: np.ndarray, dt_s: float = 0.25
) -> Books:
    """Books with a level at every tick and these best sizes."""
    n = len(bid)
    books = Books.empty(n)
    steps = np.arange(DEPTH)
    books.recv_ns[:] = books.exch_ns[:] = T0 + np.arange(n) * round(dt_s * SECOND_NS)
    books.bid_px[:] = bid[:, None] - steps
    books.ask_px[:] = (bid + spread)[:, None] + steps
    books.bid_qty[:], books.ask_qty[:] = 50, 50
    books.bid_qty[:, 0], books.ask_qty[:, 0] = qb, qa
    return books


def made_market(n: int, seed: int) -> InstrumentDay:
    """A stationary chain: the imbalance comes back to its middle within seconds, and the heavier side pushes
    mid now and then; the push comes half a tick at a time, through a spread of two."""
    rng = np.random.default_rng(seed)
    bid, spread, heavy = 10_000, 1, 5
    rows = []
    for _ in range(n):
        heavy = int(np.clip(round(5 + 0.85 * (heavy - 5)) + rng.integers(-2, 3), 0, 10))
        up = heavy / 10
        if spread == 2:  # a wide spread closes towards the heavier side
            if rng.random() < 0.6:
                bid, spread = (bid + 1, 1) if rng.random() < up else (bid, 1)
        elif rng.random() < 0.25:
            spread, bid = 2, bid - (rng.random() > up)
        rows.append((bid, spread, 10 + 8 * heavy + rng.integers(0, 8), 90 - 8 * heavy + rng.integers(0, 8)))
    bids, spreads, qb, qa = (np.array(x) for x in zip(*rows, strict=True))
    return InstrumentDay(MADE, "2026-01-15", books_of(bids, spreads, qb, qa), Trades.empty())


def test_the_learnt_micro_price_is_stoikovs_fixed_point() -> None:
    """On a stationary market the running means end where the fit of the whole day does."""
    day = made_market(30_000, 3)
    table = compute(day)
    b = day.books
    qb, qa = b.bid_qty[:, 0].astype(float), b.ask_qty[:, 0].astype(float)
    imbalance, spread = (qb - qa) / (qb + qa), (b.ask_px[:, 0] - b.bid_px[:, 0]).astype(float)
    fitted = micro_price_table(imbalance, spread, table.mid2 / 2)
    np.testing.assert_allclose(fitted, -fitted[:, ::-1], atol=1e-9)
    bins = np.clip(((imbalance + 1) * BINS).astype(int), 0, 2 * BINS - 1)
    offline = fitted[np.minimum(spread, SPREADS).astype(int) - 1, bins]
    learnt = column(table.X, "micro_price_dev")
    late = np.isfinite(learnt) & (np.arange(len(learnt)) > 10_000)
    assert late.sum() > 19_000
    assert np.ptp(offline[late]) > 0.8, "there is something to learn"
    assert np.corrcoef(offline[late], learnt[late])[0, 1] > 0.97
    assert np.abs(offline[late] - learnt[late]).mean() < 0.15 * np.abs(offline[late]).mean()


def test_the_command_prints_the_fitted_table_beside_what_was_learnt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    day, path = made_market(8_000, 3), tmp_path / "recording"
    write_recording(path, [day], source="simulator", watermark="SIMULATED", tariff="simulated", provenance={})
    assert main(["features", "micro-price", str(path)]) == 0
    head, columns, one, _, *rest, last = capsys.readouterr().out.splitlines()
    assert head.startswith("MADE 2026-01-15: G in ticks over mid") and columns.count("..") == 2 * BINS
    cells = [float(cell) for cell in one.split()[1:]]
    assert cells == [-cell for cell in cells[::-1]] and cells[-1] > 0.2, "mirrored, and up where bids lead"
    assert all(set(line.split()[-2:]) == {"-"} for line in rest), "spreads that never were"
    assert float(re.search(r"correlation (\S+),", last)[1]) > 0.9  # type: ignore[index]
    short = InstrumentDay(MADE, day.day, day.books.rows(slice(0, 300)), day.trades)
    with pytest.raises(RecordingError, match="0 usable books, 100 are needed"):
        list(lines(short))


def test_the_micro_price_tells_the_next_second_of_a_simulated_market() -> None:
    """Better than the weighted mid, which knows nothing of what follows an imbalance."""
    day = simulate_market([SimSpec("SIMA", "SMALL_STEADY")], hours=0.75, seed=4)[0][0]
    table = compute(day)
    mid, ahead = table.mid2 / 2, 4
    move = mid[ahead:] - mid[:-ahead]
    said, rival = (column(table.X, name)[:-ahead] for name in ("micro_price_dev", "weighted_mid_dev"))
    known = np.isfinite(said) & table.usable[:-ahead]
    assert known.mean() > 0.9
    skill = float(np.corrcoef(said[known], move[known])[0, 1])
    assert skill > 0.25 and skill > float(np.corrcoef(rival[known], move[known])[0, 1]) + 0.02


def test_a_state_hardly_seen_has_no_micro_price() -> None:
    n = 600
    flip = np.arange(n) % 2
    day = InstrumentDay(
        MADE, "2026-01-15",
        books_of(10_000 + flip, np.where(np.arange(n) == 500, 3, 1), np.full(n, 60), np.full(n, 40)),
        Trades.empty(),
    )  # fmt: skip
    said = column(compute(day).X, "micro_price_dev")
    assert np.isnan(said[:20]).all() and np.isfinite(said[30:500]).all()
    assert math.isnan(said[500]) and math.isfinite(said[501])


def test_resilience_is_the_share_that_came_back() -> None:
    """The best bid loses 80 of 100 lots; a second later 40 of them are back. Then it all stays away."""
    stream, out, now_ns = FeatureStream(), np.empty(F, np.float32), T0

    def send(qb: int) -> dict[str, float]:
        nonlocal now_ns
        now_ns += SECOND_NS // 4
        b = books_of(
            np.array([1000]), np.array([1]), np.array([qb]), np.array([70 + now_ns // 250_000_000 % 2])
        )
        stream.on_book(now_ns, b.bid_px[0], b.bid_qty[0], b.ask_px[0], b.ask_qty[0], 1, out)
        return dict(zip(NAMES, out.tolist(), strict=True))

    send(100)
    rows = [send(q) for q in (20, 20, 40, 50, 60)]
    assert all(math.isnan(r["resilience_bid"]) for r in rows[:4])
    assert rows[4]["resilience_bid"] == pytest.approx(0.5) and math.isnan(rows[4]["resilience_ask"])
    rows = [send(q) for q in (10, 10, 10, 10, 10)]
    assert 0.24 < rows[-1]["resilience_bid"] < 0.26


def test_vpin_knows_one_sided_trading_from_balanced() -> None:
    def vpin(sides: np.ndarray) -> float:
        stream, out = FeatureStream(), np.empty(F, np.float32)
        for k, side in enumerate(sides.tolist()):
            stream.on_trade(T0 + k * SECOND_NS // 10, 1000, 3 + k % 3, side)
        b = books_of(np.array([999]), np.array([1]), np.array([5]), np.array([5]))
        end_ns = T0 + len(sides) * SECOND_NS // 10
        stream.on_book(end_ns, b.bid_px[0], b.bid_qty[0], b.ask_px[0], b.ask_qty[0], 1, out)
        return float(out[NAMES.index("vpin")])

    rng = np.random.default_rng(5)
    assert vpin(np.ones(3000, int)) == 1.0
    assert vpin(np.where(np.arange(3000) % 2, 1, -1)) < 0.1
    assert 0.1 < vpin(rng.choice([-1, 1], 3000)) < 0.3
    assert math.isnan(vpin(np.ones(150, int)))


def test_bipower_leaves_out_a_jump() -> None:
    """Mid wanders by half a tick a second and jumps by thirty once: volatility sees it, bipower hardly."""
    rng = np.random.default_rng(6)
    n = 4 * 120
    bid = 10_000 + np.repeat(rng.integers(0, 2, n // 4), 4)
    bid[300:] += 30
    sizes = np.full(n, 50)
    day = InstrumentDay(MADE, "2026-01-15", books_of(bid, np.ones(n, int), sizes, sizes), Trades.empty())
    X = compute(day).X
    vol, bipower = column(X, "vol_60s"), column(X, "bipower_60s")
    assert vol[298] == pytest.approx(bipower[298], rel=0.5)
    assert vol[330] > 4 * vol[298] and bipower[330] < vol[330] / 2


def test_the_component_follows_the_levels_that_move_together() -> None:
    """Flow on levels 1 and 2 only: the integrated flow takes its weights there and grows over the mean's."""
    rng = np.random.default_rng(7)
    n = 2000
    sizes = np.full(n, 50)
    books = books_of(np.full(n, 10_000), np.ones(n, int), sizes, sizes)
    walk = np.clip(np.cumsum(rng.integers(-9, 10, n)), -1500, 1500) + 2000
    books.bid_qty[:, 0] = books.bid_qty[:, 1] = walk
    day = InstrumentDay(MADE, "2026-01-15", books, Trades.empty())
    X = compute(day).X[1000:]
    flows = np.sinh(np.stack([column(X, f"ofi_l{m}_5s") for m in range(1, 6)], axis=1))
    integrated = np.sinh(column(X, "integrated_ofi_5s"))
    np.testing.assert_allclose(integrated, flows[:, :2].mean(axis=1), rtol=1e-3, atol=1e-4)
    assert np.abs(integrated).mean() > 2 * np.abs(flows.mean(axis=1)).mean()
