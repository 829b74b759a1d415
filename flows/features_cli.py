"""``scalper features``: the catalogue, leaders, micro-prices; ``scalper leak-check``: do rows and decisions
know the future?"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.verbs import VerbMaker, help_of
from market.errors import ConfigError

if TYPE_CHECKING:
    from features.leakcheck import Table

RECORDING = Path("data/recording")
OWN_TABLE = "features.batch:compute"
LEAKS = 1
"""Exit status of ``leak-check`` when a row or a decision changed."""
WARMUP_NS = 420_000_000_000
"""Before what is compared: features and bars warm up, as in the line's backtest."""
MINUTE_NS = 60_000_000_000


def add(verb: VerbMaker) -> None:
    features = verb("features", help_of("features"), "the feature schema, and who leads whom",
                    "scalper features list")  # fmt: skip
    verbs = features.add_subparsers(title="verbs", metavar="VERB", required=True)
    sub = verbs.add_parser(
        "list", help="name, window, unit, mask and source of every feature, and the schema hash"
    )
    sub.add_argument("--json", action="store_true", help="the declaration as one JSON document")
    sub.set_defaults(run=_list)
    sub = verbs.add_parser(
        "leaders", help="which instrument of a recording moves before which, for params.yaml: features.leader"
    )
    sub.add_argument("recording", type=Path, metavar="RECORDING", nargs="?", default=RECORDING,
                     help=f"a recording, or what scalper ingest takes (default {RECORDING})")  # fmt: skip
    sub.add_argument("--share", type=float, default=0.5,
                     help="of the recorded time that is looked at, from its start (default 0.5, as "
                     "split.fit: what is chosen on later blocks has seen them)")  # fmt: skip
    sub.add_argument("--json", action="store_true", help="every pair as one JSON document")
    sub.set_defaults(run=_leaders)
    sub = verbs.add_parser(
        "micro-price", help="Stoikov's table fitted on each finished day, beside the one learnt as it goes"
    )
    sub.add_argument("recording", type=Path, metavar="RECORDING", nargs="?", default=RECORDING,
                     help=f"a recording, or what scalper ingest takes (default {RECORDING})")  # fmt: skip
    sub.add_argument("--ticker", help="only this instrument")
    sub.set_defaults(run=_micro_price)

    sub = verb("leak-check", _leak_check, "compare rows and decisions with those on recordings cut short",
               "scalper leak-check --recording data/recording --bundle artifacts/bundle")  # fmt: skip
    sub.add_argument("--recording", type=Path, default=RECORDING, metavar="PATH",
                     help=f"a recording, or what scalper ingest takes (default {RECORDING})")  # fmt: skip
    sub.add_argument("--bundle", type=Path, metavar="DIR", help="check the decisions of this bundle, too")
    sub.add_argument("--ticker", help="only this instrument's features")
    sub.add_argument("--table", metavar="MODULE:FUNCTION", default=OWN_TABLE,
                     help="features of your own: a function from InstrumentDay to FeatureTable")  # fmt: skip
    sub.add_argument("--leader", metavar="TICKER",
                     help="its quotes lead the others' features (params.yaml: features.leader)")  # fmt: skip
    sub.add_argument("--cuts", type=int, default=40, help="shorter days per instrument and day (default 40)")
    sub.add_argument("--decision-cuts", type=int, default=4, metavar="N",
                     help="shorter recordings to trade (default 4)")  # fmt: skip
    sub.add_argument("--minutes", type=float, default=20.0,
                     help="of market time whose decisions are compared (default 20)")  # fmt: skip
    sub.add_argument("--seed", type=int, default=0, help="of the moments at which is cut (default 0)")


def _list(args: argparse.Namespace) -> int:
    from features import catalogue, schema

    if args.json:
        document = {"schema": schema.schema_hash(), "features": [asdict(spec) for spec in schema.FEATURES]}
        print(json.dumps(document, indent=2, ensure_ascii=False))
        return 0
    print("\n".join(catalogue.lines()))
    print(f"{schema.F} features, schema {schema.schema_hash()}")
    return 0


def _leaders(args: argparse.Namespace) -> int:
    from features import leadlag
    from flows.data_source import open_source

    if not 0 < args.share <= 1:
        raise ConfigError(f"--share {args.share:g}: give a share above 0, at most 1")
    found = leadlag.leads(open_source([args.recording]).days(), args.share)
    leader = leadlag.chosen(found)
    if args.json:
        pairs = [leadlag.to_dict(lead) for lead in found]
        print(json.dumps({"share": args.share, "leader": leader, "pairs": pairs}, indent=2))
        return 0
    print("leader -> follower      lag     correlation (lower)     lead-lag ratio (lower)   minutes")
    for lead in found:
        print(
            f"{lead.leader + ' -> ' + lead.follower:<20} {lead.lag_s:>4g} s {lead.correlation:>14.3f} "
            f"({lead.correlation_low:+.3f}) {lead.ratio:>18.2f} ({lead.ratio_low:.2f}) {lead.minutes:>10}"
            f"{'  leads' if lead.believed else ''}"
        )
    if leader:
        said = ", ".join(f"{follower}: {name}" for follower, name in leader.items())
        print(f"params.yaml: features: {{leader: {{{said}}}}}")
    else:
        print("nobody leads beyond doubt: leave features.leader empty")
    return 0


def _micro_price(args: argparse.Namespace) -> int:
    from features import stoikov
    from flows.data_source import open_source

    for day in open_source([args.recording]).days(args.ticker):
        print("\n".join(stoikov.lines(day)))
    return 0


def _leak_check(args: argparse.Namespace) -> int:
    for name in ("cuts", "decision_cuts", "minutes"):
        if getattr(args, name) <= 0:
            raise ConfigError(f"--{name.replace('_', '-')} {getattr(args, name)}: give a number above 0")
    leaked = _features(args)
    if args.bundle is not None:
        leaked |= _decisions(args)
    return LEAKS if leaked else 0


def _features(args: argparse.Namespace) -> bool:
    from features.leakcheck import check_day
    from flows.data_source import open_source

    table = _table(args.table)
    if args.leader and args.table != OWN_TABLE:
        raise ConfigError(f"--leader {args.leader}: only {OWN_TABLE} takes one; leave out --table")
    leaders = {day.day: day for day in open_source([args.recording]).days(args.leader)} if args.leader else {}
    leaked = False
    for day in open_source([args.recording]).days(args.ticker):
        leader = leaders.get(day.day) if day.instrument.ticker != args.leader else None
        found = check_day(day, table, cuts=args.cuts, seed=args.seed, leader=leader)
        title = f"features   {day.instrument.ticker} {day.day}: {found.rows:,} rows of {found.cuts} cuts"
        if not found.differences:
            print(f"{title} equal, byte by byte")
            continue
        leaked = True
        names = ", ".join(difference.feature for difference in found.differences)
        print(f"{title}: LEAK in {names}")
        print(f"  first: {found.differences[0].line()}")
    return leaked


def _decisions(args: argparse.Namespace) -> bool:
    from features.schema import schema_hash
    from flows import leak_decisions
    from flows.signing import PUBLIC
    from market.recording import Recording
    from models.bundle import Bundle

    recording = Recording.open(args.recording)
    bundle = Bundle.load(args.bundle, PUBLIC if PUBLIC.exists() else None, expect_schema=schema_hash())
    from_ns, to_ns = _span(recording, bundle.manifest, args.minutes)
    play = leak_decisions.by_bundle(bundle, from_ns=from_ns, to_ns=to_ns)
    found = leak_decisions.check(recording, play, cuts=args.decision_cuts, seed=args.seed)
    title = (
        f"decisions  {found.scores:,} scores, {found.orders:,} orders: "
        f"{found.compared:,} records of {found.cuts} cuts"
    )
    if found.difference is None:
        print(f"{title} equal, field by field")
        return False
    print(f"{title}: LEAK\n  first: {found.difference}")
    return True


def _span(recording: Any, manifest: dict[str, Any], minutes: float) -> tuple[int, int]:
    """What is traded: from the bundle's live block where the recording reaches it, else from the start."""
    starts, ends = [], []
    for ticker, days in recording.info.days.items():
        books = [recording.read(ticker, day).books.recv_ns for day in days]
        starts += [int(ns[0]) for ns in books if len(ns)]
        ends += [int(ns[-1]) for ns in books if len(ns)]
    if not starts:
        raise ConfigError("the recording holds no book: there is nothing to decide on")
    live_from_ns = int(manifest["live_from_ns"]) - WARMUP_NS
    from_ns = live_from_ns if min(starts) <= live_from_ns < max(ends) else min(starts)
    return from_ns, from_ns + WARMUP_NS + round(minutes * MINUTE_NS)


def _table(name: str) -> Table:
    import importlib

    module, _, function = name.partition(":")
    try:
        found: Table = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as e:
        raise ConfigError(f"--table {name}: {e}; write MODULE:FUNCTION, e.g. features.batch:compute") from e
    return found
