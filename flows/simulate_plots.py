"""The stylised facts of one market as one picture: nine panels, each marked where the market is simulated."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from market.days import moscow_day
from market.stylised import IMBALANCE_BINS, RETURN_EDGES, SLICES, LeadLag, Measures
from market.types import InstrumentDay

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, MAIN, SECOND = "#24292f", "#d0d7de", "#0550ae", "#e16f24"
PATH_POINTS = 2_000


@dataclass(frozen=True, slots=True)
class Path:
    """A day's mid for drawing: hours of the Moscow day and ticks, NaN between periods."""

    name: str
    hours: NDArray[np.float64]
    ticks: NDArray[np.float64]


def path_of(day: InstrumentDay) -> Path:
    """At most PATH_POINTS points of the mid; a silence of more than a minute breaks the line."""
    books = day.books
    keep = np.flatnonzero((books.bid_qty[:, 0] > 0) & (books.ask_qty[:, 0] > 0))
    keep = keep[:: max(1, len(keep) // PATH_POINTS)]
    hours = (books.recv_ns[keep] - moscow_day(int(books.recv_ns[keep[0]])).from_ns) / 3.6e12
    ticks = (books.bid_px[keep, 0].astype(np.float64) + books.ask_px[keep, 0]) / 2
    broken = np.flatnonzero(np.abs(np.diff(hours)) > max(1 / 60, 3 * float(np.median(np.diff(hours))))) + 1
    return Path(
        f"{day.instrument.ticker} {day.day}",
        np.insert(hours, broken, np.nan),
        np.insert(ticks, broken, np.nan),
    )


def facts_png(measured: Sequence[Measures], path: Path, watermark: str) -> bytes:
    """The picture of one column of the table: means over ``measured``, thin lines for each of them."""
    figure = _figure(11.0, 9.6)
    axes = list(figure.subplots(3, 3).ravel())
    drawn = (
        _price, _returns, _imbalance, _absolute, _signs, _depth, _volume, _volatility, _flow,
    )  # fmt: skip
    for axis, draw in zip(axes, drawn, strict=True):
        draw(axis, measured, path)
        _dress(axis, watermark)
    return _png(figure)


def lead_lag_png(result: LeadLag, names: tuple[str, str], planted_s: float, watermark: str) -> bytes:
    """Cross-correlation of two instruments' mids."""
    figure = _figure(9.0, 3.4)
    axis = figure.subplots()
    axis.plot(result.lags_s, result.correlation, color=MAIN, marker="o", ms=3, lw=1)
    axis.axvline(planted_s, color=SECOND, lw=1, ls="--", label=f"planted lag {planted_s:g} s")
    axis.axhline(0, color=INK, lw=0.6)
    axis.set_title(f"mid returns of {names[0]} with those of {names[1]}, so much later", loc="left")
    axis.set_xlabel("seconds")
    axis.set_ylabel("correlation")
    axis.legend(frameon=False)
    _dress(axis, watermark)
    return _png(figure)


def _price(axis: Axes, measured: Sequence[Measures], path: Path) -> None:
    axis.plot(path.hours, path.ticks, color=MAIN, lw=0.8)
    axis.set_title(f"mid, ticks: {path.name}", loc="left")
    axis.set_xlabel("Moscow hour")


def _returns(axis: Axes, measured: Sequence[Measures], path: Path) -> None:
    centre = (RETURN_EDGES[:-1] + RETURN_EDGES[1:]) / 2
    total = np.sum([m.returns for m in measured], axis=0).astype(np.float64)
    share = total / total.sum()
    axis.semilogy(centre[share > 0], share[share > 0], "o", ms=3, color=MAIN, label="measured")
    normal = np.exp(-(centre**2) / 2) * (RETURN_EDGES[1] - RETURN_EDGES[0]) / np.sqrt(2 * np.pi)
    axis.semilogy(centre, normal, color=SECOND, lw=1, label="normal")
    axis.set_ylim(share[share > 0].min() / 2, 1)
    axis.set_title("1 s returns: heavy tails", loc="left")
    axis.set_xlabel("standard deviations")
    axis.legend(frameon=False)


def _imbalance(axis: Axes, measured: Sequence[Measures], path: Path) -> None:
    centre = (np.arange(IMBALANCE_BINS) + 0.5) * 2 / IMBALANCE_BINS - 1
    _lines(axis, centre, [m.up_by_imbalance for m in measured])
    axis.set_ylim(0, 1)
    axis.set_title("P(next mid move is up)", loc="left")
    axis.set_xlabel("level-1 imbalance")


def _absolute(axis: Axes, measured: Sequence[Measures], path: Path) -> None:
    lags = np.arange(1, len(measured[0].acf_abs_10s) + 1) * 10
    _lines(axis, lags, [m.acf_abs_10s for m in measured])
    axis.axhline(0, color=INK, lw=0.6)
    axis.set_title("memory of absolute 10 s returns", loc="left")
    axis.set_xlabel("lag, s")


def _signs(axis: Axes, measured: Sequence[Measures], path: Path) -> None:
    lags = np.arange(1, len(measured[0].sign_acf) + 1)
    mean = np.nanmean([m.sign_acf for m in measured], axis=0)
    above = mean > 0
    axis.loglog(lags[above], mean[above], "o", ms=3, color=MAIN, label="measured")
    if above[0]:
        axis.loglog(lags, mean[0] * lags**-0.6, color=SECOND, lw=1, label="lag$^{-0.6}$")
        axis.legend(frameon=False)
    axis.set_title("memory of trade signs", loc="left")
    axis.set_xlabel("lag, market orders")
    axis.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("{x:g}")
    axis.tick_params(which="both", labelsize=8)


def _depth(axis: Axes, measured: Sequence[Measures], path: Path) -> None:
    levels = np.arange(1, len(measured[0].depth) + 1)
    _lines(axis, levels, [m.depth for m in measured])
    axis.set_ylim(bottom=0)
    axis.set_title("mean lots by level, both sides", loc="left")
    axis.set_xlabel("level")
    axis.set_xticks([1, 5, 10, 15, 20])


def _volume(axis: Axes, measured: Sequence[Measures], path: Path) -> None:
    _day_shape(axis, [m.volume / np.nanmean(m.volume) for m in measured])
    axis.set_title("volume over the day's mean", loc="left")


def _volatility(axis: Axes, measured: Sequence[Measures], path: Path) -> None:
    _day_shape(axis, [np.sqrt(m.variance / np.nanmean(m.variance)) for m in measured])
    axis.set_title("1 s volatility over the day's mean", loc="left")


def _day_shape(axis: Axes, each: Sequence[NDArray[np.float64]]) -> None:
    _lines(axis, (np.arange(SLICES) + 0.5) / SLICES, each)
    axis.axhline(1, color=INK, lw=0.6)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("share of the trading time")


def _flow(axis: Axes, measured: Sequence[Measures], path: Path) -> None:
    for x, (name, values) in enumerate(
        (("order flow", [m.ofi_r2 for m in measured]), ("trades", [m.trade_r2 for m in measured]))
    ):
        axis.bar(x, np.nanmean(values), color=(MAIN, SECOND)[x], width=0.5, label=name)
        axis.plot([x] * len(values), values, "o", ms=3, color=INK, alpha=0.5)
    axis.set_xticks([0, 1], ["order flow\nimbalance", "trade\nimbalance"])
    axis.set_ylim(0, 1)
    axis.set_title("R2 with the mid's move, 10 s", loc="left")


def _lines(axis: Axes, x: NDArray[np.float64], each: Sequence[NDArray[np.float64]]) -> None:
    if len(each) > 1:
        for values in each:
            axis.plot(x, values, color=MAIN, lw=0.6, alpha=0.25)
    axis.plot(x, np.nanmean(each, axis=0), color=MAIN, lw=1.8, marker="o", ms=2.5)


def _figure(width: float, height: float) -> Figure:
    # The object interface with the Agg canvas: no display, no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _dress(axis: Axes, watermark: str) -> None:
    axis.grid(alpha=0.3)
    axis.set_axisbelow(True)
    axis.title.set_fontsize(10)
    axis.tick_params(labelsize=8)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    if watermark == "SIMULATED":
        axis.text(
            0.5, 0.5, "SIMULATED", transform=axis.transAxes, ha="center", va="center", rotation=20,
            fontsize=26, color=INK, alpha=0.12,
        )  # fmt: skip


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
