"""Is a recorded day fit for use? Count what is wrong, drop what nothing can be done with, repair nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from market.types import BOOK_CONSISTENT, BUY, SECOND_NS, SELL, Books, InstrumentDay, Trades

GAP_NS = 10 * SECOND_NS
"""A longer silence between two books is reported as a gap."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class BookReport:
    """What was found in one day. Counts are rows; one row may count under several headings.

    Dropped by ``clean_day``: crossed, unsorted, negative, backward_time, trades_invalid, trades_backward.
    Only reported: locked, duplicated, one_sided, inconsistent, gaps.
    """

    ticker: str = ""
    day: str = ""
    books: int = 0
    crossed: int = 0
    """Best bid above best ask."""
    locked: int = 0
    """Best bid equal to best ask."""
    unsorted: int = 0
    """Prices of a side not strictly from best to worst, or an empty level before a filled one."""
    negative: int = 0
    """A size below zero, or a price without a size, or a price at or below zero at a filled level."""
    backward_time: int = 0
    """Received earlier than an earlier row that is otherwise sound."""
    duplicated: int = 0
    """The same content as the row before."""
    one_sided: int = 0
    """No bid or no ask at all."""
    inconsistent: int = 0
    """Marked by the source as incomplete."""
    gaps: int = 0
    """Silences of more than 10 s between sound rows."""
    longest_gap_ns: int = 0
    books_dropped: int = 0
    trades: int = 0
    trades_invalid: int = 0
    """Price or size not above zero, or an unknown side code."""
    trades_backward: int = 0
    trades_dropped: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """The report for people, without what did not occur."""
        dropped = _listed(
            (self.crossed, "crossed"),
            (self.unsorted, "unsorted"),
            (self.negative, "with an impossible price or size"),
            (self.backward_time, "backward in time"),
        )
        noted = _listed(
            (self.locked, "locked"),
            (self.duplicated, "repeating the one before"),
            (self.one_sided, "one-sided"),
            (self.inconsistent, "marked incomplete"),
        )
        title = f"{self.ticker} {self.day}".strip() or "books"
        text = f"{title}: {self.books:,} books; "
        text += f"dropped {self.books_dropped:,}: {dropped}" if dropped else "none dropped"
        out = [text + (f"; kept {noted}" if noted else "")]
        if self.gaps:
            out.append(
                f"{title}: gaps of more than {GAP_NS // SECOND_NS} s: {self.gaps:,}, "
                f"the longest {self.longest_gap_ns / SECOND_NS:,.0f} s"
            )
        if self.trades:
            bad = _listed((self.trades_invalid, "impossible"), (self.trades_backward, "backward in time"))
            text = f"{title}: {self.trades:,} trades; "
            out.append(text + (f"dropped {self.trades_dropped:,}: {bad}" if bad else "none dropped"))
        return out


def _listed(*counts: tuple[int, str]) -> str:
    return ", ".join(f"{count:,} {what}" for count, what in counts if count)


def check_books(books: Books) -> BookReport:
    """Count the defects of ``books``; see the fields of BookReport."""
    return _judge_books(books)[0]


def clean_day(day: InstrumentDay) -> tuple[InstrumentDay, BookReport]:
    """The day without the rows that cannot be used, and the report.

    Sound rows are handed on as they are: nothing is re-timed, re-sorted or filled in. A duplicate stays,
    since it says that the book did not change.
    """
    report, keep = _judge_books(day.books)
    trades_invalid, trades_backward = _judge_trades(day.trades)
    keep_trades = ~(trades_invalid | trades_backward)
    report = replace(
        report,
        ticker=day.instrument.ticker,
        day=day.day,
        trades=len(day.trades),
        trades_invalid=_count(trades_invalid),
        trades_backward=_count(trades_backward),
        trades_dropped=_count(~keep_trades),
    )
    books = day.books if keep.all() else day.books.rows(keep)
    trades = day.trades if keep_trades.all() else day.trades.rows(keep_trades)
    return replace(day, books=books, trades=trades), report


def _judge_books(books: Books) -> tuple[BookReport, Mask]:
    """The report and which rows are sound."""
    has_bid, has_ask = books.bid_qty[:, 0] != 0, books.ask_qty[:, 0] != 0
    both = has_bid & has_ask
    best_bid, best_ask = books.bid_px[:, 0], books.ask_px[:, 0]
    crossed = both & (best_bid > best_ask)
    locked = both & (best_bid == best_ask)
    unsorted = _unsorted(books.bid_px, books.bid_qty, -1) | _unsorted(books.ask_px, books.ask_qty, 1)
    negative = _impossible(books.bid_px, books.bid_qty) | _impossible(books.ask_px, books.ask_qty)
    sound = ~(crossed | unsorted | negative)
    backward = _backward(books.recv_ns, sound)
    keep = sound & ~backward
    silences = np.diff(books.recv_ns[keep])
    report = BookReport(
        books=len(books),
        crossed=_count(crossed),
        locked=_count(locked),
        unsorted=_count(unsorted),
        negative=_count(negative),
        backward_time=_count(backward),
        duplicated=_count(_repeats(books)),
        one_sided=_count(~both),
        inconsistent=_count((books.flags & BOOK_CONSISTENT) == 0),
        gaps=_count(silences > GAP_NS),
        longest_gap_ns=int(silences.max(initial=0)),
        books_dropped=_count(~keep),
    )
    return report, keep


def _judge_trades(trades: Trades) -> tuple[Mask, Mask]:
    invalid = (trades.px <= 0) | (trades.qty <= 0) | ~np.isin(trades.side, (BUY, SELL, 0))
    return invalid, _backward(trades.recv_ns, ~invalid)


def _count(mask: Mask) -> int:
    return int(np.count_nonzero(mask))


def _unsorted(px: NDArray[np.int32], qty: NDArray[np.int32], away: int) -> Mask:
    """``away``: where prices get worse, -1 for bids, +1 for asks. Compared, not subtracted: no overflow."""
    here, there = qty[:, :-1] != 0, qty[:, 1:] != 0
    worse = px[:, 1:] > px[:, :-1] if away > 0 else px[:, 1:] < px[:, :-1]
    return np.asarray((there & (~here | ~worse)).any(axis=1))


def _impossible(px: NDArray[np.int32], qty: NDArray[np.int32]) -> Mask:
    return np.asarray(((qty < 0) | ((qty == 0) & (px != 0)) | ((qty > 0) & (px <= 0))).any(axis=1))


def _backward(recv_ns: NDArray[np.int64], sound: Mask) -> Mask:
    """Rows earlier than a sound row before them; an unsound row's stamp may be wrong as well."""
    seen = np.maximum.accumulate(np.where(sound, recv_ns, np.iinfo(np.int64).min))
    return sound & (recv_ns < seen)


def _repeats(books: Books) -> Mask:
    same = np.zeros(len(books), np.bool_)
    if len(books) > 1:
        same[1:] = books.flags[1:] == books.flags[:-1]
        for side in (books.bid_px, books.bid_qty, books.ask_px, books.ask_qty):
            same[1:] &= (side[1:] == side[:-1]).all(axis=1)
    return same
