"""The backtest's page: the verdict in words, marked where simulated, complete without any other file."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows import summary
from models import evaluate, report


def _data(net_bps: list[float], watermark: str = "SIMULATED") -> report.ReportData:
    net = np.array(net_bps)
    return report.ReportData(
        watermark=watermark, title="Backtest: <SIMP>", period=(1768464000_000000000, 1768465350_000000000),
        summary=evaluate.trade_summary(net, net + 2.0), gross_rub=120.0, fees_rub=30.0, net_rub=90.0,
        equity=[(1768464600_000000000, 40.0), (1768465200_000000000, 90.0)], fee_bps=0.5, horizon_s=10.0,
        latency_ms=100.0, instruments=[{"instrument": "<SIMP>", "net bp per trade": float("nan")}],
        sensitivity=report.fee_sensitivity(net + 2.0, net, 0.5, (0.0, 5.0)), notes=["One day & no more."],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("net_bps", "said"),
    [
        ([2.0, 3.0, 2.5, 4.0] * 10, report.EDGE),
        ([-2.0, -3.0, -2.5] * 10, report.NO_EDGE),
        ([-20.0, 21.0] * 20, report.INCONCLUSIVE),
        ([], report.NO_EDGE),
    ],
)
def test_the_verdict_follows_the_interval(net_bps: list[float], said: str) -> None:
    data = _data(net_bps)
    assert report.verdict(data.summary) == said
    assert f'<p class="verdict {said.replace(" ", "-")}">{said}</p>' in report.render(data)


def test_a_page_needs_nothing_else_and_shows_its_watermark(tmp_path: Path) -> None:
    report.write(_data([1.0, 2.0, 3.0]), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert not re.search(r"(src|href)=[\"'](?!data:)", page) and "<script" not in page
    assert page.count("<svg") == 1 and "Profit net of fees" in page
    assert "&lt;SIMP&gt;" in page and "One day &amp; no more." in page
    assert page.count("SIMULATED") > 50
    assert "25% of gross" in page


def test_a_real_recording_is_not_called_simulated() -> None:
    page = report.render(_data([1.0, 2.0], watermark="REAL"))
    assert "SIMULATED" not in page and "not a forecast" in page


def test_the_warm_up_before_the_block_is_not_drawn() -> None:
    data = _data([1.0, 2.0])
    before = (data.period[0] - 420 * 10**9, 0.0)
    assert report.render(replace(data, equity=[before, *data.equity])) == report.render(data)


def test_other_commissions_shift_the_same_trades() -> None:
    free, dear = report.fee_sensitivity([4.0, 2.0], [3.0, 1.0], 0.5, (0.0, 5.0))
    assert (free["net bp per trade"], free["net bp in all"], free["winning trades"]) == (3.0, 6.0, 1.0)
    assert (dear["net bp per trade"], dear["winning trades"]) == (-7.0, 0.0)


def test_losing_gross_is_not_divided_by() -> None:
    assert "gross is not positive" in report.render(replace(_data([1.0, 1.0]), gross_rub=-5.0))


SESSION: dict[str, Any] = {
    "session_id": "s", "mode": "shadow", "watermark": "SIMULATED", "from_ns": 0, "to_ns": 6 * 10**11,
    "books": 1000, "trades": 50, "signals": 3, "orders": 2, "fills": 1, "gross_nano": 5 * 10**9,
    "fees_nano": 10**9, "net_nano": 4 * 10**9, "refusals": {"SPREAD": 7}, "failure": None,
    "holds": [{"name": "HEARTBEAT", "seconds": 2.0}, {"name": "HEARTBEAT", "seconds": 3.0}],
    "latency": {"ml": {"n": 900, "p50_us": 400, "p99_us": 12_300, "max_us": 20_000}},
}  # fmt: skip


def test_the_session_is_told_net_of_fees_and_marked() -> None:
    text = "\n".join(summary.session_lines(SESSION))
    assert "PnL gross +5.00 RUB, fees 1.00 RUB, net of fees +4.00 RUB  [SIMULATED]" in text
    assert "orders 2 (recorded, none sent)" in text and "10.0 minutes of market" in text
    assert "HEARTBEAT x2 (5 s)" in text and "SPREAD 7" in text
    assert re.search(r"ml\s+900\s+400 us\s+12\.3 ms\s+20\.0 ms", text)
    real = "\n".join(summary.session_lines({**SESSION, "watermark": "REAL", "mode": "paper", "holds": []}))
    assert "SIMULATED" not in real and "none sent" not in real and "holds: none" in real
