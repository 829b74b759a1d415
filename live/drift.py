"""Drift on the box: the last hour's features and scores against what the bundle was trained on.

The reference travels in the bundle (``drift.npz``: per ``TICKER/COLUMN`` the bin ``edges``, the training
``shares`` and ``stats`` as ``models.drift`` saves them); a bundle without one is not watched, and says so.
Rows are taken every five seconds, because rows of an order book repeat each other; for the same reason a
distance counts only over a limit that knows how much the window can say:
``PSI ~ (1/n + 1/m) * chi2(B - 1)`` with n and m effective sample sizes (Potgieter et al. 2023).

Results are lines of ``runtime/drift_metrics/drift_metrics_YYYYMMDD.jsonl``. A warning asks for calibration, a
critical drift also stops entries (the engine's CRITICAL_DRIFT). The queue holds each request once.
"""

from __future__ import annotations

import io
import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.schema import NAMES
from live.config_schema import Monitoring
from live.core.events import Drift, Event
from market.types import SECOND_NS
from models.bundle import Bundle

FILE = "drift.npz"
SCORE = "score"
STEP_S = 5.0
WINDOW_ROWS = 720
"""One hour of rows."""
LEAST_ROWS = 120
EVERY_ROWS = 60
"""A verdict every five minutes."""
SMOOTHING = 0.5
Z_999 = 3.0902
"""Quantile 0.999 of the normal distribution."""
COLUMNS_SHARE = 0.2
"""So many of the columns over the critical limit are critical though the score is not."""

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Column:
    """Bin edges [B - 1], training shares [B] and effective size of one column."""

    edges: F64
    shares: F64
    n_eff: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """One window of one instrument. ``column`` has the largest PSI in units of its own limit."""

    now_ns: int
    ticker: str
    rows: int
    columns: int
    column: str
    psi: float
    psi_limit: float
    psi_score: float | None
    drifted: int
    critical: bool

    @property
    def warning(self) -> bool:
        return self.critical or self.drifted > 0


def reference_of(bundle: Bundle) -> dict[str, dict[str, Column]]:
    """Ticker to column name to reference; empty for a bundle that carries none. Raises BundleError."""
    if FILE not in bundle.manifest["files"]:
        return {}
    found: dict[str, dict[str, Column]] = {}
    with np.load(io.BytesIO(bundle.read(FILE)), allow_pickle=False) as arrays:
        for key in arrays.files:
            if key.endswith("/edges"):
                ticker, name, _ = key.split("/")
                shares = arrays[f"{ticker}/{name}/shares"].astype(np.float64)
                n_eff = float(arrays[f"{ticker}/{name}/stats"][1])
                found.setdefault(ticker, {})[name] = Column(arrays[key].astype(np.float64), shares, n_eff)
    return found


def effective_size(x: F64) -> float:
    """n * (1 - r) / (1 + r) with r the lag-one autocorrelation; between 1 and n."""
    centred = x - x.mean()
    variance = float(centred @ centred)
    if len(x) < 3 or variance <= 0:
        return float(len(x))
    r = float(np.clip(centred[1:] @ centred[:-1] / variance, 0.0, 0.999))
    return max(1.0, len(x) * (1 - r) / (1 + r))


def psi(column: Column, x: F64) -> tuple[float, float]:
    """(population stability index of a window, the limit it stays under without drift)."""
    counts = np.bincount(np.searchsorted(column.edges, x, side="right"), minlength=len(column.shares))
    shares = (counts + SMOOTHING) / (counts.sum() + SMOOTHING * len(counts))
    value = float(((shares - column.shares) * np.log(shares / column.shares)).sum())
    freedom = max(len(column.shares) - 1, 1)
    chi2 = freedom * (1 - 2 / (9 * freedom) + Z_999 * (2 / (9 * freedom)) ** 0.5) ** 3  # Wilson and Hilferty
    return value, (1 / effective_size(x) + 1 / column.n_eff) * chi2


class DriftMonitor:
    """``take`` a row and its score every ``STEP_S`` of market time; verdicts go to disk and to the engine."""

    def __init__(
        self, reference: Mapping[str, Mapping[str, Column]], limits: Monitoring, manifest_sha256: str,
        runtime: Path, post: Callable[[Event], object], audit: Callable[..., None],
    ) -> None:  # fmt: skip
        self._reference, self._limits, self._sha256 = reference, limits, manifest_sha256
        self._folder, self._queue = runtime / "drift_metrics", runtime / "calibration_queue.jsonl"
        self._post, self._audit = post, audit
        self._rows: dict[str, deque[NDArray[np.float32]]] = {t: deque(maxlen=WINDOW_ROWS) for t in reference}
        self._since: dict[str, int] = dict.fromkeys(reference, 0)
        self._asked = _keys(self._queue)
        self.last: dict[str, Verdict] = {}

    def take(self, now_ns: int, ticker: str, row: NDArray[np.float32], score: float) -> Verdict | None:
        """``row`` float32 [F], ``score`` p_up - p_down; the verdict that this row completes, if any."""
        if ticker not in self._rows or not np.isfinite(score):
            return None
        rows = self._rows[ticker]
        rows.append(np.append(row, np.float32(score)))
        self._since[ticker] += 1
        if len(rows) < LEAST_ROWS or self._since[ticker] < EVERY_ROWS:
            return None
        self._since[ticker] = 0
        verdict = self.judge(now_ns, ticker)
        self._tell(verdict)
        return verdict

    def judge(self, now_ns: int, ticker: str) -> Verdict:
        """The window of ``ticker`` as it is."""
        table = np.array(self._rows[ticker], np.float64)
        names = (*NAMES, SCORE)
        worst, worst_ratio, drifted, critical, seen = ("", 0.0, 0.0), -1.0, 0, 0, 0
        of_score: float | None = None
        score_critical = False
        for name, column in self._reference[ticker].items():
            x = table[:, names.index(name)] if name in names else np.array([])
            x = x[np.isfinite(x)]
            if len(x) < LEAST_ROWS:
                continue
            value, limit = psi(column, x)
            seen += 1
            drifted += value > max(limit, self._limits.drift_psi_warning)
            over = value > max(limit, self._limits.drift_psi_critical)
            critical += over
            if name == SCORE:
                of_score, score_critical = value, over
            if value / limit > worst_ratio:
                worst, worst_ratio = (name, value, limit), value / limit
        is_critical = score_critical or (seen > 0 and critical > COLUMNS_SHARE * seen)
        return Verdict(
            now_ns, ticker, len(table), seen, worst[0], round(worst[1], 6), round(worst[2], 6),
            None if of_score is None else round(of_score, 6), int(drifted), bool(is_critical),
        )  # fmt: skip

    def _tell(self, verdict: Verdict) -> None:
        self.last[verdict.ticker] = verdict
        day = datetime.fromtimestamp(verdict.now_ns / SECOND_NS, UTC)
        line = {**asdict(verdict), "warning": verdict.warning, "manifest_sha256": self._sha256}
        _append(self._folder / f"drift_metrics_{day:%Y%m%d}.jsonl", line)
        if not verdict.warning:
            return
        value_e6 = round(verdict.psi * 1_000_000)
        metric = f"psi {verdict.ticker}/{verdict.column}"
        self._post(Drift(verdict.now_ns, metric, value_e6, verdict.critical))
        self._ask(verdict)

    def _ask(self, verdict: Verdict) -> None:
        """One request for each bundle, instrument and severity, however often it drifts."""
        reason = "critical drift" if verdict.critical else "drift"
        key = f"{self._sha256[:16]}/{verdict.ticker}/{reason}"
        if key in self._asked:
            return
        self._asked.add(key)
        request = {
            "key": key, "ticker": verdict.ticker, "reason": reason, "manifest_sha256": self._sha256,
            "column": verdict.column, "psi": verdict.psi, "psi_limit": verdict.psi_limit,
            "drifted_columns": verdict.drifted, "now_ns": verdict.now_ns,
        }  # fmt: skip
        _append(self._queue, request)
        self._audit("MODEL", "CALIBRATION_ASKED", ticker=verdict.ticker, reason=reason, column=verdict.column)

    def report(self) -> dict[str, Any]:
        """For the status file."""
        if not self.last:
            return {}
        worst = max(self.last.values(), key=lambda v: (v.critical, v.warning, v.psi))
        found = {f"psi_{t}": v.psi for t, v in self.last.items()}
        reason = f"{worst.ticker}/{worst.column}: PSI {worst.psi:.3f} over its limit {worst.psi_limit:.3f}"
        return {**found, "warning": worst.warning, "reason": reason if worst.warning else ""}


def _keys(path: Path) -> set[str]:
    """What is asked for already; a torn or foreign line asks for nothing."""
    keys = set()
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return set()
    for line in lines:
        try:
            keys.add(str(json.loads(line)["key"]))
        except (ValueError, KeyError, TypeError):
            continue
    return keys


def _append(path: Path, row: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row, separators=(",", ":"), allow_nan=False) + "\n")
