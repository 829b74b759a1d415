"""Books read straight from their bytes are the books that protobuf reads, or are left to it."""

from __future__ import annotations

import pytest
from core_bench import instrument
from hypothesis import example, given
from hypothesis import strategies as st

from live.broker.book_wire import MAX_LEVELS, BookReader
from live.broker.levels import levels
from live.core.books import LARGEST
from market.contract import convert
from market.contract import invest_pb2 as pb
from market.types import NANO, Instrument

SHARES = [instrument("SIMP"), instrument("SIMA")]
TICK = SHARES[0].tick_nano
READER = BookReader(SHARES)


def by_protobuf(raw: bytes) -> tuple[Instrument, int, object, bool]:
    """As the careful path of the stream has it; raises what it raises."""
    book = pb.MarketDataResponse.FromString(raw).orderbook
    share = next(s for s in SHARES if s.uid == book.instrument_uid)
    return share, convert.to_ns(book.time), levels(book, share), book.is_consistent


def side(prices: list[tuple[int, int]]) -> list[pb.Order]:
    return [pb.Order(price=convert.quotation(price), quantity=lots) for price, lots in prices]


def message(**fields: object) -> pb.MarketDataResponse:
    return pb.MarketDataResponse(orderbook=pb.OrderBook(**fields))  # type: ignore[arg-type]


plain_sides = st.lists(
    st.tuples(st.integers(0, 10**7).map(lambda n: n * TICK), st.integers(-LARGEST, LARGEST)),
    max_size=MAX_LEVELS,
)
ascii_texts = st.text(st.characters(max_codepoint=127), max_size=12)
plain = st.builds(
    message,
    instrument_uid=st.sampled_from([s.uid for s in SHARES]),
    bids=plain_sides.map(side),
    asks=plain_sides.map(side),
    is_consistent=st.booleans(),
    depth=st.integers(0, 50),
    figi=ascii_texts,
    ticker=ascii_texts,
    time=st.integers(0, 2**62).map(convert.timestamp),
    limit_up=st.integers(-(10**12), 10**12).map(convert.quotation),
)


@given(plain)
def test_a_plain_book_is_read_as_protobuf_reads_it(book: pb.MarketDataResponse) -> None:
    raw = book.SerializeToString()
    assert READER.read(raw) == by_protobuf(raw)


@pytest.mark.parametrize(("ticks", "lots"), [
    (5, LARGEST + 1), (5, 2**63 - 1), (5, -LARGEST - 1), (5, -(2**63)), (LARGEST + 1, 5), (2**40, 5),
])  # fmt: skip
@pytest.mark.parametrize("where", ["bids", "asks"])
def test_a_number_of_no_market_is_left_to_protobuf_which_refuses_it(
    where: str, ticks: int, lots: int
) -> None:
    """Features, recordings and the matching hold 32 bits: beyond them the source is not to be trusted."""
    raw = message(instrument_uid="uid-SIMP", **{where: side([(ticks * TICK, lots)])}).SerializeToString()
    assert READER.read(raw) is None
    with pytest.raises(convert.ConversionError, match="out of range"):
        by_protobuf(raw)
    fits = side([(max(1, min(ticks, LARGEST)) * TICK, max(-LARGEST, min(lots, LARGEST)))])
    raw = message(instrument_uid="uid-SIMP", **{where: fits}).SerializeToString()
    assert READER.read(raw) == by_protobuf(raw)


quotations = st.builds(pb.Quotation, units=st.integers(-(2**63), 2**63 - 1), nano=st.integers(-NANO, NANO))
wild = st.builds(
    message,
    instrument_uid=st.sampled_from([*(s.uid for s in SHARES), "", "uid-unknown"]),
    bids=st.lists(st.builds(pb.Order, price=quotations, quantity=st.integers(-9, 9)), max_size=3),
    asks=st.lists(st.builds(pb.Order, price=quotations, quantity=st.integers(-9, 9)), max_size=3),
    is_consistent=st.booleans(),
)
fields = st.builds(lambda key, rest: bytes([key]) + rest, st.integers(0, 127), st.binary(max_size=12))


@given(wild | plain, fields | st.just(b""), st.integers(0, 400), st.booleans())
@example(message(instrument_uid="uid-SIMP", bids=side([(TICK + 1, 1)])), b"", 400, False)
@example(message(instrument_uid="uid-SIMP"), bytes.fromhex("3204080118023204100108ff01"), 400, True)
def test_whatever_is_read_is_what_protobuf_reads(
    book: pb.MarketDataResponse, more: bytes, cut: int, inside: bool
) -> None:
    """Odd numbers, other fields behind it or inside, and messages cut short."""
    raw = book.SerializeToString()
    if inside:
        body = book.orderbook.SerializeToString() + more
        raw = b"\x3a" + _length(body) + body
    else:
        raw += more
    raw = raw[:cut]
    found = READER.read(raw)
    assert found is None or found == by_protobuf(raw)


def _length(body: bytes) -> bytes:
    n, out = len(body), b""
    while n > 127:
        n, out = n >> 7, out + bytes([n & 127 | 128])
    return out + bytes([n])


@given(st.binary(max_size=60))
def test_noise_is_left_to_protobuf(raw: bytes) -> None:
    found = READER.read(raw)
    assert found is None or found == by_protobuf(raw)


@pytest.mark.parametrize("other", [
    pb.MarketDataResponse(),
    pb.MarketDataResponse(ping=pb.Ping(time=convert.timestamp(5))),
    pb.MarketDataResponse(trade=pb.Trade(instrument_uid="uid-SIMP", quantity=1)),
    message(instrument_uid="uid-SIMP", asks=side([(TICK * 5, 1)] * (MAX_LEVELS + 1))),
    message(instrument_uid="uid-SIMP", asks=side([(TICK * 5 + 1, 1)])),
    message(instrument_uid="uid-SIMP", asks=[pb.Order(price=pb.Quotation(units=-1, nano=-5), quantity=1)]),
])  # fmt: skip
def test_what_is_no_plain_book_is_left_to_protobuf(other: pb.MarketDataResponse) -> None:
    assert READER.read(other.SerializeToString()) is None


def test_the_books_of_one_reader_do_not_mix() -> None:
    full = message(instrument_uid="uid-SIMP", bids=side([(TICK * n, n) for n in range(50, 30, -1)]))
    small = message(instrument_uid="uid-SIMA", bids=side([(TICK, 7)]), is_consistent=True)
    first = READER.read(full.SerializeToString())
    second = READER.read(small.SerializeToString())
    assert first is not None and len(first.levels.bid_px) == 20 and not first.consistent
    assert second is not None and second.levels.bid_qty == (7,) and second.consistent
    assert second.instrument.ticker == "SIMA" and second.exch_ns == 0
