"""What stands on the backtest's page, gathered from the stages before it."""

from __future__ import annotations

from typing import Any

import numpy as np

from flows.params import Params
from flows.stages import scoring
from flows.stages.common import CALIBRATION, ENSEMBLE, EXPORTED, LEARNERS, METRICS, read_json
from live.backtest_result import BacktestResult
from market.recording import RecordingInfo
from models.dataset import Dataset
from models.report import ReportData, fee_sensitivity

FEES_BPS = (0.0, 0.5, 1.0, 2.5, 4.0, 5.0)
NANO = 1e9


def page(
    params: Params, info: RecordingInfo, dataset: Dataset, result: BacktestResult, metrics: dict[str, Any],
    reliability: dict[str, list[dict[str, float]]],
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
        reliability=reliability,
        members=_members(),
        quantisation=_quantisation(),
        instruments=_instruments(info, result, fee_bps),
        fill_models=[{"resting orders": name, **_figures(r)} for name, r in result.by_fill_model.items()],
        assumptions=_assumptions(result, {t: round(100 * bps) for t, bps in fee_bps.items()}),
        sensitivity=fee_sensitivity(moved, net, paid, FEES_BPS) if len(net) else [],
        rivals=scoring.rivals(result, dataset, fee_bps, params.seed),
        notes=_notes(info, result, metrics),
    )


def _members() -> list[dict[str, Any]]:
    weights = read_json(ENSEMBLE / "ensemble_weights.json")["weights"]
    rows = []
    for name in LEARNERS:
        score = read_json(METRICS / f"train_{name}.json")
        rows.append(
            {"member": name, "weight": weights[name], **{k.replace("_", " "): v for k, v in score.items()}}
        )
    return rows


def _quantisation() -> list[dict[str, Any]]:
    report = read_json(EXPORTED / "parity.json")
    return [
        {
            "member": name, "planned": entry["planned"], "shipped": entry["mode"],
            "agreement": entry["agreement"],
            "largest gap of p": entry["max_abs_dp"], "accuracy lost, points": entry["accuracy_lost_points"],
            "KiB": entry["kib"], "passed": entry["passed"],
        }
        for name, entry in report["members"].items()
    ]  # fmt: skip


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
        "Signals that were not traded: "
        + (", ".join(f"{name} {count:,}" for name, count in metrics["refusals"].items()) or "none") + ".",
        f"Order list {result.order_list_hash[:16]}: the same inputs give the same orders.",
    ]  # fmt: skip
