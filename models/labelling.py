"""What the line learns: which kind of label, for which horizons, and the guard that refuses one that has seen
the past.

Whatever is learnt, money is counted by the executable label: ``long_bps``, ``short_bps`` and ``move_bps`` are
a taker's, and only ``y`` changes with the kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, Final

import numpy as np

from features.batch import FeatureTable
from market.errors import ConfigError
from market.types import InstrumentDay
from models.label_kinds import KINDS, Executable, Kind, Tlob, headline
from models.labels import VOID, Labels, make_labels

KIND_NAMES: Final = tuple(kind.name for kind in KINDS)


def kind_named(name: str, **parameters: Any) -> Kind:
    """The kind of label called ``name`` with those of ``parameters`` that it knows; ConfigError for a name
    that none has."""
    found = next((kind for kind in KINDS if kind.name == name), None)
    if found is None:
        raise ConfigError(f"labels.kind is {name!r}; allowed: {', '.join(KIND_NAMES)}")
    known = {f.name for f in fields(found)}  # type: ignore[arg-type]  # every kind is a dataclass
    return found(**{key: value for key, value in parameters.items() if key in known})


def learnable(kind: Kind) -> Kind:
    """``kind`` itself; ScalperError when the past predicts it on a random walk (``label_kinds.headline``).

    Asked without commission: on a walk that pays for nothing every row would be flat, and nothing could leak.
    """
    free = replace(kind, fee_ppm=0) if "fee_ppm" in {f.name for f in fields(kind)} else kind  # type: ignore[type-var, arg-type]
    headline(free)
    return kind


def label_day(
    day: InstrumentDay, table: FeatureTable, kind: Kind, *, horizons_s: Sequence[float], latency_s: float,
    fee_ppm: int, theta_bps: float,
) -> Labels:  # fmt: skip
    """Labels of every snapshot of ``day``: classes by ``kind``, results of the executable label.

    ``horizons_s``: the asked horizon first. Kinds that count rows are stretched in the same proportion. A row
    that cannot be traded is void whatever the kind says of it.
    """
    asked, *neighbours = horizons_s
    money = make_labels(
        day, table, horizon_s=asked, latency_s=latency_s, fee_ppm=fee_ppm, theta_bps=theta_bps,
        neighbours_s=neighbours,
    )  # fmt: skip
    if isinstance(kind, Executable):
        return money
    found = [stretched(kind, h / asked).of_day(day, table) for h in horizons_s]
    y_multi = np.stack([each.y for each in found], axis=1)
    y_multi[money.y == VOID] = VOID
    exit_ns = np.maximum.reduce([money.exit_ns, *(each.to_ns for each in found)])
    return replace(money, y=y_multi[:, 0].copy(), y_multi=y_multi, exit_ns=exit_ns)


def stretched(kind: Kind, factor: float) -> Kind:
    """The same kind over ``factor`` times its horizon."""
    name = "horizon_s" if hasattr(kind, "horizon_s") else "h" if isinstance(kind, Tlob) else "k"
    value = getattr(kind, name) * factor
    return replace(kind, **{name: value if name == "horizon_s" else max(1, round(value))})  # type: ignore[type-var]


def longest_window_ns(labels: Labels, recv_ns: Any) -> int:
    """What a split must purge: the longest time that any known label looks ahead."""
    known = labels.y != VOID
    return int(np.max(labels.exit_ns[known] - recv_ns[known])) if known.any() else 0
