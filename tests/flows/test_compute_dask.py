"""On a real scheduler with two worker processes, through a real Prefect server: the same bytes, and deaths
survived."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import compute_parts
import numpy as np
import pytest

from flows import compute, compute_backtests, compute_block, compute_features
from flows.compute import ComputeError, Here, Pool
from flows.compute_trials import search_on
from flows.params import ComputeParams
from live.config import engine_config
from live.config_schema import Risk, RunnerConfig, Session
from market.latency import Latency
from market.recording import Recording
from market.simulator import SimSpec, simulate_recording
from models.bundle import Bundle

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "models"), str(TESTS / "live")]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

DAYS = ["2026-01-15", "2026-01-16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the work is done: two instruments on two days."""
    made = tmp_path_factory.mktemp("compute")
    (made / "params.yaml").write_text("{}\n")
    specs = (SimSpec("SIMP", "SMALL", planted=True), SimSpec("SIMA", "SMALL"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        simulate_recording(made / "recording", specs, hours=0.06, day=DAYS)
        yield made


@pytest.fixture(scope="module")
def asked(folder: Path) -> Iterator[ComputeParams]:
    """Two worker processes that report to a Prefect server of their own."""
    import dask
    import distributed
    from prefect.testing.utilities import prefect_test_harness

    with (
        prefect_test_harness(server_startup_timeout=900),
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0",
            env={"OMP_NUM_THREADS": "1", "PREFECT_LOGGING_LEVEL": "CRITICAL"},
        ) as cluster,
    ):  # fmt: skip
        yield ComputeParams("dask", cluster.scheduler_address)


def test_everything_is_the_same_although_a_worker_is_killed(folder: Path, asked: ComputeParams) -> None:
    recording = Recording.open(folder / "recording")
    here, there = (
        compute_features.parts(recording, {"SIMA": "SIMP"}, folder / "none", folder / name)
        for name in ("here", "there")
    )
    made = [compute_features.build(part)[0] for part in here]
    player, features, labels, settings = _player(), *_dataset(folder), _settings()
    bundle = _bundle(folder)

    def body(pool: Pool) -> dict[str, Any]:
        assert pool.workers == 2
        note = str(folder / "death")
        built = list(pool.map(compute_parts.build_after_a_death, [(part, note) for part in there]))
        return {"parts": [m for m, _ in built], **_others(pool)}

    def _others(pool: Pool) -> dict[str, Any]:
        from models.validation import study_at

        trials = search_on(pool, str(folder / "trials.journal"))(player, 1.0, 6, 7, lambda _: None, batch=3)
        into = folder / f"backtests-{pool.workers}"
        return {
            "trials": trials.log,
            "returns": trials.returns.tolist(),
            "block": _block(folder, bundle, pool),
            "folds": study_at(features, labels, settings, lambda _: None, pool.map),
            "backtests": list(
                compute_backtests.run(
                    folder / "recording", bundle, into, pool, key=folder / "keys/signing.pub"
                )
            ),
        }

    found = compute.run("all", asked, body)
    assert (folder / "death").exists(), "no worker was killed"
    assert found.pop("parts") == made
    for a, b in zip(here, there, strict=True):
        path = Path(a.ticker) / f"{a.day}.npz"
        assert (Path(a.into) / path).read_bytes() == (Path(b.into) / path).read_bytes()
    (folder / "trials.journal").unlink()
    assert found == _others(Here())
    assert found["folds"]["cpcv"]["paths"] == 3 and found["trials"][5]["number"] == 5
    assert found["block"]["orders"] > 0 and list(found["block"]["variants"]) == ["dearer"]
    assert [t.day for t in found["backtests"]] == DAYS and all(t.books for t in found["backtests"])
    assert not list((folder / "runtime/compute").iterdir()), "what was spilled for the workers is still there"


def test_a_part_that_kills_every_worker_ends_the_stage_and_its_run_says_crashed(asked: ComputeParams) -> None:
    from prefect.client.orchestration import get_client

    with pytest.raises(
        ComputeError, match=r"2 workers died one after another over 0: .*compute\.engine: local"
    ):
        compute.run("deadly", asked, lambda pool: list(pool.map(compute_parts.always_die, [0])))
    with get_client(sync_client=True) as client:
        (run,) = [r for r in client.read_flow_runs() if r.name == "deadly"]
        states = [t.state.type.value for t in client.read_task_runs() if t.flow_run_id == run.id and t.state]
    assert run.state is not None and run.state.type.value == "FAILED"
    assert states == ["CRASHED"]


def test_a_cluster_that_cannot_serve_is_one_sentence(
    asked: ComputeParams, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import compute_dask

    def refused(settings: ComputeParams = asked) -> str:
        with pytest.raises(ComputeError) as stopped:
            compute.run("any", settings, lambda pool: None)
        return str(stopped.value)

    with monkeypatch.context() as patch:
        patch.setattr(compute_dask, "CONNECT_S", 0.5)
        assert "no Dask scheduler answers at tcp://127.0.0.1:9" in refused(
            replace(asked, address="tcp://127.0.0.1:9")
        )
    monkeypatch.setattr(compute_dask, "CODE", "another commit")
    assert "runs other code than this process: bring both to the same commit" in refused()
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert "set PREFECT_API_URL" in refused(replace(asked, address="tcp://10.0.0.1:8786"))


def _block(folder: Path, bundle: Path, pool: Pool) -> dict[str, Any]:
    """Both days as one block, as stage ``backtest`` trades it."""
    recording = Recording.open(folder / "recording")
    days = [recording.read("SIMP", day) for day in DAYS]
    config = engine_config(
        RunnerConfig(session=Session(enabled=False), risk=Risk(atr_min_bars=1)), {"SIMP": 0, "SIMA": 0}
    )
    return compute_block.run(
        pool, recording, Bundle.load(bundle, folder / "keys/signing.pub"), config,
        from_ns=int(days[0].books.recv_ns[0]) + 120 * 10**9, to_ns=int(days[1].books.recv_ns[-1]),
        warmup_ns=120 * 10**9, fill_models=("queue",), queue="risk_averse", latency=Latency.of_ms(100),
        slippage_ticks=0, max_orders=None, vary=lambda base: {"dearer": replace(base, slippage_ticks=1)},
    ).to_dict()  # fmt: skip


def _player() -> Any:
    import planted

    from models.policy import Costs, Market, Player, Prepared

    weights = {"gbdt": 0.6, "svm": 0.4}
    m = planted.market(2400, seed=1, plant=3.0)
    one = Market(
        m.ticker, m.recv_ns, m.mid2, m.spread, m.y, m.move_bps, m.blocks["calibrate"], m.blocks["threshold"],
        np.zeros(len(m.y), np.int64), 0.1,
        {name: planted.member_logp(m, 1.0, seed=i) for i, name in enumerate(weights)},
    )  # fmt: skip
    return Player(
        [Prepared.of(one, weights)], weights, Costs(planted.HORIZON_NS, planted.LATENCY_NS), 0.7, 3, 0.2
    )


def _dataset(folder: Path) -> tuple[Path, Path]:
    """Features and labels of five planted days, as the stages leave them."""
    from test_validation import days_of

    from features.batch import FeatureTable
    from models.dataset import write_blocks, write_schema
    from models.labels import Labels

    dataset = days_of(5, 3.0, rows=3000)
    features, labels = folder / "features", folder / "labels"
    write_schema(features)
    write_blocks(labels, dataset.blocks, dataset.horizons_s)
    for ticker, s in dataset.series.items():
        for day, a, b in zip(s.days, s.day_start, [*s.day_start[1:], len(s)], strict=True):
            for kind, base in ((FeatureTable, features), (Labels, labels)):
                values = {name: getattr(s, name)[a:b] for name in kind.__dataclass_fields__}
                kind(**values).save(base / ticker / f"{day}.npz")
    return features, labels


def _settings() -> Any:
    import planted

    from models.policy import Costs
    from models.validation import Settings

    return Settings(Costs(planted.HORIZON_NS, planted.LATENCY_NS), {"SIMP": 0.1}, seed=1, rounds=3)


def _bundle(folder: Path) -> Path:
    from small_bundle import make_bundle

    recording = Recording.open(folder / "recording")
    make_bundle(folder / "bundle", recording, folder / "keys", rounds=3, trained_share=0.9)
    return folder / "bundle"
