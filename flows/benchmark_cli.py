"""``scalper benchmark fi2010``: our learners on the field's public benchmark, beside the published tables."""

from __future__ import annotations

import argparse
from pathlib import Path

from flows.verbs import VerbMaker, help_of
from market.errors import ConfigError

OUT = Path("artifacts/benchmark")
CACHE = Path("runtime/fi2010-cache")
EXAMPLES = """\
example:
  scalper benchmark fi2010 ~/data/FI-2010
  scalper benchmark fi2010 ~/data/FI-2010 --minutes 20 --learner BiN-CTABL --learner gbdt --no-anchored

The folder holds the unpacked NoAuction matrices, at any depth: Train_Dst_NoAuction_ZScore_CF_7.txt and
Test_Dst_NoAuction_ZScore_CF_7, 8, 9.txt for setup 2; all of CF_1 to CF_9 for setup 1, too. The data are not
ours to pass on: they are at the Etsin service of Finland's universities ("Benchmark Dataset for Mid-Price
Forecasting of Limit Order Book Data"). What is measured and what it means: docs/fi2010.md
"""


def add(verb: VerbMaker) -> None:
    group = verb("benchmark", help_of("benchmark"), "public benchmarks of the field",
                 "scalper benchmark fi2010 path/to/folder")  # fmt: skip
    sub = group.add_subparsers(title="benchmarks", metavar="NAME", required=True).add_parser(
        "fi2010", help="mid-price labels of five Helsinki stocks, June 2010",
        description="The FI-2010 protocol with our learners; results beside the published tables.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    sub.set_defaults(run=_fi2010)
    sub.add_argument("data", type=Path, metavar="FOLDER", help="the unpacked benchmark")
    sub.add_argument("--out", type=Path, default=OUT, metavar="DIR", help=f"for the report (default {OUT})")
    sub.add_argument("--minutes", type=float, default=60.0, help="the whole budget (default 60, at most 60)")
    sub.add_argument("--threads", type=int, default=2, help="cores to use (default 2)")
    sub.add_argument("--seed", type=int, default=1)
    sub.add_argument(
        "--variant", default="ZScore", choices=("ZScore", "MinMax", "DecPre"),
        help="normalisation of the files (default ZScore, as LOBCAST and TLOB)",
    )  # fmt: skip
    sub.add_argument(
        "--validation", default="tail", choices=("tail", "stocks"),
        help="rows that choose: the last fifth of training (as published), or of each stock",
    )  # fmt: skip
    sub.add_argument(
        "--learner", action="append", default=[], metavar="NAME", dest="learners",
        help="gbdt, svm, lstm, transformer or BiN-CTABL; may be repeated (default: all)",
    )  # fmt: skip
    sub.add_argument("--no-anchored", action="store_true", help="leave setup 1 out")
    sub.add_argument(
        "--cache", type=Path, default=CACHE, metavar="DIR",
        help=f"binary copies of the text files, about a third as large (default {CACHE})",
    )  # fmt: skip


def _fi2010(args: argparse.Namespace) -> int:
    if not 0 < args.minutes <= 60:
        raise ConfigError(f"--minutes {args.minutes:g}: above 0, and the protocol allows 60 at most")
    if args.threads < 1:
        raise ConfigError(f"--threads {args.threads}: at least 1")
    from models import fi2010_report
    from models.fi2010_learners import OURS
    from models.fi2010_run import Plan, benchmark

    unknown = [name for name in args.learners if name not in OURS]
    if unknown:
        raise ConfigError(f"--learner {unknown[0]}: known are {', '.join(OURS)}")
    plan = Plan(
        variant=args.variant, minutes=args.minutes, threads=args.threads, seed=args.seed,
        validation=args.validation, anchored=not args.no_anchored, learners=tuple(args.learners),
        cache=args.cache,
    )  # fmt: skip
    result = benchmark(args.data, plan, lambda line: print(f"  {line}", flush=True))
    written = fi2010_report.write(result, args.out)
    print("\n".join(fi2010_report.lines(result)))
    print(f"report: {written[0]}, {written[1]}")
    return 0
