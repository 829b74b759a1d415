"""Which rows a drift report compares, and its result as rows: the statistics are ``models.drift``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from features.schema import NAMES, usable
from flows.stages.common import DRIFT
from market.errors import ScalperError
from models import drift

HOUR_NS = 3_600_000_000_000
WORST = 20
"""Rows of the table: the columns farthest over their limit come first."""


@dataclass(frozen=True, slots=True)
class DriftRows:
    """Every compared column of every instrument, the farthest from its limit first."""

    columns: tuple[tuple[str, str, drift.ColumnDrift], ...]
    """(ticker, day, column)."""

    @property
    def drifted(self) -> int:
        return sum(column.drifted for _, _, column in self.columns)

    def headline(self) -> str:
        return f"{self.drifted} of {len(self.columns)} columns are farther from training than their limits"

    def rows(self) -> list[dict[str, str]]:
        return [
            {
                "instrument": ticker, "day": day, "column": c.name,
                "PSI": f"{c.psi:.3f} (limit {c.psi_limit:.3f})",
                "W1/sd": f"{c.w1:.3f} (limit {c.w1_limit:.3f})",
                "effective rows": f"{c.n_eff:.0f} of {c.rows}", "drifted": "YES" if c.drifted else "no",
            }
            for ticker, day, c in self.columns[:WORST]
        ]  # fmt: skip

    def markdown(self) -> str:
        names = sorted({f"{ticker} {c.name}" for ticker, _, c in self.columns if c.drifted})
        return "Over their limits: " + ", ".join(names) if names else "No column is over its limit."


def newest(workdir: Path, features: Path, *, hours: float) -> DriftRows:
    """The last ``hours`` of each instrument's newest day against the reference of ``workdir``.

    Raises ScalperError where there is no reference or no row to compare.
    """
    if not (workdir / DRIFT / "reference.npz").is_file():
        raise ScalperError(f"no reference in {workdir / DRIFT}: run the line once (`scalper repro`)")
    reference = drift.load(workdir / DRIFT)
    out = []
    for folder in sorted(path for path in features.glob("*") if path.is_dir() and path.name in reference):
        path = max(folder.glob("*.npz"))
        with np.load(path, allow_pickle=False) as table:
            good = np.array([usable(int(status)) for status in table["status"]], bool)
            recv_ns, x = table["recv_ns"][good], table["X"][good]
        if x.shape[1] != len(NAMES):
            raise ScalperError(
                f"{path} holds {x.shape[1]} features, this version {len(NAMES)}: run `scalper repro`"
            )
        if not len(recv_ns):
            continue
        recent = recv_ns >= recv_ns[-1] - round(hours * HOUR_NS)
        columns = {name: x[recent, j] for j, name in enumerate(NAMES)}
        out += [
            (folder.name, path.stem, c)
            for c in drift.compare(reference, folder.name, recv_ns[recent], columns)
        ]
    if not out:
        raise ScalperError(f"no rows of a known instrument in {features}: build features first")
    out.sort(key=lambda row: -max(row[2].psi / row[2].psi_limit, row[2].w1 / row[2].w1_limit))
    return DriftRows(tuple(out))
