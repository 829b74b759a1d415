"""Stage ``backtest``: the real engine on block ``score``, which nothing was fitted on, and the page about it.

The runner's own pipeline and engine trade the exported models; what is measured here is what the gate judges.
"""

from __future__ import annotations

from typing import Any

from flows import compute_block
from flows import params as params_file
from flows.compute import Pool
from flows.compute import run as computed
from flows.params import Params
from flows.stages import scoring
from flows.stages.common import (
    BACKTEST,
    FEATURES,
    LABELS,
    METRICS,
    RECORDING,
    Say,
    read_json,
    run,
    whole,
    write_json,
    write_metrics,
)
from flows.stages.exported import draft
from flows.stages.page import page
from live.backtest_assumptions import sensitivity
from live.backtest_result import BacktestResult
from live.config import engine_config
from live.config_schema import RunnerConfig, Session
from market.errors import ConfigError
from market.latency import Latency
from market.matching import FillModel
from market.recording import Recording
from models import report
from models.dataset import load

WARMUP_NS = 420_000_000_000
"""Before the block, not traded: features warm up in two minutes, the stop's ATR wants five whole one-minute
bars."""
FILL_MODELS: tuple[FillModel, ...] = ("queue", "pessimistic", "optimistic")


def main(say: Say) -> None:
    params = params_file.load()
    recording = Recording.open(RECORDING)
    info = recording.info
    dataset = load(FEATURES, LABELS)
    fee_ppm = {i.ticker: params.fee_ppm(i, info.tariff) for i in info.instruments}
    bundle = draft(
        {
            "watermark": info.watermark, "horizon_ns": params.horizon_ns, "latency_ns": params.latency_ns,
            "fee_ppm": fee_ppm, "instruments": [i.to_dict() for i in info.instruments],
            "valid_until_ns": dataset.blocks.span("live")[1],
            "leaders": params.features.leaders(set(fee_ppm)),
        }
    )  # fmt: skip
    from_ns, to_ns = dataset.blocks.span("score")
    # The clock of a recording is not the clock of a trading day: the session window stays out of it.
    config = engine_config(RunnerConfig(session=Session(enabled=False)), fee_ppm)

    def traded(pool: Pool) -> BacktestResult:
        return compute_block.run(
            pool, recording, bundle, config, from_ns=from_ns, to_ns=to_ns, warmup_ns=WARMUP_NS,
            fill_models=FILL_MODELS, slippage_ticks=params.costs.slippage_ticks, vary=sensitivity,
            **_assumed(params),
        )  # fmt: skip

    result = computed("backtest", params.compute, traded)
    say(
        f"{result.books:,} books, {result.signals:,} signals, {result.orders:,} orders, "
        f"{result.fills:,} fills"
    )

    edge = scoring.edge(result, dataset, params.seed)
    calibration = scoring.calibration(dataset)
    metrics: dict[str, Any] = {
        "watermark": info.watermark,
        "edge": edge,
        "calibration": calibration,
        "cpcv": read_json(METRICS / "cross_validate.json")["cpcv"],
        "orders": result.orders,
        "order_list_hash": result.order_list_hash,
        "fees_nano": result.fees_nano,
        "gross_nano": result.gross_nano,
        "net_nano": {name: r.net_nano for name, r in result.by_fill_model.items()},
        "fill_models": {name: r.figures() for name, r in result.by_fill_model.items()},
        "variants": {name: r.figures() for name, r in result.variants.items()},
        "refusals": dict(sorted(result.refusals.items())),
    }
    with whole(BACKTEST) as folder:
        write_json(folder / "backtest.json", {**result.to_dict(), "edge": edge, "calibration": calibration})
        report.write(page(params, info, dataset, result, metrics), folder / "report.html")
    write_metrics("backtest", metrics)
    mark = " [SIMULATED]" if info.watermark == "SIMULATED" else ""
    say(
        f"verdict {edge['verdict']}: {edge['trades']} round trips, net {result.net_nano / 1e9:+,.2f} RUB "
        f"after {result.fees_nano / 1e9:,.2f} RUB of fees{mark}"
    )


def _assumed(params: Params) -> dict[str, Any]:
    """Section ``backtest`` of the parameters as keywords of ``compute_block.run``. Raises ConfigError."""
    given = dict(params.backtest)
    delays = {name: given.pop(f"{name}_latency_ms", None) for name in ("feed", "response", "cancel")}
    latency = Latency.of_ms(
        params.costs.latency_ms, feed=delays["feed"] or 0, response=delays["response"] or 0,
        cancel=delays["cancel"], jitter=given.pop("latency_jitter_ms", 0), seed=params.seed,
    )  # fmt: skip
    assumed = {
        "latency": latency,
        "queue": given.pop("queue_model", "risk_averse"),
        "max_orders": given.pop("max_orders", None),
    }
    if given:
        raise ConfigError(
            f"params.yaml: unknown key backtest.{min(given)}; known here: cancel_latency_ms, "
            "feed_latency_ms, latency_jitter_ms, max_orders, queue_model, response_latency_ms"
        )
    return assumed


if __name__ == "__main__":
    run("backtest", main)
