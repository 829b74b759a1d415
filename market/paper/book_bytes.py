"""Books as bytes, made from the ones before: most levels of a book were in its predecessor."""

from __future__ import annotations

from functools import lru_cache

from market.contract import invest_pb2 as pb
from market.contract.convert import quotation, timestamp
from market.paper.listing import Listing
from market.paper.messages_market import limits_nano
from market.types import BOOK_CONSISTENT, I32, Instrument

_ORDERBOOK_TAG = bytes([pb.MarketDataResponse.ORDERBOOK_FIELD_NUMBER << 3 | 2])


class BookEncoder:
    """``MarketDataResponse(orderbook=messages_market.book(...))``, serialised, of one listing and depth.

    Protobuf defines that the concatenation of serialised messages is their merger, so the bytes of a level
    are kept until the level changes.
    """

    def __init__(self, listing: Listing, depth: int) -> None:
        b = listing.books
        self._listing = listing
        self._depth = depth
        self._head = pb.OrderBook(
            figi=listing.instrument.figi, depth=depth, instrument_uid=listing.instrument.uid,
            order_book_type=pb.ORDERBOOK_TYPE_EXCHANGE, ticker=listing.instrument.ticker,
            class_code=listing.instrument.class_code,
        ).SerializeToString()  # fmt: skip
        self._limits_now: tuple[int, int] | None = None
        self._limits_bytes = b""
        levels = min(depth, b.bid_px.shape[1])
        self._sides = (
            _Side(True, listing.instrument, b.bid_px, b.bid_qty, levels),
            _Side(False, listing.instrument, b.ask_px, b.ask_qty, levels),
        )

    def encode(self, row: int) -> bytes:
        b = self._listing.books
        moment = pb.OrderBook(
            is_consistent=bool(b.flags[row] & BOOK_CONSISTENT), time=timestamp(int(b.exch_ns[row]))
        ).SerializeToString()
        content = b"".join(
            (self._head, self._limits(), moment, *self._sides[0].parts(row), *self._sides[1].parts(row))
        )
        return _ORDERBOOK_TAG + _varint(len(content)) + content

    def _limits(self) -> bytes:
        now = limits_nano(self._listing)
        if now != self._limits_now:
            down, up = (quotation(nano) for nano in now)
            self._limits_now = now
            self._limits_bytes = pb.OrderBook(limit_up=up, limit_down=down).SerializeToString()
        return self._limits_bytes


class _Side:
    """The levels of one side as bytes, ``b""`` for an absent one; of the row asked for last."""

    def __init__(self, bid: bool, instrument: Instrument, px: I32, qty: I32, levels: int) -> None:
        self._bid = bid
        self._tick_nano = instrument.tick_nano
        self._px = px[:, :levels]
        self._qty = qty[:, :levels]
        self._known_px = [-1] * levels
        self._known_qty = [-1] * levels
        self._parts = [b""] * levels

    def parts(self, row: int) -> list[bytes]:
        # Plain lists: for twenty numbers they are twice as fast as the arrays.
        px, qty = self._px[row].tolist(), self._qty[row].tolist()
        known_px, known_qty, parts = self._known_px, self._known_qty, self._parts
        for k, price in enumerate(px):
            size = qty[k]
            if price != known_px[k] or size != known_qty[k]:
                parts[k] = _level(self._bid, price * self._tick_nano, size) if size > 0 else b""
        self._known_px, self._known_qty = px, qty
        return parts


def _varint(value: int) -> bytes:
    """A length on the wire: seven bits a byte, lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@lru_cache(maxsize=1 << 16)
def _level(bid: bool, price_nano: int, size: int) -> bytes:
    level = [pb.Order(price=quotation(price_nano), quantity=size)]
    return (pb.OrderBook(bids=level) if bid else pb.OrderBook(asks=level)).SerializeToString()
