"""`live-runner snapshot` and `live-runner restore`: copies for disaster recovery and the way back."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from market.errors import ConfigError


def add(command: Any, load: Any) -> None:
    """Registers the verbs."""
    sub = command(
        "snapshot", lambda args: _snapshot(load(args, decrypt=False), args),
        "copy the runtime folder now, or list the copies",
        "snapshot --to /mnt/backup\n  live-runner snapshot --list --json",
    )  # fmt: skip
    sub.add_argument("--to", type=Path, default=None, help="default: disaster_recovery.replication_path")
    sub.add_argument("--list", action="store_true", help="only show what is there")

    sub = command(
        "restore", lambda args: _restore(load(args, decrypt=False), args),
        "restore a copy into an empty folder, and prove it by a replay",
        "restore --verify                            a drill: into a folder that is removed again\n"
        "  live-runner restore --into runtime-new --verify      for good; then exchange the folders\n"
        "  live-runner restore --snapshot snapshot-20260115T101500.000Z --into runtime-new",
    )  # fmt: skip
    sub.add_argument("--from", type=Path, default=None, dest="source", metavar="DIR",
                     help="default: disaster_recovery.replication_path")  # fmt: skip
    sub.add_argument("--snapshot", default="latest", metavar="NAME", help="default: the latest")
    sub.add_argument("--into", type=Path, default=None, metavar="DIR", help="an empty or new folder")
    sub.add_argument("--verify", action="store_true",
                     help="databases whole, checkpoint sound, replay to the same state")  # fmt: skip
    sub.add_argument("--models", type=Path, default=None, metavar="DIR", help="default: those in the copy")


def _folder(given: Path | None, config: Any, option: str) -> Path:
    if given is not None:
        return given
    if not config.disaster_recovery.replication_path:
        raise ConfigError(f"where are the copies? Give {option} or set disaster_recovery.replication_path")
    return Path(config.disaster_recovery.replication_path)


def _snapshot(config: Any, args: argparse.Namespace) -> int:
    from live import recovery

    target = _folder(args.to, config, "--to")
    settings = config.disaster_recovery
    if args.list:
        found = [recovery.load(path) for path in recovery.snapshots(target)]
        if args.json:
            print(json.dumps([{"name": s.path.name, "taken_wall_ns": s.taken_wall_ns, "files": len(s.files),
                               "bytes": s.size} for s in found], indent=1))  # fmt: skip
        else:
            print("\n".join(s.describe() for s in found) or f"no copies in {target}")
        return 0
    plan = recovery.Plan(
        Path(config.system.runtime_dir), target, tuple(settings.include_patterns), settings.max_snapshots,
        Path(config.storage.path),
    )  # fmt: skip
    if not plan.source.is_dir():
        raise ConfigError(f"there is no folder {plan.source} to copy; set system.runtime_dir")
    made = recovery.take(plan)
    if args.json:
        print(json.dumps({"name": made.path.name, "files": len(made.files), "bytes": made.size}, indent=1))
    else:
        print(f"{made.describe()} in {target}")
    return 0


def _restore(config: Any, args: argparse.Namespace) -> int:
    from live import recovery

    source = _folder(args.source, config, "--from")
    found = recovery.snapshots(source)
    if not found:
        raise ConfigError(f"there are no copies in {source}; `live-runner snapshot` makes one")
    names = {path.name: path for path in found}
    if args.snapshot != "latest" and args.snapshot not in names:
        raise ConfigError(f"no copy {args.snapshot} in {source}; there are: {', '.join(names)}")
    if args.into is None and not args.verify:
        raise ConfigError("name an empty folder with --into, or --verify for a drill")
    chosen = recovery.load(found[-1] if args.snapshot == "latest" else names[args.snapshot])
    with tempfile.TemporaryDirectory(prefix="scalper-restore-") as scratch:
        into = args.into or Path(scratch) / "runtime"
        recovery.restore(chosen, into)
        answer: dict[str, Any] = {"snapshot": chosen.path.name, "into": str(args.into or ""), "proof": None}
        code = 0
        if args.verify:
            from live.recovery_proof import prove

            proof = prove(into, bundles=args.models)
            answer["proof"], code = proof.to_dict(), 0 if proof.ok else 1
    if args.json:
        print(json.dumps(answer, indent=1))
    else:
        print("\n".join(_lines(chosen, args, answer["proof"])))
    return code


def _lines(chosen: Any, args: argparse.Namespace, proof: dict[str, Any] | None) -> list[str]:
    where = str(args.into) if args.into else "a scratch folder (removed)"
    lines = [f"restored {chosen.describe()} into {where}; every checksum fits"]
    if proof is None:
        return [*lines, "not verified: --verify replays its session"]
    lines += [f"database {name}: {verdict}" for name, verdict in proof["databases"].items()]
    if proof["problem"]:
        return [*lines, f"NOT PROVEN: {proof['problem']}"]
    return [
        *lines,
        f"session {proof['session_id']}: {proof['events']} events and {proof['orders']} orders replayed; the "
        "state of the checkpoint is reached",
    ]
