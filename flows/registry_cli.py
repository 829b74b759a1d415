"""``scalper publish``, ``gate``, ``promote``, ``rollback``, ``promotions``: versions and aliases."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.verbs import VerbMaker
from market.errors import ConfigError

REFUSED = 3
"""Exit status of a promotion that the gate refused: nothing failed, and nothing moved."""
LADDER = ("challenger", "shadow", "canary", "prod")


def add(verb: VerbMaker) -> None:
    verb("publish", _publish, "register artifacts/bundle in the MLflow registry, once for each manifest hash",
         "scalper publish")  # fmt: skip

    sub = verb("gate", _gate, "print the gate's verdict on a version, check by check",
               "scalper gate --to canary")  # fmt: skip
    _which(sub)
    sub.add_argument("--to", default="prod", choices=LADDER, help="the alias to be judged for (default prod)")

    sub = verb("promote", _promote, "move an alias to a version, if the gate lets it",
               'scalper promote --to prod --climb --reason "first model"')  # fmt: skip
    _which(sub)
    sub.add_argument("--to", required=True, choices=LADDER)
    sub.add_argument("--reason", required=True, help="kept with the promotion: what a later reader has")
    sub.add_argument("--climb", action="store_true",
                     help="take the rungs below (challenger, shadow, canary) on the way")  # fmt: skip
    sub.add_argument(
        "--override", default="", metavar="REASON",
        help="move it against the gate: recorded, tagged, shown for ever (not against a broken "
        "signature, schema or golden rows)",
    )  # fmt: skip

    sub = verb("rollback", _rollback, "swap prod and previous: the version that ran before runs again",
               'scalper rollback --reason "loses since noon"')  # fmt: skip
    sub.add_argument("--reason", required=True, help="kept with the move: what a later reader has")

    sub = verb("promotions", _promotions, "who moved which alias when and why; what was live at a moment",
               "scalper promotions --at 2026-01-16T12:00+03:00")  # fmt: skip
    sub.add_argument("--at", metavar="TIME", help="only what each alias named then (no offset: UTC)")
    sub.add_argument("--verify", action="store_true",
                     help="check the chain of hashes, and that the registry agrees with it")  # fmt: skip


def _which(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "version", nargs="?", metavar="VERSION",
        help="a number or an alias (default: the built bundle, published if need be)",
    )  # fmt: skip


def _publish(args: argparse.Namespace) -> int:
    from flows import publishing

    print(publishing.publish(Path.cwd()).line())
    return 0


def _gate(args: argparse.Namespace) -> int:
    from flows import promotion

    verdict = promotion.judge(Path.cwd(), args.to, args.version)
    print(verdict.text())
    return 0 if verdict.passed else REFUSED


def _promote(args: argparse.Namespace) -> int:
    from flows import promotion
    from flows.summary import aligned

    done = promotion.promote(
        Path.cwd(), args.to, args.reason, which=args.version, climb=args.climb, override=args.override
    )
    columns = ("check", "passed", "value", "limit", "reason")
    rows = [columns, *(tuple(row[name] for name in columns) for row in done.verdict.rows())]
    for text in aligned(rows, left=(0, 4)):
        print(text)
    print(done.verdict.headline())
    print(
        f"alias {done.alias} -> version {done.version}"
        if done.moved
        else f"alias {args.to} stays where it is"
    )
    if done.override:
        print(f"OVERRIDE: {done.override}")
    return 0 if done.moved else REFUSED


def _rollback(args: argparse.Namespace) -> int:
    from flows import promotion

    entry = promotion.rollback(Path.cwd(), args.reason)
    print(f"alias prod -> version {entry['version']}; version {entry['replaces']} is now previous")
    return 0


def _promotions(args: argparse.Namespace) -> int:
    from flows import publishing
    from models import promotions

    at = _moment(args.at) if args.at else None
    entries = promotions.read_journal(publishing.journal(Path.cwd()))
    if args.verify:
        found = promotions.differences(entries, publishing.aliases(Path.cwd()))
        print(f"{len(entries)} entries, the chain of hashes holds")
        print("\n".join(found) or "the registry's aliases are what the journal says")
        return 1 if found else 0
    if at is not None:
        standing = promotions.aliases_at(entries, at)
        for alias in (*LADDER, promotions.PREVIOUS):
            if alias in standing:
                print(f"{alias:<11} {_entry_line(standing[alias])}")
        if not standing:
            print(f"no alias named anything at {at.isoformat()}")
        return 0
    for entry in entries:
        print(f"{entry['number']:>4}  {entry['kind']:<9} {entry['alias']:<11} {_entry_line(entry)}")
    if not entries:
        print("no promotion yet")
    return 0


def _entry_line(entry: dict[str, Any]) -> str:
    override = f"  OVERRIDE: {entry['override']}" if entry.get("override") else ""
    return (
        f"version {entry['version']} ({entry['manifest_sha256'][:12]}) at {entry['at']}: "
        f"{entry['reason']}{override}"
    )


def _moment(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--at {text}: write a time like 2026-01-16T12:00+03:00") from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
