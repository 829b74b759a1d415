"""``scalper science``: the fixed forecasting protocol on real recordings, with a verdict."""

from __future__ import annotations

import argparse
from pathlib import Path

from flows.verbs import VerbMaker

OUT = Path("artifacts/science")


def add(verb: VerbMaker) -> None:
    sub = verb("science", _science, "forecasting skill on real recordings against trivial rivals and DeepLOB",
               "scalper science --only rts --quick")  # fmt: skip
    sub.add_argument(
        "--data", type=Path, metavar="DIR",
        help="folder with the recordings (default: $SCALPER_DATA, else ../shared/data)",
    )  # fmt: skip
    sub.add_argument(
        "--only", action="append", default=[], metavar="NAME",
        help="rts, binance (or btc-2024, btc-2023, coinm), amzn; may be repeated (default: all)",
    )  # fmt: skip
    sub.add_argument(
        "--quick", action="store_true", help="RTS only unless --only says else, no DeepLOB; minutes"
    )
    sub.add_argument(
        "--out", type=Path, default=OUT, metavar="DIR", help=f"where the report goes (default {OUT})"
    )
    sub.add_argument("--seed", type=int, default=1)
    sub.add_argument(
        "--honesty", action="store_true",
        help="instead: what the line finds in simulated markets with known answers (nulls, plants, the gate)",
    )  # fmt: skip
    sub.add_argument("--seeds", type=int, default=20, help="of --honesty: seeds of each market (default 20)")
    sub.add_argument(
        "--hours", type=float, default=6.0,
        help="of --honesty: hours of training and of test (default 6)",
    )  # fmt: skip


def _science(args: argparse.Namespace) -> int:
    if args.honesty:
        from models.science import honesty_table

        return honesty_table.main(args)
    from models.science import report
    from models.science.datasets import chosen, folder_of
    from models.science.study import study

    folder = folder_of(args.data)
    sources = chosen(args.only or (["rts"] if args.quick else []))
    results = study(
        sources, folder, quick=args.quick, seed=args.seed, say=lambda line: print(line, flush=True)
    )
    for result in results:  # written after each recording: who interrupts a long run keeps what is done
        report.write_json(result, args.out / "science.json")
        report.write_html(result, args.out / "science.html")
        report.write_text(report.markdown(result), args.out / "science.md")
    print(f"\n{report.HONEST}\nreport: {args.out / 'science.html'}, {args.out / 'science.json'}")
    return 0
