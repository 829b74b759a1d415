"""``scalper train`` and ``scalper calibrate``: the line on one data set, outside DVC.

The original system's ``model_trainer train|calibrate``, with its names for what is left behind.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from flows.ingest_cli import add_facts, kind_and_sources, options_of
from flows.verbs import VerbMaker

TRAIN_EXAMPLES = """\
scalper train --dataset books.jsonl --instrument share --lot 10 --output runtime/mine
  scalper train --dataset data/recording --output runtime/mine --set labels.horizon_s=30
  scalper train --dataset day1.qsh day2.qsh --output runtime/oct --epochs 10 --learning-rate 0.001
  scalper train --dataset rts/ --output runtime/rts --config my-params.yaml

what is left in DIR (when all of it succeeded; an earlier result stays until then):
  bundle/                  the signed bundle: model.registry: file://DIR/bundle lets live-runner trade it
  ensemble_weights.json    how much each learner is believed, and why
  NAME.training.json       each learner's rows, epochs, scores
  quantization_plan.json   INT8 for weights above the threshold, FLOAT16 for the rest
  model_card.html          what the model is and how good; backtest.html: what its trading left
  params.yaml              every parameter it was made with: edit it for scalper calibrate
  work/                    what lies between; without it scalper calibrate cannot run

to keep results apart, cached and comparable, use scalper workspace (the same line under DVC)
"""
CALIBRATE_EXAMPLES = """\
scalper calibrate --config runtime/mine/params.yaml
  scalper calibrate --config runtime/mine/params.yaml --set calibrate.trials=200

runs the stages from calibrate on: temperature, slopes, thresholds, backtest, bundle, card. The members stay
as they were trained, so a change of what shaped them (labels, split, learners, costs) is refused by name.
"""


def add(verb: VerbMaker) -> None:
    sub = verb("train", _train, "train, quantise, calibrate and judge on one data set, outside DVC",
               TRAIN_EXAMPLES)  # fmt: skip
    sub.add_argument(
        "--dataset", nargs="+", required=True, metavar="[KIND] FILE",
        help="a recording, or any file that scalper ingest takes (its kind is found out)",
    )  # fmt: skip
    sub.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the results go")
    sub.add_argument(
        "--config", type=Path, metavar="FILE",
        help="a params.yaml to start from (default: the project's, with the horizon for recordings)",
    )  # fmt: skip
    _add_set(sub)
    asked = sub.add_argument_group("the original's section `training`")
    asked.add_argument("--epochs", type=int, metavar="N", help="of each learner that has epochs")
    asked.add_argument("--learning-rate", type=float, metavar="X", help="of each learner that has one")
    asked.add_argument(
        "--validation-size", type=float, metavar="SHARE",
        help="of the time, for the blocks calibrate, threshold and score together (default 0.375)",
    )  # fmt: skip
    add_facts(sub)

    sub = verb("calibrate", _calibrate, "fit temperature and thresholds again on what scalper train left",
               CALIBRATE_EXAMPLES)  # fmt: skip
    sub.add_argument("--config", type=Path, required=True, metavar="FILE", help="DIR/params.yaml")
    _add_set(sub)


def _add_set(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                     help="a parameter to change, e.g. labels.horizon_s=30; may be repeated")  # fmt: skip


def _train(args: argparse.Namespace) -> int:
    from flows import training
    from flows.cli import overrides_of
    from flows.interrupt import interruptible

    kind, paths = kind_and_sources(args.dataset)
    asked = training.Asked(args.epochs, args.learning_rate, args.validation_size)
    with interruptible():
        result = training.train(
            paths, args.output, kind=kind, options=options_of(args), params=args.config,
            overrides=training.joined(asked.overrides(args.config), overrides_of(args.overrides)), say=_say,
        )  # fmt: skip
    print("\n".join(result.lines()))
    return 0


def _calibrate(args: argparse.Namespace) -> int:
    from flows import training
    from flows.cli import overrides_of
    from flows.interrupt import interruptible

    with interruptible():
        result = training.calibrate(args.config, overrides=overrides_of(args.overrides), say=_say)
    print("\n".join(result.lines()))
    return 0


def _say(text: str) -> None:
    print(text, flush=True)
