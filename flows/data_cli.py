"""``scalper data``: what a recording is worth, in words, in numbers and in pictures."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.verbs import Run, VerbMaker, help_of
from market.errors import ConfigError

if TYPE_CHECKING:
    from flows.data_page import Look
    from flows.data_source import Source
    from market.inspect import DayInspection
    from market.verdict import Verdict

RECORDING = Path("data/recording")
UNFIT = 1
"""Exit status of ``validate`` when a day is not in order."""


def add(verb: VerbMaker) -> None:
    data = verb("data", help_of("data"), "look at recordings", "scalper data info data/recording")
    verbs = data.add_subparsers(title="verbs", metavar="VERB", required=True)

    def inner(name: str, run: Run, text: str, example: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        sub.add_argument("--ticker", help="only this instrument")
        sub.add_argument("--day", metavar="YYYY-MM-DD", help="only this exchange day")
        sub.set_defaults(run=run)
        if name == "export":
            sub.add_argument("path", type=Path, help="a recording")
        else:
            sub.add_argument(
                "path", type=Path, nargs="*",
                help=f"a recording, or files that scalper ingest takes (default {RECORDING})",
            )  # fmt: skip
        return sub

    sub = inner("info", _info, "explain a recording: span, gaps, spread, depth, trades, clocks",
                "scalper data info data/recording --ticker SIMP")  # fmt: skip
    sub.add_argument("--all", action="store_true", help="a page for each day, however many there are")
    sub.add_argument("--json", action="store_true", help="everything as one JSON document")
    sub.add_argument("--bars", action=argparse.BooleanOptionalAction, default=None,
                     help="bars and sparklines (default: when the output is a terminal)")  # fmt: skip

    sub = inner("validate", _validate, "is it fit for use? Exit 0 when every day is, else 1 with the reasons",
                "scalper data validate path/to/recording")  # fmt: skip
    sub.add_argument("--json", action="store_true", help="counts, verdicts and reasons as one JSON document")

    sub = inner("plot", _plot, "draw it: one PNG for each view, and one page that opens anywhere",
                "scalper data plot data/recording --out runtime/plots --ticker SIMP")  # fmt: skip
    sub.add_argument("--out", type=Path, required=True, metavar="FOLDER")

    sub = inner("export", _export, "write it as JSON lines, whole numbers throughout; loses nothing",
                "scalper data export data/recording --to jsonl day.jsonl.gz")  # fmt: skip
    sub.add_argument("out", type=Path, help="gzipped when the name ends in .gz")
    sub.add_argument("--to", choices=("jsonl",), default="jsonl")


def _inspected(args: argparse.Namespace) -> tuple[Source, Iterator[tuple[DayInspection, Verdict]]]:
    from flows.data_source import open_source
    from market.inspect import inspect_day
    from market.verdict import judge

    source = open_source(args.path or [RECORDING])
    days = (inspect_day(day) for day in source.days(args.ticker, args.day))
    return source, ((day, judge(day)) for day in days)


def _look(bars: bool | None) -> Look:
    from flows.data_page import Look

    terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    drawn = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return Look(
        bars=terminal and drawn if bars is None else bars,
        colour=terminal and not os.environ.get("NO_COLOR"),
    )


def _info(args: argparse.Namespace) -> int:
    from flows.data_page import overview, page

    source, days = _inspected(args)
    if args.json:
        _print_json(source, [{**day.to_dict(), "verdict": verdict.to_dict()} for day, verdict in days])
        return 0
    look = _look(args.bars)
    judged = list(days)
    print(overview(source, judged, look), end="")
    if len(judged) == 1 or args.all:
        for day, verdict in judged:
            print("\n" + page(day, verdict, source.watermark, look), end="")
    else:
        print("\nmore about one of them: --ticker and --day; about each: --all")
    return 0


def _validate(args: argparse.Namespace) -> int:
    source, days = _inspected(args)
    look = _look(False)
    levels: list[str] = []
    out = []
    fit = True
    for day, verdict in days:
        fit &= verdict.level == "ok" and not (day.report.books_dropped or day.report.trades_dropped)
        levels.append(verdict.level)
        if args.json:
            out.append({"report": day.report.to_dict(), "verdict": verdict.to_dict()})
            continue
        print("\n".join(day.report.lines()))
        title = f"{day.instrument.ticker} {day.day}"
        print(f"{title}: {look.level(verdict.level)}")
        for reason in verdict.reasons:
            print(f"  {look.level(reason.level, reason.name)}: {reason.text}")
    if args.json:
        _print_json(source, out)
    elif len(levels) > 1:
        print(", ".join(f"{levels.count(level)} {level}" for level in dict.fromkeys(levels)))
    return 0 if fit else UNFIT


def _plot(args: argparse.Namespace) -> int:
    from flows import data_html

    source, days = _inspected(args)
    page = data_html.write(source, days, args.out, progress=print)
    print(f"open {page}")
    return 0


def _export(args: argparse.Namespace) -> int:
    from flows.data_source import is_recording
    from market.exporters import export_jsonl
    from market.recording import Recording

    if args.path.exists() and not is_recording(args.path):
        raise ConfigError(f"{args.path} is not a recording yet: run scalper ingest {args.path} --out FOLDER")
    done = export_jsonl(Recording.open(args.path), args.out, ticker=args.ticker, day=args.day, progress=print)
    print(f"{args.out}: {done.books:,} books, {done.trades:,} trades, {done.size / 1e6:,.1f} MB")
    return 0


def _print_json(source: Source, days: list[dict[str, Any]]) -> None:
    document = {
        "path": source.name, "source": source.source, "watermark": source.watermark,
        "tariff": source.tariff, "data_hash": source.data_hash, "days": days,
    }  # fmt: skip
    print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
