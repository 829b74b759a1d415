"""`live-runner report`: the tearsheet of a day."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add(command: Any, load: Any) -> None:
    """Registers the verb."""
    sub = command(
        "report", lambda args: _report(load(args, decrypt=False), args),
        "the tearsheet of a trading day, one HTML page",
        "report                                   the last day traded\n"
        "  live-runner report --day 2026-01-15 --output january-15.html\n"
        "  live-runner report --json | jq .trips",
    )  # fmt: skip
    sub.add_argument("--day", default=None, metavar="YYYY-MM-DD", help="exchange day; default: the last one")
    sub.add_argument("--output", type=Path, default=None, metavar="FILE",
                     help="default: tearsheet-DAY.html beside reporting.report_path")  # fmt: skip


def _report(config: Any, args: argparse.Namespace) -> int:
    from live import tearsheet, tearsheet_page
    from live.secrets import redacted

    sheet = tearsheet.collect(config, args.day)
    if args.json:
        print(redacted(json.dumps(sheet, indent=1)))
        return 0
    folder = Path(config.reporting.report_path).parent
    path = args.output or folder / f"tearsheet-{sheet['day']}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(redacted(tearsheet_page.render(sheet)), encoding="utf-8")
    part.replace(path)
    trips = sheet["trips"]
    net = sheet["equity"][-1]["net_nano"] / 1e9 if sheet["equity"] else 0.0
    mark = "  [SIMULATED]" if sheet["watermark"] == "SIMULATED" else ""
    print(
        f"{sheet['day']}: net {net:+.2f} RUB, {sheet['counts']['fills']} fills, {trips['won']} of "
        f"{trips['count']} round trips won{mark}\nwrote {path}"
    )
    return 0
