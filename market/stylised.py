"""Stylised facts of one recorded day: what every real order book shows, measured on any.

``stylised_table`` compares them with the gates. Nothing here knows where the day came from, so a real
recording is measured as a simulated one is: from the snapshots and trades that a feed brings, not from what
a simulator knows besides. Order flow between two snapshots is a net, so its R2 is lower than the one of
single events.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from market.errors import RecordingError
from market.types import SECOND_NS, Books, InstrumentDay, Trades

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

GAP_NS = 10 * SECOND_NS
"""No measure reaches over a longer silence."""
BLOCK_S = 10
SLOW_S = 60
SIGN_LAGS = 50
ABS_LAGS = 30
IMBALANCE_BINS = 10
SLICES = 24
"""The intraday shape is measured in so many equal parts of the day's trading time."""
RETURN_EDGES = np.arange(-10.25, 10.5, 0.5)
"""Histogram of 1 s returns in standard deviations; what lies beyond is counted in the outermost bins."""
ONE_ORDER_NS = 2_000_000
"""Prints of one side and exchange time that arrive within this are one market order."""
LEAST_S = 600
"""A day with fewer seconds of sound books says nothing."""


@dataclass(frozen=True, slots=True)
class Measures:
    """What one day shows; NaN where the day holds too little for it. Prices in ticks, sizes in lots."""

    ticker: str
    day: str
    seconds: int
    """Seconds with a sound book, breaks left out."""
    spread: float
    spread_p95: float
    volatility_1s: float
    ofi_r2: float
    trade_r2: float
    up_by_imbalance: F64
    """P(next mid move is up) by level-1 imbalance, IMBALANCE_BINS equal bins of -1..1."""
    kurtosis_1s: float
    kurtosis_10s: float
    acf_1s: float
    acf_abs_10s: F64
    """Autocorrelation of absolute 10 s returns, lags 1..ABS_LAGS."""
    variance_ratio: float
    sign_acf: F64
    """Autocorrelation of market orders' signs, lags 1..SIGN_LAGS."""
    depth: F64
    """Mean lots at level 1..DEPTH, both sides."""
    volume: F64
    """Lots per second in each of SLICES parts of the day."""
    variance: F64
    """Mean squared 1 s return in each of SLICES parts of the day, ticks squared."""
    returns: I64
    """Counts of 1 s returns over RETURN_EDGES standard deviations."""


@dataclass(frozen=True, slots=True)
class LeadLag:
    """Cross-correlation of two instruments' mid returns. At a positive lag the first one leads."""

    lags_s: F64
    correlation: F64
    same_time_10s: float
    """Correlation of their 10 s returns over the same 10 s."""

    @property
    def peak_lag_s(self) -> float:
        return float(self.lags_s[np.argmax(self.correlation)])

    @property
    def peak(self) -> float:
        return float(self.correlation.max())


@dataclass(slots=True)
class _Seconds:
    """The day on a grid of one second, cut at gaps. ``row``: the book in force at each second; ``part``: the
    stretch between gaps that it lies in; ``mid`` in ticks."""

    at_ns: I64
    row: I64
    part: I64
    mid: F64

    def moves(self, seconds: int, every: int = 1) -> tuple[I64, F64]:
        """Start indices and mid moves over ``seconds`` that do not cross a gap, starting every ``every``."""
        start = np.arange(0, max(len(self.mid) - seconds, 0), every)
        start = start[self.part[start] == self.part[start + seconds]]
        return start, self.mid[start + seconds] - self.mid[start]


def measure(day: InstrumentDay) -> Measures:
    """Every stylised fact of one day. RecordingError when it holds less than LEAST_S seconds of sound
    books."""
    books = _sound(day)
    grid = _grid(books)
    if len(grid.mid) < LEAST_S:
        raise RecordingError(
            f"{day.instrument.ticker} {day.day} holds {len(grid.mid)} s of sound books; its stylised facts "
            f"need at least {LEAST_S} s"
        )
    spread = (books.ask_px[grid.row, 0] - books.bid_px[grid.row, 0]).astype(np.float64)
    second_start, second = grid.moves(1)
    block_start, block = grid.moves(BLOCK_S, BLOCK_S)
    flow = np.concatenate([[0.0], np.cumsum(_ofi(books))])[grid.row]  # up to and with the row in force
    signed, volume = _cumulative_trades(day.trades, grid.at_ns)
    slices = second_start * SLICES // len(grid.mid)
    deviation = second.std()
    return Measures(
        ticker=day.instrument.ticker,
        day=day.day,
        seconds=len(grid.mid),
        spread=float(spread.mean()),
        spread_p95=float(np.percentile(spread, 95)),
        volatility_1s=float(deviation),
        ofi_r2=_r2(flow[block_start + BLOCK_S] - flow[block_start], block),
        trade_r2=_r2(signed[block_start + BLOCK_S] - signed[block_start], block),
        up_by_imbalance=_up_by_imbalance(books),
        kurtosis_1s=_kurtosis(second),
        kurtosis_10s=_kurtosis(block),
        acf_1s=_acf(second, grid.part[second_start], 1),
        acf_abs_10s=_acfs(np.abs(block), grid.part[block_start], ABS_LAGS),
        variance_ratio=ratio(float(grid.moves(SLOW_S)[1].var()), SLOW_S * float(second.var())),
        sign_acf=_acfs(_order_signs(day.trades), None, SIGN_LAGS),
        depth=(books.bid_qty[grid.row].mean(axis=0) + books.ask_qty[grid.row].mean(axis=0)) / 2,
        volume=_sliced(slices, np.diff(volume)[second_start]),
        variance=_sliced(slices, second**2),
        returns=np.histogram(
            np.clip(second / deviation if deviation else second, RETURN_EDGES[0], RETURN_EDGES[-1]),
            RETURN_EDGES,
        )[0].astype(np.int64),
    )


def lead_lag(
    first: InstrumentDay, second: InstrumentDay, *, step_s: float = 0.25, max_lag_s: float = 5.0
) -> LeadLag:
    """Who moves first: correlation of ``first``'s mid returns with ``second``'s, ``lag`` later.

    Both mids are read on one grid of ``step_s`` over the time that the two days share; steps that touch a
    silence of more than 10 s are left out.
    """
    books = [_sound(first), _sound(second)]
    start, end = max(b.recv_ns[0] for b in books), min(b.recv_ns[-1] for b in books)
    at_ns = np.arange(start, end, round(step_s * SECOND_NS))
    lags = round(max_lag_s / step_s)
    if len(at_ns) < 20 * (2 * lags + 1):
        raise RecordingError(
            f"{first.instrument.ticker} and {second.instrument.ticker} share {len(at_ns)} steps of "
            f"{step_s:g} s; lags up to {max_lag_s:g} s need at least {20 * (2 * lags + 1)}"
        )
    a, b = (_returns_on(each, at_ns) for each in books)
    steps = np.arange(-lags, lags + 1)
    ten = round(BLOCK_S / step_s)
    cut = len(a) // ten * ten
    return LeadLag(
        lags_s=steps.astype(np.float64) * step_s,
        correlation=np.array([_corr(*_shifted(a, b, int(k))) for k in steps]),
        same_time_10s=_corr(a[:cut].reshape(-1, ten).sum(axis=1), b[:cut].reshape(-1, ten).sum(axis=1)),
    )


def _sound(day: InstrumentDay) -> Books:
    """Books with both sides, not crossed, in the order of time."""
    books = day.books
    two_sided = (books.bid_qty[:, 0] > 0) & (books.ask_qty[:, 0] > 0)
    forward = books.recv_ns >= np.maximum.accumulate(books.recv_ns) if len(books) else two_sided
    keep = two_sided & (books.bid_px[:, 0] < books.ask_px[:, 0]) & forward
    if not keep.any():
        raise RecordingError(
            f"{day.instrument.ticker} {day.day} holds no sound two-sided book; stylised facts need books"
        )
    return books if keep.all() else books.rows(keep)


def _mid(books: Books) -> F64:
    return (books.bid_px[:, 0].astype(np.float64) + books.ask_px[:, 0]) / 2


def _parts(books: Books) -> I64:
    """Which stretch between gaps each row lies in."""
    return np.concatenate([[0], np.cumsum(np.diff(books.recv_ns) > GAP_NS)]).astype(np.int64)


def _grid(books: Books) -> _Seconds:
    part, recv = _parts(books), books.recv_ns
    first = np.flatnonzero(np.diff(part, prepend=-1))
    last = np.append(first[1:] - 1, len(part) - 1)
    seconds = [np.arange(recv[a], recv[b] + 1, SECOND_NS) for a, b in zip(first, last, strict=True)]
    at_ns = np.concatenate(seconds)
    row = np.searchsorted(recv, at_ns, side="right") - 1
    return _Seconds(at_ns, row, part[row], _mid(books)[row])


def _ofi(books: Books) -> F64:
    """Best-level order flow imbalance of each step between rows (Cont, Kukanov, Stoikov), zero over a gap."""
    bid, ask = books.bid_px[:, 0], books.ask_px[:, 0]
    bid_qty, ask_qty = books.bid_qty[:, 0].astype(np.float64), books.ask_qty[:, 0].astype(np.float64)
    up, down = bid[1:] >= bid[:-1], bid[1:] <= bid[:-1]
    flow = bid_qty[1:] * up - bid_qty[:-1] * down
    up, down = ask[1:] >= ask[:-1], ask[1:] <= ask[:-1]
    flow -= ask_qty[1:] * down - ask_qty[:-1] * up
    return np.asarray(np.where(np.diff(_parts(books)) > 0, 0.0, flow))


def _cumulative_trades(trades: Trades, at_ns: I64) -> tuple[F64, F64]:
    """Signed and total lots traded up to each moment."""
    count = np.searchsorted(trades.recv_ns, at_ns, side="right")
    qty = trades.qty.astype(np.float64)
    signed = np.concatenate([[0.0], np.cumsum(qty * trades.side)])
    return signed[count], np.concatenate([[0.0], np.cumsum(qty)])[count]


def _up_by_imbalance(books: Books) -> F64:
    bid, ask = books.bid_qty[:-1, 0].astype(np.float64), books.ask_qty[:-1, 0]
    imbalance = (bid - ask) / (bid + ask)
    part, change = _parts(books), np.diff(_mid(books))
    moved = np.flatnonzero(change)
    following = np.searchsorted(moved, np.arange(len(change)))
    known = following < len(moved)
    target = moved[following[known]]
    same = part[np.flatnonzero(known)] == part[target + 1]
    up = change[target[same]] > 0
    which = ((imbalance[known][same] + 1) / 2 * IMBALANCE_BINS).astype(np.int64)
    return _sliced(np.clip(which, 0, IMBALANCE_BINS - 1), up.astype(np.float64), IMBALANCE_BINS)


def _order_signs(trades: Trades) -> F64:
    """One sign per market order: its prints share side and exchange time and arrive together."""
    known = trades.side != 0
    side, exch, recv = trades.side[known], trades.exch_ns[known], trades.recv_ns[known]
    same = (side[1:] == side[:-1]) & (exch[1:] == exch[:-1]) & (np.diff(recv) <= ONE_ORDER_NS)
    return side[np.concatenate([[True], ~same])].astype(np.float64) if len(side) else np.zeros(0)


def _sliced(which: I64, values: F64, parts: int = SLICES) -> F64:
    """Mean of ``values`` in each part, NaN in an empty one."""
    count = np.bincount(which, minlength=parts).astype(np.float64)
    total = np.bincount(which, values, minlength=parts)
    return np.divide(total, count, out=np.full(parts, np.nan), where=count > 0)


def _returns_on(books: Books, at_ns: I64) -> F64:
    """Mid returns on a grid, NaN where the book is older than a gap."""
    row = np.searchsorted(books.recv_ns, at_ns, side="right") - 1
    mid = np.where(at_ns - books.recv_ns[row] <= GAP_NS, _mid(books)[row], np.nan)
    out = np.diff(mid)
    out[np.diff(_parts(books)[row]) > 0] = np.nan
    return out


def _shifted(a: F64, b: F64, lag: int) -> tuple[F64, F64]:
    return (a[: len(a) - lag], b[lag:]) if lag >= 0 else (a[-lag:], b[: len(b) + lag])


def _corr(a: F64, b: F64) -> float:
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def _r2(a: F64, b: F64) -> float:
    return _corr(a, b) ** 2


def _kurtosis(x: F64) -> float:
    centred = x - x.mean() if len(x) else x
    return ratio(float((centred**4).mean()), float((centred**2).mean()) ** 2) - 3 if len(x) else float("nan")


def _acf(x: F64, part: I64 | None, lag: int) -> float:
    if len(x) <= lag + 1:
        return float("nan")
    a, b = x[:-lag], x[lag:]
    if part is not None:
        same = part[:-lag] == part[lag:]
        a, b = a[same], b[same]
    mean = x.mean()
    return ratio(float(((a - mean) * (b - mean)).mean()), float(x.var())) if len(a) else float("nan")


def _acfs(x: F64, part: I64 | None, lags: int) -> F64:
    return np.array([_acf(x, part, lag) for lag in range(1, lags + 1)])


def ratio(a: float, b: float) -> float:
    return a / b if b else float("nan")
