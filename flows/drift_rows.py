"""Which rows a drift report looks at, what they are compared with, and what the rule says of them.

Rows are those that the runner's drift monitor kept (``runtime/drift_samples``), each against the reference of
the very bundle that scored them. Where no runner has run, the newest feature tables are looked at instead,
without scores, against the reference of the line. The statistics are ``models.drift``, the rule is
``models.drift_rule``: the same that may stop the runner.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.schema import NAMES, usable
from flows.stages.common import BUNDLE, DRIFT
from live.drift_samples import files, read
from market.errors import ScalperError
from models import drift
from models.bundle import MANIFEST, Bundle, sha256_hex
from models.drift_rule import Look, Persistence, look

SCHEMA = "scalper-drift-report/1"
CRITICAL_PSI = 0.25
"""Of the runner's default settings (``monitoring.drift_psi_critical``)."""
SHOWN = 20
"""Rows of the table: the most surprising columns come first."""
SKIPPED = ("workspaces", "backups", "prefect", "mlflow")


@dataclass(frozen=True, slots=True)
class Moment:
    """One look of the rule: (market time, drifted columns, this look alone, after several looks)."""

    now_ns: int
    drifted: int
    alarm: bool
    warning: bool
    critical: bool


@dataclass(frozen=True, slots=True)
class Watched:
    """One instrument under one bundle. ``columns`` and ``last`` speak of the newest window; ``x`` [n, C] are
    all thinned rows of the stretch, in the order of ``reference.names``."""

    ticker: str
    source: str
    manifest_sha256: str
    reference: drift.TickerReference
    recv_ns: NDArray[np.int64]
    x: NDArray[np.float64]
    columns: tuple[drift.ColumnDrift, ...]
    last: Look
    moments: tuple[Moment, ...]

    @property
    def name(self) -> str:
        return f"{self.ticker} {self.manifest_sha256[:8]}".strip()

    @property
    def state(self) -> str:
        """The worst that the rule said over the stretch."""
        if any(m.critical for m in self.moments):
            return "critical"
        return "warning" if any(m.warning for m in self.moments) else "ok"

    @property
    def phase(self) -> int:
        return self.reference.phase(int(self.recv_ns[-1]))

    def surprising(self) -> list[drift.ColumnDrift]:
        """Columns, the least likely without drift first; then the farthest over their limits."""
        return sorted(self.columns, key=lambda c: (c.p, -max(c.psi / c.psi_limit, c.w1 / c.w1_limit), c.name))

    def line(self) -> str:
        day = datetime.fromtimestamp(int(self.recv_ns[-1]) / 1e9, UTC)
        said = {"ok": "no drift", "warning": "drift", "critical": "CRITICAL drift"}[self.state]
        looks = len(self.moments)
        warned = sum(m.warning for m in self.moments)
        text = f"{self.ticker}, until {day:%Y-%m-%d %H:%M} UTC: {said}"
        text += f" ({warned} of {looks} looks warn" if looks else " (too few rows for a look"
        if self.last.drifted:
            text += "; now " + ", ".join(self.last.drifted[:5])
        return text + ")"


@dataclass(frozen=True, slots=True)
class DriftRows:
    """A whole report. ``notes``: rows that could not be compared, and why."""

    watched: tuple[Watched, ...]
    hours: float
    notes: tuple[str, ...]

    @property
    def state(self) -> str:
        states = {w.state for w in self.watched}
        return next((s for s in ("critical", "warning") if s in states), "ok")

    @property
    def compared(self) -> int:
        return sum(len(w.columns) for w in self.watched)

    @property
    def drifted(self) -> int:
        return sum(len(w.last.drifted) for w in self.watched)

    def headline(self) -> str:
        said = {"ok": "No drift", "warning": "Drift", "critical": "CRITICAL drift"}[self.state]
        return (
            f"{said}: {self.drifted} of {self.compared} columns of {len(self.watched)} instruments drifted "
            "in the newest half hour"
        )

    def rows(self) -> list[dict[str, str]]:
        chosen = [(w, c) for w in self.watched for c in w.surprising()]
        chosen.sort(key=lambda pair: pair[1].p)
        return [
            {
                "instrument": w.ticker, "bundle": w.manifest_sha256[:12], "column": c.name,
                "PSI": f"{c.psi:.3f} (limit {c.psi_limit:.3f})",
                "W1/sd": f"{c.w1:.3f} (limit {c.w1_limit:.3f})", "p": f"{c.p:.2g}",
                "effective rows": f"{c.n_eff:.0f} of {c.rows}",
                "drifted": "YES" if c.name in w.last.drifted else "no",
            }
            for w, c in chosen[:SHOWN]
        ]  # fmt: skip

    def markdown(self) -> str:
        lines = [f"- {w.line()}" for w in self.watched] + [f"- not compared: {note}" for note in self.notes]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; its shape is ``schema``."""
        return {
            "schema": SCHEMA, "state": self.state, "hours": self.hours, "notes": list(self.notes),
            "instruments": [
                {
                    "ticker": w.ticker, "source": w.source, "manifest_sha256": w.manifest_sha256,
                    "state": w.state, "from_ns": int(w.recv_ns[0]), "to_ns": int(w.recv_ns[-1]),
                    "rows": len(w.recv_ns), "reference_days": w.reference.days,
                    "hour": w.reference.phases[w.phase], "strictness": w.reference.strictness,
                    "drifted": list(w.last.drifted), "importance_share": w.last.share,
                    "trade_rate": list(w.last.trade_rate) if w.last.trade_rate else None,
                    "looks": [
                        {"now_ns": m.now_ns, "drifted": m.drifted, "alarm": m.alarm, "warning": m.warning,
                         "critical": m.critical} for m in w.moments
                    ],
                    "columns": [c.to_dict() for c in w.surprising()],
                }
                for w in self.watched
            ],
        }  # fmt: skip


def collect(workdir: Path, features: Path, *, hours: float) -> DriftRows:
    """The newest ``hours`` of what the runner kept; of the feature tables, where it kept nothing.

    Raises ScalperError where there is no reference, or no row to compare.
    """
    notes: list[str] = []
    watched = list(_of_runner(workdir, hours, notes))
    if not watched:
        watched = list(_of_features(workdir, features, hours))
    if not watched:
        raise ScalperError(
            f"no rows of a known instrument in {features}, none from a runner"
            + (f" ({'; '.join(notes)})" if notes else "")
            + ": build features, or run `live-runner` for ten minutes"
        )
    return DriftRows(tuple(sorted(watched, key=lambda w: (w.ticker, w.manifest_sha256))), hours, tuple(notes))


# ---- from the runner


def _of_runner(workdir: Path, hours: float, notes: list[str]) -> Iterator[Watched]:
    references: dict[str, drift.Reference] = {}
    newest: dict[tuple[str, str], Path] = {}
    for runtime in _runtimes(workdir):
        for path in files(runtime):
            ticker, _, bundle = path.stem.rpartition("-")
            newest[ticker, bundle] = path
    last_day = max((path.parent.name for path in newest.values()), default="")
    for (ticker, _), path in sorted(newest.items()):
        if path.parent.name != last_day:
            continue  # a bundle that scores no more
        try:
            samples = read(path)
            sha256 = samples.manifest_sha256
            if sha256 not in references:
                references[sha256] = _reference_of(workdir, sha256)
            known = references[sha256].get(ticker)
        except ScalperError as error:
            notes.append(str(error))
            continue
        if known is None:
            notes.append(f"{ticker}: bundle {sha256[:12]} carries no drift reference for it")
            continue
        at = [samples.names.index(name) for name in known.names if name in samples.names]
        if len(at) < len(known.names):
            notes.append(f"{ticker}: the rows of bundle {sha256[:12]} lack columns of its reference")
            continue
        found = _watched(
            ticker, "runner", sha256, known, samples.recv_ns, samples.x[:, at].astype(np.float64), hours
        )
        if found is None:
            notes.append(f"{ticker}: {len(samples.recv_ns)} rows, {drift.LEAST_ROWS} are needed for a look")
        else:
            yield found


def _runtimes(workdir: Path) -> list[Path]:
    """Every folder below ``runtime/`` where a runner kept rows, that is not another workspace's."""
    root = workdir / "runtime"
    return [
        path.parent
        for path in sorted(root.rglob("drift_samples"))
        if path.is_dir() and path.relative_to(root).parts[0] not in SKIPPED
    ]


def _reference_of(workdir: Path, sha256: str) -> drift.Reference:
    """The reference in the bundle of this manifest: the one that was built here, or one the runner pulled."""
    places = [workdir / BUNDLE, *sorted((workdir / "runtime").glob("**/models/*"))]
    for place in places:
        manifest = place / MANIFEST
        if manifest.is_file() and sha256_hex(manifest.read_bytes()) == sha256:
            bundle = Bundle.load(place, None)
            return drift.load(bundle.read(drift.FILE)) if drift.FILE in bundle.manifest["files"] else {}
    raise ScalperError(f"bundle {sha256[:12]}, which scored rows here, is neither built nor pulled here")


# ---- from feature tables


def _of_features(workdir: Path, features: Path, hours: float) -> Iterator[Watched]:
    path = workdir / DRIFT / "reference.npz"
    if not path.is_file():
        raise ScalperError(f"no reference in {workdir / DRIFT}: run the line once (`scalper repro`)")
    reference = drift.load(path)
    for ticker, known in reference.items():
        tables = sorted((features / ticker).glob("*.npz"))
        if not tables:
            continue
        with np.load(tables[-1], allow_pickle=False) as table:
            good = np.array([usable(int(status)) for status in table["status"]], bool)
            recv_ns, x = table["recv_ns"][good], table["X"][good]
        if x.shape[1] != len(NAMES):
            raise ScalperError(
                f"{tables[-1]} holds {x.shape[1]} features, this version {len(NAMES)}: run `scalper repro`"
            )
        kept = drift.thin(recv_ns)
        full = np.full((len(kept), len(known.names)), np.nan)  # scores are not known here
        for j, name in enumerate(known.names):
            if name in NAMES:
                full[:, j] = x[kept, NAMES.index(name)]
        found = _watched(ticker, "features", "", known, recv_ns[kept], full, hours)
        if found is not None:
            yield found


# ---- the rule


def _watched(
    ticker: str, source: str, sha256: str, known: drift.TickerReference, recv_ns: NDArray[np.int64],
    x: NDArray[np.float64], hours: float,
) -> Watched | None:  # fmt: skip
    recent = recv_ns >= (recv_ns[-1] if len(recv_ns) else 0) - round(hours * drift.HOUR_NS)
    recv_ns, x = recv_ns[recent], x[recent]
    if len(recv_ns) < drift.LEAST_ROWS:
        return None
    rule, moments = Persistence(), []
    for end in range(drift.LEAST_ROWS, len(recv_ns) + 1, drift.EVERY_ROWS):
        now_ns = int(recv_ns[end - 1])
        seen = look(known, x[max(0, end - drift.WINDOW_ROWS) : end], now_ns, critical_psi=CRITICAL_PSI)
        moments.append(Moment(now_ns, len(seen.drifted), seen.alarm, *rule.take(seen)))
    window, now_ns = x[-drift.WINDOW_ROWS :], int(recv_ns[-1])
    return Watched(
        ticker, source, sha256, known, recv_ns, x, tuple(drift.compare(known, window, now_ns)),
        look(known, window, now_ns, critical_psi=CRITICAL_PSI), tuple(moments),
    )  # fmt: skip


def dumps(found: DriftRows) -> str:
    return json.dumps(found.to_dict(), indent=1, sort_keys=True, allow_nan=False) + "\n"
