"""``params.yaml``, read strictly: an unknown key, a wrong type or an impossible value is one clear error.

Stages get their numbers from here and hand them to ``models`` as plain arguments, so nothing below ``flows``
knows that the file exists.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from market.errors import ConfigError
from market.fees import tariff as tariff_named
from market.types import Instrument

PARAMS = Path("params.yaml")
SIMULATED = "simulated"
RECORDED = "recorded"
ENGINES = ("local", "dask")


@dataclass(frozen=True, slots=True)
class DataParams:
    """Where the market comes from. ``path`` is what stage ``ingest`` reads; for a simulated market it is the
    simulator's own output, ``data/raw``."""

    source: str = SIMULATED
    path: str = "data/raw"
    hours: float = 3.0
    dt_s: float = 0.25
    day: str = "2026-01-15"


@dataclass(frozen=True, slots=True)
class CostParams:
    """What trading costs. ``tariff: recording`` takes the tariff that the recording itself names."""

    tariff: str = "recording"
    slippage_ticks: int = 0
    latency_ms: int = 100


@dataclass(frozen=True, slots=True)
class FeatureParams:
    """``leader``: instrument to the one whose quotes lead its features, both of the recording."""

    leader: dict[str, Any] = field(default_factory=dict)

    def leaders(self, tickers: Collection[str]) -> dict[str, str]:
        """``leader``, checked against a recording's instruments; ConfigError names what is unknown."""
        for follower, leader in self.leader.items():
            for name in (follower, leader):
                if name not in tickers:
                    raise ConfigError(
                        f"features.leader: the recording has no {name!r}; it has {', '.join(sorted(tickers))}"
                    )
            if follower == leader:
                raise ConfigError(f"features.leader: {follower} cannot lead itself; name another or none")
        return dict(self.leader)


@dataclass(frozen=True, slots=True)
class LabelParams:
    """``kind``: one of ``models/label_kinds.py``. ``horizons_s``: neighbours of ``horizon_s`` that learners
    may learn beside it; empty: half of it and twice it. ``k``, ``h``: rows, for the kinds that count rows."""

    kind: str = "executable"
    horizon_s: float = 10.0
    horizons_s: list[float] = field(default_factory=list)
    theta_bps: float = 0.0
    k: int = 20
    h: int = 100


@dataclass(frozen=True, slots=True)
class SplitParams:
    """Shares of the recorded time, in order; they must add up to one."""

    fit: float = 0.5
    calibrate: float = 0.125
    threshold: float = 0.125
    score: float = 0.125
    live: float = 0.125


@dataclass(frozen=True, slots=True)
class BundleParams:
    valid_days: int = 30


@dataclass(frozen=True, slots=True)
class ComputeParams:
    """Where parts of a stage are computed (``flows.compute``); no result depends on it. ``address``: of a
    Dask scheduler, empty: a cluster of this machine's own with ``workers`` processes (0: as many as its cores
    allow). ``study``: where the trials of a calibration are kept, empty: nowhere."""

    engine: str = "local"
    address: str = ""
    workers: int = 0
    study: str = ""


@dataclass(frozen=True, slots=True)
class Params:
    """All of ``params.yaml``. The learners' sections stay plain dictionaries: they are keyword arguments of
    the learner's ``train``, which alone knows them."""

    seed: int = 7
    threads: int = 2
    data: DataParams = field(default_factory=DataParams)
    costs: CostParams = field(default_factory=CostParams)
    features: FeatureParams = field(default_factory=FeatureParams)
    labels: LabelParams = field(default_factory=LabelParams)
    split: SplitParams = field(default_factory=SplitParams)
    gbdt: dict[str, Any] = field(default_factory=dict)
    svm: dict[str, Any] = field(default_factory=dict)
    lstm: dict[str, Any] = field(default_factory=dict)
    transformer: dict[str, Any] = field(default_factory=dict)
    ensemble: dict[str, Any] = field(default_factory=dict)
    quantisation: dict[str, Any] = field(default_factory=dict)
    calibrate: dict[str, Any] = field(default_factory=dict)
    backtest: dict[str, Any] = field(default_factory=dict)
    gate: dict[str, Any] = field(default_factory=dict)
    bundle: BundleParams = field(default_factory=BundleParams)
    compute: ComputeParams = field(default_factory=ComputeParams)

    @property
    def latency_s(self) -> float:
        return self.costs.latency_ms / 1000.0

    @property
    def latency_ns(self) -> int:
        return self.costs.latency_ms * 1_000_000

    @property
    def horizon_ns(self) -> int:
        return round(self.labels.horizon_s * 1e9)

    @property
    def horizons_s(self) -> tuple[float, ...]:
        """The horizons of ``Labels.y_multi``: the one that is asked for, then its neighbours."""
        asked = self.labels.horizon_s
        others = self.labels.horizons_s or [asked / 2, asked * 2]
        return (asked, *(float(h) for h in others if h != asked))

    def tariff_name(self, recording_tariff: str) -> str:
        """The tariff in force for a recording that names ``recording_tariff``."""
        return recording_tariff if self.costs.tariff == "recording" else self.costs.tariff

    def fee_ppm(self, instrument: Instrument, recording_tariff: str) -> int:
        """Commission of one side, parts per million."""
        return tariff_named(self.tariff_name(recording_tariff)).ppm(instrument)

    def for_manifest(self) -> dict[str, Any]:
        """Everything that shaped the bundle and nothing that names this machine: the data's place is left
        out, its hash is in the manifest already, and so is the place where parts were computed."""
        out = asdict(self)
        del out["data"]["path"], out["compute"]
        return out


def load(path: Path = PARAMS) -> Params:
    """Read and check ``params.yaml``; raises ConfigError that names the key, its value and what is
    allowed."""
    if not path.is_file():
        raise ConfigError(f"{path} is missing: run this in the project's folder or in a workspace")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    return parse(raw, where=str(path))


def parse(raw: Any, *, where: str = "params.yaml") -> Params:
    params = _build(Params, raw, where, "")
    _check(params, where)
    return params


def _build(cls: type, raw: Any, where: str, prefix: str) -> Any:
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: {prefix or 'the file'} must be a mapping of keys, not {raw!r}")
    known = {f.name: f for f in fields(cls)}
    values: dict[str, Any] = {}
    for key, value in raw.items():
        name = f"{prefix}{key}"
        if key not in known:
            raise ConfigError(f"{where}: unknown key {name!r}; known here: {', '.join(sorted(known))}")
        default = _default(known[key])
        if hasattr(default, "__dataclass_fields__"):
            values[key] = _build(type(default), value, where, f"{name}.")
        else:
            values[key] = _typed(value, default, where, name)
    return cls(**values)


def _default(spec: Any) -> Any:
    return spec.default_factory() if callable(spec.default_factory) else spec.default


def _typed(value: Any, default: Any, where: str, name: str) -> Any:
    wanted = type(default)
    if wanted is float and type(value) is int:
        return float(value)
    if wanted is str and name == "data.day":
        return str(value)  # YAML reads an unquoted date as a date
    if type(value) is not wanted:
        raise ConfigError(f"{where}: {name} must be {wanted.__name__}, not {value!r}")
    return value


def _check(params: Params, where: str) -> None:
    def refuse(name: str, value: Any, allowed: str) -> None:
        raise ConfigError(f"{where}: {name} is {value!r}; allowed: {allowed}")

    if params.data.source not in (SIMULATED, RECORDED):
        refuse("data.source", params.data.source, f"{SIMULATED} or {RECORDED}")
    if not 0 < params.data.hours <= 24:
        refuse("data.hours", params.data.hours, "above 0, at most 24")
    if not 0.01 <= params.data.dt_s <= 10:
        refuse("data.dt_s", params.data.dt_s, "0.01 to 10")
    if params.threads < 1:
        refuse("threads", params.threads, "1 or more")
    if params.labels.horizon_s <= 0:
        refuse("labels.horizon_s", params.labels.horizon_s, "above 0")
    if not all(type(h) in (int, float) and h > 0 for h in params.labels.horizons_s):
        refuse("labels.horizons_s", params.labels.horizons_s, "seconds above 0, or an empty list")
    if min(params.labels.k, params.labels.h) < 1:
        refuse("labels.k, labels.h", (params.labels.k, params.labels.h), "rows, 1 or more")
    if params.costs.latency_ms < 0:
        refuse("costs.latency_ms", params.costs.latency_ms, "0 or more")
    shares = asdict(params.split)
    if min(shares.values()) <= 0 or abs(sum(shares.values()) - 1.0) > 1e-9:
        refuse("split", shares, "positive shares that add up to 1")
    if params.costs.tariff != "recording":
        tariff_named(params.costs.tariff)
    check_compute(params.compute, where)


def check_compute(compute: ComputeParams, where: str) -> None:
    """ConfigError for an engine or a number of workers that cannot be."""
    if compute.engine not in ENGINES:
        raise ConfigError(f"{where}: compute.engine is {compute.engine!r}; allowed: {' or '.join(ENGINES)}")
    if compute.workers < 0:
        raise ConfigError(f"{where}: compute.workers is {compute.workers}; allowed: 0 or more")
