"""``scalper labels``: the kinds of label side by side on a recording, and which of them know the past."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flows.verbs import VerbMaker
from market.errors import ConfigError

RECORDING = Path("data/recording")


def add(verb: VerbMaker) -> None:
    sub = verb("labels", _labels, "the kinds of label side by side: what knowing each of them would earn",
               "scalper labels data/recording --ticker SIMP --no-leak")  # fmt: skip
    sub.add_argument("recording", type=Path, metavar="RECORDING", nargs="?", default=RECORDING,
                     help=f"a recording, or what scalper ingest takes (default {RECORDING})")  # fmt: skip
    sub.add_argument("--ticker", help="only this instrument")
    sub.add_argument("--horizon-s", type=float, default=10.0, metavar="S", help="seconds (default 10)")
    sub.add_argument("--latency-ms", type=float, default=100.0, metavar="MS",
                     help="from the decision to the exchange (default 100)")  # fmt: skip
    sub.add_argument("--tariff", help="commission (default: the recording's)")
    sub.add_argument("--leak", action=argparse.BooleanOptionalAction, default=True,
                     help="ask a random walk how much of each label is the past (default)")  # fmt: skip
    sub.add_argument("--json", action="store_true", help="everything as one JSON document")


def _labels(args: argparse.Namespace) -> int:
    if args.horizon_s <= 0 or args.latency_ms < 0:
        raise ConfigError(
            f"--horizon-s {args.horizon_s:g} --latency-ms {args.latency_ms:g}: a horizon above 0 and no "
            "negative latency are needed"
        )
    from features.batch import compute
    from flows.data_source import open_source
    from market.fees import tariff
    from models import label_report

    source = open_source([args.recording])
    fees = tariff(args.tariff or source.tariff)
    told: dict[str, Any] = {"tariff": args.tariff or source.tariff, "days": []}
    for day in source.days(args.ticker):
        fee_ppm = fees.ppm(day.instrument)
        rows = label_report.compare(
            day, compute(day), horizon_s=args.horizon_s, latency_s=args.latency_ms / 1e3, fee_ppm=fee_ppm
        )
        told["days"].append(
            {"ticker": day.instrument.ticker, "day": day.day, "fee_bps_a_side": fee_ppm / 100,
             "kinds": [asdict(row) for row in rows]}
        )  # fmt: skip
    if args.leak:
        told["leaks"] = [asdict(leak) | {"headline": leak.headline} for leak in label_report.leaks()]
    print(json.dumps(_plain(told), indent=2) if args.json else "\n".join(_lines(told, args.horizon_s)))
    return 0


def _lines(told: dict[str, Any], horizon_s: float) -> list[str]:
    said = []
    for day in told["days"]:
        asked = f"{horizon_s:g} s ahead, {day['fee_bps_a_side']:g} bp a side"
        said += [
            f"{day['ticker']} {day['day']}: what knowing the label earns, {asked}",
            f"  {'label':<16}{'flat':>8}{'net bp a trade':>16}{'pays':>8}{'MCC, executable':>17}"
            f"{'worth taking':>14}",
        ]
        said += [
            f"  {row['kind']:<16}{row['flat']:>8.1%}{row['net_bps']:>+16.2f}{row['paid']:>8.1%}"
            f"{row['mcc']:>17.2f}{'-' if math.isnan(row['taken']) else format(row['taken'], '.1%'):>14}"
            for row in day["kinds"]
        ]
    if "leaks" in told:
        said.append("on a random walk, from the price against its own past (macro-F1 of nothing: 0.333)")
        said += [
            f"  {leak['kind']:<16}macro-F1 {leak['macro_f1']:.3f} (memory of {leak['memory_rows']} rows), "
            f"R2 {'-' if leak['r2'] is None else format(leak['r2'], '.3f')}: "
            f"{'may head a page' if leak['headline'] else 'REFUSED as headline, it contains the past'}"
            for leak in told["leaks"]
        ]
    return said


def _plain(value: Any) -> Any:
    """Numbers that JSON knows: six digits, no NaN."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 6)
    return value
