"""Partitions that are kept, trials that are remembered, and who is asked to compute."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import grimp
import numpy as np
import pytest
import yaml

from features.batch import FeatureTable
from flows import compute, compute_block, compute_features, compute_labels, ingest_days, partitions
from flows import params as params_file
from flows.compute import Here
from flows.stages import features as stage
from flows.stages import labels as labels_stage
from market.errors import ConfigError
from market.recording import write_recording
from market.simulator import LEAD_LAG_SPECS, simulate_market
from market.types import InstrumentDay
from models.labels import Labels

DAYS = ["2026-01-15", "2026-01-16"]


@pytest.fixture(scope="module")
def market() -> list[InstrumentDay]:
    return simulate_market(LEAD_LAG_SPECS, hours=0.05, dt_s=0.25, seed=1, day=DAYS)[0]


def record(days: Sequence[InstrumentDay]) -> None:
    write_recording(
        Path("data/recording"), days, source="simulator", watermark="SIMULATED", tariff="simulated",
        provenance={},
    )  # fmt: skip


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def computed(stage: ModuleType = stage) -> list[str]:
    """Runs the stage; the instrument-days that it did not take over."""
    said: list[str] = []
    stage.main(said.append)
    days = [(re.match(r"\w+ \d{4}-\d\d-\d\d", line), line) for line in said]
    return [day[0] for day, line in days if day is not None and "unchanged" not in line]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in (compute.ENGINE, compute.ADDRESS):
        monkeypatch.delenv(name, raising=False)
    Path("params.yaml").write_text("features:\n  leader: {SIMG: SIML}\n")
    return tmp_path


def test_a_new_day_costs_one_day_and_gives_what_all_days_at_once_give(
    folder: Path, market: list[InstrumentDay]
) -> None:
    record([d for d in market if d.day == DAYS[0]])
    assert computed() == [f"SIMG {DAYS[0]}", f"SIML {DAYS[0]}"]
    record(market)
    assert computed() == [f"SIMG {DAYS[1]}", f"SIML {DAYS[1]}"]
    grown = content(Path("data/features"))
    assert computed() == []
    for old in Path("data/features").iterdir():
        if old.is_dir():
            old.rename(folder / old.name)  # nothing left to take over
    assert len(computed()) == 4
    assert content(Path("data/features")) == grown
    # A day that is gone leaves no partition behind.
    record([d for d in market if d.day == DAYS[1]])
    assert computed() == []
    assert sorted(p.stem for p in Path("data/features").rglob("*.npz")) == [DAYS[1], DAYS[1]]


def test_labels_of_a_new_day_cost_one_day_too(folder: Path, market: list[InstrumentDay]) -> None:
    record([d for d in market if d.day == DAYS[0]])
    computed()
    assert computed(labels_stage) == [f"SIMG {DAYS[0]}", f"SIML {DAYS[0]}"]
    record(market)
    computed()
    assert computed(labels_stage) == [f"SIMG {DAYS[1]}", f"SIML {DAYS[1]}"]
    grown, told = content(Path("data/labels")), Path("artifacts/metrics/labels.json").read_bytes()
    assert computed(labels_stage) == []
    # Other settings, other features of one day: other labels, and back again to the same bytes.
    Path("params.yaml").write_text("costs: {latency_ms: 200}\n")
    assert len(computed(labels_stage)) == 4 and content(Path("data/labels")) != grown
    Path("params.yaml").write_text("features:\n  leader: {SIMG: SIML}\n")
    shutil.rmtree("data/labels")
    assert len(computed(labels_stage)) == 4
    assert (content(Path("data/labels")), Path("artifacts/metrics/labels.json").read_bytes()) == (grown, told)
    record([d if d.instrument.ticker != "SIML" or d.day != DAYS[0] else cut(d) for d in market])
    computed()
    assert computed(labels_stage) == [f"SIMG {DAYS[0]}", f"SIML {DAYS[0]}"]  # SIML leads SIMG's features


def test_what_changed_or_was_damaged_is_computed_again(
    folder: Path, market: list[InstrumentDay], monkeypatch: pytest.MonkeyPatch
) -> None:
    record(market)
    computed()
    good = content(Path("data/features"))
    damaged = Path("data/features/SIMG") / f"{DAYS[0]}.npz"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    Path(f"data/features/SIML/{DAYS[1]}.json").write_text("{")
    assert computed() == [f"SIMG {DAYS[0]}", f"SIML {DAYS[1]}"]
    assert content(Path("data/features")) == good
    # The leader's day is an input of its follower.
    shorter = [d if d.instrument.ticker != "SIML" or d.day != DAYS[0] else cut(d) for d in market]
    record(shorter)
    assert computed() == [f"SIMG {DAYS[0]}", f"SIML {DAYS[0]}"]
    Path("params.yaml").write_text("{}\n")
    assert computed() == [f"SIMG {DAYS[0]}", f"SIMG {DAYS[1]}"]
    monkeypatch.setattr(compute_features, "maker", lambda: "another code")
    assert len(computed()) == 4


def cut(day: InstrumentDay) -> InstrumentDay:
    return InstrumentDay(
        day.instrument, day.day, day.books.rows(np.arange(len(day.books)) < len(day.books) - 40), day.trades
    )


def test_a_stage_that_was_killed_goes_on_and_leaves_the_old_result_until_it_is_done(
    folder: Path, market: list[InstrumentDay]
) -> None:
    record(market)

    class Killed(Here):
        def map(self, work, items, name="part"):  # type: ignore[no-untyped-def]
            yield work(items[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage.build(Killed(), params_file.load(), lambda _: None)
    assert not Path("data/features").exists()
    assert computed() == [f"SIMG {DAYS[1]}", f"SIML {DAYS[0]}", f"SIML {DAYS[1]}"]
    assert not list(Path("data").glob(".*"))
    assert len(FeatureTable.load(Path(f"data/features/SIMG/{DAYS[0]}.npz"))) > 0


def test_who_computes_is_no_part_of_a_result_and_the_environment_wins(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("params.yaml").write_text("compute: {engine: dask, address: 'tcp://one:8786', workers: 3}\n")
    params = params_file.load()
    assert "compute" not in params.for_manifest()
    monkeypatch.setenv(compute.ADDRESS, "tcp://two:8786")
    assert compute.in_force(params.compute).address == "tcp://two:8786"
    monkeypatch.setenv(compute.ENGINE, "local")
    assert compute.run("any", params.compute, lambda pool: pool.workers) == 1
    monkeypatch.delenv(compute.ENGINE)
    # For one part nobody is called, which is as well: nobody is at that address.
    assert compute.run("any", params.compute, lambda pool: pool.workers, parts=1) == 1
    monkeypatch.setenv(compute.ENGINE, "ray")
    with pytest.raises(ConfigError, match=r"SCALPER_COMPUTE_ENGINE.*is 'ray'; allowed: local or dask"):
        compute.in_force(params.compute)
    with pytest.raises(ConfigError, match=r"compute\.workers is -1; allowed: 0 or more"):
        params_file.parse({"compute": {"workers": -1}})


def test_no_stage_depends_on_where_it_is_computed() -> None:
    stages = yaml.safe_load((Path(__file__).resolve().parents[2] / "dvc.yaml").read_text())["stages"]
    for name, spec in stages.items():
        assert not [key for key in spec.get("params", []) if key.split(".")[0] == "compute"], name
        assert "flows/compute_dask.py" not in spec["deps"], name
    # Without it DVC would remove the partitions that the stage takes over.
    for name in ("features", "labels"):  # stage ingest: test_stage_ingest.py
        assert stages[name]["outs"] == [{f"data/{name}": {"persist": True}}]


# --- trials


@pytest.fixture(scope="module")
def player():  # type: ignore[no-untyped-def]
    import sys

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))
    import planted

    from models.policy import Costs, Market, Player, Prepared

    weights = {"gbdt": 0.6, "svm": 0.4}
    m = planted.market(2400, seed=1, plant=3.0)
    one = Market(
        m.ticker, m.recv_ns, m.mid2, m.spread, m.y, m.move_bps, m.blocks["calibrate"], m.blocks["threshold"],
        np.zeros(len(m.y), np.int64), 0.1,
        {name: planted.member_logp(m, 1.0, seed=i) for i, name in enumerate(weights)},
    )  # fmt: skip
    costs = Costs(planted.HORIZON_NS, planted.LATENCY_NS)
    return Player([Prepared.of(one, weights)], weights, costs, 0.7, 3, 0.2)


def test_a_search_that_was_killed_costs_the_trials_that_are_missing(player, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from models.policy_search import run_trials, tried
    from models.trial_record import TrialRecord, Tried

    journal, evaluated = str(tmp_path / "trials.journal"), 0

    def counted(picked: Sequence[object]) -> Iterable[Tried]:
        nonlocal evaluated
        for one in picked:
            evaluated += 1
            if evaluated == 9:
                raise KeyboardInterrupt
            yield tried(player, one)  # type: ignore[arg-type]

    def search(kept: TrialRecord | None):  # type: ignore[no-untyped-def]
        return run_trials(
            player,
            1.0,
            14,
            7,
            lambda _: None,
            batch=4,
            evaluate_all=counted if kept is not None else None,
            kept=kept,
        )

    whole = search(None)
    with pytest.raises(KeyboardInterrupt):
        search(TrialRecord.open(journal, b"question"))
    again = TrialRecord.open(journal, b"question")
    assert len(again) == 8 and len(TrialRecord.open(journal, b"another question")) == 0
    resumed = search(again)
    assert evaluated == 9 + 6 and resumed.log == whole.log and resumed.choices == whole.choices
    assert np.array_equal(resumed.returns, whole.returns)
    # The budget is exact: every trial is there once.
    assert len(TrialRecord.open(journal, b"question")) == 14 == len(whole.log)
    Path(journal).write_text("no journal\n" + json.dumps({"op_code": 0}) + "\n")
    with pytest.raises(ConfigError, match=r"compute\.study .* cannot be read .*name another file"):
        TrialRecord.open(journal, b"question")


@pytest.mark.parametrize(
    ("made_by", "others"),
    [
        (compute_features, ("market.days",)),
        # The features themselves are hashed, and each setting by its value.
        (compute_labels, ("features.", "flows.params", "market.days")),
        # How a folder takes another one's place; a recording's tariff is written anew each time.
        (ingest_days, ("flows.interrupt", "flows.stages.common")),
    ],
)
def test_what_a_partition_is_made_by_is_in_its_hash(made_by: ModuleType, others: tuple[str, ...]) -> None:
    graph = grimp.build_graph("market", "features", "models", "flows", cache_dir=None)
    used = {made_by.__name__} | graph.find_upstream_modules(made_by.__name__)
    # An error and a commission (a setting of its own) are no numbers of a partition.
    used = {name for name in used if not name.startswith(("market.errors", "market.fees", *others))}
    files = {name.replace(".", "/") for name in used}
    known = tuple(name.removesuffix(".py") for name in made_by.CODE)
    assert not [name for name in files if not any(name == k or name.startswith(f"{k}/") for k in known)]


@dataclass(frozen=True, slots=True)
class ToldMore:
    rows: int
    usable: float
    gaps: int


def test_a_partition_of_which_other_facts_are_told_is_made_anew(tmp_path: Path) -> None:
    target, old = tmp_path / "day.npz", tmp_path / "old.npz"
    for path in (target, old):
        path.write_bytes(b"rows")
    partitions.note(target, "this", {"rows": 3, "usable": 0.5})
    assert partitions.kept(target, "this", [], compute_features.Made) == compute_features.Made(3, 0.5)
    assert partitions.kept(target, "this", [old], ToldMore) is None
    partitions.note(old, "this", {"rows": 3, "usable": 0.5, "gaps": 1})
    assert partitions.kept(target, "this", [old], ToldMore) == ToldMore(3, 0.5, 1)
    assert partitions.kept(target, "this", [], ToldMore) == ToldMore(3, 0.5, 1)


ROWS = np.zeros(100_000, np.int64)
WRITES: dict[str, Callable[[Path], None]] = {
    "features": FeatureTable(*[ROWS] * 5).save,
    "labels": Labels(*[ROWS] * 7).save,
    "note": lambda path: partitions.note(path.with_name("source"), "this", {"days": [0] * 20_000}),
    "take over": lambda path: partitions.take_over(path.with_name("source"), path),
    "backtest": lambda path: compute_block._replace(path, b"A" * 1_000_000),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_two_workers_may_come_to_one_part(write: Callable[[Path], None], tmp_path: Path) -> None:
    """... and what a worker leaves that dies is no part of the output."""
    with partitions.growing(tmp_path / "final") as folder:
        path = folder / "day.npz"
        path.with_name("source").write_bytes(b"rows")
        write(path)
        good = content(folder)
        with ThreadPoolExecutor(2) as workers:
            for done in [workers.submit(write, path) for _ in range(30)]:
                done.result()
                assert {name: (folder / name).read_bytes() for name in good} == good
        path.with_name("day.npz.5.part").write_bytes(b"ro")
    assert content(tmp_path / "final") == good
