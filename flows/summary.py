"""What a run has shown, for a person: read from the bundle's manifest and the session's summary,
watermarked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NANO = 1e9
STAGES_SHOWN = 12


def simulated(watermark: str) -> str:
    """The mark behind every number of a simulated market."""
    return "  [SIMULATED]" if watermark == "SIMULATED" else ""


def models_table(manifest: Mapping[str, Any]) -> list[str]:
    """Members with weight, form and scores; one line each under a heading."""
    metrics = manifest["metrics"]
    shipped = manifest["quantisation"]["members"]
    rows = [("member", "weight", "form", "log-loss", "base rate", "macro-F1", "MCC")]
    for name, weight in sorted(metrics["ensemble"]["weights"].items()):
        score = metrics[f"train_{name}"]
        rows.append(
            (
                name, f"{weight:.2f}", shipped[name]["mode"], f"{score['log_loss']:.4f}",
                f"{score['climatology_log_loss']:.4f}", f"{score['macro_f1']:.3f}", f"{score['mcc']:+.3f}",
            )
        )  # fmt: skip
    return aligned(rows)


def edge_line(manifest: Mapping[str, Any]) -> str:
    """The verdict on the held-out block, in one sentence."""
    edge = manifest["metrics"]["edge"]
    mark = simulated(manifest["watermark"])
    if not edge["trades"]:
        return f"verdict {edge['verdict']}: no trade on block score; no threshold was worth its costs{mark}"
    low, high = edge["net_bps_ci"]
    return (
        f"verdict {edge['verdict']}: {edge['trades']} round trips on block score, "
        f"{edge['net_bps_per_trade']:+.2f} bp each net of costs, 95 % [{low:+.2f}, {high:+.2f}]{mark}"
    )


def session_lines(summary: Mapping[str, Any]) -> list[str]:
    """What the runner did: signals, orders, money, holds and latencies."""
    mark = simulated(summary["watermark"])
    minutes = (summary["to_ns"] - summary["from_ns"]) / 6e10
    gross, fees, net = (summary[f"{key}_nano"] / NANO for key in ("gross", "fees", "net"))
    would = " (recorded, none sent)" if summary["mode"] == "shadow" else ""
    lines = [
        f"{summary['mode']} session {summary['session_id']}: {minutes:.1f} minutes of market, "
        f"{summary['books']:,} books, {summary['trades']:,} trades",
        f"signals {summary['signals']:,}, orders {summary['orders']:,}{would}, fills {summary['fills']:,}",
        f"PnL gross {gross:+,.2f} RUB, fees {fees:,.2f} RUB, net of fees {net:+,.2f} RUB{mark}",
    ]
    if summary["refusals"]:
        shown = sorted(summary["refusals"].items(), key=lambda item: -item[1])[:STAGES_SHOWN]
        lines.append("signals not traded: " + ", ".join(f"{reason} {count:,}" for reason, count in shown))
    lines.append(f"holds: {holds_text(summary['holds'])}")
    if summary["failure"]:
        lines.append(f"the session FAILED: {summary['failure']}")
    rows = [("stage", "n", "p50", "p99", "max")]
    for stage, figures in summary["latency"].items():
        rows.append(
            (stage, f"{figures['n']:,}", *(_micros(figures[k]) for k in ("p50_us", "p99_us", "max_us")))
        )
    return [*lines, "latency on this machine:", *(f"  {row}" for row in aligned(rows))]


def holds_text(holds: Sequence[Mapping[str, Any]]) -> str:
    """Each kind of hold with how often and how long it stood."""
    if not holds:
        return "none"
    total: dict[str, tuple[int, float]] = {}
    for hold in holds:
        count, seconds = total.get(hold["name"], (0, 0.0))
        total[hold["name"]] = count + 1, seconds + float(hold["seconds"])
    return ", ".join(f"{name} x{count} ({seconds:.0f} s)" for name, (count, seconds) in sorted(total.items()))


def aligned(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    """Columns padded to their widest cell, those of ``left`` to the left and the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _micros(value: int) -> str:
    return f"{value / 1000:.1f} ms" if value >= 1000 else f"{value} us"
