"""Nothing is found where nothing is, what is planted is found, and the experiments that must fail do fail.

Statistics over three seeds of one hour (P+: two). The seeds are fixed; should the simulator's random stream
change, each bound below lies at least 3.5 standard deviations (measured over 8 to 40 seeds of that length)
from what is expected, so that chance alone breaks it less than once in a thousand times.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from features.batch import FeatureTable, compute
from features.schema import DUPLICATE, NAMES, F
from market.errors import ConfigError, RecordingError, ScalperError
from market.simulator import SimSpec, simulate_market
from models import honesty, honesty_controls, honesty_gate, honesty_report
from models.honesty import ORACLE, TIERS, Run, tier_of
from models.science import honesty_table

SEEDS = (1, 2, 3)
HOURS = 1.0
TIER_HOURS = {"N0": HOURS, "N1": HOURS, "P medium": HOURS, "P+": 2.0}
EARNED = {
    "edge_trades", "edge_lower95_bps", "beats_doing_nothing", "deflated_sharpe", "overfitting",
    "calibration_error", "log_loss_over_climatology",
}  # fmt: skip
"""What a bundle must earn; everything else is granted in these tests."""


@pytest.fixture(scope="module")
def runs() -> dict[str, list[Run]]:
    return {
        name: [honesty.run_tier(tier_of(name), seed, hours) for seed in SEEDS]
        for name, hours in TIER_HOURS.items()
    }


@pytest.fixture(scope="module")
def quarter() -> honesty.Paths:
    return honesty.simulate(tier_of("N1"), 1, 0.5)


def mean(runs: list[Run], name: str) -> float:
    return float(np.mean([getattr(run, name) for run in runs]))


# --- the tiers


@pytest.mark.slow
def test_the_strict_null_holds_no_alpha(runs: dict[str, list[Run]]) -> None:
    # One IC has a standard deviation of 0.073 here (1.35 / sqrt(n): both paths share the intraday U).
    assert abs(mean(runs["N0"], "ic")) < 0.18
    assert mean(runs["N0"], "net_ticks") < 0 and not any(run.net_significant for run in runs["N0"])


@pytest.mark.slow
def test_a_book_is_predictable_by_itself_and_nobody_is_paid(runs: dict[str, list[Run]]) -> None:
    assert 0.15 < mean(runs["N1"], "ic") < 0.35
    assert mean(runs["N1"], "gross_ticks") > 0 > mean(runs["N1"], "net_ticks")
    assert not any(run.net_significant for run in runs["N1"])


@pytest.mark.slow
def test_a_plant_is_found_nearly_as_well_as_by_who_knows_it(runs: dict[str, list[Run]]) -> None:
    assert mean(runs["P medium"], "ic") > 0.7 * mean(runs["P medium"], "ic_oracle")
    assert mean(runs["P+"], "ic") > mean(runs["N1"], "ic") + 0.1
    assert mean(runs["P+"], "net_ticks") > 0


@pytest.mark.slow
def test_the_controls_answer_as_they_must() -> None:
    c = honesty_report.control(1, HOURS, "ridge")
    assert c.doubled == c.honest, "a row counted twice is no second outcome"
    assert c.resent.test_rows == pytest.approx(c.honest.test_rows, rel=0.02)
    assert c.ahead.ic > 0.6 and c.ahead.net_ticks > c.honest.net_ticks
    assert honesty.leaks(c.ahead.ic, c.honest.ic_oracle, c.ahead.test_rows)
    assert not honesty.leaks(c.honest.ic, c.honest.ic_oracle, c.honest.test_rows)
    assert not c.shuffled.net_significant and not c.backwards_n1.net_significant
    assert abs(c.shuffled.ic) < 0.3 and abs(c.backwards_n0.ic) < 0.3


@pytest.mark.slow
def test_trees_find_the_plant_too() -> None:
    assert honesty.run_tier(tier_of("P+"), 1, HOURS, learner="gbdt").ic > 0.2


# --- the gate


@pytest.mark.slow
@pytest.mark.parametrize(("tier", "tariff"), [("N0", "free"), ("N1", "simulated")])
def test_the_gate_refuses_the_nulls(tier: str, tariff: str) -> None:
    run = honesty_gate.run_gate(tier_of(tier), 1, HOURS, tariff_name=tariff, trials=8)
    assert not run.passed and run.calibrated.refusals and run.forced.refusals
    assert run.forced_edge["trades"] > 20 and run.forced_edge["net_bps"] < 0, "it was made to trade, and lost"
    refused = {check.name for check in run.forced.checks if not check.passed}
    assert {"edge_lower95_bps", "beats_doing_nothing"} <= refused <= EARNED
    json.dumps(run.to_dict())


@pytest.mark.slow
def test_the_gate_passes_the_tradable_plant() -> None:
    run = honesty_gate.run_gate(tier_of("P+"), 4, 2.0, tariff_name="free")
    assert run.calibrated.passed, run.calibrated.refusals
    assert run.edge["trades"] >= 100 and run.edge["net_bps_ci"][0] > 0


# --- the allow-list


def test_the_oracle_is_refused_by_name() -> None:
    X, y = np.zeros((200, F + 1), np.float32), np.zeros(200)
    with pytest.raises(ScalperError, match="column oracle is no feature of the schema"):
        honesty.fit((*NAMES, ORACLE), X, y)
    honesty.fit((*NAMES, ORACLE), X, y, allowed=(*NAMES, ORACLE))  # the upper bound says so aloud


def test_a_table_with_the_oracle_in_it_is_not_read(tmp_path: Path) -> None:
    days, oracle = simulate_market([SimSpec("HONA", "SMALL", overrides={"gbook": 0.3})], hours=0.1)
    table = compute(days[0])
    path = tmp_path / "day.npz"
    table.save(path)
    with np.load(path) as stored:
        honest = dict(stored)
    np.savez(path, **honest, oracle=oracle["HONA"])
    with pytest.raises(RecordingError, match="oracle"):
        FeatureTable.load(path)
    np.savez(path, **{**honest, "X": np.column_stack([honest["X"], oracle["HONA"]])})
    with pytest.raises(RecordingError, match=str(F)):
        FeatureTable.load(path)


# --- how a day becomes outcomes


def test_windows_of_independent_rows_do_not_overlap(quarter: honesty.Paths) -> None:
    train, _ = honesty.panels(quarter)
    rows = honesty.independent_rows(train)
    assert np.all(rows.entry_ns[1:] >= rows.exit_ns[:-1]) and rows.usable.all()
    lost_s = 0.5 * 3600 - len(rows) * honesty.HORIZON_S
    assert 120 <= lost_s < 160, "all but the warm-up of the features and the last window"
    assert len(honesty.independent_rows(honesty_controls.doubled(train))) == len(rows)


def test_ticks_are_what_the_book_says(quarter: honesty.Paths) -> None:
    train, _ = honesty.panels(quarter)
    books = quarter.paid[0].books
    i = np.flatnonzero(train.usable)[::50]
    at, to = (np.searchsorted(books.recv_ns, t[i], side="right") - 1 for t in (train.entry_ns, train.exit_ns))
    bid, ask = books.bid_px[:, 0].astype(float), books.ask_px[:, 0].astype(float)
    np.testing.assert_array_equal(train.long[i], bid[to] - ask[at])
    np.testing.assert_array_equal(train.short[i], bid[at] - ask[to])
    np.testing.assert_array_equal(train.move[i], (bid[to] + ask[to] - bid[at] - ask[at]) / 2)


def test_the_strict_null_pairs_two_different_paths(quarter: honesty.Paths) -> None:
    null = honesty.simulate(tier_of("N0"), 1, 0.1)
    seen, paid = null.seen[0], null.paid[0]
    assert seen.instrument.ticker != paid.instrument.ticker
    assert not np.array_equal(seen.books.bid_px, paid.books.bid_px)
    assert quarter.paid is quarter.seen


def test_shuffling_moves_every_block_and_nothing_else(quarter: honesty.Paths) -> None:
    train, _ = honesty.panels(quarter)
    plain = honesty.independent_rows(train)
    moved = honesty_controls.shuffled(train, 3, block=10)
    n = len(moved)
    assert n == len(plain) // 10 * 10 and np.array_equal(moved.X, plain.X[:n], equal_nan=True)
    blocks, before = moved.move.reshape(-1, 10), plain.move[:n].reshape(-1, 10)
    assert not any(np.array_equal(a, b) for a, b in zip(blocks, before, strict=True))
    assert sorted(map(tuple, blocks)) == sorted(map(tuple, before))


def test_a_resent_snapshot_is_a_duplicate_and_a_reversed_day_is_in_order(quarter: honesty.Paths) -> None:
    day = quarter.seen[0]
    again, source = honesty_controls.resent(day, 5)
    table = compute(again)
    copies = np.flatnonzero(np.diff(source, prepend=-1) == 0)
    assert len(copies) == -(-len(day.books) // 5) and np.all(table.status[copies] & DUPLICATE)
    back = honesty_controls.reversed_day(day)
    assert np.all(np.diff(back.books.recv_ns) > 0) and np.all(np.diff(back.trades.recv_ns) >= 0)
    np.testing.assert_array_equal(honesty_controls.reversed_day(back).books.recv_ns, day.books.recv_ns)


# --- the table


def many(tiers: list[tuple[str, float, float]], *, gross_lower: float = -1.0) -> list[Run]:
    """Three made-up runs of each (tier, IC, net); the oracle's IC is 0.4."""
    return [
        Run(name, seed, 100, 100, ic + 0.01 * seed, 0.4, 10, 2.0, gross_lower, net, net - 1)
        for name, ic, net in tiers
        for seed in (-1, 0, 1)
    ]


def test_the_claims_say_what_fails() -> None:
    good = many(
        [("N0", 0.001, -4), ("N1", 0.26, -2), ("P weak", 0.27, -2), ("P medium", 0.36, -1), ("P+", 0.5, 9)]
    )
    assert all(f.holds for f in honesty_report.claims(honesty_report.summarise(good)))
    bad = many([("N0", 0.2, 1), ("N1", 0.5, 1), ("P medium", 0.3, -1), ("P+", 0.5, -1)], gross_lower=1.0)
    assert not any(f.holds for f in honesty_report.claims(honesty_report.summarise(bad)))


def test_a_null_that_fails_is_looked_at_once_more_and_both_looks_are_judged_together() -> None:
    runs = {ic: many([("N0", ic, -4)]) for ic in (-0.03, 0.002, -0.05, -0.1)}
    unlucky, clean, leaking, far = (honesty_report.summarise(found)[0] for found in runs.values())
    assert not honesty_report.null_claim(unlucky).holds
    told = honesty_report.null_claim(unlucky, clean)
    both = honesty_report.summarise([*runs[-0.03], *runs[0.002]])[0]
    assert told.holds and told.measured == (
        "-0.0300, SE 0.0058; on 3 other seeds +0.0020, SE 0.0058; "
        f"all 6 together {both.ic:+.4f}, SE {both.ic_se:.4f}, z {both.ic / both.ic_se:+.1f}"
    )
    assert not honesty_report.null_claim(unlucky, leaking).holds, "a leak is there on any seeds"
    assert not honesty_report.null_claim(far, clean).holds, "a clean second look does not undo the first"
    assert honesty_report.FRESH_SEEDS > honesty_report.MAX_SEEDS, "a seed would be in both looks"


def test_unknown_names_and_too_few_seeds_are_refused() -> None:
    with pytest.raises(ConfigError, match="P medium"):
        tier_of("P huge")
    with pytest.raises(ConfigError, match="seeds"):
        honesty_report.run_tiers(2, 1.0)
    with pytest.raises(ScalperError, match="more hours"):
        honesty.run_tier(TIERS[1], 1, 0.1)


def test_the_table_is_printed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tuple(
        many(
            [("N0", 0.2, -4), ("N1", 0.26, -2), ("P weak", 0.27, -2), ("P medium", 0.36, -1), ("P+", 0.5, 9)]
        )
    )
    table = honesty_report.summarise(runs)
    report = honesty_report.Report(6.0, "ridge", runs, table, tuple(honesty_report.claims(table)), ())
    assert honesty_table.publish(report, tmp_path) == honesty_table.BROKEN
    said = capsys.readouterr().out
    assert all(f"| {tier.name} |" in said for tier in TIERS) and "SIMULATED" in said and "FAILS  N0" in said
    stored = json.loads((tmp_path / honesty_table.FILE).read_text())
    assert stored["watermark"] == "SIMULATED" and not stored["holds"] and len(stored["runs"]) == len(runs)
