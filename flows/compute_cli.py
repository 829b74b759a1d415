"""``scalper backtests``: a bundle on every session of a recording; ``scalper compute``: who computes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from flows.verbs import VerbMaker, help_of
from market.errors import ConfigError

if TYPE_CHECKING:
    from flows.params import ComputeParams

RECORDING, BUNDLE, OUT = Path("data/recording"), Path("artifacts/bundle"), Path("runtime/backtests")


def add(verb: VerbMaker) -> None:
    sub = verb("backtests", _backtests, "trade each session of a recording on its own, side by side",
               "scalper backtests --recording data/recording --bundle artifacts/bundle")  # fmt: skip
    sub.add_argument("--recording", type=Path, default=RECORDING, metavar="DIR", help=f"default {RECORDING}")
    sub.add_argument("--bundle", type=Path, default=BUNDLE, metavar="DIR", help=f"default {BUNDLE}")
    sub.add_argument("--day", action="append", default=[], dest="days", metavar="DAY",
                     help="only this one, e.g. 2026-01-15; may be repeated")  # fmt: skip
    sub.add_argument("--out", type=Path, default=OUT, metavar="DIR",
                     help=f"a JSON file for each session and one for all (default {OUT})")  # fmt: skip

    group = verb("compute", help_of("compute"), "where the parts of stages are computed (docs/scaling.md)",
                 "scalper compute check")  # fmt: skip
    check = group.add_subparsers(title="verbs", metavar="VERB", required=True).add_parser(
        "check", help="ask every worker of the cluster for its code, its libraries and this folder"
    )
    check.set_defaults(run=_check)


def _backtests(args: argparse.Namespace) -> int:
    from flows import compute, compute_backtests
    from flows.signing import PUBLIC

    if not (args.recording / "recording.json").is_file():
        raise ConfigError(
            f"--recording {args.recording}: no recording is there; run the line or give another"
        )
    key = PUBLIC if PUBLIC.exists() else None

    def body(pool: compute.Pool) -> list[compute_backtests.Traded]:
        traded = []
        for found in compute_backtests.run(
            args.recording, args.bundle, args.out, pool, key=key, days=args.days
        ):
            net = "  ".join(f"{name} {nano / 1e9:+,.2f}" for name, nano in found.net_nano.items())
            print(
                f"{found.day}  {found.books:>9,} books  {found.trips:>5,} round trips  net RUB {net}",
                flush=True,
            )
            traded.append(found)
        return traded

    found = compute.run("backtests", _asked(), body)
    total = sum(t.net_nano["queue"] for t in found)
    print(
        f"{len(found)} sessions, net {total / 1e9:+,.2f} RUB (queue): {args.out / compute_backtests.SUMMARY}"
    )
    return 0


def _check(args: argparse.Namespace) -> int:
    from flows import compute

    settings = compute.in_force(_asked())
    if settings.engine == "local":
        print("compute.engine: local; every part is computed in the process of its stage")
        return 0
    from flows import compute_dask

    lines = compute_dask.check_cluster(settings)
    print(f"{len(lines)} workers with this code, these libraries and this folder:")
    print("\n".join(f"  {line}" for line in lines))
    return 0


def _asked() -> ComputeParams:
    from flows import params as params_file

    return params_file.load().compute
