"""The only place where the broker's decimals meet our whole numbers. No floats, no silent rounding.

A ``Quotation`` or ``MoneyValue`` is units + nano / 1e9 with both parts of one sign. Inside the product a
price is a whole number of ticks, money is nano-roubles, a time is nanoseconds UTC.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from market.contract import invest_pb2 as pb
from market.errors import BrokerError
from market.types import NANO, SECOND_NS, Instrument


class ConversionError(BrokerError):
    """A decimal that breaks the contract: mixed signs, an oversized nano, or off the instrument's tick
    grid.
    """


class Decimal9(Protocol):
    """What Quotation and MoneyValue have in common."""

    @property
    def units(self) -> int: ...
    @property
    def nano(self) -> int: ...


# ---------------------------------------------------------------- decimals


def to_nano(value: Decimal9) -> int:
    """Nano units of a Quotation or MoneyValue. Raises ConversionError on mixed signs or |nano| >= 1e9."""
    units, nano = value.units, value.nano
    if not -NANO < nano < NANO:
        raise ConversionError(f"nano {nano} is out of range; the contract allows -999999999..999999999")
    if (units > 0 and nano < 0) or (units < 0 and nano > 0):
        raise ConversionError(
            f"units {units} and nano {nano} have different signs; both must have the same sign"
        )
    return units * NANO + nano


def _split(nano: int) -> tuple[int, int]:
    """(units, nano) of one sign: both parts round towards zero."""
    units, rest = divmod(abs(nano), NANO)
    return (units, rest) if nano >= 0 else (-units, -rest)


def quotation(nano: int) -> pb.Quotation:
    units, rest = _split(nano)
    return pb.Quotation(units=units, nano=rest)


def money(nano: int, currency: str = "rub") -> pb.MoneyValue:
    units, rest = _split(nano)
    return pb.MoneyValue(currency=currency, units=units, nano=rest)


# ---------------------------------------------------------------- prices


def nano_to_ticks(price_nano: int, tick_nano: int) -> int:
    """Whole ticks of a nano price. Raises ConversionError if the price is not a multiple of the tick."""
    if tick_nano <= 0:
        raise ConversionError(
            f"tick of {tick_nano} nano is not positive; the instrument has no usable price step"
        )
    ticks, rest = divmod(price_nano, tick_nano)
    if rest:
        raise ConversionError(f"price of {price_nano} nano is not a multiple of the tick of {tick_nano} nano")
    return ticks


def quotation_to_ticks(value: Decimal9, tick_nano: int) -> int:
    return nano_to_ticks(to_nano(value), tick_nano)


def ticks_to_quotation(ticks: int, tick_nano: int) -> pb.Quotation:
    return quotation(ticks * tick_nano)


def book_levels(levels: Iterable[pb.Order], tick_nano: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(prices in ticks, sizes in lots) of one side of a book, in the order given. Errors as above."""
    prices: list[int] = []
    sizes: list[int] = []
    for level in levels:
        price = level.price
        # The signs of one side of a positive price need no check; anything else takes the careful path.
        units, nano = price.units, price.nano
        value = units * NANO + nano if units >= 0 and 0 <= nano < NANO else to_nano(price)
        ticks, rest = divmod(value, tick_nano)
        if rest:
            nano_to_ticks(value, tick_nano)
        prices.append(ticks)
        sizes.append(level.quantity)
    return tuple(prices), tuple(sizes)


# ---------------------------------------------------------------- time


def to_ns(stamp: Timestamp) -> int:
    """Nanoseconds UTC since 1970."""
    return stamp.seconds * SECOND_NS + stamp.nanos


def timestamp(ns: int) -> Timestamp:
    seconds, nanos = divmod(ns, SECOND_NS)
    return Timestamp(seconds=seconds, nanos=nanos)


# ---------------------------------------------------------------- instruments


def share(message: pb.Share) -> Instrument:
    """Our Instrument from the broker's Share: a tick of one lot is worth tick x lot roubles."""
    tick_nano = to_nano(message.min_price_increment)
    return Instrument(
        uid=message.uid, ticker=message.ticker, class_code=message.class_code, figi=message.figi,
        kind="share", lot=message.lot, tick_nano=tick_nano, tick_value_nano=tick_nano * message.lot,
        currency=message.currency.lower(), name=message.name,
    )  # fmt: skip


def future(message: pb.Future) -> Instrument:
    """Our Instrument from the broker's Future: the tick's money value comes from min_price_increment_amount.

    Raises ConversionError when the broker gives no amount (it can be 0: ask GetFuturesMargin then).
    """
    amount_nano = to_nano(message.min_price_increment_amount)
    if amount_nano <= 0:
        raise ConversionError(
            f"future {message.ticker} has min_price_increment_amount {amount_nano} nano; "
            "ask GetFuturesMargin for the value of a tick"
        )
    return Instrument(
        uid=message.uid, ticker=message.ticker, class_code=message.class_code, figi=message.figi,
        kind="future", lot=message.lot, tick_nano=to_nano(message.min_price_increment),
        tick_value_nano=amount_nano * message.lot, currency=message.currency.lower(), name=message.name,
    )  # fmt: skip


def unit_money_nano(instrument: Instrument, price_ticks: int) -> int:
    """Money value of ONE unit at a price, nano-roubles: the price itself for a share, its money for a
    future.
    """
    return price_ticks * instrument.tick_value_nano // instrument.lot
