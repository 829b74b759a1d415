"""Which model trades: alias, pin, child process, canary, a shadow beside it, one runner an account."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from core_bench import KEY, START_NS, config, instrument
from core_bench import model as params
from small_bundle import make_bundle, make_recording
from test_registry_pull import FILES, make_database, put_files

from live import beside, registry
from live.backtest_tape import book_event
from live.beside import ShadowRun
from live.config import capped
from live.config_schema import RunnerConfig
from live.core import events as ev
from live.core.engine import Engine
from live.fetch_child import Request, pull_in_child
from live.model import LoadedModel, fetch, tickers
from live.pipeline import SignalPipeline
from live.reload import AliasFollower
from live.simbroker import SimBroker
from live.watch import AlreadyRunning, RunnerLock
from market import stream
from market.errors import BundleError, RegistryError
from market.latency import Latency
from market.types import SECOND_NS
from models.inference import Ensemble

# ---- pin


def database(tmp_path: Path) -> str:
    """``prod`` points at version 3; version 17 has no alias."""
    folder = put_files(tmp_path / "mlflow" / "artifacts" / "models" / "m-1" / "artifacts")
    uri = make_database(tmp_path / "mlflow" / "mlflow.db", folder.as_uri())
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow" / "mlflow.db")) as connection, connection:
        connection.execute(
            "INSERT INTO model_versions VALUES('scalper', 17, 'models:/m-2', ?, 'READY', 'None', 'default')",
            (folder.as_uri(),),
        )
    return uri


def test_model_prod_resolves_the_alias_and_model_prod_17_pins(tmp_path: Path) -> None:
    uri = database(tmp_path)
    assert registry.resolve(uri, "scalper", "prod").version == "3"
    assert registry.resolve(uri, "scalper", "prod@17").version == "17"
    assert registry.pull(uri, "scalper", "prod@17", tmp_path / "box").version == "17"


def test_the_alias_resolves_to_name_version_and_run(tmp_path: Path) -> None:
    uri = database(tmp_path)
    path = tmp_path / "mlflow" / "mlflow.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("ALTER TABLE model_versions ADD COLUMN run_id TEXT")
        connection.execute("UPDATE model_versions SET run_id='r-' || version")
    found = registry.resolve(uri, "scalper", "prod")
    assert (found.version, found.run) == ("3", "r-3")
    assert pull_in_child(Request(uri, "scalper", "prod@17", str(tmp_path / "box"))).run == "r-17"


@pytest.mark.parametrize(
    ("alias", "words"), [("prod@18", "no version 18"), ("prod@x", "prod@17"), ("@17", "is no alias")]
)
def test_a_pin_that_is_not_there_is_one_clear_error(tmp_path: Path, alias: str, words: str) -> None:
    with pytest.raises(RegistryError, match=words):
        registry.resolve(database(tmp_path), "scalper", alias)


def test_a_bundle_folder_cannot_be_pinned(tmp_path: Path) -> None:
    folder = put_files(tmp_path / "bundle")
    with pytest.raises(RegistryError, match="has no version 17"):
        registry.resolve(folder.as_uri(), "scalper", "prod@17")


# ---- the child


def test_a_bundle_is_fetched_in_a_child_process(tmp_path: Path) -> None:
    request = Request(database(tmp_path), "scalper", "prod", str(tmp_path / "box"))
    pulled = pull_in_child(request)
    assert pulled == replace(registry.pull(request.uri, "scalper", "prod", tmp_path / "box"), kept=False)
    assert {p.name for p in pulled.path.iterdir()} == set(FILES)


def test_a_child_that_fails_hangs_or_crashes_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request(f"sqlite:///{tmp_path}/absent.db", "scalper", "prod", str(tmp_path / "box"))
    with pytest.raises(RegistryError, match="no registry database"):
        pull_in_child(request)
    with pytest.raises(RegistryError, match="took over 0"):
        pull_in_child(request, timeout_s=0.01)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RegistryError, match="ended with status 1"):
        pull_in_child(request)


def test_the_child_imports_no_model_library_to_fetch() -> None:
    code = (
        "import sys, live.fetch_child, live.registry\n"
        "assert not {'numpy', 'lightgbm', 'grpc', 'ai_edge_litert'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- canary


def test_canary_caps_size() -> None:
    settings = config()
    assert capped(settings, 1).risk.max_position_lots == 1
    assert capped(settings, 10**6).risk.max_position_lots == settings.risk.max_position_lots


# ---- one runner an account


def test_a_second_runner_on_the_same_account_is_refused_by_a_lock_whatever_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    account = "production:2000123"
    lock = RunnerLock.of_account(account)
    with pytest.raises(AlreadyRunning, match="already trades this account"):
        RunnerLock.of_account(account)
    RunnerLock.of_account("production:another").release()
    lock.release()
    RunnerLock.of_account(account).release()
    assert not any("2000123" in str(path) for path in tmp_path.rglob("*"))


# ---- a shadow beside the live model


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = tmp_path_factory.mktemp("beside")
    recording = make_recording(folder / "recording")
    return recording, make_bundle(folder / "bundle", recording, folder / "keys")


def market(recording: Any, ticker: str) -> list[ev.Event]:
    day = recording.read(ticker, recording.info.days[ticker][0])
    events: list[ev.Event] = []
    kinds, rows = stream.merge(day.books, day.trades)
    for kind, i in zip(kinds.tolist(), rows.tolist(), strict=True):
        if kind == stream.BOOK:
            events.append(book_event(day.books, i, ticker, int(day.books.recv_ns[i])))
        else:
            t = day.trades
            events.append(
                ev.Trade(
                    int(t.recv_ns[i]), ticker, int(t.exch_ns[i]), int(t.px[i]), int(t.qty[i]), int(t.side[i])
                )
            )
    return events


def shadow_of(built: tuple[Any, Any], path: Path, failed: list[str], **options: Any) -> ShadowRun:
    recording, bundle = built
    instruments = {i.ticker: i for i in recording.info.instruments if i.ticker == "SIMP"}
    ensemble = Ensemble(bundle, instruments)
    from live.pipeline import model_params

    engine = Engine(config(), instruments, model_params(ensemble), KEY)
    broker = SimBroker(instruments, {"SIMP": 0}, Latency.of_ms(100))
    pipeline = SignalPipeline(instruments, options.pop("model", ensemble), KEY)
    return ShadowRun("shadow", engine, pipeline, broker, path, failed=failed.append, **options)


def test_a_shadow_model_scores_beside_the_live_one_and_its_would_be_orders_are_recorded(
    built: tuple[Any, Any], tmp_path: Path
) -> None:
    failed: list[str] = []
    shadow = shadow_of(built, tmp_path / "shadow.jsonl", failed)
    for event in market(built[0], "SIMP"):
        shadow.take(event)
    shadow.close()
    report = shadow.report()
    rows = [json.loads(line) for line in (tmp_path / "shadow.jsonl").read_text().splitlines()]
    assert failed == [] and report["scores"] > 100
    assert report["orders"] == len([r for r in rows if r["kind"] == "order"]) > 0
    assert report["fills"] == len([r for r in rows if r["kind"] == "fill"]) > 0
    times = [event.now_ns for event in market(built[0], "SIMP")]
    assert (report["from_ns"], report["to_ns"], report["lines_dropped"]) == (times[0], times[-1], 0)
    assert {r["trace_id"] for r in rows if r["kind"] == "fill"} <= {
        r["trace_id"] for r in rows if r["kind"] == "order"
    }


class Broken:
    def step(self, ticker: str, x: Any) -> Any:
        raise SystemError("the interpreter died")

    def reset(self, ticker: str) -> None:
        raise MemoryError("no more")

    def use_only(self, names: Any) -> None: ...


def test_a_shadow_that_breaks_ends_by_itself_is_told_once_and_reaches_nobody(
    built: tuple[Any, Any], tmp_path: Path
) -> None:
    failed: list[str] = []
    shadow = shadow_of(built, tmp_path / "shadow.jsonl", failed, model=Broken())
    for event in market(built[0], "SIMP"):
        shadow.take(event)
    assert failed == ["MemoryError: no more"] and shadow.over


def test_a_shadow_rests_while_the_machine_has_no_room(built: tuple[Any, Any], tmp_path: Path) -> None:
    room: list[bool] = []
    shadow = shadow_of(built, tmp_path / "shadow.jsonl", [], paused=lambda: not room)
    events = market(built[0], "SIMP")[:500]
    for event in events:
        shadow.take(event)
    assert shadow.scores == shadow.report()["to_ns"] == 0
    room.append(True)
    shadow.take(events[-1])
    shadow.close()
    rows = [json.loads(line) for line in (tmp_path / "shadow.jsonl").read_text().splitlines()]
    assert [(r["kind"], r["now_ns"]) for r in rows] == [
        ("pause", events[0].now_ns), ("continue", events[-1].now_ns)
    ]  # fmt: skip


def test_lines_that_a_full_record_lacks_are_counted(
    built: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "MAX_LINES", 3)
    shadow = shadow_of(built, tmp_path / "shadow.jsonl", [])
    for event in market(built[0], "SIMP")[:4000]:
        shadow.take(event)
    shadow.close()
    report = shadow.report()
    assert (tmp_path / "shadow.jsonl").read_text().count("\n") == 3
    assert report["lines_dropped"] >= report["signals"] + report["orders"] - 3 > 0


def test_a_volatility_emergency_that_a_person_lifts_is_over_for_the_shadow_too(
    built: tuple[Any, Any], tmp_path: Path
) -> None:
    shadow = shadow_of(built, tmp_path / "shadow.jsonl", [])
    events = market(built[0], "SIMP")
    for event in events[:3000]:
        shadow.take(event)
    shadow.take(ev.VolatilityIndex(events[2999].now_ns, 9_000))
    for event in events[3000:4000]:
        shadow.take(event)
    stopped = shadow.orders
    shadow.take(ev.Resume(events[3999].now_ns, ("LATENCY",), "another hold"))
    for event in events[4000:4500]:
        shadow.take(event)
    assert shadow.orders == stopped > 0
    shadow.take(ev.Resume(events[4499].now_ns, (), "calm again"))
    for event in events[4500:]:
        shadow.take(event)
    assert shadow.orders > stopped


def test_an_expired_model_is_a_hold_that_a_new_one_lifts() -> None:
    engine = Engine(
        config(), {"AAA": instrument()}, params(("AAA",), valid_until_ns=START_NS + SECOND_NS), KEY
    )
    engine.on(ev.Timer(START_NS + 2 * SECOND_NS))
    assert engine.holds.get("MODEL_EXPIRED") is not None
    engine.on(ev.ModelSwapped(START_NS + 3 * SECOND_NS, "m2", params(("AAA",)).to_dict()))
    assert engine.holds.get("MODEL_EXPIRED") is None


def test_fetch_verifies_what_the_child_brought(built: tuple[Any, Any], tmp_path: Path) -> None:
    from test_model_fetch import configuration

    _, bundle = built
    (tmp_path / "box").mkdir()
    (tmp_path / "keys").symlink_to(bundle.path.parent / "keys")
    found = fetch(configuration(tmp_path / "box", bundle.path, "keys"), "prod", try_models=True)
    assert found.sha256 == bundle.sha256


def test_a_pinned_model_is_never_followed(built: tuple[Any, Any]) -> None:
    told: list[str] = []
    model = LoadedModel(built[1], "prod@17", "17")
    follower = AliasFollower(
        RunnerConfig(),
        model,
        {},
        None,
        None,
        None,
        None,
        lambda tag, event, **f: told.append(event),  # type: ignore[arg-type]
    )
    asyncio.run(asyncio.wait_for(follower.run(), 5))  # it ends: there is nothing to look at
    assert told == ["MODEL_PINNED"]


def test_data_universe_rule_takes_all_of_the_models_instruments_or_one_kind_of_them(
    built: tuple[Any, Any],
) -> None:
    blank = RunnerConfig()

    def chosen(**data: Any) -> tuple[str, ...]:
        return tickers(replace(blank, data=replace(blank.data, **data)), built[1])

    assert set(chosen()) == set(chosen(universe="shares")) == {"SIMP", "SIMA"}
    assert chosen(instruments=("SIMA",), universe="futures") == ("SIMA",)
    with pytest.raises(BundleError, match="universe is futures"):
        chosen(universe="futures")
