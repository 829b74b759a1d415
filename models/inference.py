"""From one raw feature row to the ensemble's calibrated probabilities. LEAN: this is what the runner imports.

``Ensemble.step`` is the whole live path. Golden rows, recorded when the bundle was made, are replayed through
the same path on the machine that runs it: a bundle that answers differently here is refused.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.bundle import ENSEMBLE, GOLDEN, MEMBER_FILES, SCALER, Bundle, BundleFault
from models.conformal import side_of
from models.interpreters import Interpreter, engine, load_interpreter
from models.member_kinds import CLASSES, F32, F64
from models.members import InferenceError, Members, StateError

__all__ = [
    "Ensemble", "InferenceError", "InstrumentParams", "Interpreter", "Members", "Scores", "StateError",
    "check_golden", "engine", "load_interpreter", "make_golden",
]  # fmt: skip

GOLDEN_TOLERANCE = 1e-4
"""Largest difference of a probability between the machine that made a bundle and the one that runs it."""
GOLDEN_TOLERANCE_INT8 = 5e-3
"""The same where INT8 networks take part: their activations are rounded to eight bits on the fly, so another
CPU's kernels move a probability by up to 3e-3 (measured). A broken interpreter is off by tenths."""
MAX_MILLIBPS = 10_000_000


@dataclass(frozen=True, slots=True)
class Scores:
    """The ensemble's answer for one row: ``p`` float64 [3] (down, flat, up), ``members`` log-probabilities
    by name.
    """

    p: F64
    members: dict[str, F64]
    expected_move_millibps: int


@dataclass(frozen=True, slots=True)
class InstrumentParams:
    """Calibration of one instrument: expected move per unit of p_up - p_down, the entry threshold (None: no
    trade), and the conformal quantiles of down and up (None: it never abstains).
    """

    move_bps_per_score: float
    threshold_bps: float | None
    conformal_quantiles: tuple[float, float] | None = None

    def expected_move_millibps(self, down: float, up: float) -> int:
        """The expected move that the core is told, thousandths of a basis point; 0 where the model abstains:
        the other side is in the conformal set, or ours is not."""
        score = up - down
        if self.conformal_quantiles is not None:
            side = side_of(down, up, *self.conformal_quantiles)
            if side * score <= 0.0:
                return 0
        return round(self.move_bps_per_score * 1000.0 * score)


class Ensemble:
    """A bundle's calibrated ensemble for some instruments.

    logp = sum_i w_i * logp_i / temperature, p = softmax(logp); expected move = k_ticker * (p_up - p_down),
    and none where the conformal rule abstains.
    """

    def __init__(
        self, bundle: Bundle, tickers: Iterable[str], *, backend: str = "cpu", threads: int = 1
    ) -> None:
        self.bundle = bundle
        self.tickers = tuple(tickers)
        settings = _ensemble_settings(bundle.ensemble)
        self.weights: dict[str, float] = settings["members"]
        self.temperature: float = settings["temperature"]
        self.exit_move_bps: float = settings["exit_move_bps"]
        self.stop_multiplier: float = settings["stop_multiplier"]
        absent = [t for t in self.tickers if t not in settings["instruments"]]
        if absent:
            raise BundleFault(
                "bad_model",
                f"the bundle is not calibrated for {', '.join(absent)}; it knows "
                f"{', '.join(sorted(settings['instruments']))}",
            )
        self.instruments: dict[str, InstrumentParams] = {t: settings["instruments"][t] for t in self.tickers}
        self.members = Members(bundle.read, names=self.weights, backend=backend, threads=threads)
        self._blend_weights: list[tuple[str, float]] = []
        self.use_only(None)
        if engine()[0] != "ai_edge_litert" and GOLDEN in bundle.manifest["files"]:
            _compare_golden(self, _read_golden(bundle))

    @property
    def window_rows(self) -> int:
        """Rows after a reset before the first ``Scores``."""
        return self.members.window_rows

    def use_only(self, names: Collection[str] | None) -> None:
        """Blend only these members, their weights scaled up to the full sum; None goes back to all that
        weigh.

        Every instrument starts afresh. The runner's simplified mode is ``use_only({"gbdt"})``.
        """
        chosen = {n for n, w in self.weights.items() if w > 0} if names is None else set(names)
        self.members.use_only(chosen)
        share = sum(self.weights[n] for n in self.members.active)
        total = sum(self.weights.values())
        even = total / len(self.members.active)
        self._blend_weights = [
            (n, (self.weights[n] * total / share if share > 0 else even) / self.temperature)
            for n in self.members.active
        ]

    def use_backend(self, backend: str) -> None:
        """Move the networks to ``cpu`` or ``gpu``; their states go along. BundleFault where they cannot run
        there."""
        self.members.use_backend(backend)

    def state(self) -> dict[str, Any]:
        """JSON of what the models remember, exact to the bit, and the bundle that it belongs to."""
        return {"manifest_sha256": self.bundle.sha256, "instruments": self.members.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``, so that the next scores are those of a run that was never stopped.

        StateError, with every instrument starting afresh, for a state of another bundle, of other members or
        of damaged content. It says nothing about the age of the state: rows that were missed in between are a
        gap, after which ``reset`` is due.
        """
        if not isinstance(state, Mapping) or state.get("manifest_sha256") != self.bundle.sha256:
            self.members.restore({})
            raise StateError(
                "the stored state belongs to another bundle; the models start afresh and warm up"
            )
        self.members.restore(state.get("instruments") or {})

    def reset(self, ticker: str) -> None:
        """After a gap, a day change or a restart: the next ``Scores`` come after ``window_rows`` rows."""
        self.members.reset(ticker)

    def step(self, ticker: str, x: F32) -> Scores | None:
        """Scores for the raw row ``x`` float32 [F]; None while warming up. Raises InferenceError."""
        told = self.members.answers(ticker, x)
        if told is None:
            return None
        down, flat, up = self._blend(told)
        move = self.instruments[ticker].expected_move_millibps(down, up)
        return Scores(np.array((down, flat, up)), {name: np.array(logp) for name, logp in told.items()}, move)

    def _blend(self, told: Mapping[str, Sequence[float]]) -> tuple[float, float, float]:
        """Probabilities of down, flat and up from the members' log-probabilities."""
        down = flat = up = 0.0
        for name, weight in self._blend_weights:
            a, b, c = told[name]
            down, flat, up = down + weight * a, flat + weight * b, up + weight * c
        top = max(down, flat, up)
        a, b, c = math.exp(down - top), math.exp(flat - top), math.exp(up - top)
        total = a + b + c
        return a / total, b / total, c / total

    def params_for_core(self) -> dict[str, Any]:
        """What the trading core needs, in whole numbers: thresholds and moves in thousandths of a basis
        point.
        """
        manifest = self.bundle.manifest
        thresholds = {t: p.threshold_bps for t, p in self.instruments.items()}
        return {
            "manifest_sha256": self.bundle.sha256,
            "threshold_millibps": {t: None if x is None else round(x * 1000) for t, x in thresholds.items()},
            "exit_move_millibps": round(self.exit_move_bps * 1000),
            "horizon_ns": int(manifest["horizon_ns"]),
            "stop_multiplier_e3": round(self.stop_multiplier * 1000),
            "fee_ppm": {t: int(manifest["fee_ppm"][t]) for t in self.tickers},
        }


def _ensemble_settings(fields: Any) -> dict[str, Any]:
    """``ensemble.json`` with every number checked; BundleFault ``bad_model`` names the first that is not
    right.
    """

    def number(value: Any, what: str, low: float, high: float) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise BundleFault("bad_model", f"{ENSEMBLE}: {what} is {value!r}, {low:g} to {high:g} is allowed")
        return float(value)

    try:
        weights = {n: number(w, f"the weight of {n}", 0, 1) for n, w in sorted(fields["members"].items())}
        if not sum(weights.values()) > 0:
            raise BundleFault("bad_model", f"{ENSEMBLE}: no member has a weight")
        limit_bps = MAX_MILLIBPS / 1000
        instruments = {
            t: InstrumentParams(
                number(p["move_bps_per_score"], f"{t}.move_bps_per_score", 0, limit_bps),
                None
                if p["threshold_bps"] is None
                else number(p["threshold_bps"], f"{t}.threshold_bps", 0, limit_bps),
                _quantiles(p.get("conformal_quantiles"), t, number),
            )
            for t, p in fields["instruments"].items()
        }
        return {
            "members": weights,
            "temperature": number(fields["temperature"], "temperature", 1e-3, 1e3),
            "exit_move_bps": number(fields["exit_move_bps"], "exit_move_bps", -limit_bps, limit_bps),
            "stop_multiplier": number(fields.get("stop_multiplier", 1), "stop_multiplier", 0, 1000),
            "instruments": instruments,
        }
    except (KeyError, TypeError, AttributeError, ValueError) as e:
        raise BundleFault("bad_model", f"{ENSEMBLE} lacks {e} or has another shape") from e


def _quantiles(value: Any, ticker: str, number: Callable[..., float]) -> tuple[float, float] | None:
    if value is None:
        return None
    down, up = value
    return tuple(number(q, f"{ticker}.conformal_quantiles", 0, 1) for q in (down, up))  # type: ignore[return-value]


# --- golden rows
# --------------------------------------------------------------------------------------------------


def make_golden(source: Path | Bundle, X: F32, ticker: str, out: Path) -> Path:
    """Run consecutive raw rows (float32 [n, F], n >= window + 64 recommended) and write what came out to
    ``out``.

    ``source`` is a folder with the exported members, ``scaler.npz`` and ``ensemble.json``, or a Bundle
    (``draft``).
    """
    bundle = source if isinstance(source, Bundle) else _draft_of(Path(source))
    ensemble = Ensemble(bundle, [ticker])
    logp, p = _replay(ensemble, X, ticker)
    if not np.isfinite(p).any():
        raise BundleFault(
            "bad_model",
            f"{len(X)} golden rows do not fill the window of {ensemble.window_rows}: give more rows",
        )
    part = out.with_name(out.name + ".part")
    with part.open("wb") as file:
        np.savez(
            file, X=np.asarray(X, np.float32), ticker=np.array(ticker),
            names=np.array(ensemble.members.active), logp=logp, p=p,
        )  # fmt: skip
    part.replace(out)
    return out


@dataclass(frozen=True, slots=True)
class _Golden:
    """``X`` float32 [n, F] raw rows; ``logp`` float64 [members, n, 3], ``p`` [n, 3], NaN while warming up."""

    ticker: str
    names: list[str]
    X: F32
    logp: F64
    p: F64


def check_golden(bundle: Bundle) -> None:
    """Replay the bundle's golden rows here; BundleFault ``golden_mismatch`` names the member and the row."""
    golden = _read_golden(bundle)
    _compare_golden(Ensemble(bundle, [golden.ticker]), golden)


def _compare_golden(ensemble: Ensemble, golden: _Golden) -> None:
    names = ensemble.members.active
    if golden.names != list(names) or golden.logp.shape != (len(names), len(golden.X), CLASSES):
        raise BundleFault(
            "golden_mismatch", f"{GOLDEN} holds members {golden.names}, the ensemble runs {list(names)}"
        )
    logp, p = _replay(ensemble, golden.X, golden.ticker)
    ensemble.reset(golden.ticker)
    tolerances = [_golden_tolerance(ensemble.bundle, name) for name in names]
    limits = dict(zip(names, tolerances, strict=True)) | {"ensemble": max(tolerances)}
    answers = [*zip(names, np.exp(logp), np.exp(golden.logp), strict=True), ("ensemble", p, golden.p)]
    for name, got, want in answers:
        # NaN on both sides is a row of the warm-up; NaN on one side is a mismatch.
        gap = np.nan_to_num(np.abs(got - want), nan=1.0)
        gap[np.isnan(got) & np.isnan(want)] = 0.0
        row = int(np.argmax(gap.max(axis=1)))
        if gap[row].max() > limits[name]:
            raise BundleFault(
                "golden_mismatch",
                f"model {name} answers differently here than where the bundle was made: golden row {row} is "
                f"{gap[row].max():.2g} off in probability, {limits[name]:g} is allowed",
            )


def _golden_tolerance(bundle: Bundle, name: str) -> float:
    entry = bundle.manifest.get("quantisation", {}).get("members", {}).get(name, {})
    return GOLDEN_TOLERANCE_INT8 if entry.get("mode") in ("INT8", "INT8_FULL") else GOLDEN_TOLERANCE


def _read_golden(bundle: Bundle) -> _Golden:
    try:
        with np.load(io.BytesIO(bundle.read(GOLDEN)), allow_pickle=False) as a:
            names = [str(name) for name in a["names"]]
            return _Golden(str(a["ticker"]), names, a["X"].astype(np.float32), a["logp"], a["p"])
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile) as e:
        raise BundleFault("bad_model", f"{GOLDEN} cannot be read: {e}") from e


def _replay(ensemble: Ensemble, X: F32, ticker: str) -> tuple[F64, F64]:
    """log-probabilities [members, n, 3] and p [n, 3], NaN during the warm-up."""
    names = ensemble.members.active
    logp, p = np.full((len(names), len(X), CLASSES), np.nan), np.full((len(X), CLASSES), np.nan)
    ensemble.reset(ticker)
    for i, x in enumerate(np.asarray(X, np.float32)):
        scores = ensemble.step(ticker, x)
        if scores is not None:
            logp[:, i] = [scores.members[name] for name in names]
            p[i] = scores.p
    return logp, p


def _draft_of(folder: Path) -> Bundle:
    members = json.loads((folder / ENSEMBLE).read_text())["members"]
    names = [ENSEMBLE, SCALER, *(MEMBER_FILES[m] for m in members if m in MEMBER_FILES)]
    return Bundle.draft({name: folder / name for name in names}, {})
