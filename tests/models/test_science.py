"""The fixed protocol on made data: labels to the half tick, voids, spans, mirrors, rivals, and a whole tiny
run."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.schema import NAMES
from market.errors import ConfigError, RecordingError
from market.simulator import SimSpec, simulate_market
from market.types import NANO, Books, InstrumentDay, Trades
from models import evaluate
from models.science import baselines, context, datasets, deeplob, factorised, metrics, report, run
from models.science.forecast import forecaster
from models.science.protocol import DOWN, FLAT, UP, VOID, Frames, Spans, make_labels, within

SECOND = NANO
TINY = factorised.Options(rounds=(5, 20), folds=2)


def frames(seconds: list[float], bids: list[int], asks: list[int]) -> Frames:
    n = len(seconds)
    books = Books.empty(n)
    books.recv_ns[:] = [round(s * NANO) for s in seconds]
    books.bid_px[:, 0], books.ask_px[:, 0] = bids, asks
    books.bid_qty[:, 0] = books.ask_qty[:, 0] = 1
    return Frames.of(books)


@pytest.fixture(scope="module")
def day() -> InstrumentDay:
    days, _ = simulate_market(
        [SimSpec("SIMP", "SMALL", 7, planted=True)], hours=0.25, dt_s=0.25, seed=3, day="2026-01-15"
    )
    return days[0]


# --- labels


def test_half_a_tick_is_a_move_and_none_is_flat() -> None:
    f = frames([0, 1, 2, 3, 10], [100, 100, 100, 99, 99], [101, 102, 101, 101, 101])
    # Mids x 2: 201, 202, 201, 200, 200.
    assert make_labels(f, SECOND).tolist() == [UP, DOWN, DOWN, FLAT, VOID]


def test_the_label_is_the_last_book_at_or_before_the_horizon() -> None:
    f = frames([0, 1, 1.001, 5], [100, 101, 90, 90], [101, 102, 91, 91])
    assert make_labels(f, SECOND)[0] == UP  # the book at exactly t + h counts, the one after it does not
    f = frames([0, 0.4, 3], [100, 101, 90], [101, 102, 91])
    assert make_labels(f, SECOND)[0] == UP  # nothing at t + h: the last one before it


def test_a_silence_of_more_than_ten_seconds_inside_the_window_voids_it() -> None:
    times = [0.0, 4.0, 5.0, 15.5, 16.0, 30.0]
    f = frames(times, [100] * 6, [101] * 6)
    assert make_labels(f, SECOND).tolist() == [FLAT, FLAT, VOID, VOID, VOID, VOID]
    # From 4 s the silence (5 to 15.5 s) begins inside 5 s; ten seconds exactly would be no silence.
    assert make_labels(f, 5 * SECOND)[1] == VOID
    calm = frames([0, 10, 20], [100] * 3, [101] * 3)
    assert make_labels(calm, 5 * SECOND).tolist() == [FLAT, FLAT, VOID]


def test_windows_that_leave_the_recording_or_end_on_one_side_are_void() -> None:
    f = frames([0, 1, 2, 3], [100] * 4, [101] * 4)
    assert make_labels(f, 2 * SECOND).tolist() == [FLAT, FLAT, VOID, VOID]
    one_sided = replace(f, two_sided=np.array([True, False, True, True]))
    assert make_labels(one_sided, SECOND).tolist() == [VOID, VOID, FLAT, VOID]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 14_000), st.integers(-2, 2)), min_size=2, max_size=40),
    st.sampled_from([1, 5, 10]),
)
def test_labels_agree_with_the_definition_written_out(steps: list[tuple[int, int]], horizon_s: int) -> None:
    ms = np.cumsum([s for s, _ in steps])
    bid = 1000 + np.cumsum([d for _, d in steps])
    f = frames([m / 1000 for m in ms], bid.tolist(), (bid + 1).tolist())
    told = make_labels(f, horizon_s * SECOND)
    for i, t in enumerate(f.recv_ns.tolist()):
        end = t + horizon_s * SECOND
        gap = any(
            b - a > 10 * SECOND and a < end and b > t
            for a, b in zip(f.recv_ns[:-1].tolist(), f.recv_ns[1:].tolist(), strict=True)
        )
        if gap or end > f.recv_ns[-1]:
            assert told[i] == VOID
            continue
        j = max(k for k, u in enumerate(f.recv_ns.tolist()) if u <= end)
        assert told[i] == int(np.sign(bid[j] - bid[i])) + FLAT


def test_books_that_go_back_in_time_are_refused() -> None:
    with pytest.raises(RecordingError, match="go back"):
        frames([1, 0], [1, 1], [2, 2])


# --- spans


def test_no_label_of_a_span_uses_a_book_of_the_next() -> None:
    f = frames([k / 10 for k in range(6000)], [100] * 6000, [101] * 6000)
    spans = Spans.by_share(f.recv_ns)
    y = make_labels(f, 5 * SECOND)
    masks = spans.masks(f.recv_ns, y, 5 * SECOND)
    later = f.later(5 * SECOND)
    for name, end in (("fit", spans.choose_from), ("choose", spans.train[1]), ("train", spans.train[1])):
        assert masks[name].any() and f.recv_ns[later[masks[name]]].max() < end
    assert not (masks["train"] & masks["test"]).any() and not (masks["fit"] & masks["choose"]).any()
    assert f.recv_ns[masks["test"]].min() >= spans.test[0] >= spans.train[1]
    choosing = np.mean(f.recv_ns[f.recv_ns < spans.train[1]] >= spans.choose_from)
    assert choosing == pytest.approx(0.15, abs=0.001)


def test_inner_folds_stay_in_the_training_span_and_only_look_back() -> None:
    f = frames([k / 10 for k in range(6000)], [100] * 6000, [101] * 6000)
    spans = Spans.by_share(f.recv_ns)
    folds = list(spans.walk_forward(f.recv_ns))
    assert len(folds) == 4
    assert all(a == spans.train[0] and a < b < c <= spans.train[1] for a, b, c in folds)
    assert [c for _, _, c in folds[:-1]] == [b for _, b, _ in folds[1:]]


def test_spans_out_of_order_or_of_another_day_are_refused() -> None:
    with pytest.raises(RecordingError, match="not in order"):
        Spans((0, 10), 5, (9, 20))
    with pytest.raises(RecordingError, match="not that recording's day"):
        Spans.by_clock(np.arange(100, dtype=np.int64), (1000, 2000), (2000, 3000))


# --- columns


def test_every_product_feature_is_odd_even_a_pair_or_left_out(day: InstrumentDay) -> None:
    c = context.columns(day)
    taken = {
        n
        for name in (*c.odd_names, *c.even_names)
        for n in ([name] if name in NAMES else re.split(r"[-+]", name))
    }
    assert taken | context.LEFT_OUT == set(NAMES) and not taken & context.LEFT_OUT


def test_a_mirrored_market_gives_mirrored_columns(day: InstrumentDay) -> None:
    books, trades = day.books.rows(slice(0, 1500)), day.trades
    trades = trades.rows(trades.recv_ns <= books.recv_ns[-1])
    pivot = int(books.bid_px[0, 0] + books.ask_px[0, 0])
    swapped = Books(
        books.exch_ns, books.recv_ns,
        np.where(books.ask_qty > 0, pivot - books.ask_px, 0).astype(np.int32), books.ask_qty,
        np.where(books.bid_qty > 0, pivot - books.bid_px, 0).astype(np.int32), books.bid_qty, books.flags,
    )  # fmt: skip
    tape = Trades(
        trades.exch_ns,
        trades.recv_ns,
        (pivot - trades.px).astype(np.int32),
        trades.qty,
        (-trades.side).astype(np.int8),
    )
    seen = context.columns(InstrumentDay(day.instrument, day.day, books, trades))
    mirrored = context.columns(InstrumentDay(day.instrument, day.day, swapped, tape))
    np.testing.assert_allclose(mirrored.odd, -seen.odd, rtol=2e-3, atol=5e-3)
    # Basis points are of a mid that is another one in the mirror.
    in_bps = np.array([name.startswith(("spread_bps", "vol_", "bipower_")) for name in seen.even_names])
    np.testing.assert_allclose(mirrored.even[:, ~in_bps], seen.even[:, ~in_bps], rtol=2e-3, atol=5e-3)
    np.testing.assert_allclose(mirrored.even[:, in_bps], seen.even[:, in_bps], rtol=0.05, atol=0.1)


def test_columns_do_not_look_ahead(day: InstrumentDay) -> None:
    whole = context.columns(day)
    cut = 2000
    until = day.books.recv_ns[cut - 1]
    past = InstrumentDay(
        day.instrument, day.day, day.books.rows(slice(0, cut)), day.trades.rows(day.trades.recv_ns <= until)
    )
    seen = context.columns(past)
    np.testing.assert_array_equal(seen.odd, whole.odd[:cut])
    np.testing.assert_array_equal(seen.even, whole.even[:cut])


# --- the ensemble


def test_the_direction_is_exactly_odd_in_the_mirror(day: InstrumentDay) -> None:
    study = datasets.study_of(day, "made", "made", "simulated")
    y = make_labels(study.frames, SECOND)
    masks = study.spans.masks(study.frames.recv_ns, y, SECOND)
    model = forecaster(study, 1, TINY)
    rows = study.columns.rows(masks["test"])
    p = model.probabilities(rows)
    q = model.probabilities(replace(rows, odd=-rows.odd))
    np.testing.assert_allclose(p.sum(1), 1)
    np.testing.assert_allclose(p, q[:, ::-1], atol=1e-6)
    climate = np.log(evaluate.shares(y[masks["fit"]]))
    truth = y[masks["test"]]
    assert evaluate.log_loss(np.log(p), truth) < evaluate.log_loss(np.tile(climate, (len(p), 1)), truth)


def test_the_bias_is_the_one_with_the_best_mcc() -> None:
    rng = np.random.default_rng(1)
    y = rng.choice(3, 4000, p=[0.1, 0.8, 0.1]).astype(np.uint8)
    p = rng.dirichlet([1, 8, 1], 4000) * 0.5 + 0.5 * np.where(np.eye(3)[y] > 0, 0.25, 0.05)
    p /= p.sum(1, keepdims=True)
    bias = factorised.choose_bias(p, y)
    assert evaluate.mcc(y, factorised.calls(p, bias)) >= evaluate.mcc(y, p.argmax(1))
    assert bias[0] < 0  # argmax hardly ever calls a move: the flat class has to be made smaller
    assert factorised.choose_bias(p[:0], y[:0]) == (0.0, 0.0)


# --- rivals and metrics


def test_the_random_rival_calls_as_often_and_knows_nothing() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 5000).astype(np.uint8)
    draws = baselines.shifted(y, seed=4)
    assert len(draws) == baselines.SHIFTS and all(
        np.bincount(d).tolist() == np.bincount(y).tolist() for d in draws
    )
    assert abs(np.mean([evaluate.mcc(y, d) for d in draws])) < 0.02


def test_persistence_learns_whether_moves_go_on_or_turn() -> None:
    zigzag = [100 + k % 2 for k in range(400)]
    f = frames([float(k) for k in range(400)], zigzag, [b + 1 for b in zigzag])
    y = make_labels(f, SECOND)
    known = within(f.recv_ns, y, SECOND, 0, 300 * NANO)
    _, called = baselines.persistence(f, y, known, known, SECOND)
    assert evaluate.mcc(y[known][1:], called[known][1:]) == pytest.approx(1.0)


def test_trades_do_not_overlap_and_pay_spread_and_fees() -> None:
    n = 40
    f = frames([k / 2 for k in range(n)], [1000 + k for k in range(n)], [1002 + k for k in range(n)])
    rows = np.arange(n - 4)
    called = np.full(len(rows), UP, np.uint8)
    told = metrics.trading(f, called, rows, 2 * SECOND, 100)
    assert told["trades"] == 9  # every two seconds
    mid = 1001 + 4 * np.arange(9)
    assert told["gross_bps"] == pytest.approx(np.mean(4 / mid) * 1e4)
    assert told["net_bps"] == pytest.approx(np.mean(2 / mid) * 1e4 - 2)  # four ticks less a spread of two
    assert told["precision"] == 1 and told["cost_bps"] == pytest.approx(np.mean(2 / mid) * 1e4 + 2)
    assert told["break_even_precision"] == pytest.approx((1 + told["cost_bps"] / told["mean_move_bps"]) / 2)
    assert metrics.trading(f, np.full(len(rows), FLAT, np.uint8), rows, SECOND, 0) == {"trades": 0}


def test_the_interval_of_mcc_holds_it_and_a_rival_equal_to_us_is_not_behind() -> None:
    rng = np.random.default_rng(2)
    y = rng.integers(0, 3, 6000).astype(np.uint8)
    called = np.where(rng.random(6000) < 0.4, y, rng.integers(0, 3, 6000)).astype(np.uint8)
    when = np.arange(6000, dtype=np.int64) * SECOND
    low, high = metrics.mcc_interval(called, y, when)
    assert low < evaluate.mcc(y, called) < high and high - low < 0.1
    assert metrics.mcc_difference(called, called, y, when) == (0.0, 0.0)


# --- the whole way


@pytest.mark.slow  # a network and eighteen boosters
def test_a_tiny_study_gives_every_rival_a_verdict_and_readable_files(
    day: InstrumentDay, tmp_path: Path
) -> None:
    study = datasets.study_of(day, "made", "made market", "simulated")
    plan = run.Plan(
        options=TINY,
        recipe=deeplob.Recipe(window=10, channels=4, lstm=8, epochs=1, rows_per_epoch=512, choosing_rows=300),
    )
    told = run.study_result(study, plan, lambda line: None)
    assert [h["horizon_s"] for h in told["horizons"]] == [1, 5, 10]
    for h in told["horizons"]:
        rows = {row["name"]: row for row in h["rivals"]}
        assert set(rows) == {run.NEVER, run.RANDOM, run.LAST_MOVE, run.IMBALANCE, run.DEEPLOB, run.ENSEMBLE}
        assert rows[run.NEVER]["mcc"] == 0 and rows[run.NEVER]["trades"] == 0
        assert set(h["ahead"]) == {run.IMBALANCE, run.DEEPLOB}
    assert told["horizons"][0]["rivals"][-1]["log_loss_skill"] > 0  # the plant is there to be found
    assert len(told["verdict"]) == 3
    result = {
        "date": "2026-01-15", "seed": 1, "quick": False, "command": "scalper science", "seconds": 1.0,
        "datasets": [told],
    }  # fmt: skip
    report.write_json(result, tmp_path / "s.json")
    report.write_html(result, tmp_path / "s.html")
    assert json.loads((tmp_path / "s.json").read_text())["datasets"][0]["name"] == "made"
    page = (tmp_path / "s.html").read_text()
    assert "http" not in page and all(row["name"] in page for row in told["horizons"][0]["rivals"])
    assert "| ensemble |" in report.markdown(result) and any(
        "ensemble" in line for line in report.lines(told)
    )


def test_verdicts_say_so_where_the_bar_or_a_rival_is_not_beaten() -> None:
    row = {
        "name": run.ENSEMBLE,
        "mcc": 0.05,
        "mcc_ci": (0.01, 0.09),
        "trades": 5,
        "net_bps": -8.0,
        "net_bps_ci": (-9.0, -7.0),
    }
    ahead = {
        run.IMBALANCE: {"mcc": 0.02, "low": -0.01, "high": 0.05},
        run.DEEPLOB: {"mcc": -0.01, "low": -0.03, "high": 0.01},
    }
    (said,) = run.verdict("rts", [{"horizon_s": 10, "rivals": [row], "bar": 0.08, "ahead": ahead}])
    assert "bar 0.08 NOT met" in said and f"does NOT beat {run.DEEPLOB}" in said
    assert "not beyond chance" in said and said.endswith("no edge")


def test_an_absent_folder_or_unknown_name_says_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(datasets.VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"--data DIR or SCALPER_DATA"):
        datasets.folder_of(None)
    with pytest.raises(ConfigError, match="unknown; known: amzn"):
        datasets.chosen(["sber"])
    assert [s.name for s in datasets.chosen(["binance"])] == ["btc-2024", "btc-2023", "coinm"]
    assert datasets.load(datasets.SOURCES[0], tmp_path, lambda line: None) is None


def test_the_verb_says_where_recordings_are_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    from flows.cli import main

    assert main(["science", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert main(["science", "--data", str(tmp_path), "--quick", "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr()
    assert "rts: left out" in told.out and "none of the recordings" in told.err
    assert not (tmp_path / "out").exists()


@pytest.mark.recorded
def test_the_recorded_day_has_the_protocol_rows(shared_data: Path) -> None:
    from market import importers

    day = next(iter(importers.load(shared_data / "moex-rts").days))
    f = Frames.of(day.books)
    assert len(f) == 132_947
    study_spans = datasets.spans_of(day, f, clock=True)
    y = make_labels(f, 10 * SECOND)
    rows = {name: int(mask.sum()) for name, mask in study_spans.masks(f.recv_ns, y, 10 * SECOND).items()}
    assert rows == {"fit": 80_888, "choose": 14_221, "train": 95_147, "test": 34_263}
