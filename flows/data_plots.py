"""A recorded day in pictures: one PNG for each view. Every view says so when there is nothing to draw."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flows.data_page import duration, number, percent
from market.days import MOSCOW
from market.inspect import OFFSET_LIMIT, DayInspection, Location, Skew
from market.types import MILLISECOND_NS, NANO, SECOND_NS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 110
WIDTH = 9.2
DAY_NS = 86_400 * SECOND_NS


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of one background. ``bid`` and ``ask`` differ in lightness too, for eyes that mix hues."""

    name: str
    paper: str
    ink: str
    faint: str
    bid: str
    ask: str
    line: str
    warn: str
    calm: str


LIGHT = Theme("light", "#ffffff", "#24292f", "#d0d7de", "#0550ae", "#e16f24", "#24292f", "#cf222e", "#8c959f")
DARK = Theme("dark", "#0d1117", "#c9d1d9", "#30363d", "#58a6ff", "#f0883e", "#e6edf3", "#ff7b72", "#6e7681")


@dataclass(frozen=True, slots=True)
class View:
    """One picture. ``draw`` fills a figure; ``height`` in inches; ``rows`` of axes that share the x axis, or
    ``columns`` beside each other."""

    name: str
    title: str
    height: float
    draw: Callable[[DayInspection, list[Axes], Theme], None]
    rows: int = 1
    columns: int = 1


def png(view: View, day: DayInspection, theme: Theme, watermark: str) -> bytes:
    """The picture of ``view``; a recording of the simulator says so across every panel."""
    # The object interface with the Agg canvas: no display, no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, view.height), dpi=DPI, layout="constrained", facecolor=theme.paper)
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(view.rows, view.columns, sharex=view.rows > 1, squeeze=False).ravel())
    for axis in axes:
        _dress(axis, theme)
    view.draw(day, axes, theme)
    if not any(axis.has_data() for axis in axes):  # words only: as much room as they need
        figure.set_figheight(0.8 + 0.45 * view.rows)
    title = f"{day.instrument.ticker}  {day.day}   {view.title}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=theme.ink)
    if watermark == "SIMULATED":
        for axis in axes:
            _stamp(axis, theme)
    return _bytes(figure)


def _bytes(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None}, facecolor=figure.get_facecolor())
    return out.getvalue()


def _dress(axis: Axes, theme: Theme) -> None:
    axis.set_facecolor(theme.paper)
    axis.grid(color=theme.faint, lw=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(colors=theme.ink, labelsize=9)
    axis.xaxis.label.set_color(theme.ink)
    axis.yaxis.label.set_color(theme.ink)
    for side, spine in axis.spines.items():
        spine.set_color(theme.faint)
        spine.set_visible(side in ("left", "bottom"))


def _stamp(axis: Axes, theme: Theme) -> None:
    x, y = (0.5, 0.5) if axis.has_data() else (0.85, 0.2)  # beside the words of an empty panel
    axis.text(
        x, y, "SIMULATED", transform=axis.transAxes, ha="center", va="center", rotation=14, fontsize=30,
        color=theme.ink, alpha=0.13, fontweight="bold", zorder=10,
    )  # fmt: skip


def _nothing(axis: Axes, theme: Theme, text: str) -> None:
    """An empty panel that says why."""
    # Not set_xticks([]): the axis may be shared with a panel that has something to show.
    axis.tick_params(bottom=False, left=False, labelbottom=False, labelleft=False)
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    axis.text(
        0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", fontsize=12, color=theme.calm
    )


def _legend(axis: Axes, theme: Theme) -> None:
    """Above the panel on the right, where nothing is drawn."""
    axis.legend(
        frameon=False, fontsize=9, labelcolor=theme.ink, ncols=3, loc="lower right",
        bbox_to_anchor=(1.0, 0.98), borderaxespad=0.0,
    )  # fmt: skip


def _clock_axis(axis: Axes, day: DayInspection) -> None:
    """Moscow time over the whole span, with round hours or minutes."""
    from matplotlib.dates import AutoDateLocator, DateFormatter

    margin_ns = max(SECOND_NS, day.span_ns // 100)
    axis.set_xlim(_at(day.first_ns - margin_ns), _at(day.last_ns + margin_ns))
    axis.xaxis.set_major_locator(AutoDateLocator(tz=MOSCOW, minticks=4, maxticks=10))
    fine = day.span_ns < 240 * SECOND_NS
    axis.xaxis.set_major_formatter(DateFormatter("%H:%M:%S" if fine else "%H:%M", tz=MOSCOW))
    axis.set_xlabel("Moscow time", fontsize=9)


def _at(ns: int) -> float:
    """Matplotlib's time: days since 1970, UTC. The axis shows it in Moscow's."""
    return ns / DAY_NS


def _times(stamps: tuple[int, ...]) -> NDArray[np.float64]:
    return np.array(stamps) / DAY_NS


def _shade_gaps(axis: Axes, day: DayInspection, theme: Theme) -> None:
    for gap in day.silences.listed:
        colour = theme.calm if gap.cause else theme.warn
        axis.axvspan(_at(gap.from_ns), _at(gap.to_ns), color=colour, alpha=0.22, lw=0)


def _price(day: DayInspection, axes: list[Axes], theme: Theme) -> None:
    axis, p = axes[0], day.price
    if p is None:
        return _nothing(axis, theme, "neither books nor trades recorded")
    unit = day.instrument.tick_nano / NANO
    low, high, last = (np.array(v) * unit for v in (p.low_ticks, p.high_ticks, p.last_ticks))
    stamps = np.array(p.time_ns)
    # A line never crosses a silence: a missing value on its far side cuts it.
    cut = np.flatnonzero(np.diff(stamps) > max(3 * p.bin_ns, 10 * SECOND_NS)) + 1
    when = np.insert(_times(p.time_ns), cut, _times(tuple(stamps[cut] - 1)))
    low, high, last = (np.insert(v, cut, np.nan) for v in (low, high, last))
    named = (
        ("best bid to best ask", "middle")
        if p.source == "book"
        else ("lowest to highest trade", "last trade")
    )
    axis.fill_between(when, low, high, color=theme.bid, alpha=0.35, lw=0, label=named[0])
    axis.plot(when, last, color=theme.line, lw=0.8, label=named[1])
    _shade_gaps(axis, day, theme)
    # A book that is nearly empty for a moment must not flatten the day.
    bottom, top = np.nanquantile(low, 0.002), np.nanquantile(high, 0.998)
    margin = 0.06 * (top - bottom) or unit
    axis.set_ylim(bottom - margin, top + margin)
    axis.set_ylabel(
        "points" if day.instrument.kind == "future" else day.instrument.currency.upper(), fontsize=9
    )
    axis.ticklabel_format(axis="y", useOffset=False, style="plain")
    _clock_axis(axis, day)
    _legend(axis, theme)
    return None


def _spread(day: DayInspection, axes: list[Axes], theme: Theme) -> None:
    s = day.spread
    if s is None:
        for axis in axes:
            _nothing(axis, theme, "no book with both sides recorded")
        return
    for axis, h, q, unit in (
        (axes[0], s.ticks_histogram, s.ticks, "ticks"), (axes[1], s.bps_histogram, s.bps, "bp"),
    ):  # fmt: skip
        whole = unit == "ticks" and h.width == 1
        left = h.start + np.arange(len(h.shares)) * h.width
        shares = 100 * np.array(h.shares)
        axis.bar(
            left if whole else left + h.width / 2, shares, width=h.width * 0.9, color=theme.bid, zorder=2
        )
        if h.beyond > 0.0005:
            x = left[-1] + (1.4 if whole else 1.9) * h.width
            axis.bar(x, 100 * h.beyond, width=h.width * 0.9, color=theme.calm, zorder=2)
            axis.annotate("more", (x, 100 * h.beyond), ha="center", va="bottom", fontsize=8, color=theme.ink)
        axis.axvline(q.p50, color=theme.ask, lw=1.4, ls="--", zorder=3)
        axis.set_title(
            f"median {number(q.p50)}, mean {number(q.mean)}, 99 % up to {number(q.p99)} {unit}",
            fontsize=9, color=theme.ink, loc="left",
        )  # fmt: skip
        axis.set_xlabel(f"spread, {unit}", fontsize=9)
        axis.set_ylabel("% of the time", fontsize=9)
        axis.grid(axis="x", visible=False)
        if whole:
            from matplotlib.ticker import MaxNLocator

            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10, min_n_ticks=1))


def _depth(day: DayInspection, axes: list[Axes], theme: Theme) -> None:
    axis = axes[0]
    if not day.depth:
        return _nothing(axis, theme, "no books recorded")
    from matplotlib.ticker import FuncFormatter

    levels = [level.level for level in day.depth]
    axis.barh(levels, [-level.bid_lots for level in day.depth], height=0.8, color=theme.bid, label="bids")
    axis.barh(levels, [level.ask_lots for level in day.depth], height=0.8, color=theme.ask, label="asks")
    axis.axvline(0.0, color=theme.ink, lw=0.8)
    top = max(max(level.bid_lots, level.ask_lots) for level in day.depth) or 1.0
    axis.set_xlim(-1.25 * top, 1.25 * top)
    axis.set_ylim(max(levels) + 0.7, 0.3)
    axis.set_yticks([n for n in levels if len(levels) <= 10 or n == 1 or n % 5 == 0])
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: number(abs(round(x, 6)))))
    axis.set_xlabel("mean lots over the time", fontsize=9)
    axis.set_ylabel("level", fontsize=9)
    for level in day.depth:
        for lots, filled, sign in (
            (level.bid_lots, level.bid_filled, -1),
            (level.ask_lots, level.ask_filled, 1),
        ):
            if filled < 0.95:
                axis.annotate(
                    percent(filled), (sign * lots, level.level), xytext=(4 * sign, 0),
                    textcoords="offset points", ha="left" if sign > 0 else "right", va="center",
                    fontsize=7, color=theme.ink,
                )  # fmt: skip
    _legend(axis, theme)
    return None


def _rate(day: DayInspection, axes: list[Axes], theme: Theme) -> None:
    for axis, rate, colour, what in (
        (axes[0], day.books, theme.bid, "books"), (axes[1], day.trade_rate, theme.ask, "trades"),
    ):  # fmt: skip
        if rate is None:
            _nothing(axis, theme, f"no {what} recorded")
            continue
        edges = [_at(day.first_ns + i * rate.bin_ns) for i in range(len(rate.per_s) + 1)]
        axis.stairs(rate.per_s, edges, fill=True, color=colour, alpha=0.85)
        axis.set_ylim(0, 1.15 * max(rate.per_s))
        axis.set_ylabel(f"{what} / s", fontsize=9)
        axis.set_title(
            f"mean {number(rate.mean_per_s)}/s, {rate.busiest:,} in the busiest second", fontsize=9,
            color=theme.ink, loc="left",
        )  # fmt: skip
        _shade_gaps(axis, day, theme)
        _clock_axis(axis, day)
    _share_labels(axes, day.books is not None, day.trade_rate is not None)


def _share_labels(axes: list[Axes], upper: bool, lower: bool) -> None:
    """The times stand under the lower panel, or under the upper one where the lower is empty."""
    if upper and lower:
        axes[0].set_xlabel("")
    elif upper:
        axes[0].tick_params(labelbottom=True)


def _gaps(day: DayInspection, axes: list[Axes], theme: Theme) -> None:
    axis, s = axes[0], day.silences
    if day.books is None:
        return _nothing(axis, theme, "no books recorded")
    if not s.listed:
        return _nothing(axis, theme, "no silence of more than 10 s between two books")
    for known, colour, label in ((False, theme.warn, "unexplained"), (True, theme.calm, "known break")):
        gaps = [gap for gap in s.listed if bool(gap.cause) == known]
        if not gaps:
            continue
        when = _times(tuple(gap.from_ns for gap in gaps))
        length = [gap.length_ns / SECOND_NS for gap in gaps]
        axis.vlines(when, 10, length, color=colour, lw=1.6)
        axis.plot(when, length, "o", ms=4.5, color=colour, label=f"{label} ({len(gaps)})")
    longest = sorted(s.listed, key=lambda gap: -gap.length_ns)[:3]
    for gap in longest:
        text = duration(gap.length_ns) + (f", {gap.cause}" if gap.cause else "")
        right = gap.from_ns > day.first_ns + 0.7 * day.span_ns
        axis.annotate(
            text, (_at(gap.from_ns), gap.length_ns / SECOND_NS), xytext=(-6 if right else 6, 3),
            textcoords="offset points", ha="right" if right else "left", fontsize=8, color=theme.ink,
        )  # fmt: skip
    from matplotlib.ticker import FuncFormatter, NullLocator

    axis.set_yscale("log")
    axis.set_ylim(9, 2.2 * max(gap.length_ns for gap in s.listed) / SECOND_NS)
    steps = [10, 30, 60, 300, 900, 3600, 10800]
    axis.set_yticks([step for step in steps if step <= axis.get_ylim()[1]])
    axis.yaxis.set_major_formatter(FuncFormatter(lambda x, _: _short(x)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.set_ylabel("silence", fontsize=9)
    _clock_axis(axis, day)
    _legend(axis, theme)
    return None


def _short(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.0f} h"


def _trades(day: DayInspection, axes: list[Axes], theme: Theme) -> None:
    axis, t = axes[0], day.trades
    if t is None:
        return _nothing(axis, theme, "no trades recorded")
    if not t.judged.judged:
        return _nothing(axis, theme, "no trade can be compared with a book")
    whole = np.array(t.judged.offsets)
    seen = np.flatnonzero(whole > 0.001 * whole.sum()) - OFFSET_LIMIT
    reach = max(3, -int(seen.min()) + 1, int(seen.max()) + 1)
    low, high = max(-OFFSET_LIMIT, -reach), min(OFFSET_LIMIT, max(3, int(seen.max()) + 1))
    x = np.arange(low, high + 1)
    for at, shift, colour, label in (
        (t.judged_buys, -0.2, theme.bid, "buys, from the best ask"),
        (t.judged_sells, 0.2, theme.ask, "sells, from the best bid"),
    ):
        if at.judged:
            held = 100 * np.array(at.offsets)[x + OFFSET_LIMIT] / at.judged
            axis.bar(x + shift, held, width=0.4, color=colour, label=f"{label} ({at.judged:,})", zorder=2)
    axis.axvline(0.0, color=theme.ink, lw=0.8, ls=":", zorder=1)
    axis.set_xticks(x if len(x) <= 25 else x[::5])
    axis.set_xlabel(
        "ticks from the shown touch:  < 0 inside or wrong side,  0 at it,  > 0 through it", fontsize=9
    )
    axis.set_ylabel("% of the trades", fontsize=9)
    axis.grid(axis="x", visible=False)
    axis.set_title(_places(t.judged), fontsize=9, color=theme.ink, loc="left")
    axis.legend(frameon=False, fontsize=9, labelcolor=theme.ink, loc="upper right")
    return None


def _places(at: Location) -> str:
    return (
        f"at the touch {percent(at.share(at.at))}, through {percent(at.share(at.through))}, "
        f"inside {percent(at.share(at.inside))}, wrong side {percent(at.share(at.wrong))}"
    )


def _clock(day: DayInspection, axes: list[Axes], theme: Theme) -> None:
    for axis, clock, colour, what in (
        (axes[0], day.book_clock, theme.bid, "books"), (axes[1], day.trade_clock, theme.ask, "trades"),
    ):  # fmt: skip
        if clock is None:
            _nothing(axis, theme, f"no {what} recorded")
        elif not clock.time_ns:
            text = "too few rows" if clock.known else "the source has no exchange time"
            _nothing(axis, theme, f"{what}: {text}")
        else:
            _delays(axis, day, clock, colour, what, theme)
    upper, lower = (clock is not None and bool(clock.time_ns) for clock in (day.book_clock, day.trade_clock))
    _share_labels(axes, upper, lower)


def _delays(axis: Axes, day: DayInspection, clock: Skew, colour: str, what: str, theme: Theme) -> None:
    assert clock.delay_ns is not None
    scale, unit = (SECOND_NS, "s") if clock.delay_ns.p99 >= 2 * SECOND_NS else (MILLISECOND_NS, "ms")
    when = _times(clock.time_ns)
    low, middle, high = (np.array(v) / scale for v in (clock.low_ns, clock.middle_ns, clock.high_ns))
    axis.fill_between(when, low, high, color=colour, alpha=0.3, lw=0, label="5 % to 95 %")
    axis.plot(when, middle, color=colour, lw=1.4, label="median")
    if low.min() < 0:
        axis.axhline(0.0, color=theme.warn, lw=1.0, ls="--")
    axis.set_ylabel(f"{what}: delay, {unit}", fontsize=9)
    title = f"median {duration(clock.delay_ns.p50)}"
    if clock.negative:
        title += f", {percent(clock.negative_share)} arrive before they happened"
    if clock.drift_ns_per_hour is not None:
        title += f", drift {clock.drift_ns_per_hour / MILLISECOND_NS:+,.1f} ms an hour"
    axis.set_title(title, fontsize=9, color=theme.ink, loc="left")
    _clock_axis(axis, day)
    _legend(axis, theme)


VIEWS = (
    View("price", "price", 3.4, _price),
    View("spread", "spread", 3.0, _spread, columns=2),
    View("depth", "depth by level", 4.2, _depth),
    View("trades", "where trades print", 3.2, _trades),
    View("rate", "events per second", 4.2, _rate, rows=2),
    View("gaps", "silences of more than 10 s", 2.8, _gaps),
    View("clock", "receive time minus exchange time", 4.4, _clock, rows=2),
)
