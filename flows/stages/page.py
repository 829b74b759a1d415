"""What stands on the backtest's page, gathered from the stages before it."""

from __future__ import annotations

from typing import Any

import numpy as np

from flows.params import Params
from flows.stages import scoring
from flows.stages.common import CALIBRATION, read_json
from live.backtest_result import BacktestResult
from market.recording import RecordingInfo
from models.dataset import Dataset
from models.report import ReportData, fee_sensitivity

FEES_BPS = (0.0, 0.5, 1.0, 2.5, 4.0, 5.0)
NANO = 1e9


def page(
    params: Params, info: RecordingInfo, dataset: Dataset, result: BacktestResult, metrics: dict[str, Any]
) -> ReportData:  # fmt: skip
    """The page of one backtest."""
    fee_bps = {i.ticker: params.fee_ppm(i, info.tariff) / 100.0 for i in info.instruments}
    net, moved = scoring.trips_bps(result, dataset)
    paid = sum(fee_bps[trip["ticker"]] for trip in result.trips) / max(len(result.trips), 1)
    return ReportData(
        watermark=info.watermark,
        title=f"Backtest: {', '.join(i.ticker for i in info.instruments)}",
        period=(result.from_ns, result.to_ns),
        summary=metrics["edge"],
        gross_rub=result.gross_nano / NANO,
        fees_rub=result.fees_nano / NANO,
        net_rub=result.net_nano / NANO,
        equity=[(ns, value / NANO) for ns, value in result.equity],
        fee_bps=max(fee_bps.values()),
        horizon_s=params.labels.horizon_s,
        latency_ms=float(params.costs.latency_ms),
        instruments=_instruments(info, result, fee_bps),
        fill_models=[{"resting orders": name, **_figures(r)} for name, r in result.by_fill_model.items()],
        assumptions=_assumptions(result, {t: round(100 * bps) for t, bps in fee_bps.items()}),
        sensitivity=fee_sensitivity(moved, net, paid, FEES_BPS) if len(net) else [],
        rivals=scoring.rivals(result, dataset, fee_bps, params.seed),
        notes=_notes(info, result, metrics),
    )


def _instruments(
    info: RecordingInfo, result: BacktestResult, fee_bps: dict[str, float]
) -> list[dict[str, Any]]:
    decided = read_json(CALIBRATION / "calibration.json")["instruments"]
    rows = []
    for ticker in (i.ticker for i in info.instruments):
        trips = [trip for trip in result.trips if trip["ticker"] == ticker]
        rows.append(
            {
                "instrument": ticker,
                "fee, bp a side": fee_bps[ticker],
                "round trips": len(trips),
                "net RUB": sum(trip["net_nano"] for trip in trips) / NANO,
                "net bp per trade": float(np.mean([trip["net_bps"] for trip in trips])) if trips else None,
                "what the calibration decided": decided[ticker]["verdict"],
            }
        )
    return rows


def _figures(result: BacktestResult) -> dict[str, Any]:
    trips = result.trips
    return {
        "orders": result.orders,
        "deals": result.fills,
        "lots taken": result.taken_lots,
        "lots rested": result.rested_lots,
        "round trips": len(trips),
        "won": result.wins / len(trips) if trips else None,
        "gross RUB": result.gross_nano / NANO,
        "fees RUB": result.fees_nano / NANO,
        "net RUB": result.net_nano / NANO,
        "net bp per trade": float(np.mean([trip["net_bps"] for trip in trips])) if trips else None,
        "drawdown RUB": result.max_drawdown_nano / NANO,
    }


def _assumptions(result: BacktestResult, fee_ppm: dict[str, int]) -> list[dict[str, Any]]:
    """The result under one changed assumption at a time: traded again, or the same trades at other costs."""

    def row(name: str, how: str, net_nano: int, trips: int) -> dict[str, Any]:
        change = (net_nano - result.net_nano) / NANO
        return {
            "assumption": name, "how": how, "round trips": trips, "net RUB": net_nano / NANO, "change": change
        }  # fmt: skip

    rows = [row("as above", "", result.net_nano, len(result.trips))]
    for name, other in result.variants.items():
        rows.append(row(name, "traded again", other.net_nano, len(other.trips)))
    for change_ppm in (100, -100):
        extra = sum(
            (trip["entry_value_nano"] + trip["exit_value_nano"])
            * (max(fee_ppm[trip["ticker"]] + change_ppm, 0) - fee_ppm[trip["ticker"]])
            // 1_000_000
            for trip in result.trips
        )
        name = f"commission {change_ppm / 100:+g} bp a side" + (", not below 0" if change_ppm < 0 else "")
        rows.append(row(name, "the same trades", result.net_nano - extra, len(result.trips)))
    # Half the spread is paid by each taking deal: half as much again is a quarter of it.
    wider = result.net_nano - result.crossed_spread_nano // 4
    rows.append(row("spread x 1.5", "the same trades", wider, len(result.trips)))
    return rows


def _notes(info: RecordingInfo, result: BacktestResult, metrics: dict[str, Any]) -> list[str]:
    days = sorted({day for each in info.days.values() for day in each})
    resting = ", ".join(
        f"{name} {nano / NANO:+,.2f} RUB" for name, nano in sorted(metrics["net_nano"].items())
    )
    fit = metrics["calibration"]
    return [
        f"{len(days)} recorded day(s): nothing is said about other days.",
        "Orders meet the recorded book after the latency; the market does not react to them.",
        f"Net result by how resting orders are assumed to fill: {resting}.",
        f"On the same block the calibrated ensemble has a log-loss of {fit['log_loss']:.4f} (base rates "
        f"{fit['climatology_log_loss']:.4f}) and a class-wise calibration error of {fit['ece']:.4f}.",
        *_luck(metrics),
        "Signals that were not traded: "
        + (", ".join(f"{name} {count:,}" for name, count in metrics["refusals"].items()) or "none") + ".",
        f"Order list {result.order_list_hash[:16]}: the same inputs give the same orders.",
    ]  # fmt: skip


def _luck(metrics: dict[str, Any]) -> list[str]:
    """What the search and the paths over other days say."""
    found = read_json(CALIBRATION / "calibration.json")["statistics"]
    dsr, cpcv = found["dsr"], metrics["cpcv"]
    luck = dsr.get("missing") or f"{dsr['probability']:.3f} after {found['choices']} tries"
    paths = cpcv.get("missing") or (
        f"median {cpcv['median']:.3f} a bin of time, worst {cpcv['worst']:.3f}, below zero on "
        f"{cpcv['below_zero']:.0%} of {cpcv['paths']}"
    )
    return [
        f"Deflated Sharpe ratio on block threshold: {luck}. The search: {found['why']}.",
        f"Sharpe ratio over the paths of CPCV: {paths}.",
    ]
