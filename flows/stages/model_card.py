"""``model_card.md``: what a bundle is, in words, made from its manifest alone."""

from __future__ import annotations

from typing import Any

import numpy as np

SIMULATED_NOTE = (
    "**SIMULATED.** Trained and judged on a market that a program made, with a planted signal. Its profit is "
    "evidence of working machinery and of nothing else; the runner refuses this bundle in production."
)
REAL_NOTE = (
    "**REAL recording, historical.** One recording is one sample: it says nothing about days not in it, "
    "and it is not a forecast."
)


def model_card(manifest: dict[str, Any]) -> str:
    """Markdown; the same manifest gives the same text."""
    metrics = manifest["metrics"]
    weights = metrics["ensemble"]["weights"]
    rows = [
        f"| {name} | {weight:.3f} | {_number(metrics[f'train_{name}']['log_loss'])} "
        f"| {_number(metrics[f'train_{name}']['macro_f1'])} | {_number(metrics[f'train_{name}']['mcc'])} |"
        for name, weight in sorted(weights.items())
    ]
    edge = metrics["edge"]
    low, high = edge.get("net_bps_ci") or (None, None)
    interval = f", {_number(edge.get('net_bps_per_trade'))} bp each, 95 % [{_number(low)}, {_number(high)}]"
    return "\n".join(
        [
            f"# Model card: {', '.join(i['ticker'] for i in manifest['instruments'])}",
            "",
            SIMULATED_NOTE if manifest["watermark"] == "SIMULATED" else REAL_NOTE,
            "",
            f"- Predicts the executable move over {manifest['horizon_ns'] / 1e9:g} s, "
            f"{manifest['latency_ns'] / 1e6:g} ms after the decision, as down, flat or up",
            f"- Trained on {_utc(manifest['trained_from_ns'])} to {_utc(manifest['trained_to_ns'])} UTC; "
            f"refused by the runner after {_utc(manifest['valid_until_ns'])} UTC of market time",
            f"- Costs: tariff {manifest['tariff']}, "
            + ", ".join(f"{t} {ppm / 100:g} bp a side" for t, ppm in sorted(manifest["fee_ppm"].items())),
            f"- Verdict on block score, net of spread and commission: **{edge['verdict']}** "
            + f"({edge['trades']} round trips"
            + (interval if edge["trades"] else "")
            + ")",
            "",
            "| member | weight | log-loss | macro-F1 | MCC |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "Scores are those of block calibrate; climatology has a log-loss of "
            f"{_number(metrics['train_gbdt']['climatology_log_loss'])}.",
            "",
            "| instrument | what the calibration decided |",
            "|---|---|",
            *(f"| {t} | {text} |" for t, text in sorted(metrics["calibrate"]["verdicts"].items())),
            "",
            f"Data `{manifest['data_hash']}`, code `{manifest['code_hash']}`,",
            f"features `{manifest['feature_schema_hash']}`.",
            "",
        ]
    )


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}"


def _utc(ns: int) -> str:
    return str(np.datetime64(ns, "ns").astype("datetime64[s]"))
