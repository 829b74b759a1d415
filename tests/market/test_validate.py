"""Every defect is counted by its name; what is left is a possible market; nothing is repaired."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.types import DEPTH, SECOND_NS, Books, Instrument, InstrumentDay, OwnEvents, Trades
from market.validate import BookReport, check_books, clean_day

SHARE = Instrument("u-1", "AAAA", "TQBR", "F000000000AA", "share", 10, 10_000_000, 100_000_000)
N = 8


def sound_books(n: int = N, levels: int = 5) -> Books:
    """``n`` books a second apart, each different, ``levels`` deep."""
    books = Books.empty(n)
    books.recv_ns[:] = books.exch_ns[:] = np.arange(1, n + 1) * SECOND_NS
    j = np.arange(levels)
    books.bid_px[:, :levels], books.ask_px[:, :levels] = 1000 - j, 1002 + j
    books.bid_qty[:, :levels] = books.ask_qty[:, :levels] = 10 + np.arange(n)[:, None]
    return books


def a_day(books: Books, trades: Trades | None = None) -> InstrumentDay:
    return InstrumentDay(SHARE, "2026-01-15", books, Trades.empty() if trades is None else trades)


def cross(b: Books) -> None:
    b.ask_px[3, :5] = 999 + np.arange(5)


def lock(b: Books) -> None:
    b.ask_px[3, :5] = 1000 + np.arange(5)


def swap_levels(b: Books) -> None:
    b.bid_px[3, [1, 2]] = b.bid_px[3, [2, 1]]


def repeat_level(b: Books) -> None:
    b.ask_px[3, 2] = b.ask_px[3, 1]


def punch_hole(b: Books) -> None:
    b.ask_px[3, 2] = b.ask_qty[3, 2] = 0


def negative_size(b: Books) -> None:
    b.bid_qty[3, 4] = -1


def price_without_size(b: Books) -> None:
    b.bid_qty[3, 4] = 0


def price_of_zero(b: Books) -> None:
    b.bid_px[3, 4] = 0


def step_back(b: Books) -> None:
    b.recv_ns[3] = b.recv_ns[2] - 1


def repeat_book(b: Books) -> None:
    b.bid_qty[3], b.ask_qty[3] = b.bid_qty[2], b.ask_qty[2]


def lose_asks(b: Books) -> None:
    b.ask_px[3] = b.ask_qty[3] = 0


def mark_incomplete(b: Books) -> None:
    b.flags[3] = 0


def fall_silent(b: Books) -> None:
    b.recv_ns[3:] += 10 * SECOND_NS


@pytest.mark.parametrize(
    ("spoil", "field", "dropped"),
    [
        (cross, "crossed", True),
        (swap_levels, "unsorted", True),
        (repeat_level, "unsorted", True),
        (punch_hole, "unsorted", True),
        (negative_size, "negative", True),
        (price_without_size, "negative", True),
        (price_of_zero, "negative", True),
        (step_back, "backward_time", True),
        (lock, "locked", False),
        (repeat_book, "duplicated", False),
        (lose_asks, "one_sided", False),
        (mark_incomplete, "inconsistent", False),
        (fall_silent, "gaps", False),
    ],
)
def test_each_defect_is_counted_once_under_its_name(
    spoil: Callable[[Books], None], field: str, dropped: bool
) -> None:
    books = sound_books()
    assert check_books(books) == BookReport(books=N, longest_gap_ns=SECOND_NS)
    spoil(books)
    report = check_books(books).to_dict()
    found = {k for k, v in report.items() if v and k not in ("books", "longest_gap_ns", "books_dropped")}
    assert found - {"ticker", "day"} == {field}
    assert report[field] == 1
    day, cleaned = clean_day(a_day(books))
    assert cleaned.books_dropped == N - len(day.books) == int(dropped)
    assert 4 * SECOND_NS not in day.books.recv_ns if dropped else len(day.books) == N


def test_a_gap_is_longer_than_ten_seconds() -> None:
    books = sound_books()
    books.recv_ns[3:] += 9 * SECOND_NS
    assert check_books(books).gaps == 0
    books.recv_ns[3:] += 1
    assert check_books(books).gaps == 1
    assert check_books(books).longest_gap_ns == 10 * SECOND_NS + 1


def test_the_stamp_of_an_unsound_row_condemns_no_other() -> None:
    books = sound_books()
    cross(books)
    books.recv_ns[3] += 10**15
    day, report = clean_day(a_day(books))
    assert (report.crossed, report.backward_time, len(day.books)) == (1, 0, N - 1)


def test_prices_at_the_ends_of_the_range_do_not_overflow() -> None:
    books = sound_books(1, levels=1)
    books.bid_px[0, 0], books.ask_px[0, 0] = 1, np.iinfo(np.int32).max
    books.ask_px[0, 1], books.ask_qty[0, 1] = 1, 1
    assert check_books(books).unsorted == 1


def test_impossible_trades_are_dropped_and_counted() -> None:
    trades = Trades.empty(6)
    trades.recv_ns[:] = [1, 5, 3, 5, 9, 10]
    trades.px[:] = [100, 100, 100, 0, 100, 100]
    trades.qty[:] = [1, 1, 1, 1, -1, 1]
    trades.side[:] = [1, -1, 0, 1, 1, 2]
    day, report = clean_day(a_day(sound_books(), trades))
    assert (report.trades, report.trades_invalid, report.trades_backward, report.trades_dropped) == (
        6,
        3,
        1,
        4,
    )
    assert day.trades.recv_ns.tolist() == [1, 5]


def test_a_sound_day_is_handed_on_untouched() -> None:
    raw = a_day(sound_books())
    day, _ = clean_day(raw)
    assert day.books is raw.books and day.trades is raw.trades


def test_our_own_orders_stay_with_a_cleaned_day() -> None:
    raw = a_day(sound_books())
    cross(raw.books)
    raw.own = OwnEvents.empty(2)
    day, report = clean_day(raw)
    assert report.books_dropped == 1 and day.own is raw.own


def test_an_empty_day_has_nothing_wrong() -> None:
    day, report = clean_day(a_day(Books.empty()))
    assert len(day.books) == 0 and report == BookReport("AAAA", "2026-01-15")


def test_the_report_reads_as_sentences() -> None:
    report = BookReport(
        "AAAA", "2026-01-15", books=43_200, crossed=3, backward_time=1, duplicated=12, gaps=1,
        longest_gap_ns=103 * SECOND_NS, books_dropped=4, trades=1500, trades_invalid=2, trades_dropped=2,
    )  # fmt: skip
    assert report.lines() == [
        "AAAA 2026-01-15: 43,200 books; dropped 4: 3 crossed, 1 backward in time; "
        "kept 12 repeating the one before",
        "AAAA 2026-01-15: gaps of more than 10 s: 1, the longest 103 s",
        "AAAA 2026-01-15: 1,500 trades; dropped 2: 2 impossible",
    ]
    assert BookReport("AAAA", "2026-01-15", books=5).lines() == ["AAAA 2026-01-15: 5 books; none dropped"]


small = st.integers(-3, 12)


@st.composite
def any_books(draw: st.DrawFn) -> Books:
    """Sound books with arbitrary numbers written over arbitrary places."""
    books = sound_books(draw(st.integers(1, 12)), levels=draw(st.integers(0, 4)))
    n = len(books)
    for _ in range(draw(st.integers(0, 12))):
        row, level = draw(st.integers(0, n - 1)), draw(st.integers(0, 4))
        column = draw(st.sampled_from(["bid_px", "bid_qty", "ask_px", "ask_qty"]))
        value = draw(st.one_of(small, st.integers(996, 1006)))
        getattr(books, column)[row, level] = value
    for row in draw(st.lists(st.integers(0, n - 1), max_size=3)):
        books.recv_ns[row] = draw(st.integers(0, n + 1)) * SECOND_NS
    return books


@settings(max_examples=300, deadline=None)
@given(any_books())
def test_what_is_left_is_a_possible_market(books: Books) -> None:
    day, report = clean_day(a_day(books))
    kept = day.books
    assert len(kept) + report.books_dropped == report.books == len(books)
    assert (np.diff(kept.recv_ns) >= 0).all()
    for i in range(len(kept)):
        bids = [
            (p, q) for p, q in zip(kept.bid_px[i].tolist(), kept.bid_qty[i].tolist(), strict=True) if q or p
        ]
        asks = [
            (p, q) for p, q in zip(kept.ask_px[i].tolist(), kept.ask_qty[i].tolist(), strict=True) if q or p
        ]
        assert all(p > 0 and q > 0 for p, q in bids + asks)
        assert [p for p, _ in bids] == sorted({p for p, _ in bids}, reverse=True)
        assert [p for p, _ in asks] == sorted({p for p, _ in asks})
        assert not kept.bid_qty[i, len(bids) :].any() and not kept.ask_qty[i, len(asks) :].any()
        assert not (bids and asks) or bids[0][0] <= asks[0][0]
    again, second = clean_day(day)
    assert again.books is kept and second.books_dropped == 0


@settings(max_examples=200, deadline=None)
@given(any_books())
def test_rows_are_kept_or_dropped_but_never_changed(books: Books) -> None:
    books.exch_ns[:] = np.arange(len(books))  # the row's number, to find it again
    day, _ = clean_day(a_day(books))
    origin = day.books.exch_ns
    assert (np.diff(origin) > 0).all()
    for name in Books.__slots__:
        np.testing.assert_array_equal(getattr(day.books, name), getattr(books, name)[origin])
    assert day.books.bid_px.shape == (len(origin), DEPTH)
