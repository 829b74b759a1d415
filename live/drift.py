"""Drift on the box: the last half hour's features and scores against what the bundle was trained on.

The reference travels in the bundle (``drift.npz``, ``models.drift``); a bundle without one is not watched,
and says so. A row is taken every five seconds, because rows of an order book repeat each other, and every
five minutes the window is judged by ``models.drift_rule``: three looks in a row make a warning.

Each look is a line of ``runtime/drift_metrics/drift_metrics_YYYYMMDD.jsonl``; the rows themselves are kept
for the platform's report (``live.drift_samples``). A warning asks for calibration, a critical drift also
stops entries (the engine's CRITICAL_DRIFT). The queue holds each request once. None of these files can stop
trading: one that cannot be written is told, and the watch goes on.
"""

from __future__ import annotations

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
from live.drift_samples import SampleWriter
from live.pipeline import ScoreLike
from market.types import SECOND_NS
from models import drift_scores
from models.bundle import Bundle
from models.drift import (
    EVERY_ROWS,
    FILE,
    LEAST_ROWS,
    SCORES,
    THIN_NS,
    WINDOW_ROWS,
    Reference,
    hour_of_day,
    load,
)
from models.drift_rule import Look, Persistence, look

STEP_S = THIN_NS / SECOND_NS
COLUMNS = (*NAMES, *SCORES)
BREAK_NS = 600 * SECOND_NS
"""After so long without a row the window starts afresh: a break of the session lies between."""
NAMED = 8
"""Drifted columns that a line names."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One look at one instrument. ``column`` lies farthest over its limits; ``psi``, ``w1`` and limits are
    its own. ``drifted`` columns were chosen by the false discovery rate, ``share`` is their importance.
    ``alarm`` is this look alone; ``warning`` and ``critical`` are after several looks. ``hour`` is the hour
    of the day (UTC) compared with, None for the whole day.
    """

    now_ns: int
    ticker: str
    rows: int
    columns: int
    column: str
    psi: float
    psi_limit: float
    w1: float
    w1_limit: float
    psi_score: float | None
    trade_rate: float | None
    trade_rate_trained: float | None
    drifted: int
    names: tuple[str, ...]
    share: float
    hour: int | None
    days: int
    alarm: bool
    warning: bool
    critical: bool


def reference_of(bundle: Bundle) -> Reference:
    """The bundle's reference by instrument; empty for a bundle that carries none. Raises BundleError."""
    return load(bundle.read(FILE)) if FILE in bundle.manifest["files"] else {}


def thresholds_of(bundle: Bundle) -> dict[str, int | None]:
    """Entry thresholds in thousandths of a basis point, None where an instrument is not traded."""
    known = bundle.ensemble["instruments"]
    return {
        ticker: None if of["threshold_bps"] is None else round(of["threshold_bps"] * 1000)
        for ticker, of in known.items()
    }


class _Lane:
    """Rows of one instrument, and how many came since the last look."""

    def __init__(self) -> None:
        self.rows: deque[NDArray[np.float32]] = deque(maxlen=WINDOW_ROWS)
        self.rule = Persistence()
        self.last_ns = 0
        self.since = 0

    def break_off(self) -> None:
        self.rows.clear()
        self.rule.reset()
        self.since = 0


class DriftMonitor:
    """``take`` a row every ``STEP_S`` of market time; where it says so, ``look`` and ``tell``."""

    def __init__(
        self, reference: Reference, thresholds_millibps: Mapping[str, int | None], limits: Monitoring,
        manifest_sha256: str, runtime: Path, post: Callable[[Event], object], audit: Callable[..., None],
    ) -> None:  # fmt: skip
        self._reference, self._thresholds, self._limits = reference, thresholds_millibps, limits
        self._sha256 = manifest_sha256
        self._folder, self._queue = runtime / "drift_metrics", runtime / "calibration_queue.jsonl"
        self._post, self._audit = post, audit
        self._samples: SampleWriter | None = SampleWriter(runtime, COLUMNS, manifest_sha256)
        self._lanes = {ticker: _Lane() for ticker in reference}
        self._columns = {t: [COLUMNS.index(name) for name in known.names] for t, known in reference.items()}
        self._asked = _keys(self._queue)
        self._untold = True
        self.last: dict[str, Verdict] = {}

    def take(self, now_ns: int, ticker: str, row: NDArray[np.float32], answer: ScoreLike) -> bool:
        """Keep ``row`` float32 [F] and the scores of ``answer``; True where a look is due.

        At most one row is kept in each ``STEP_S``. After a break the window starts afresh.
        """
        lane = self._lanes.get(ticker)
        if lane is None or now_ns // THIN_NS == lane.last_ns // THIN_NS or not np.isfinite(answer.p).all():
            return False
        if not 0 <= now_ns - lane.last_ns <= BREAK_NS:
            lane.break_off()
        lane.last_ns = now_ns
        of_scores = drift_scores.columns(
            answer.p, answer.expected_move_millibps, self._thresholds.get(ticker)
        )
        lane.rows.append(np.concatenate([row, of_scores.astype(np.float32)]))
        self._keep(now_ns, ticker, lane.rows[-1])
        lane.since += 1
        if len(lane.rows) < LEAST_ROWS or lane.since < EVERY_ROWS:
            return False
        lane.since = 0
        return True

    def look(self, ticker: str) -> Look:
        """The window of ``ticker`` against its reference. Takes some ten milliseconds and no state: for a
        thread."""
        lane = self._lanes[ticker]
        table = np.stack(tuple(lane.rows))[:, self._columns[ticker]]
        return look(
            self._reference[ticker], table, lane.last_ns,
            critical_psi=self._limits.drift_psi_critical, psi_floor=self._limits.drift_psi_warning,
        )  # fmt: skip

    def tell(self, now_ns: int, ticker: str, found: Look) -> Verdict:
        """Write what ``look`` found; a warning goes to the engine, stamped ``now_ns`` (the market has moved
        on since the last row), and asks for calibration."""
        lane, known = self._lanes[ticker], self._reference[ticker]
        warning, critical = lane.rule.take(found)
        worst, rates = found.worst, found.trade_rate or (None, None)
        at_hour = known.phase(lane.last_ns) > 0
        verdict = Verdict(
            now_ns=lane.last_ns, ticker=ticker, rows=len(lane.rows), columns=found.columns,
            column=worst.name if worst else "",
            psi=_short(worst.psi) if worst else 0.0, psi_limit=_short(worst.psi_limit) if worst else 0.0,
            w1=_short(worst.w1) if worst else 0.0, w1_limit=_short(worst.w1_limit) if worst else 0.0,
            psi_score=_short(found.score.psi) if found.score else None,
            trade_rate=None if rates[0] is None else _short(rates[0]),
            trade_rate_trained=None if rates[1] is None else _short(rates[1]),
            drifted=len(found.drifted), names=found.drifted[:NAMED], share=_short(found.share),
            hour=hour_of_day(lane.last_ns) if at_hour else None, days=known.days,
            alarm=found.alarm, warning=warning, critical=critical,
        )  # fmt: skip
        self.last[ticker] = verdict
        day = datetime.fromtimestamp(verdict.now_ns / SECOND_NS, UTC)
        line = {**asdict(verdict), "manifest_sha256": self._sha256}
        self._append(self._folder / f"drift_metrics_{day:%Y%m%d}.jsonl", line)
        if warning:
            metric = f"psi {ticker}/{verdict.column}"
            self._post(Drift(now_ns, metric, round(verdict.psi * 1_000_000), critical))
            self._ask(verdict)
        return verdict

    def _ask(self, verdict: Verdict) -> None:
        """One request for each bundle, instrument and severity, however often it drifts."""
        reason = "critical drift" if verdict.critical else "drift"
        key = f"{self._sha256[:16]}/{verdict.ticker}/{reason}"
        if key in self._asked:
            return
        request = {
            "key": key, "ticker": verdict.ticker, "reason": reason, "manifest_sha256": self._sha256,
            "column": verdict.column, "psi": verdict.psi, "psi_limit": verdict.psi_limit,
            "drifted_columns": verdict.drifted, "now_ns": verdict.now_ns,
        }  # fmt: skip
        if self._append(self._queue, request):
            self._asked.add(key)
            self._audit(
                "MODEL", "CALIBRATION_ASKED", ticker=verdict.ticker, reason=reason, column=verdict.column
            )

    def _keep(self, now_ns: int, ticker: str, row: NDArray[np.float32]) -> None:
        if self._samples is None:
            return
        try:
            self._samples.write(now_ns, ticker, row)
        except OSError as error:
            self._samples = None  # the report has fewer rows; the watch needs none of them
            self._audit("RESOURCE", "DRIFT_NOT_WRITTEN", reason=str(error))

    def _append(self, path: Path, row: dict[str, Any]) -> bool:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row, separators=(",", ":"), allow_nan=False) + "\n")
        except OSError as error:
            if self._untold:
                self._audit("RESOURCE", "DRIFT_NOT_WRITTEN", reason=str(error))
            self._untold = False
            return False
        self._untold = True
        return True

    def report(self) -> dict[str, Any]:
        """For the status file: the worst of the last looks in words, and of each instrument the PSI of its
        farthest column and how many drifted. ``reason`` only with a warning."""
        if not self.last:
            return {}
        worst = max(self.last.values(), key=lambda v: (v.critical, v.warning, v.alarm, v.drifted, v.psi))
        words = (
            f"{worst.ticker}: {worst.drifted} of {worst.columns} columns, {worst.column} with PSI "
            f"{worst.psi:.3f} (limit {worst.psi_limit:.3f}), W1 {worst.w1:.3f} (limit {worst.w1_limit:.3f})"
        )
        return {
            "worst": words, "warning": worst.warning, "critical": worst.critical,
            **({"reason": words} if worst.warning else {}),
            **{f"psi_{ticker}": v.psi for ticker, v in self.last.items()},
            **{f"drifted_{ticker}": v.drifted for ticker, v in self.last.items()},
        }  # fmt: skip


def _short(value: float) -> float:
    return round(value, 6)


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
