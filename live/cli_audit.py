"""`live-runner audit` and `live-runner explain`: proving later what was done, and why."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from market.errors import ConfigError


def add(command: Any, load: Any) -> None:
    """Registers the verbs. ``command`` makes a parser, ``load`` reads the configuration."""
    sub = command(
        "audit", lambda args: _audit(load(args, decrypt=False), args), "verify or show the audit log",
        "audit verify\n  live-runner audit verify --anchor 4711:9f86d081884c7d65...\n"
        "  live-runner audit show --tag RISK --last 20",
    )  # fmt: skip
    sub.add_argument("action", choices=("verify", "show"))
    sub.add_argument("--anchor", action="append", default=[], metavar="SEQ:CHAIN",
                     help="a head noted elsewhere, for instance from a report in Telegram")  # fmt: skip
    sub.add_argument("--tag", default=None, help="show: only this tag")
    sub.add_argument("--event", default=None, help="show: only this event")
    sub.add_argument("--trace", default=None, help="show: only this trace or order id")
    sub.add_argument("--last", type=int, default=50, metavar="N", help="show: so many lines")

    sub = command(
        "explain", lambda args: _explain(load(args, decrypt=False), args),
        "from an order back to book, features, scores, model, data and code",
        "explain 0f3c2a9e-5d1b-5c7e-9a51-1f0b6c1f5a77\n  live-runner explain 12345678 --json",
    )  # fmt: skip
    sub.add_argument("order", help="client order id (or its beginning), or the broker's order id")
    sub.add_argument("--bundle", type=Path, default=None, help="default: the copy that the runner pulled")
    sub.add_argument("--fast", action="store_true", help="do not compute the features again")


def _audit(config: Any, args: argparse.Namespace) -> int:
    from live.audit_verify import Anchor, report_anchors, verify

    path = Path(config.system.runtime_dir) / "audit.log"
    if args.action == "show":
        return _show(path, args)
    anchors = report_anchors(Path(config.reporting.report_path))
    for text in args.anchor:
        seq, sign, chain = text.partition(":")
        if not (sign and seq.isdigit() and len(chain) == 64):
            raise ConfigError(f"--anchor {text!r}: write it as SEQ:CHAIN, as the report gives it")
        anchors.append(Anchor(int(seq), chain, "--anchor"))
    verdict = verify(path, anchors)
    if args.json:
        print(json.dumps(verdict.to_dict(), indent=1))
        return 0 if verdict.ok else 1
    for warning in verdict.warnings:
        print(f"note: {warning}")
    if not verdict.ok:
        print(f"BROKEN: {verdict.broken}")
        return 1
    print(
        f"whole: {verdict.lines} lines in {len(verdict.files)} files, entries {verdict.first_seq} to "
        f"{verdict.last_seq}, {verdict.anchors} anchors agree\nhead {verdict.last_seq}:{verdict.chain}"
    )
    return 0


def _show(path: Path, args: argparse.Namespace) -> int:
    from collections import deque
    from dataclasses import asdict

    from live.audit import read_all

    def wanted(line: Any) -> bool:
        return (
            (args.tag is None or line.tag == args.tag)
            and (args.event is None or line.event == args.event)
            and (args.trace is None or args.trace in (line.trace, line.fields.get("client_order_id")))
        )

    for line in deque((one for one in read_all(path) if wanted(one)), maxlen=max(1, args.last)):
        if args.json:
            print(json.dumps(asdict(line), ensure_ascii=False))
        else:
            fields = " ".join(f"{k}={v}" for k, v in line.fields.items())
            print(f"{line.wall} {line.seq:>6} {line.tag:<12} {line.event:<24} {fields}")
    return 0


def _explain(config: Any, args: argparse.Namespace) -> int:
    from live import explain, explain_text

    found = explain.explain(config, args.order, bundle=args.bundle, replay=not args.fast)
    print(json.dumps(found, indent=1, ensure_ascii=False) if args.json else explain_text.render(found))
    return 0
