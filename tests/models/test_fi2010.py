"""The FI-2010 protocol on a made benchmark of the same shape: files, seams, learners, budget, report."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.cli import main
from market.errors import RecordingError
from models import evaluate, fi2010, fi2010_budget, fi2010_report, fi2010_run
from models import fi2010_published as published
from models.fi2010_budget import Budget, OutOfTime
from models.fi2010_learners import OURS, Given, majority, momentum, task_of, yardstick
from models.fi2010_run import Plan

STOCKS = 3


def matrix(rows: int, seed: int) -> np.ndarray:
    """float64 [149, rows]: stocks one after the other, their next move told by the imbalance of the touch."""
    rng = np.random.default_rng(seed)
    columns, labels = [], []
    for stock in range(STOCKS):
        n = rows // STOCKS
        lean = np.convolve(rng.normal(size=n + 1), np.ones(2) / 2, "valid")
        step = 0.03 * lean + rng.normal(0, 0.01, n)
        mid = 3.0 * stock + np.cumsum(np.concatenate([[0.0], step[:-1]]))
        x = np.zeros((144, n))
        for level in range(10):
            x[4 * level] = mid + 0.01 * (level + 1)
            x[4 * level + 1] = -lean + rng.normal(0, 0.1, n)
            x[4 * level + 2] = mid - 0.01 * (level + 1)
            x[4 * level + 3] = lean + rng.normal(0, 0.1, n)
        x[40:] = rng.normal(size=(104, n))
        y = np.empty((5, n))
        for k, ahead in enumerate((1, 2, 3, 5, 10)):
            move = np.array([mid[min(i + ahead, n - 1)] - mid[i] for i in range(n)])
            limit = np.quantile(np.abs(move), 0.33)
            y[k] = np.where(move > limit, 1, np.where(move < -limit, 3, 2))
        columns.append(x)
        labels.append(y)
    return np.concatenate([np.concatenate(columns, axis=1), np.concatenate(labels, axis=1)])


def write(folder: Path, name: str, rows: int, seed: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.txt"
    np.savetxt(path, matrix(rows, seed), fmt="%.5e")
    return path


def archive(parent: Path, rows: int, test_rows: int) -> Path:
    """Setup 2 in the archive's own nesting, and a distractor of the auction variant."""
    root = parent / "BenchmarkDatasets" / "NoAuction"
    training, testing = root / "1.NoAuction_Zscore" / "Training", root / "1.NoAuction_Zscore" / "Testing"
    write(training, "Train_Dst_NoAuction_ZScore_CF_7", rows, 1)
    for d in (7, 8, 9):
        write(testing, f"Test_Dst_NoAuction_ZScore_CF_{d}", test_rows, 10 + d)
    (root / "Train_Dst_Auction_ZScore_CF_7.txt").write_text("not this one\n")
    return root.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive(tmp_path_factory.mktemp("fi2010"), 2_400, 450)


def _parts(folder: Path) -> tuple[fi2010.Part, fi2010.Part]:
    found = fi2010.find(folder)
    quiet = lambda line: None  # noqa: E731
    train = fi2010.read([found.train[7]], None, quiet)
    test = fi2010.read([found.test[d] for d in (7, 8, 9)], None, quiet)
    return fi2010.directed(train, True), fi2010.directed(test, True)


# --- files and rows


def test_the_files_are_found_by_their_names_and_missing_ones_are_named(folder: Path, tmp_path: Path) -> None:
    found = fi2010.find(folder)
    assert sorted(found.train) == [7] and sorted(found.test) == [7, 8, 9] and not found.anchored
    with pytest.raises(RecordingError, match=r"lacks Train_Dst_NoAuction_MinMax_CF_7.*variants seen: ZScore"):
        fi2010.find(folder, "MinMax")
    with pytest.raises(RecordingError, match="no NoAuction matrix"):
        fi2010.find(tmp_path)
    with pytest.raises(RecordingError, match="there is no folder"):
        fi2010.find(tmp_path / "gone")


def test_a_copy_in_the_cache_is_the_same_rows_and_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "d", "Train_Dst_NoAuction_ZScore_CF_7", 60, 1)
    said: list[str] = []
    first = fi2010.read([path], tmp_path / "c", said.append)
    second = fi2010.read([path], tmp_path / "c", said.append)
    assert len(said) == 1 and np.array_equal(first.x, second.x) and np.array_equal(first.y, second.y)
    write(tmp_path / "d", "Train_Dst_NoAuction_ZScore_CF_7", 66, 2)
    assert len(fi2010.read([path], tmp_path / "c", said.append)) == 66 and len(said) == 2


def test_stocks_and_files_begin_afresh_and_nothing_looks_over_a_seam(folder: Path) -> None:
    train, test = _parts(folder)
    assert np.flatnonzero(train.fresh).tolist() == [0, 800, 1600]
    assert np.flatnonzero(test.fresh).tolist() == list(range(0, 1350, 150))
    mid = (train.x[:, 0].astype(np.float64) + train.x[:, 2]) / 2
    mean = fi2010.trailing_mean(mid, train.fresh, 10)
    for row in (0, 5, 799, 800, 803, 1650):
        first = max(row - 9, [0, 800, 1600][np.searchsorted([0, 800, 1600], row, side="right") - 1])
        assert mean[row] == pytest.approx(mid[first : row + 1].mean())
    rich = fi2010.relative(train)
    # Changing the first stock changes nothing that is said about the second.
    other = fi2010.Part(train.x.copy(), train.y, train.fresh)
    other.x[:800] += 7.0
    assert np.array_equal(fi2010.relative(other)[800:], rich[800:])
    assert rich.shape[1] > 144 and np.isfinite(rich).all()


def test_what_label_one_means_is_measured(folder: Path) -> None:
    train, _ = _parts(folder)
    codes = fi2010.Part(train.x, 3 - train.y, train.fresh)
    assert fi2010.orientation(codes) > 0.5
    assert fi2010.orientation(fi2010.Part(train.x, 4 - codes.y, train.fresh)) < -0.5
    assert np.array_equal(fi2010.directed(fi2010.Part(train.x, 4 - codes.y, train.fresh), False).y, train.y)


@given(st.integers(5, 400), st.sets(st.integers(1, 399), max_size=6), st.sampled_from(["tail", "stocks"]))
def test_validation_is_a_fifth_at_the_end(n: int, cuts: set[int], kind: str) -> None:
    fresh = np.zeros(n, np.bool_)
    fresh[[0, *(c for c in cuts if c < n)]] = True
    chosen = fi2010.validation(n, fresh, kind)
    assert abs(int(chosen.sum()) - n / 5) <= 1 + fresh.sum()
    starts = [0] if kind == "tail" else np.flatnonzero(fresh).tolist()
    for a, b in zip(starts, [*starts[1:], n], strict=True):
        # Within a stretch validation rows come after all of its training rows.
        assert not np.any(np.diff(chosen[a:b].astype(int)) < 0)


# --- learners


def _task(folder: Path, horizon: int = 0):  # type: ignore[no-untyped-def]
    train, test = _parts(folder)
    x = np.concatenate([train.x, test.x])
    rich = np.concatenate([fi2010.relative(train), fi2010.relative(test)])
    chosen = fi2010.validation(len(train), train.fresh, "tail")
    return task_of(train, test, x, rich, chosen, horizon), test


def test_no_learner_is_given_a_test_label(folder: Path) -> None:
    task, test = _task(folder, 2)
    n = len(task.y) - len(test)
    assert (task.y[n:] == -1).all() and not (task.train & task.asked).any() and task.asked[n:].all()
    assert np.array_equal(task.y[:n, 0], _parts(folder)[0].y[:, 2])


def test_the_yardstick_learns_what_momentum_and_the_majority_do_not_know(folder: Path) -> None:
    task, test = _task(folder)
    given_ = Given(1e6, 1, 1, lambda line: None)  # so that the machine's speed decides nothing
    n = len(task.y) - len(test)
    scores = {}
    for fit in (majority, momentum, yardstick):
        logp = fit(task, given_)[n:]
        rows = np.isfinite(logp).all(axis=1)
        assert rows.sum() >= len(test) - 9 * len(np.flatnonzero(test.fresh))
        scores[fit.__name__] = evaluate.mcc(test.y[rows, 0], logp[rows].argmax(axis=1))
    assert scores["majority"] == 0.0
    assert scores["yardstick"] > scores["momentum"] + 0.1 and scores["yardstick"] > 0.35


def test_kappa_is_zero_by_chance_and_one_in_agreement() -> None:
    y = np.array([0, 1, 2] * 30)
    assert fi2010_run.kappa(y, y) == 1.0
    assert fi2010_run.kappa(y, np.repeat([0, 1, 2], 30)) == pytest.approx(0.0)
    from sklearn.metrics import cohen_kappa_score

    called = np.random.default_rng(1).integers(0, 3, 90)
    assert fi2010_run.kappa(y, called) == pytest.approx(cohen_kappa_score(y, called))


def test_a_bias_is_chosen_only_where_it_helps() -> None:
    rng = np.random.default_rng(2)
    logp = np.log(rng.dirichlet([1, 1, 1], 500)).astype(np.float32)
    y = logp.argmax(axis=1)
    assert fi2010_run.choose_bias(logp, y) == (0.0, 0.0, 0.0)
    shifted = logp + np.array([0.0, 0.8, 0.0], np.float32)
    flat = fi2010_run.choose_bias(shifted, y)[1]
    assert flat == pytest.approx(-0.8)


# --- the budget


def test_a_step_is_stopped_when_its_time_is_used_up_and_the_next_one_runs() -> None:
    said: list[str] = []
    budget = Budget(600.0, said.append)
    with budget.step("endless", 0.3):
        while True:
            sum(range(1000))
    assert budget.cut == ["endless"]
    done = []
    with budget.step("short", 60.0) as limit:
        done.append(limit)
    assert done[0] == pytest.approx(60.0) and budget.cut == ["endless"] and "short" in budget.spent
    assert any("out of time" in line for line in said)


def test_a_step_that_swallows_the_bell_hears_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a library's callback does: what is raised in it ends there."""
    monkeypatch.setattr(fi2010_budget, "AGAIN_S", 0.1)
    budget = Budget(600.0, lambda line: None)
    swallowed = 0
    with budget.step("deaf", 0.1):
        try:
            while True:
                sum(range(1000))
        except OutOfTime:
            swallowed += 1
        while True:
            sum(range(1000))
    assert swallowed == 1 and budget.cut == ["deaf"]


def test_a_bell_that_rings_while_it_is_put_away_is_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    before, real = signal.getsignal(signal.SIGALRM), signal.setitimer

    def late(which: int, seconds: float, again: float = 0.0) -> tuple[float, float]:
        if seconds == 0.0:
            signal.raise_signal(signal.SIGALRM)
        return real(which, seconds, again)

    monkeypatch.setattr(fi2010_budget.signal, "setitimer", late)
    budget = Budget(600.0, lambda line: None)
    with budget.step("done", 60.0):
        pass
    assert budget.cut == [] and signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_nothing_begins_when_the_time_is_used_up() -> None:
    budget = Budget(0.0, lambda line: None)
    with budget.step("late", 10.0) as limit:
        assert limit == 0.0
    assert budget.cut == ["late"]


def test_an_error_of_a_step_is_not_taken_for_a_lack_of_time() -> None:
    with pytest.raises(ValueError, match="real"), Budget(5.0, lambda line: None).step("bad", 1.0):
        raise ValueError("real")


# --- the whole


def test_the_published_tables_are_whole_and_ordered_as_the_text_says() -> None:
    for table in (published.LOBCAST, published.CLAIMED, published.LEVELS):
        assert all(len(row) == 5 for row in table.values())
        assert all(v is None or 0 < v < 100 for row in table.values() for v in row)
    best = published.LOBCAST["BiN-CTABL"]
    assert all(best[k] == max(row[k] for row in published.LOBCAST.values()) for k in range(5))
    assert published.LEVELS["silver: BiN-CTABL as re-run"] == best


@pytest.mark.slow
def test_the_benchmark_runs_in_its_budget_and_leaves_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So little work that it ends far inside its budget, however slow the machine is."""
    folder = archive(tmp_path, 900, 150)
    words = ["benchmark", "fi2010", str(folder), "--out", str(tmp_path / "out"), "--minutes", "4",
             "--threads", "1", "--cache", str(tmp_path / "cache"), "--learner", "gbdt",
             "--learner", "svm"]  # fmt: skip
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "that are left" in said and "k=100" in said and "BiN-CTABL, as re-run" in said
    result = json.loads((tmp_path / "out" / "fi2010.json").read_text())
    assert result["cut"] == [] and result["real"] is False and set(result["files"]) == {
        "Train_Dst_NoAuction_ZScore_CF_7.txt", *(f"Test_Dst_NoAuction_ZScore_CF_{d}.txt" for d in (7, 8, 9)),
    }  # fmt: skip
    scored = {row["name"]: row for row in result["horizons"][0]["forecasts"]}
    assert scored["ensemble"]["macro_f1"] > scored["momentum only"]["macro_f1"] + 0.1
    assert sum(map(sum, scored["ensemble"]["confusion"])) == result["horizons"][0]["rows"]["test"]
    page = (tmp_path / "out" / "fi2010.html").read_text()
    assert "may be compared with the published tables" in page and "<script" not in page
    assert "81.1" in page and "momentum only" in page and "SIMULATED" not in page


def test_an_impossible_request_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "fi2010", str(folder), "--minutes", "90"]) == 2
    assert main(["benchmark", "fi2010", str(folder), "--learner", "deeplob"]) == 2
    told = capsys.readouterr().err
    assert "60 at most" in told and "known are gbdt" in told and told.count("\n") == 2


def test_levels_are_reached_by_the_ensemble_alone() -> None:
    def horizon(k: int, ours: float) -> dict[str, object]:
        return {"k": k, "forecasts": [{"name": "ensemble", "macro_f1": ours}, {"name": "momentum only",
                                                                              "macro_f1": 0.5}]}  # fmt: skip

    result = {"real": True, "horizons": [horizon(k, 0.72) for k in fi2010.HORIZONS]}
    said = fi2010_report.verdicts(result)
    assert said[0].startswith("bronze") and "at k = 10, 20, 30" in said[0]
    assert "at k = 20" in said[1] and "not reached at any horizon" in said[2]
    assert "+22.0" in said[-1]
    assert set(OURS) == {"gbdt", "svm", "lstm", "transformer", "BiN-CTABL"} and Plan().minutes == 60
