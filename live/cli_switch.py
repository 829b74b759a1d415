"""`live-runner status`, `halt` and `resume`: what it does, and the switch."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from market.errors import ConfigError


def add(command: Any, load: Any) -> None:
    """Registers the verbs."""
    sub = command(
        "status", lambda args: _status(load(args, decrypt=False), args),
        "what the runner is doing, and what holds it",
        "status\n  live-runner status --check || echo look at once        for a watchdog of your own",
    )  # fmt: skip
    sub.add_argument(
        "--check", action="store_true", help="exit code 1 where the verdict is bad, or nothing runs"
    )

    sub = command(
        "halt", lambda args: _halt(load(args, decrypt=False), args), "send no orders until `resume`",
        'halt --reason "news at 14:00"',
    )  # fmt: skip
    sub.add_argument("--reason", required=True)

    sub = command(
        "resume", lambda args: _resume(load(args, decrypt=False), args),
        "remove the halt; lift holds that only a person may lift",
        "resume --reason checked\n  live-runner resume --hold LATENCY --reason 'the backup job is gone'",
    )  # fmt: skip
    sub.add_argument(
        "--hold", action="append", default=[], metavar="NAME", help="only this hold (may be repeated)"
    )
    sub.add_argument("--reason", default="")


def _status(config: Any, args: argparse.Namespace) -> int:
    from live import status
    from live.verdict import judge

    found = status.read(Path(config.system.runtime_dir))
    path = Path(config.manual_override.flag_path)
    flag = path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else None
    verdict = judge({**found, "halt_flag": flag})
    if args.json:
        print(json.dumps({**found, "halt_flag": flag, "verdict": verdict.level}, indent=1))
    else:
        print("\n".join(status.lines(found, flag)))
    return 1 if args.check and (verdict.level == "bad" or not found["alive"]) else 0


def _halt(config: Any, args: argparse.Namespace) -> int:
    from live.watch import write_flag

    reason = args.reason.strip()
    if not reason:
        raise ConfigError(
            "--reason is empty; say why, it goes into the audit and to everyone who is notified"
        )
    path = Path(config.manual_override.flag_path)
    write_flag(path, reason)
    if args.json:
        print(json.dumps({"halted": True, "reason": reason, "flag": str(path)}))
    else:
        print(f"halted: {reason} ({path}); market data goes on, no order is sent until `live-runner resume`")
    return 0


def _resume(config: Any, args: argparse.Namespace) -> int:
    from live.core.holds import KINDS
    from live.watch import remove_flag, request_resume

    by_hand = [name for name, kind in KINDS.items() if kind.by_hand]
    if unknown := [name for name in args.hold if name not in by_hand]:
        raise ConfigError(f"--hold {unknown[0]}: a person may lift {', '.join(by_hand)}, nothing else")
    path = Path(config.manual_override.flag_path)
    was = not args.hold and remove_flag(path, f"{args.reason or 'resumed'} (terminal)")
    request_resume(Path(config.system.runtime_dir), tuple(args.hold), args.reason)
    if args.json:
        print(json.dumps({"halt_removed": was, "asked_to_lift": args.hold or by_hand}))
    else:
        print(("halt removed; " if was else "") + "asked the runner to lift the holds a person may lift")
    return 0
