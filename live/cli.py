"""`live-runner`: every command of the trading box. Imports of a command happen inside it, so --help is
instant.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from live import cli_audit, cli_keys, cli_record, cli_recovery, cli_report, cli_shell, cli_switch
from market.errors import ConfigError, ScalperError

DEFAULT_CONFIG = "live.yaml"
_BACKTEST_FLAGS = (
    "latency_ms", "feed_latency_ms", "response_latency_ms", "cancel_latency_ms", "latency_jitter_ms",
    "queue_model",
)  # fmt: skip
"""Keys of section ``backtest`` that have a flag of their own."""

_DESCRIPTION = "Trades the model bundle behind a registry alias, under full risk control."
_EXAMPLES = """\
examples:
  live-runner init-config --env paper             write live.yaml, commented
  live-runner --model prod                        trade the promoted model (mode of the configuration)
  live-runner --model prod --set paper.speed=20   the same, paper market 20 times as fast
  live-runner --model shadow                      run the shadow alias; orders are imagined, none is sent
  live-runner record --instruments SBER,GAZP      write the market into a recording, without trading
  live-runner halt --reason "news at 14:00"       stop sending orders; market data goes on
  live-runner resume                              go on, and lift the holds that only a person may lift
  live-runner status                              what it is doing, and what holds it
  live-runner explain ORDER                       from an order back to book, scores, model, data, code
  live-runner audit verify                        is the audit log whole? Names the first broken line
  live-runner report                              the day on one page
  live-runner restore --verify                    a drill: restore the last copy and replay its session

Without --config the file live.yaml is used if it is there, else the defaults (paper trading).
With --json every command prints JSON on stdout instead of words; a failure stays one line on stderr.
Exit codes: 0 done; 1 a component failed while trading, or what was asked for does not hold (a replay that
differs, a broken audit, a copy that proves nothing); 2 something you can fix (the message says what); 130
interrupted from the keyboard.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The console script. ScalperError: one line on stderr and its exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    run: Callable[[argparse.Namespace], int] = getattr(args, "run", None) or _trade
    if run is _trade and args.model is None:
        parser.print_help()
        return 2
    try:
        return run(args)
    except ScalperError as error:
        from live.secrets import redacted

        print(f"live-runner: {redacted(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        if run is _trade:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `| head` has seen enough
        return 0


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="live-runner",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=raw,
        allow_abbrev=False,
    )
    common = _common()
    _add_common(parser)
    parser.add_argument(
        "--model",
        metavar="ALIAS",
        help="trade the bundle behind this alias (prod, canary, shadow), or pin prod@17",
    )
    parser.add_argument(
        "--shadow", action="store_true", help="imagine the orders of any alias instead of sending them"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress lines")
    parser.add_argument(
        "--record", type=Path, default=None, metavar="DIR", help="also record the market and our own orders"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], int], text: str, example: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=text, description=text, epilog=f"example:\n  live-runner {example}",
            formatter_class=raw, parents=[common], allow_abbrev=False,
        )  # fmt: skip
        sub.set_defaults(run=run)
        return sub

    sub = command(
        "init-config", _init_config, "write a commented configuration file", "init-config --env sandbox"
    )
    sub.add_argument("--env", choices=("production", "sandbox", "paper"), default="paper")
    sub.add_argument("--output", type=Path, default=Path(DEFAULT_CONFIG))
    sub.add_argument("--force", action="store_true", help="replace an existing file")

    sub = command(
        "health-check", _health, "try everything a start needs, without trading", "health-check --model prod"
    )
    sub.add_argument("--model", default=None, metavar="ALIAS", help="alias to check (default: model.alias)")

    sub = command(
        "backtest", _backtest, "run a bundle over a recording with the live engine",
        "backtest live.yaml --dataset data/recording --output runtime/reports/backtest.json",
    )  # fmt: skip
    sub.add_argument("config_file", type=Path, nargs="?", metavar="CONFIG", help="the same as --config")
    sub.add_argument(
        "--dataset", type=Path, default=None, metavar="FILE",
        help="a recording, JSON lines, Parquet or anything importable (default: backtest.dataset_path)",
    )  # fmt: skip
    sub.add_argument("--bundle", type=Path, default=None, help="bundle folder (default: behind model.alias)")
    sub.add_argument("--from-ns", type=int, default=None)
    sub.add_argument("--to-ns", type=int, default=None)
    for name in _BACKTEST_FLAGS:
        sub.add_argument(
            f"--{name.replace('_', '-')}", metavar="X", default=None, help=f"instead of backtest.{name}"
        )
    sub.add_argument(
        "--sensitivity", action="store_true", help="also slower orders and the other queue model"
    )
    sub.add_argument(
        "--output", type=Path, default=None, metavar="REPORT", help="write it as JSON, and a page beside it"
    )
    sub.add_argument("--quiet", action="store_true", help="no progress line")

    sub = command(
        "replay", _replay, "decide a recorded session again and compare every command",
        "replay runtime/session/20260115-101500-ab12\n"
        "  live-runner replay runtime/session/20260115-101500-ab12 --compare     beside a simulation",
    )  # fmt: skip
    sub.add_argument("session_dir", type=Path)
    sub.add_argument("--compare", action="store_true", help="orders and result beside a simulation")
    sub.add_argument("--bundle", type=Path, default=None, help="default: the copy that its runner pulled")

    sub = command("dashboard", _dashboard, "serve the dashboard", "dashboard --port 8000")
    sub.add_argument("--host", default=None)
    sub.add_argument("--port", type=int, default=None)
    for verbs in (cli_switch, cli_record, cli_audit, cli_recovery, cli_report, cli_keys, cli_shell):
        verbs.add(command, _load)
    return parser


def _common() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    _add_common(parser, default=argparse.SUPPRESS)
    return parser


def _add_common(parser: argparse.ArgumentParser, default: Any = None) -> None:
    # SUPPRESS in the commands: otherwise their defaults would overwrite what stood before the command.
    parser.add_argument(
        "--config",
        type=Path,
        default=default,
        metavar="FILE",
        help=f"default: {DEFAULT_CONFIG} if it is there",
    )
    parser.add_argument(
        "--set", action="append", default=default, metavar="SECTION.KEY=VALUE", dest="overrides",
        help="change one setting for this run (may be repeated)",
    )  # fmt: skip
    parser.add_argument(
        "--json", action="store_true", default=default or False, help="JSON instead of words, for scripts"
    )


def _load(args: argparse.Namespace, *, decrypt: bool = True, extra: Sequence[str] = ()) -> Any:
    from live import config

    path: Path | None = args.config
    if path is None and Path(DEFAULT_CONFIG).exists():
        path = Path(DEFAULT_CONFIG)
    return config.load(path, [*(args.overrides or ()), *extra], decrypt=decrypt)


# ---- commands ----


def _trade(args: argparse.Namespace) -> int:
    import asyncio

    config = _load(args)
    from live.runner import Options, Runner

    shadow = args.shadow or args.model.partition("@")[0] == "shadow"

    runner = None

    async def run() -> int:
        nonlocal runner
        runner = Runner(config, Options(args.model, shadow, args.quiet or args.json, args.record))
        return await runner.run()

    try:
        return asyncio.run(run())
    finally:
        if args.json and runner is not None and runner.session is not None:
            summary = runner.session.folder / "summary.json"
            if summary.exists():
                print(summary.read_text(encoding="utf-8"), end="")


def _init_config(args: argparse.Namespace) -> int:
    from live import config_template

    schema = config_template.write(args.env, args.output, force=args.force)
    if args.json:
        print(json.dumps({"path": str(args.output), "schema": str(schema), "env": args.env}))
        return 0
    print(
        f"wrote {args.output}; check the limits under risk:, then `live-runner health-check --config "
        f"{args.output}`"
    )
    return 0


def _health(args: argparse.Namespace) -> int:
    from live import health

    config = _load(args)
    checks = health.run(config, args.model or config.model.alias)
    if args.json:
        from dataclasses import asdict

        print(json.dumps([asdict(check) for check in checks], indent=1))
        return 2 if any(check.ok is False for check in checks) else 0
    print("\n".join(health.table(checks)))
    failed = [check.name for check in checks if check.ok is False]
    print(
        f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}" if failed else "ready to start"
    )
    return 2 if failed else 0


def _backtest(args: argparse.Namespace) -> int:
    from live.backtest_cli import run

    if args.config_file is not None:
        if args.config is not None:
            raise ConfigError(
                f"the configuration is given twice: {args.config_file} and --config {args.config}"
            )
        args.config = args.config_file
    given = {name: getattr(args, name) for name in _BACKTEST_FLAGS}
    extra = [f"backtest.{name}={value}" for name, value in given.items() if value is not None]
    return run(_load(args, extra=extra), args)


def _replay(args: argparse.Namespace) -> int:
    from live.backtest_cli import run_replay

    return run_replay(_load(args, decrypt=False), args)


def _dashboard(args: argparse.Namespace) -> int:
    from live.dashboard import serve

    serve(_load(args), args.host, args.port, as_json=args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
