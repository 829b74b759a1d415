"""``scalper science --honesty``: the honesty tiers as a table for people and a file for machines."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from models import learner
from models.honesty_report import Report, Summary, run_tiers

FILE = "honesty.json"
BROKEN = 1
"""Exit status when a claim does not hold: the line, or the simulator, is not what it says."""
HEADER = (
    "tier", "seeds", "IC", "SE", "sd", "oracle", "gross, ticks", "net, ticks", "gross signif.", "net signif.",
    "net > 0",
)  # fmt: skip
NOTE = (
    "SIMULATED: a test of this program, never evidence of an edge in a market. Top tenth of the forecasts, "
    "10 s held, independent rows, no commission."
)

FULL_SEEDS, FULL_HOURS = 20, 6.0
SHORT = f"The bars are meant for {FULL_SEEDS} seeds of {FULL_HOURS:g} h: in less, noise alone may break them."


def main(args: argparse.Namespace) -> int:
    """Run the tiers and ``publish``. Reads ``seeds``, ``hours`` and ``out`` (folder) of the command line."""

    def progress(text: str) -> None:
        print(f"    [honesty] {text}", flush=True)

    with learner.fixed_threads(1):  # sums, and so figures, depend on their number to the last bit
        report = run_tiers(args.seeds, args.hours, progress)
    return publish(report, args.out)


def publish(report: Report, out: Path) -> int:
    """Write ``honesty.json`` to folder ``out`` and print the table; 0, or 1 when a claim does not hold."""
    out.mkdir(parents=True, exist_ok=True)
    learner.save_json(out / FILE, report.to_dict())
    print("\n".join(["", *lines(report), "", f"report: {out / FILE}"]))
    return 0 if report.holds else BROKEN


def lines(report: Report) -> list[str]:
    """The table (Markdown), the claims, the gate's verdicts."""
    said = [f"| {' | '.join(HEADER)} |", "|" + "---|" * len(HEADER)]
    said += [f"| {' | '.join(_cells(row))} |" for row in report.tiers]
    said += ["", *(f"{'holds' if f.holds else 'FAILS'}  {f.claim}: {f.measured}" for f in report.findings)]
    said += ["", *gate_lines(report), NOTE]
    if report.hours < FULL_HOURS or min(row.seeds for row in report.tiers) < FULL_SEEDS:
        said.append(SHORT)
    return said


def gate_lines(report: Report) -> list[str]:
    """One line a run: what was asked, and the gate's answer with its first reason."""
    return [
        f"gate  {run.tier}, seed {run.seed}, tariff {run.tariff}: "
        + "; ".join(
            f"{name} {'PASSED' if result.passed else 'refused, ' + result.refusals[0]}"
            for name, result in (("calibrated", run.calibrated), ("forced", run.forced))
        )
        for run in report.gate
    ]


def _cells(row: Summary) -> Sequence[str]:
    return (
        row.tier, str(row.seeds), f"{row.ic:+.3f}", f"{row.ic_se:.3f}", f"{row.ic_sd:.3f}",
        f"{row.ic_oracle:+.3f}", f"{row.gross_ticks:+.2f}", f"{row.net_ticks:+.2f}",
        f"{row.gross_significant:.0%}", f"{row.net_significant:.0%}", f"{row.net_positive:.0%}",
    )  # fmt: skip
