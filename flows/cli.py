"""``scalper``: the platform's verbs. Heavy libraries are imported by the verb that needs them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from flows import (
    backup_cli,
    benchmark_cli,
    card_cli,
    compute_cli,
    data_cli,
    features_cli,
    ingest_cli,
    labels_cli,
    platform_cli,
    registry_cli,
    science_cli,
    simulate_cli,
    train_cli,
)
from flows.verbs import Run
from market.errors import ConfigError, ScalperError

EPILOG = """\
a day with it:
  scalper demo                              the whole line on a simulated market, then a trading runner
  scalper repro                             bring data, models, backtest and bundle up to date
  scalper publish                           register the bundle (once for each bundle hash)
  scalper gate                              what the gate says about it, check by check
  scalper promote --to prod --climb --reason "first model"
                                            move the alias, if the gate lets it

left running (docs/platform.md):
  scalper up                                Prefect, MLflow and the deployments; status, doctor, down
  scalper backup --to /mnt/backups          and restore latest --into DIR --verify

on your own data, apart from the project's own results:
  scalper data info path/to/recording       what it holds, and whether that can be a market
  scalper data plot path/to/recording --out runtime/plots
  scalper workspace mine --recording path/to/recording --set labels.horizon_s=30
  scalper -C runtime/workspaces/mine repro
  scalper train --dataset books.jsonl --output runtime/mine     the same line on one file, outside DVC

exit status: 0 done, 1 data validate found something, 2 an error that one line explains, 3 the gate refused.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scalper",
        description="The offline platform: order books in, a signed model bundle for live-runner out.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-C", dest="folder", type=Path, metavar="DIR", help="run in this folder (the project or a workspace)"
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    def verb(name: str, run: Run, text: str, example: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        sub.set_defaults(run=run)
        return sub

    sub = verb("demo", _demo, "run the whole line and let live-runner trade on the paper exchange",
               "scalper demo --recording path/to/recording --speed 30")  # fmt: skip
    sub.add_argument(
        "--recording", type=Path, help="a recording instead of the simulated market (own workspace)"
    )
    sub.add_argument("--minutes", type=float, help="trade at most so many minutes of market time")
    sub.add_argument("--speed", type=float, default=20.0, help="market seconds per second (default 20)")
    sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                     help="a parameter of the recording's workspace, e.g. labels.horizon_s=30")  # fmt: skip

    sub = verb("repro", _repro, "dvc repro in a process group of its own: run what is stale, nothing else",
               "scalper repro train_gbdt")  # fmt: skip
    sub.add_argument("stages", nargs="*", help="only these stages and what they need (default: all)")
    sub.add_argument("--force", action="store_true", help="run them even when nothing changed")

    sub = verb(
        "keygen", _keygen, "make the key pair that signs bundles (never overwrites one)", "scalper keygen"
    )
    sub.add_argument("--dir", type=Path, default=Path("keys"))

    for module in (
        registry_cli, simulate_cli, ingest_cli, data_cli, features_cli, labels_cli, science_cli,
        benchmark_cli, train_cli, card_cli, compute_cli, platform_cli, backup_cli,
    ):  # fmt: skip
        module.add(verb)

    sub = verb("paper", _paper, "start the paper exchange on a recording; what follows is passed on to it",
               "scalper paper --recording data/recording --speed 10")  # fmt: skip
    sub.add_argument("rest", nargs=argparse.REMAINDER, help="see: python -m market.paper --help")

    sub = verb("workspace", _workspace, "make a folder for the same line on other data or parameters",
               "scalper workspace rts --recording path/to/rts --set costs.tariff=free")  # fmt: skip
    sub.add_argument("name", help="a name under runtime/workspaces, or a path")
    sub.add_argument("--recording", type=Path)
    sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                     help="a parameter to change, e.g. labels.horizon_s=30")  # fmt: skip

    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status. An expected failure is one line on stderr."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(argv)
    try:
        if args.folder is not None:
            if not args.folder.is_dir():
                raise ConfigError(f"-C {args.folder}: there is no such folder")
            os.chdir(args.folder)
        return int(args.run(args))
    except ScalperError as error:
        print(f"scalper: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("scalper: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output left (`| head`): not an error, but Python must not try to flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def overrides_of(texts: Sequence[str]) -> dict[str, object]:
    """``["labels.horizon_s=30"]`` as ``{"labels.horizon_s": 30}``; values are read as YAML."""
    import yaml

    out: dict[str, object] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {text}: write KEY=VALUE, e.g. labels.horizon_s=30")
        out[key] = yaml.safe_load(value)
    return out


def _demo(args: argparse.Namespace) -> int:
    from flows import demo

    return demo.run(
        recording=args.recording,
        minutes=args.minutes,
        speed=args.speed,
        overrides=overrides_of(args.overrides),
    )


def _repro(args: argparse.Namespace) -> int:
    from flows import line
    from flows.interrupt import interruptible

    with interruptible():
        line.repro(Path.cwd(), stages=args.stages, force=args.force)
    return 0


def _keygen(args: argparse.Namespace) -> int:
    from models.bundle import generate_keys

    private, public = generate_keys(args.dir)
    print(f"{private} signs bundles and never leaves this machine; give {public} to the trading box")
    return 0


def _paper(args: argparse.Namespace) -> int:
    os.execv(sys.executable, [sys.executable, "-m", "market.paper", *args.rest])


def _workspace(args: argparse.Namespace) -> int:
    from flows import workspace

    named = Path(args.name)
    folder = named if len(named.parts) > 1 or named.is_absolute() else workspace.WORKSPACES / named
    made = workspace.create(folder, source=args.recording, overrides=overrides_of(args.overrides))
    print(f"workspace {made}; next: scalper -C {made} repro")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
