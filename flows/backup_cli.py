"""``scalper backup`` and ``scalper restore``."""

from __future__ import annotations

import argparse
from pathlib import Path

from flows.verbs import VerbMaker


def add(verb: VerbMaker) -> None:
    sub = verb("backup", _backup, "registry, DVC remote, runner state and configuration, while work goes on",
               "scalper backup --to /mnt/backups/scalper")  # fmt: skip
    sub.add_argument(
        "--to", type=Path, metavar="DIR", help="default: runtime/backups (another disk is better)"
    )
    sub.add_argument(
        "--key", type=Path, metavar="FILE", help="Fernet key (default: keys/backup.key, made if absent)"
    )
    sub.add_argument("--keep", type=int, default=14, metavar="N", help="snapshots that stay (default 14)")
    sub.add_argument("--list", action="store_true", dest="list_only", help="show the snapshots, make none")

    sub = verb("restore", _restore, "bring a snapshot back into an empty folder",
               "scalper restore latest --into /tmp/restored --verify")  # fmt: skip
    sub.add_argument("snapshot", help="a name that `scalper backup --list` shows, or latest")
    sub.add_argument("--from", type=Path, dest="source", metavar="DIR", help="default: runtime/backups")
    sub.add_argument("--into", type=Path, required=True, metavar="DIR", help="an empty or new folder")
    sub.add_argument("--key", type=Path, metavar="FILE", help="Fernet key (default: keys/backup.key)")
    sub.add_argument(
        "--verify", action="store_true",
        help="also open what was restored: databases, promotions, every registered bundle and its signature",
    )  # fmt: skip


def _backup(args: argparse.Namespace) -> int:
    from flows import backup

    place = backup.Place.of(Path.cwd(), args.to, args.key)
    if args.list_only:
        for snapshot in backup.snapshots(place):
            print(snapshot.line())
        return 0
    print(backup.create(Path.cwd(), place, keep=args.keep).line())
    return 0


def _restore(args: argparse.Namespace) -> int:
    from flows import backup, restore

    place = backup.Place.of(Path.cwd(), args.source, args.key, make_key=False)
    snapshot = restore.restore(place, args.snapshot, args.into)
    print(f"restored {snapshot.line()} into {args.into}")
    if args.verify:
        for text in restore.verify(args.into, snapshot):
            print(f"  {text}")
    return 0
