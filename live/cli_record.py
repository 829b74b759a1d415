"""`live-runner record`: the market's books and trades into a recording."""

from __future__ import annotations

import argparse
import json
from contextlib import suppress
from pathlib import Path
from typing import Any


def add(command: Any, load: Any) -> None:
    """Registers the verb."""
    sub = command(
        "record", lambda args: _recover(args) if args.recover is not None else _record(load(args), args),
        "write the market's books and trades into a recording, without trading",
        "record --instruments SBER,GAZP --minutes 60 --out recordings/january",
    )  # fmt: skip
    sub.add_argument("--out", type=Path, default=None, metavar="DIR", help="default: RUNTIME/recording")
    sub.add_argument("--minutes", type=float, default=None, metavar="N",
                     help="market time (default: until the session ends)")  # fmt: skip
    sub.add_argument("--instruments", default="", metavar="A,B", help="default: data.instruments")
    sub.add_argument("--recover", type=Path, default=None, metavar="DIR",
                     help="finish a killed recording, only")  # fmt: skip
    sub.add_argument("--quiet", action="store_true", help="no progress lines")


def _record(config: Any, args: argparse.Namespace) -> int:
    import asyncio

    from live.record import Options, Recorder

    names = tuple(name.strip() for name in args.instruments.split(",") if name.strip())
    options = Options(args.out, args.minutes, names, args.quiet or args.json)

    def say(text: str) -> None:
        if not options.quiet:
            print(text, flush=True)

    async def run() -> Any:
        return await Recorder(config, options, say).run()

    with suppress(asyncio.CancelledError):
        recording = asyncio.run(run())
        if args.json:
            print(json.dumps(_facts(recording), indent=1))
    return 0


def _recover(args: argparse.Namespace) -> int:
    from market.writer import recover

    recording = recover(args.recover)
    if args.json:
        print(json.dumps({**_facts(recording), "remark": recording.remark}, indent=1))
        return 0
    print(recording.remark or f"{args.recover} is complete; there was nothing to recover")
    for ticker, days in recording.info.days.items():
        print(f"  {ticker}: {', '.join(days)}")
    return 0


def _facts(recording: Any) -> dict[str, Any]:
    info = recording.info
    return {
        "path": str(recording.path), "watermark": info.watermark, "tariff": info.tariff,
        "days": {ticker: list(days) for ticker, days in info.days.items()},
        "data_hash": recording.data_hash(), "provenance": info.provenance,
    }  # fmt: skip
