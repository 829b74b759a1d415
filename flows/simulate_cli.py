"""``scalper simulate``: a recording that a program made, and how much like a market it is."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from flows.verbs import VerbMaker
from market.errors import ConfigError

if TYPE_CHECKING:
    from market.simulator import SimSpec
    from market.simulator_session import Session

REPORT = Path("runtime/report/simulate.html")
REPORT_HOURS = 8.0
RECORDING_HOURS = 1.0
SATURDAY = 5


def add(verb: VerbMaker) -> None:
    sub = verb(
        "simulate",
        _simulate,
        "write a simulated recording, or report how much like a market it is",
        "scalper simulate /data/sim --hours 1 --seed 3\n"
        "  scalper simulate /data/week --session futures --preset LARGE --days 5\n"
        "  scalper simulate --report --preset SMALL --preset LARGE --seeds 8\n"
        "  scalper simulate --report --on data/recording",
    )
    sub.add_argument("out", type=Path, nargs="?", help="folder of the recording to write")
    sub.add_argument("--hours", type=float, help="of trading (default 1, with a session all of it; report 8)")
    sub.add_argument(
        "--dt", type=float, default=0.25, metavar="SECONDS", help="between two books (default 0.25)"
    )
    sub.add_argument("--seed", type=int, default=7)
    sub.add_argument("--day", default="2026-01-15", help="the first day (default 2026-01-15)")
    sub.add_argument("--days", type=int, default=1, metavar="N", help="so many days, weekends left out")
    sub.add_argument(
        "--preset", action="append", metavar="NAME",
        help="an instrument of this preset; repeat for more (default: the demo's; report: SMALL, LARGE)",
    )  # fmt: skip
    sub.add_argument(
        "--session", metavar="NAME", help="trading hours: shares, shares-evening, futures, futures-2026"
    )
    sub.add_argument(
        "--linked", action="store_true", help="two shares with one fair value, one of them behind"
    )
    sub.add_argument("--rho", type=float, default=0.8, help="with --linked: correlation of the fair values")
    sub.add_argument(
        "--lag", type=float, default=1.0, metavar="SECONDS", help="with --linked: how far behind"
    )
    sub.add_argument(
        "--report", type=Path, nargs="?", const=REPORT, metavar="HTML",
        help=f"measure the stylised facts and write the page (default {REPORT})",
    )  # fmt: skip
    sub.add_argument("--seeds", type=int, default=4, metavar="N", help="with --report: seeds (default 4)")
    sub.add_argument("--on", type=Path, metavar="RECORDING", help="with --report: measure this recording")


def _simulate(args: argparse.Namespace) -> int:
    if args.report is None and args.out is None:
        raise ConfigError("scalper simulate needs a folder to write to, or --report")
    if args.on is not None and args.report is None:
        raise ConfigError("--on RECORDING goes with --report: it says what is measured")
    if args.out is not None:
        _record(args)
    if args.report is not None:
        _report(args)
    return 0


def _record(args: argparse.Namespace) -> None:
    from market.simulator import simulate_recording
    from market.simulator_factor import Common

    hours = args.hours if args.hours is not None or args.session else RECORDING_HOURS
    recording, _ = simulate_recording(
        args.out, _specs(args), hours=hours, dt_s=args.dt, seed=args.seed, day=_days(args.day, args.days),
        common=Common(rho=args.rho) if args.linked else None,
    )  # fmt: skip
    print(f"SIMULATED recording at {args.out}: {', '.join(i.ticker for i in recording.info.instruments)}")


def _report(args: argparse.Namespace) -> None:
    from flows import simulate_report as report
    from market.recording import Recording
    from market.simulator_factor import Common

    if not 1 <= args.seeds <= 1000:
        raise ConfigError(f"--seeds {args.seeds}: between 1 and 1000")
    if args.on is not None:
        columns = report.of_recording(Recording.open(args.on), print)
    else:
        hours = args.hours if args.hours is not None or args.session else REPORT_HOURS
        columns = report.of_presets(
            args.preset or ("SMALL", "LARGE"), seeds=args.seeds, hours=hours, dt_s=args.dt, seed=args.seed,
            session=_session(args.session), say=print,
        )  # fmt: skip
    linked = None
    if args.linked:
        linked = report.of_linked(
            Common(rho=args.rho), args.lag, hours=args.hours or 1.0, seed=args.seed, say=print
        )
    report.write_html(columns, linked, args.report)
    if any(column.watermark == "SIMULATED" for column in columns):
        print("SIMULATED")
    print("\n".join(report.text(columns)))
    print(f"pictures: {args.report}")


def _specs(args: argparse.Namespace) -> Sequence[SimSpec]:
    """The instruments that the options ask for; those of a preset are named after it."""
    from market.simulator import DEFAULT_SPECS, LEAD_LAG_SPECS, SimSpec

    session = _session(args.session)
    kind = "future" if args.session and args.session.startswith("futures") else "share"
    if args.linked:
        if args.preset:
            raise ConfigError("--linked makes its own two instruments; leave --preset out")
        specs: Sequence[SimSpec] = (LEAD_LAG_SPECS[0], replace(LEAD_LAG_SPECS[1], lag_s=args.lag))
    elif args.preset:
        tickers = [
            name.replace("_", "-") + ("" if k == 0 else f"-{k + 1}") for k, name in _numbered(args.preset)
        ]
        specs = [SimSpec(t, p, kind=kind) for t, p in zip(tickers, args.preset, strict=True)]  # type: ignore[arg-type]
    else:
        specs = DEFAULT_SPECS
    return specs if session is None else [replace(spec, session=session) for spec in specs]


def _numbered(names: Sequence[str]) -> list[tuple[int, str]]:
    return [(names[:k].count(name), name) for k, name in enumerate(names)]


def _session(name: str | None) -> Session | None:
    from market.simulator_session import SESSIONS

    if name is not None and name not in SESSIONS:
        raise ConfigError(f"unknown session {name!r}; known: {', '.join(SESSIONS)}")
    return SESSIONS[name] if name is not None else None


def _days(first: str, count: int) -> list[str]:
    """``count`` days from ``first`` on, Saturdays and Sundays left out."""
    if count < 1:
        raise ConfigError(f"--days {count}: at least 1")
    try:
        day = date.fromisoformat(first)
    except ValueError:
        raise ConfigError(f"a simulated day is written YYYY-MM-DD, not {first!r}") from None
    days = [first]
    while len(days) < count:
        day += timedelta(days=1)
        if day.weekday() < SATURDAY:
            days.append(day.isoformat())
    return days
