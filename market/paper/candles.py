"""Candles from trades: the intervals of the API, whole histories, and one candle that grows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np

from market.contract import invest_pb2 as pb
from market.types import I64, SECOND_NS, Trades

MINUTE_NS = 60 * SECOND_NS
HOUR_NS = 60 * MINUTE_NS
DAY_NS = 24 * HOUR_NS
_MONDAY_NS = 4 * DAY_NS
"""1970-01-05, a Monday: the weeks count from here."""


@dataclass(frozen=True, slots=True)
class Interval:
    """``length_ns`` of one candle (0: a calendar month), the longest ``period_ns`` that one request may ask
    for, and the most candles that one reply may hold.

    Starts are multiples of the length from 00:00 UTC, weeks from Monday.
    """

    length_ns: int
    period_ns: int
    limit: int

    def start_ns(self, time_ns: int) -> int:
        """Start of the candle that ``time_ns`` falls into."""
        if not self.length_ns:
            return _month_start_ns(time_ns)
        first = _MONDAY_NS if self.length_ns == 7 * DAY_NS else 0
        return (time_ns - first) // self.length_ns * self.length_ns + first

    def end_ns(self, start_ns: int) -> int:
        """End (exclusive) of the candle that begins at ``start_ns``."""
        if self.length_ns:
            return start_ns + self.length_ns
        return _month_start_ns(start_ns + 31 * DAY_NS)

    def starts_ns(self, times_ns: I64) -> I64:
        """``start_ns`` of every element; int64 [n] -> int64 [n]."""
        if not self.length_ns:
            months = times_ns.astype("datetime64[ns]").astype("datetime64[M]")
            return months.astype("datetime64[ns]").astype(np.int64)
        first = _MONDAY_NS if self.length_ns == 7 * DAY_NS else 0
        return (times_ns - first) // self.length_ns * self.length_ns + first


def _month_start_ns(time_ns: int) -> int:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_ns // 1000)
    start = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return int(start.timestamp()) * SECOND_NS


_YEAR_NS = 366 * DAY_NS
_QUARTER_NS = 92 * DAY_NS

HISTORIC: Final[Mapping[int, Interval]] = {
    pb.CANDLE_INTERVAL_1_MIN: Interval(MINUTE_NS, DAY_NS, 2400),
    pb.CANDLE_INTERVAL_2_MIN: Interval(2 * MINUTE_NS, DAY_NS, 1200),
    pb.CANDLE_INTERVAL_3_MIN: Interval(3 * MINUTE_NS, DAY_NS, 750),
    pb.CANDLE_INTERVAL_5_MIN: Interval(5 * MINUTE_NS, 7 * DAY_NS, 2400),
    pb.CANDLE_INTERVAL_10_MIN: Interval(10 * MINUTE_NS, 7 * DAY_NS, 1200),
    pb.CANDLE_INTERVAL_15_MIN: Interval(15 * MINUTE_NS, 21 * DAY_NS, 2400),
    pb.CANDLE_INTERVAL_30_MIN: Interval(30 * MINUTE_NS, 21 * DAY_NS, 1200),
    pb.CANDLE_INTERVAL_HOUR: Interval(HOUR_NS, _QUARTER_NS, 2400),
    pb.CANDLE_INTERVAL_2_HOUR: Interval(2 * HOUR_NS, _QUARTER_NS, 2400),
    pb.CANDLE_INTERVAL_4_HOUR: Interval(4 * HOUR_NS, _QUARTER_NS, 700),
    pb.CANDLE_INTERVAL_DAY: Interval(DAY_NS, 6 * _YEAR_NS, 2400),
    pb.CANDLE_INTERVAL_WEEK: Interval(7 * DAY_NS, 5 * _YEAR_NS, 300),
    pb.CANDLE_INTERVAL_MONTH: Interval(0, 10 * _YEAR_NS, 120),
    pb.CANDLE_INTERVAL_5_SEC: Interval(5 * SECOND_NS, 200 * MINUTE_NS, 2500),
    pb.CANDLE_INTERVAL_10_SEC: Interval(10 * SECOND_NS, 200 * MINUTE_NS, 1250),
    pb.CANDLE_INTERVAL_30_SEC: Interval(30 * SECOND_NS, 20 * HOUR_NS, 2500),
}
"""CandleInterval of GetCandles -> what it means."""

STREAMED: Final[Mapping[int, Interval]] = {
    pb.SUBSCRIPTION_INTERVAL_ONE_MINUTE: HISTORIC[pb.CANDLE_INTERVAL_1_MIN],
    pb.SUBSCRIPTION_INTERVAL_2_MIN: HISTORIC[pb.CANDLE_INTERVAL_2_MIN],
    pb.SUBSCRIPTION_INTERVAL_3_MIN: HISTORIC[pb.CANDLE_INTERVAL_3_MIN],
    pb.SUBSCRIPTION_INTERVAL_FIVE_MINUTES: HISTORIC[pb.CANDLE_INTERVAL_5_MIN],
    pb.SUBSCRIPTION_INTERVAL_10_MIN: HISTORIC[pb.CANDLE_INTERVAL_10_MIN],
    pb.SUBSCRIPTION_INTERVAL_FIFTEEN_MINUTES: HISTORIC[pb.CANDLE_INTERVAL_15_MIN],
    pb.SUBSCRIPTION_INTERVAL_30_MIN: HISTORIC[pb.CANDLE_INTERVAL_30_MIN],
    pb.SUBSCRIPTION_INTERVAL_ONE_HOUR: HISTORIC[pb.CANDLE_INTERVAL_HOUR],
    pb.SUBSCRIPTION_INTERVAL_2_HOUR: HISTORIC[pb.CANDLE_INTERVAL_2_HOUR],
    pb.SUBSCRIPTION_INTERVAL_4_HOUR: HISTORIC[pb.CANDLE_INTERVAL_4_HOUR],
    pb.SUBSCRIPTION_INTERVAL_ONE_DAY: HISTORIC[pb.CANDLE_INTERVAL_DAY],
    pb.SUBSCRIPTION_INTERVAL_WEEK: HISTORIC[pb.CANDLE_INTERVAL_WEEK],
    pb.SUBSCRIPTION_INTERVAL_MONTH: HISTORIC[pb.CANDLE_INTERVAL_MONTH],
}
"""SubscriptionInterval of the stream -> what it means."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One candle in ticks and lots. ``last_trade_ns`` is the exchange time of its last trade."""

    start_ns: int
    open_px: int
    high_px: int
    low_px: int
    close_px: int
    lots: int
    lots_buy: int
    lots_sell: int
    last_trade_ns: int

    def then(self, time_ns: int, px: int, qty: int, side: int) -> Bar:
        """The same candle one trade later."""
        return Bar(
            self.start_ns, self.open_px, max(self.high_px, px), min(self.low_px, px), px, self.lots + qty,
            self.lots_buy + (qty if side > 0 else 0), self.lots_sell + (qty if side < 0 else 0), time_ns,
        )  # fmt: skip

    @classmethod
    def of(cls, start_ns: int, time_ns: int, px: int, qty: int, side: int) -> Bar:
        """A candle of one trade."""
        return cls(
            start_ns, px, px, px, px, qty, qty if side > 0 else 0, qty if side < 0 else 0, time_ns
        )  # fmt: skip


def history(trades: Trades, played: int, interval: Interval, from_ns: int, to_ns: int) -> list[Bar]:
    """Candles that begin in [from_ns, to_ns), oldest first, of the first ``played`` trades.

    A candle exists where there was a trade. Trades count in the candle of their exchange time; within it they
    are in the order of receipt.
    """
    starts = interval.starts_ns(trades.exch_ns[:played])
    rows = np.flatnonzero((starts >= from_ns) & (starts < to_ns))
    if not len(rows):
        return []
    rows = rows[np.argsort(starts[rows], kind="stable")]
    of_row = starts[rows]
    first = np.concatenate([[0], np.flatnonzero(of_row[1:] != of_row[:-1]) + 1])
    last = np.concatenate([first[1:], [len(rows)]]) - 1
    px, qty, side = trades.px[rows], trades.qty[rows].astype(np.int64), trades.side[rows]
    columns = (
        of_row[first], px[first], np.maximum.reduceat(px, first), np.minimum.reduceat(px, first), px[last],
        np.add.reduceat(qty, first), np.add.reduceat(qty * (side > 0), first),
        np.add.reduceat(qty * (side < 0), first), trades.exch_ns[rows][last],
    )  # fmt: skip
    return [Bar(*values) for values in zip(*(c.tolist() for c in columns), strict=True)]


class GrowingCandle:
    """The candle of one instrument and interval as its trades come; equal to ``history`` at every moment."""

    def __init__(self, trades: Trades, played: int, interval: Interval) -> None:
        self.interval = interval
        self._trades = trades
        self.bar: Bar | None = None
        if played:
            start_ns = interval.start_ns(int(trades.exch_ns[:played].max()))
            self.bar = history(trades, played, interval, start_ns, start_ns + 1)[-1]

    def add(self, row: int) -> Bar:
        """Trade ``row`` happened: the candle that it belongs to, as it is now.

        That is the newest candle, but for a trade whose exchange time lies before it.
        """
        t = self._trades
        time_ns, px, qty, side = int(t.exch_ns[row]), int(t.px[row]), int(t.qty[row]), int(t.side[row])
        start_ns = self.interval.start_ns(time_ns)
        bar = self.bar
        if bar is not None and start_ns < bar.start_ns:
            return history(t, row + 1, self.interval, start_ns, start_ns + 1)[0]
        if bar is not None and start_ns == bar.start_ns:
            self.bar = bar.then(time_ns, px, qty, side)
        else:
            self.bar = Bar.of(start_ns, time_ns, px, qty, side)
        return self.bar
