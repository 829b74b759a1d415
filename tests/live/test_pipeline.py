"""The pipeline: live rows equal batch rows, gaps reset models, failures are told, time does not matter."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
from core_bench import KEY

from features.batch import compute
from features.schema import usable
from live.backtest_tape import book_event
from live.core import events as ev
from live.pipeline import WARM_ROWS, Row, SignalPipeline
from market import stream
from market.simulator import SimSpec, simulate_market
from market.types import SECOND_NS, InstrumentDay


@dataclass
class Answer:
    p: np.ndarray
    expected_move_millibps: int


class Rows:
    """A score model that remembers the rows it was given and scores them by their first feature."""

    def __init__(self) -> None:
        self.bundle = SimpleNamespace(manifest={"instruments": [{"ticker": "SIMA", "kind": "share"}]})
        self.rows: list[Row] = []
        self.resets: list[str] = []
        self.members: Collection[str] | None = None
        self.fail = ""

    def step(self, ticker: str, x: Row) -> Answer | None:
        self.rows.append(x.copy())
        if self.fail == "raise":
            raise RuntimeError("the interpreter died")
        if self.fail == "nan":
            return Answer(np.array([np.nan, 0.5, 0.5]), 0)
        return Answer(np.array([0.25, 0.5, 0.25]), len(self.rows)) if len(self.rows) > 3 else None

    def reset(self, ticker: str) -> None:
        self.resets.append(ticker)

    def use_only(self, names: Collection[str] | None) -> None:
        self.members = names


@pytest.fixture(scope="module")
def day() -> InstrumentDay:
    days, _ = simulate_market([SimSpec("SIMA", "SMALL")], hours=0.06)
    return days[0]


def play(pipeline: SignalPipeline, day: InstrumentDay) -> list[ev.Scores | ev.InferenceFailed | None]:
    """Every event of the day in the recording's order; the answers to its books."""
    answers = []
    kind, row = stream.merge(day.books, day.trades)
    for k, i in zip(kind.tolist(), row.tolist(), strict=True):
        if k == stream.BOOK:
            answers.append(pipeline.on_book(book_event(day.books, i, "SIMA", int(day.books.recv_ns[i]))))
        else:
            t = day.trades
            pipeline.on_trade(
                ev.Trade(
                    int(t.recv_ns[i]), "SIMA", int(t.exch_ns[i]), int(t.px[i]), int(t.qty[i]), int(t.side[i])
                )
            )
    return answers


def test_the_rows_given_to_the_models_equal_the_batch_features_byte_for_byte(day: InstrumentDay) -> None:
    model = Rows()
    play(SignalPipeline(["SIMA"], model, KEY), day)
    table = compute(day)
    expected = table.X[[usable(int(s)) for s in table.status]]
    assert len(model.rows) == len(expected) > 100
    assert np.stack(model.rows).tobytes() == expected.tobytes()


@pytest.mark.parametrize("bids,asks", [(20, 20), (20, 3), (0, 20), (1, 0), (25, 20)])
def test_a_book_leaves_nothing_of_the_one_before_it(bids: int, asks: int) -> None:
    pipeline = SignalPipeline(["SIMA"], Rows(), KEY)
    lane = pipeline._lanes["SIMA"]
    full, few = tuple(range(300, 275, -1)), tuple(range(25, 0, -1))
    lane.take(ev.Book(1, "SIMA", 1, full[:20], full[:20], full[:20], full[:20]))
    lane.take(ev.Book(2, "SIMA", 2, few[:bids], few[:bids], few[:asks], few[:asks]))
    for row, n in zip(lane.levels.tolist(), (bids, bids, asks, asks), strict=True):
        assert row == [*few[: min(n, 20)], *[0] * (20 - min(n, 20))]


@pytest.mark.parametrize("big", [2**31, 2**63, -(2**31) - 1])
@pytest.mark.parametrize("depth", [20, 3])
def test_a_book_with_numbers_that_do_not_fit_is_no_row_and_ends_nothing(
    day: InstrumentDay, depth: int, big: int
) -> None:
    pipeline = SignalPipeline(["SIMA"], Rows(), KEY)
    play(pipeline, day)
    scored, unusable = pipeline.scored, pipeline.unusable
    last = book_event(day.books, len(day.books) - 1, "SIMA", int(day.books.recv_ns[-1]))
    sides = {name: getattr(last, name)[:depth] for name in ("bid_px", "bid_qty", "ask_px", "ask_qty")}
    for n, name in enumerate(sides):
        book = replace(last, now_ns=last.now_ns + n, **{**sides, name: (*sides[name][1:], big)})
        assert pipeline.on_book(book) is None
        assert not pipeline._lanes["SIMA"].levels.any()
    assert (pipeline.scored, pipeline.unusable) == (scored, unusable + 4)
    assert pipeline.on_book(replace(last, now_ns=last.now_ns + 5)) is not None  # the next one counts again


def test_scores_carry_trace_ids_and_whole_numbers(day: InstrumentDay) -> None:
    answers = play(SignalPipeline(["SIMA"], Rows(), KEY), day)
    scores = [a for a in answers if isinstance(a, ev.Scores)]
    first = next(i for i, a in enumerate(answers) if a is not None)
    assert scores[0].trace_id == f"{KEY[:8]}-SIMA-{first + 1}"
    assert len({s.trace_id for s in scores}) == len(scores)
    assert scores[0].p_e6 == (250_000, 500_000, 250_000) and type(scores[0].p_e6[0]) is int
    assert scores[0].expected_move_millibps == 4


def test_unusable_rows_reach_no_model_and_a_gap_resets_it(day: InstrumentDay) -> None:
    model = Rows()
    pipeline = SignalPipeline(["SIMA"], model, KEY)
    play(pipeline, day)
    seen = len(model.rows)
    last = book_event(day.books, len(day.books) - 1, "SIMA", int(day.books.recv_ns[-1]))
    assert pipeline.on_book(replace(last, now_ns=last.now_ns + SECOND_NS, ask_px=(), ask_qty=())) is None
    assert not model.resets
    assert pipeline.on_book(replace(last, now_ns=last.now_ns + 60 * SECOND_NS)) is None
    assert model.resets == ["SIMA"] and len(model.rows) == seen


@pytest.mark.parametrize("fail,words", [("raise", "the interpreter died"), ("nan", "not in [0, 1]")])
def test_a_model_that_raises_or_answers_nonsense_is_an_inference_failure(
    day: InstrumentDay, fail: str, words: str
) -> None:
    model = Rows()
    model.fail = fail
    failures = [a for a in play(SignalPipeline(["SIMA"], model, KEY), day) if a is not None]
    assert failures and all(isinstance(a, ev.InferenceFailed) and words in a.error for a in failures)


def test_stages_are_measured_with_the_clock_that_was_given_and_change_nothing(day: InstrumentDay) -> None:
    ticks = iter(range(0, 10**12, 7_000))
    timed = SignalPipeline(["SIMA"], Rows(), KEY, clock_ns=lambda: next(ticks))
    untimed = SignalPipeline(["SIMA"], Rows(), KEY)
    assert play(timed, day) == play(untimed, day)
    assert timed.micros == {"features": 7, "ml": 7} and untimed.micros == {"features": 0, "ml": 0}


def test_the_simplified_mode_uses_fewer_members_at_a_lower_rate(day: InstrumentDay) -> None:
    model = Rows()
    pipeline = SignalPipeline(["SIMA"], model, KEY)
    pipeline.set_mode(["gbdt"], SECOND_NS)
    scores = [a for a in play(pipeline, day) if isinstance(a, ev.Scores)]
    assert model.members == {"gbdt"}
    assert min(b.now_ns - a.now_ns for a, b in itertools.pairwise(scores)) >= SECOND_NS
    pipeline.set_mode()
    assert model.members is None


def test_a_reset_starts_a_new_warm_up(day: InstrumentDay) -> None:
    model = Rows()
    pipeline = SignalPipeline(["SIMA"], model, KEY)
    play(pipeline, day)
    pipeline.reset()
    assert model.resets == ["SIMA"]
    last = book_event(day.books, len(day.books) - 1, "SIMA", int(day.books.recv_ns[-1]) + 1)
    assert pipeline.on_book(last) is None


def test_reloading_models_warms_the_new_ones_up_and_clears_the_feature_cache(day: InstrumentDay) -> None:
    old, new = Rows(), Rows()
    pipeline = SignalPipeline(["SIMA"], old, KEY)
    play(pipeline, day)
    pipeline.swap(new)
    assert new.resets == ["SIMA"]
    np.testing.assert_array_equal(np.array(new.rows), np.array(old.rows[-len(new.rows) :]))
    assert len(new.rows) == WARM_ROWS
    answer, row = pipeline.last("SIMA")
    assert answer is None and np.isnan(row).all()
    pipeline.swap(Rows())  # nothing is left of the cache
    assert pipeline.ensemble.rows == []


def test_a_new_model_that_fails_in_its_warm_up_starts_afresh(day: InstrumentDay) -> None:
    pipeline, broken = SignalPipeline(["SIMA"], Rows(), KEY), Rows()
    play(pipeline, day)
    broken.fail = "raise"
    pipeline.swap(broken)
    assert broken.resets == ["SIMA", "SIMA"] and pipeline.ensemble is broken


def test_a_rotated_out_instrument_costs_no_features_and_starts_afresh_when_it_returns(
    day: InstrumentDay,
) -> None:
    model = Rows()
    pipeline = SignalPipeline(["SIMA"], model, KEY)
    pipeline.rotate(frozenset({"SIMA"}))
    assert not any(play(pipeline, day)) and not model.rows
    pipeline.rotate(frozenset())
    assert model.resets == ["SIMA"]
