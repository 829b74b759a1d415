"""What ``scalper train`` and ``scalper calibrate`` do: a folder of results around a line without DVC."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flows import params as params_file
from flows import plain_line, workspace
from flows.held import held
from flows.identity import PROJECT
from flows.stages.common import (
    BACKTEST,
    BUNDLE,
    CARD,
    ENSEMBLE,
    LEARNERS,
    METRICS,
    MODELS,
    read_json,
    whole,
)
from market.errors import ConfigError
from market.importers import NO_OPTIONS, ImportOptions, detect, ingest

WORK = "work"
TRAINED = "trained.yaml"
"""In ``work/``: the parameters that the members were made with."""
GIVEN = "given"
"""In ``work/``: the recording made of files that needed flags."""
RUNNER_SECTIONS = {"system", "session", "risk", "execution", "model", "notifications", "security"}
BLOCKS = ("calibrate", "threshold", "score")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the original's section ``training`` held; None: as the parameters have it."""

    epochs: int | None = None
    learning_rate: float | None = None
    validation_size: float | None = None

    def overrides(self, params: Path | None) -> dict[str, Any]:
        """The same as dotted keys of ``params.yaml``. ConfigError names a value that cannot be."""
        base = params_file.load(params or PROJECT / params_file.PARAMS)
        out: dict[str, Any] = {}
        for name, value in (("epochs", self.epochs), ("learning_rate", self.learning_rate)):
            if value is None:
                continue
            if value <= 0:
                raise ConfigError(f"--{name.replace('_', '-')} {value}: give a number above 0")
            for learner in LEARNERS:
                train = importlib.import_module(f"models.{learner}").train
                if name in (train.__kwdefaults__ or {}):
                    kept = out.get(learner, getattr(base, learner))
                    out[learner] = {**kept, name: value}
        if self.validation_size is not None:
            room = 1.0 - base.split.live
            if not 0 < self.validation_size < room:
                raise ConfigError(
                    f"--validation-size {self.validation_size}: above 0 and below {room:g}, since block live "
                    f"keeps {base.split.live:g} of the time"
                )
            part = self.validation_size / len(BLOCKS)
            out |= {f"split.{block}": part for block in BLOCKS}
            out["split.fit"] = room - self.validation_size
        return out


def joined(asked: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides from options and from --set; of a section that both name, the keys of both, --set winning."""
    out = dict(asked)
    for key, value in given.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = {**out[key], **value} if both else value
    return out


@dataclass(frozen=True, slots=True)
class Result:
    """What a run left, for people."""

    output: Path
    manifest_sha256: str
    watermark: str
    verdict: str

    def lines(self) -> list[str]:
        mark = " [SIMULATED]" if self.watermark == "SIMULATED" else ""
        bundle = self.output / "bundle"
        return [
            f"\n{self.output}: {self.watermark} bundle {self.manifest_sha256[:12]}, verdict {self.verdict}"
            f"{mark}",
            f"  look at it  {self.output / 'model_card.html'}",
            f"  backtest    live-runner backtest --bundle {bundle} --dataset "
            f"{self.output / WORK / 'data' / 'recording'}",
            f"  trade it    live-runner with `model.registry: file://{bundle.resolve()}`",
        ]


def train(
    paths: Sequence[Path], output: Path, *, kind: str | None = None, options: ImportOptions = NO_OPTIONS,
    params: Path | None = None, overrides: Mapping[str, Any] | None = None, say: Say = print,
    project: Path = PROJECT,
) -> Result:  # fmt: skip
    """Every stage but the simulator's on the files ``paths``; results go to ``output``, all or none.

    ConfigError, RecordingError for what cannot be; LineError when a stage fails.
    """
    if params is not None:
        _check_params(params)
    source = _source_of(paths, kind)
    _check_output(output)
    work = output / WORK
    work.mkdir(parents=True, exist_ok=True)
    with held(work / ".lock", _busy(work, "train")):
        for name in ("data", "artifacts", GIVEN):  # of an earlier run, on other data perhaps
            shutil.rmtree(work / name, ignore_errors=True)
        if source is None or options != NO_OPTIONS:
            recording, _ = ingest(list(paths), work / GIVEN, kind=kind, options=options, progress=say)
            say(f"{recording.info.watermark} recording of {', '.join(str(p) for p in paths)}")
            source = work / GIVEN
        workspace.create(work, source=source, overrides=overrides, params=params, project=project, dvc=False)
        (work / TRAINED).unlink(missing_ok=True)
        chosen = [stage for stage in plain_line.stages(project) if stage.name != "record"]
        plain_line.run_stages(work, chosen, say, project=project)
        shutil.copyfile(work / params_file.PARAMS, work / TRAINED)
        return _collect(work, output)


def calibrate(
    config: Path, *, overrides: Mapping[str, Any] | None = None, say: Say = print, project: Path = PROJECT
) -> Result:
    """The stages from ``calibrate`` on, with the parameters of ``config``, in the output of a ``train``."""
    _check_params(config)
    output = config.resolve().parent
    work = output / WORK
    if not (work / TRAINED).is_file():
        raise ConfigError(
            f"{config} does not lie in the output of a finished `scalper train`: there is no "
            f"{work / TRAINED}; give DIR/params.yaml"
        )
    text = workspace.with_overrides(config, dict(overrides or {}))
    now, before = yaml.safe_load(text), yaml.safe_load((work / TRAINED).read_text(encoding="utf-8"))
    ordered = plain_line.stages(project)
    chosen = plain_line.needed_from(ordered, "calibrate")
    kept = [stage for stage in ordered if stage not in chosen and stage.name != "record"]
    changed = plain_line.differences(before, now, kept)
    if changed:
        stage, key, was, is_now = changed[0]
        raise ConfigError(
            f"{config}: {key} is {is_now}, and stage {stage} was run with {was}: calibration keeps the "
            "members as they were trained; run scalper train for that, or change it back"
        )
    with held(work / ".lock", _busy(work, "calibrate")):
        (work / params_file.PARAMS).write_text(text, encoding="utf-8")
        plain_line.run_stages(work, chosen, say, project=project)
        return _collect(work, output)


def _source_of(paths: Sequence[Path], kind: str | None) -> Path | None:
    """The one path that the line can read by itself; None when the files have to be read here first.
    RecordingError when nothing known is there."""
    found = detect(list(paths)) if kind is None else kind
    return paths[0] if kind is None and len(paths) == 1 and found != "columns" else None


def _check_params(path: Path) -> None:
    """ConfigError with the way out when ``path`` is no ``params.yaml``."""
    if not path.is_file():
        raise ConfigError(f"{path} is missing: it is the params.yaml that scalper train leaves in its output")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if isinstance(tree, dict) and len(RUNNER_SECTIONS & set(tree)) > 1:
        raise ConfigError(
            f"{path} is a configuration of live-runner; what training asks for is in params.yaml: give the "
            "project's, or the one that scalper train left in its output"
        )
    params_file.parse(tree or {}, where=str(path))


def _check_output(output: Path) -> None:
    if output.is_dir() and any(output.iterdir()) and not (output / WORK).is_dir():
        raise ConfigError(
            f"--output {output} holds other files: give a new folder, or the output of an earlier run"
        )
    if output.exists() and not output.is_dir():
        raise ConfigError(f"--output {output} is a file: give a folder")
    if output.resolve() == PROJECT:
        raise ConfigError(f"--output {output} is the project itself: give a folder of its own")


def _busy(work: Path, who: str) -> ConfigError:
    return ConfigError(
        f"another run works in {work.parent}: wait for it, or give another --output to scalper {who}"
    )


def _collect(work: Path, output: Path) -> Result:
    """Put the results where they belong; only now, so that a failed run leaves the earlier ones."""
    with whole(output / "bundle") as folder:
        shutil.copytree(work / BUNDLE, folder, dirs_exist_ok=True)
    found = {
        "ensemble_weights.json": work / ENSEMBLE / "ensemble_weights.json",
        "quantization_plan.json": work / ENSEMBLE / "quantization_plan.json",
        "model_card.html": work / CARD / "model_card.html",
        "backtest.html": work / BACKTEST / "report.html",
        "params.yaml": work / params_file.PARAMS,
    }
    found |= {path.name: path for path in (work / MODELS).glob("*/*.training.json")}
    for name, path in found.items():
        draft = output / f".{name}.draft"
        shutil.copyfile(path, draft)
        draft.replace(output / name)
    card = read_json(work / CARD / "card.json")
    verdict = read_json(work / METRICS / "backtest.json")["edge"]["verdict"]
    return Result(output, card["manifest_sha256"], card["watermark"], verdict)
