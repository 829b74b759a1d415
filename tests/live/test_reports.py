"""Periodic reports, markouts, charts and the comparison: small laws on small data."""

from __future__ import annotations

import json
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live import svg
from live.compare import Trip, match
from live.config_schema import Reporting
from live.markouts import Mids, of_fill
from live.performance import PerformanceReports
from live.storage import Record, Storage
from market.types import NANO, SECOND_NS

STATUS = {
    "gross_nano": 3 * NANO, "fees_nano": NANO, "net_nano": 2 * NANO, "positions": {"SIMP": {"lots": -2}},
    "day": {"realised_nano": -5 * NANO, "loss_limit_nano": 20 * NANO, "consecutive_losses": 2},
    "refusals": {"A": 1, "B": 7}, "holds": [{"name": "SESSION", "scope": "*"}],
    "storage": {"degraded": ""}, "connection": {"up": True},
}  # fmt: skip


def facts(market_ns: int) -> dict:
    return {"mode": "paper", "watermark": "SIMULATED", "market_ns": market_ns,
            "audit_head": {"seq": 7, "chain": "c" * 64}, "status": STATUS}  # fmt: skip


def signal(n: int, confidence: int) -> Record:
    return Record("signals", {"session_id": "s", "trace_id": f"t{n}", "now_ns": n, "source": "ensemble",
                              "confidence_e6": confidence})  # fmt: skip


@pytest.fixture
def database(tmp_path: Path) -> Path:
    storage = Storage.open(tmp_path / "scalper.db", tmp_path / "f.jsonl")
    for n, (realised, fee) in enumerate([(5, 1), (-2, 1), (9, 1)]):
        storage.put(
            Record("fills", {"client_order_id": f"o{n}", "trade_id": "d", "session_id": "s", "side": 1,
                             "lots": 1, "realised_nano": realised * NANO, "fee_nano": fee * NANO,
                             "now_ns": 10 * (n + 1)})
        )  # fmt: skip
    storage.put(Record("trips", {"session_id": "s", "ticker": "SIMP", "entry_ns": 1, "exit_ns": 12,
                                 "net_nano": NANO}))  # fmt: skip
    storage.put(*(signal(n, 600_000) for n in range(20)), *(signal(n, 700_000) for n in range(20, 40)))
    storage.close()
    return tmp_path / "scalper.db"


def test_each_report_is_about_the_time_since_the_last_one(database, tmp_path):
    reports = PerformanceReports(Reporting(report_path=str(tmp_path / "r" / "p.jsonl")), "s")
    first, second = reports.make(database, facts(20)), reports.make(database, facts(40))
    assert (first["fills"], first["realised_nano"], first["fees_nano"]) == (1, 5 * NANO, NANO)
    assert (second["fills"], second["realised_net_nano"]) == (2, 5 * NANO)
    assert first["signals"] == {"count": 20, "fallback": 0, "confidence_e6": 600_000, "trend": "unknown"}
    assert (second["signals"]["confidence_e6"], second["signals"]["trend"]) == (700_000, "rising")
    assert first["risk"]["day_loss_used_pct"] == 25.0 and list(first["risk"]["refusals"]) == ["B", "A"]
    lines = (tmp_path / "r" / "p.jsonl").read_text().splitlines()
    assert [json.loads(line)["to_ns"] for line in lines] == [20, 40]


def test_the_digest_says_it_in_a_few_words_with_the_audits_head(database, tmp_path):
    reports = PerformanceReports(Reporting(report_path=str(tmp_path / "p.jsonl")), "s")
    text = reports.digest(reports.make(database, facts(40)))
    for words in ("[SIMULATED]", "session net +2.00 RUB", "3 fills", "1 of 1 round trips won", "SIMP -2",
                  "holds SESSION", "audit 7:" + "c" * 64):  # fmt: skip
        assert words in text
    assert len(text) < 500


def test_lines_older_than_the_history_go_and_foreign_ones_stay(database, tmp_path):
    path = tmp_path / "p.jsonl"
    old = time.time_ns() - 3 * 86_400 * SECOND_NS
    newer = old + 2 * 86_400 * SECOND_NS
    lines = [json.dumps({"wall_ns": old}), "somebody's note", json.dumps({"wall_ns": newer})]
    path.write_text("\n".join(lines))
    PerformanceReports(Reporting(report_path=str(path), max_history_days=2), "s").make(database, facts(40))
    lines = path.read_text().splitlines()
    assert len(lines) == 3 and lines[0] == "somebody's note" and json.loads(lines[2])["fills"] == 3


def test_without_a_database_the_report_says_so(tmp_path):
    reports = PerformanceReports(Reporting(report_path=str(tmp_path / "p.jsonl")), "s")
    line = reports.make(tmp_path / "none.db", facts(1))
    assert "no database" in line["problem"]
    assert "no figures" in reports.digest(line)


# ---- markouts


def test_markouts_are_ours_when_the_mid_goes_our_way():
    mids = {"S": Mids([0, SECOND_NS, 6 * SECOND_NS], [20_000, 20_020, 19_980])}
    fill = {"ticker": "S", "side": 1, "price_ticks": 10_000, "lots": 1, "now_ns": 0}
    assert of_fill(fill, mids) == {"at": 0.0, "1s": 10.0, "5s": 10.0, "30s": None}
    assert of_fill({**fill, "side": -1}, mids)["1s"] == -10.0
    assert of_fill({**fill, "ticker": "X"}, mids)["at"] is None


@given(st.integers(1, 100_000), st.integers(-50, 50))
def test_a_markout_of_the_other_side_is_the_opposite(price, move):
    mids = {"S": Mids([0, 2 * SECOND_NS], [2 * price + move] * 2)}
    fill = {"ticker": "S", "side": 1, "price_ticks": price, "lots": 1, "now_ns": 0}
    a, b = of_fill(fill, mids), of_fill({**fill, "side": -1}, mids)
    assert a["at"] is not None and a["at"] == -b["at"] and a["1s"] == -b["1s"]


# ---- charts


POINTS = st.lists(st.tuples(st.integers(0, 10**15), st.floats(-1e9, 1e9)), max_size=40)


@given(
    st.dictionaries(
        st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=5), POINTS, max_size=3
    )
)
def test_any_curve_is_well_formed_and_inside_its_picture(curves):
    text = svg.lines({k: sorted(v) for k, v in curves.items()})
    ElementTree.fromstring(text)  # every tag is closed, every name is escaped
    for part in text.split('points="')[1:]:
        for pair in part.split('"')[0].split():
            x, y = (float(n) for n in pair.split(","))
            assert -1 <= x <= svg.WIDTH + 1 and -1 <= y <= svg.HEIGHT + 1


def test_thinning_keeps_the_extremes():
    curve = [(float(n), 0.0) for n in range(100_000)]
    curve[54_321] = (54_321.0, 99.0)
    thin = svg._thin(curve)
    assert len(thin) <= svg.MAX_POINTS + 4 and (54_321.0, 99.0) in thin and thin[-1] == curve[-1]


# ---- comparison


def trip(entry_s: float, *, side: int = 1, lots: int = 5, ticker: str = "S", net: int = 0) -> Trip:
    entry = round(entry_s * SECOND_NS)
    return Trip(ticker, side, lots, entry, entry + 10 * SECOND_NS, net, 0, net, "HORIZON")


def test_near_entries_belong_together_and_the_rest_is_explained():
    hold = {
        "name": "SESSION",
        "scope": "*",
        "reason": "closed",
        "raised_ns": 99 * SECOND_NS,
        "lifted_ns": None,
    }
    refused = [{"ticker": "S", "side": 1, "now_ns": 51 * SECOND_NS, "outcome": "ATR_WARMUP"}]
    pairs = match(
        [trip(0), trip(20, lots=3), trip(75, side=-1)],
        [trip(0.5), trip(21), trip(50), trip(70), trip(100)],
        [hold], refused,
    )  # fmt: skip
    why = {round((p.live or p.simulated).entry_ns / SECOND_NS): p.why for p in pairs}
    assert why[0] == "entered 500 ms earlier"
    assert "3 lots, simulated 5" in why[20]
    assert why[50] == "live refused the signal: ATR_WARMUP"
    assert why[75] == "the simulation was in a round trip of its own since 00:01:10"
    assert why[100] == "live was held by SESSION: closed"


@given(st.lists(st.integers(0, 200), max_size=8), st.lists(st.integers(0, 200), max_size=8))
def test_every_round_trip_is_told_exactly_once(live, simulated):
    pairs = match([trip(t) for t in live], [trip(t) for t in simulated], [], [])
    assert sorted(p.live.entry_ns for p in pairs if p.live) == sorted(t * SECOND_NS for t in live)
    assert sorted(p.simulated.entry_ns for p in pairs if p.simulated) == sorted(
        t * SECOND_NS for t in simulated
    )
