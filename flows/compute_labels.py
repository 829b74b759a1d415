"""One partition of the labels, an instrument's day: computed, or kept as what made it has not changed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from features.batch import FeatureTable
from flows import partitions
from flows.params import Params
from market.recording import Recording
from models.label_kinds import Kind
from models.labelling import kind_named, label_day, longest_window_ns
from models.labels import VOID

CODE = (
    "flows/compute_labels.py", "flows/partitions.py", "market/recording", "market/stream.py",
    "market/types.py", "market/venues.py", "models/barriers.py", "models/evaluate.py",
    "models/label_kinds.py", "models/labelling.py", "models/labels.py", "models/quotes.py",
)  # fmt: skip
"""What decides about the bytes of a partition and what is told of it, besides the recorded day and its
features."""
LIBRARIES = ("numpy", "numba", "pyarrow")
CLASSES = ("down", "flat", "up")


@dataclass(frozen=True, slots=True)
class Part:
    """What a worker is told: paths (absolute), names and settings. ``maker``: hash of code and libraries."""

    recording: str
    features: str
    before: str
    into: str
    ticker: str
    day: str
    params: Params
    fee_ppm: int
    maker: str


@dataclass(frozen=True, slots=True)
class Made:
    """What is told of a partition: ``shares`` of the classes among labelled rows, the longest time that a
    label looks ahead, and the span of the rows."""

    shares: dict[str, float]
    window_ns: int
    from_ns: int
    to_ns: int


def parts(recording: Recording, params: Params, features: Path, before: Path, into: Path) -> list[Part]:
    """Every instrument-day of ``recording``, in order. ``before``: where an earlier run's partitions lie."""
    info, made_by = recording.info, partitions.maker(CODE, LIBRARIES)
    folders = (str(folder.resolve()) for folder in (recording.path, features, before, into))
    at = tuple(folders)
    return [
        Part(*at, ticker, day, params, params.fee_ppm(info.instrument(ticker), info.tariff), made_by)
        for ticker, days in sorted(info.days.items())
        for day in days
    ]


def build(part: Part) -> tuple[Made, bool]:
    """Put the partition into ``part.into``; also whether it was there already or taken over as it was."""
    recording, params = Recording.open(Path(part.recording)), part.params
    path = Path(part.ticker) / f"{part.day}.npz"
    kind = kind_of(params, part.fee_ppm)
    asked = {
        "horizons_s": list(params.horizons_s), "fee_ppm": part.fee_ppm, "latency_s": params.latency_s,
        "theta_bps": params.labels.theta_bps,
    }  # fmt: skip
    made_of = partitions.inputs(
        part.maker, recording, part.day, part.ticker, **asked, kind=repr(kind),
        features=partitions.sha256(Path(part.features) / path),
    )  # fmt: skip
    target = Path(part.into) / path
    made = partitions.kept(target, made_of, [Path(part.before) / path], Made)
    if made is not None:
        return made, True
    table = FeatureTable.load(Path(part.features) / path)
    labels = label_day(recording.read(part.ticker, part.day), table, kind, **asked)
    labels.save(target)
    known = labels.y[labels.y != VOID]
    shares = {
        name: round(float(np.mean(known == code)) if len(known) else 0.0, 6)
        for code, name in enumerate(CLASSES)
    }
    window_ns = longest_window_ns(labels, table.recv_ns)
    made = Made(shares, window_ns, int(table.recv_ns[0]), int(table.recv_ns[-1]) + 1)
    partitions.note(target, made_of, asdict(made))
    return made, False


def kind_of(params: Params, fee_ppm: int = 0) -> Kind:
    """The kind of label that ``params.yaml`` asks for, on an instrument with this commission."""
    asked = {key: value for key, value in asdict(params.labels).items() if key != "kind"}
    return kind_named(params.labels.kind, **asked, latency_s=params.latency_s, fee_ppm=fee_ppm)
