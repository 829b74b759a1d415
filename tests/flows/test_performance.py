"""The performance report reads what the runner's own storage writes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from flows import performance, performance_page
from live.storage import Storage
from live.storage_schema import Record
from market.errors import ScalperError

MINUTE = 60_000_000_000
START = 1_768_460_400_000_000_000
WALL = int(datetime(2026, 1, 16, tzinfo=UTC).timestamp() * 1e9)
NOW = datetime(2026, 1, 17, tzinfo=UTC)


def _session(
    storage: Storage, name: str, alias: str, mode: str, mean_rub: float, trips: int, seed: int
) -> None:
    """A session of two hours: a round trip every other minute, and the signals before them."""
    rng = np.random.default_rng(seed)
    summary = json.dumps({"from_ns": START, "to_ns": START + 120 * MINUTE})
    storage.put(Record("sessions", {
        "session_id": name, "mode": mode, "alias": alias, "model_version": "3" if alias == "prod" else "4",
        "watermark": "SIMULATED", "started_wall_ns": WALL, "summary": summary,
    }))  # fmt: skip
    for i in range(trips):
        entry = START + i * 2 * MINUTE
        storage.put(Record("signals", {
            "session_id": name, "trace_id": f"{name}-{i}", "now_ns": entry, "ticker": "SIMP", "side": 1,
            "outcome": "ENTRY", "expected_move_millibps": 5_000,
        }))  # fmt: skip
        net = round(float(rng.normal(mean_rub, 2.0)) * 1e9)
        storage.put(Record("trips", {
            "session_id": name, "trace_id": f"{name}-{i}", "ticker": "SIMP", "side": 1, "lots": 1,
            "entry_ns": entry, "exit_ns": entry + MINUTE, "gross_nano": net + 10**9, "fees_nano": 10**9,
            "net_nano": net, "exit_reason": "HORIZON",
        }))  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "runtime" / "scalper.db"
    path.parent.mkdir()
    storage = Storage.open(path, path.with_name("fallback.jsonl"))
    _session(storage, "a", "prod", "paper", 0.0, 60, seed=1)
    _session(storage, "b", "shadow", "shadow", 3.0, 60, seed=2)
    storage.close()
    return tmp_path


def test_champion_and_challenger_on_the_market_that_both_saw(folder: Path) -> None:
    found = performance.collect(folder, now=NOW)
    assert [v.name for v in found.versions] == ["prod v3 (paper)", "shadow v4 (shadow)"]
    (duel,) = found.duels
    assert duel.minutes == 120 and duel.low_rub > 0 and duel.moments.agreement == 1.0
    assert duel.line().endswith(": better") and "[SIMULATED]" in found.headline()
    assert found.rows()[0]["round trips"] == "60" and found.rows()[0]["fees RUB"] == "60.00"


def test_too_little_is_called_too_little(tmp_path: Path) -> None:
    path = tmp_path / "runtime" / "scalper.db"
    path.parent.mkdir()
    storage = Storage.open(path, path.with_name("fallback.jsonl"))
    _session(storage, "a", "prod", "paper", 0.0, 5, seed=1)
    _session(storage, "b", "shadow", "shadow", 50.0, 5, seed=2)
    storage.close()
    found = performance.collect(tmp_path, now=NOW)
    assert found.rows()[0]["95 %"] == "too few round trips to say"
    assert found.duels[0].line().endswith("no difference shown")


SPAN = {"from_ns": START, "to_ns": START + 120 * MINUTE}


def _shadow(
    folder: Path,
    host: str,
    rows: list[dict[str, object]],
    *,
    torn: str = "",
    told: bool = True,
    **fields: object,
) -> Path:
    """What ``live.beside`` leaves of a shadow beside ``host``: its lines, and its part of the summary."""
    shadow = {"alias": "shadow", "version": "5", "file": "shadow-shadow.jsonl", "over": False, **SPAN,
              "lines_dropped": 0, **fields}  # fmt: skip
    storage = Storage.open(folder / "runtime/scalper.db", folder / "runtime/fallback.jsonl")
    summary = json.dumps({**SPAN, "shadow": shadow}) if told else "{}"
    storage.put(Record("sessions", {"session_id": host, "summary": summary}))
    if not told:
        for at in SPAN.values():
            storage.put(Record("equity", {"session_id": host, "now_ns": at, "net_nano": 0}))
    storage.close()
    file = folder / f"runtime/session/{host}/shadow-shadow.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + torn)
    return file


def _trips(count: int, every_ns: int, net_rub: float) -> list[dict[str, object]]:
    times = [START + (i + 1) * every_ns for i in range(count)]
    return [
        {"kind": "trip", "now_ns": at, "exit_ns": at, "net_nano": int(net_rub * 1e9), "fees_nano": 0}
        for at in times
    ]


def test_a_shadow_beside_the_champion_comes_back(folder: Path) -> None:
    """Lines as ``live.beside`` writes them, the last one torn by a kill."""
    rows: list[dict[str, object]] = []
    for i in range(0, 60, 2):
        at, net = START + i * 2 * MINUTE, 10**9 * (i % 5)
        rows += [
            {"kind": "signal", "now_ns": at, "trace_id": f"a-{i}", "ticker": "SIMP", "direction": 1,
             "expected_move_millibps": 9_000, "outcome": "ENTRY"},
            {"kind": "order", "now_ns": at}, {"kind": "fill", "now_ns": at},
            {"kind": "trip", "now_ns": at + MINUTE, "exit_ns": at + MINUTE, "net_nano": net,
             "fees_nano": 10**9},
        ]  # fmt: skip
    file = _shadow(folder, "a", rows, torn='{"kind":"tri')
    found = performance.collect(folder, now=NOW)
    (beside,) = [v for v in found.versions if v.mode == "beside"]
    assert beside.name == "shadow v5 (beside prod v3, paper)" and beside.minutes == 120
    assert (len(beside.signals), beside.fills, len(beside.trips)) == (30, 30, 30)
    assert beside.net_rub == sum(i % 5 for i in range(0, 60, 2))
    (duel,) = [d for d in found.duels if d.challenger == beside.name]
    assert duel.champion == "prod v3 (paper)" and duel.moments.agreement == 0.5
    assert "and 30 in all, expecting 9.00 bp where the champion expected 5.00" in duel.line()
    file.write_text("{}x\n")
    with pytest.raises(ScalperError, match=r"shadow-shadow\.jsonl line 1 is not JSON"):
        performance.collect(folder, now=NOW)


@pytest.mark.parametrize(
    ("fields", "minutes", "note"),
    [
        ({"over": True, "to_ns": START + 6 * MINUTE}, 6, "ended by itself"),
        ({"lines_dropped": 7}, 5, "record was full"),
        ({"told": False}, 5, ""),
    ],
)
def test_a_shadow_is_credited_with_what_it_heard_and_told_of_alone(
    tmp_path: Path, fields: dict[str, object], minutes: int, note: str
) -> None:
    """It loses 3 roubles every ten seconds, and is silent after five minutes of the champion's 120."""
    (tmp_path / "runtime").mkdir()
    storage = Storage.open(tmp_path / "runtime/scalper.db", tmp_path / "runtime/fallback.jsonl")
    _session(storage, "a", "prod", "paper", -3.0, 60, seed=1)
    storage.close()
    _shadow(tmp_path, "a", _trips(30, 10_000_000_000, -3.0), **fields)  # type: ignore[arg-type]
    found = performance.collect(tmp_path, now=NOW)
    (beside,) = [v for v in found.versions if v.mode == "beside"]
    (duel,) = found.duels
    assert beside.minutes == duel.minutes == minutes and duel.mean_rub < -10
    assert duel.line().endswith("no difference shown"), "the champion has three trips in these minutes"
    told = performance_page.html(found)
    assert note in told and note in found.markdown() and len(found.notes()) == bool(note)


def test_the_rests_of_a_shadow_are_not_compared(folder: Path) -> None:
    rests = [("pause", 20), ("continue", 50), ("pause", 110)]
    rows: list[dict[str, object]] = [{"kind": kind, "now_ns": START + at * MINUTE} for kind, at in rests]
    _shadow(folder, "a", rows)
    found = performance.collect(folder, now=NOW)
    (beside,) = [v for v in found.versions if v.mode == "beside"]
    assert beside.minutes == 80 and "rested" in found.notes()[0]


def test_one_shadow_beside_two_sessions_of_the_same_time_is_not_added_up(tmp_path: Path) -> None:
    (tmp_path / "runtime").mkdir()
    storage = Storage.open(tmp_path / "runtime/scalper.db", tmp_path / "runtime/fallback.jsonl")
    _session(storage, "a", "prod", "paper", 1.0, 60, seed=1)
    _session(storage, "b", "prod", "production", 1.0, 60, seed=1)
    storage.close()
    for host in ("a", "b"):
        _shadow(tmp_path, host, _trips(60, MINUTE, 1.0))
    found = performance.collect(tmp_path, now=NOW)
    assert [d.minutes for d in found.duels] == [120, 120]
    beside = {v.name: (v.net_rub, v.minutes) for v in found.versions if v.mode == "beside"}
    assert beside == {
        f"shadow v5 (beside prod v3, {mode})": (60.0, 120.0) for mode in ("paper", "production")
    }


def test_time_that_two_sessions_share_is_counted_once() -> None:
    assert performance._common([(0, 10), (5, 20), (30, 40)], [(0, 12), (35, 50)]) == [(0, 12), (35, 40)]


def test_only_trips_of_the_compared_time_make_an_interval(folder: Path) -> None:
    """Sixty trips each, and two minutes in common."""
    storage = Storage.open(folder / "runtime/scalper.db", folder / "runtime/fallback.jsonl")
    span = {"from_ns": START + 118 * MINUTE, "to_ns": START + 240 * MINUTE}
    storage.put(Record("sessions", {"session_id": "b", "summary": json.dumps(span)}))
    storage.close()
    (duel,) = performance.collect(folder, now=NOW).duels
    assert duel.minutes == 2 and "too few round trips to say" in duel.line()


def test_the_page_opens_without_a_network_and_escapes_what_it_shows(folder: Path) -> None:
    page = performance_page.write(performance.collect(folder, now=NOW), folder / "out").read_text()
    assert "SIMULATED" in page and "<polyline" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "") and "https://" not in page
    assert json.loads((folder / "out" / "performance.json").read_text())["duels"]


def test_old_sessions_and_missing_or_foreign_databases(folder: Path, tmp_path: Path) -> None:
    later = performance.collect(folder, now=datetime(2026, 3, 1, tzinfo=UTC))
    assert later.versions == () and later.headline() == "no session in the last 7 days"
    assert performance.collect(tmp_path / "elsewhere").versions == ()
    with pytest.raises(ScalperError, match="there is no runner database"):
        performance.collect(folder, [Path("nowhere.db")])
    (folder / "foreign.db").write_text("not a database at all, but long enough to be read as one" * 20)
    with pytest.raises(ScalperError, match="cannot be read as a runner's database"):
        performance.collect(folder, [Path("foreign.db")])
