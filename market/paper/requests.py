"""Checks of what clients send, with the API's own refusals; what passes is in ticks, lots and our own
words.
"""

from __future__ import annotations

import uuid
from typing import Any

from market.contract import invest_pb2 as pb
from market.contract.convert import ConversionError, Decimal9, nano_to_ticks, to_nano
from market.matching import TimeInForce
from market.paper.access import CALLER
from market.paper.desk import Desk
from market.paper.exchange import Exchange
from market.paper.listing import Listing, find_listing
from market.paper.orders import OrderKind, OrderRequest, PaperOrder
from market.paper.refusals import Refusal
from market.types import BUY, SELL, Instrument

DEPTHS = (1, 10, 20, 30, 40, 50)
MAX_KEY_CHARS = 36

SIDES: dict[int, int] = {pb.ORDER_DIRECTION_BUY: BUY, pb.ORDER_DIRECTION_SELL: SELL}
_KINDS: dict[int, OrderKind] = {
    pb.ORDER_TYPE_LIMIT: "limit",
    pb.ORDER_TYPE_MARKET: "market",
    pb.ORDER_TYPE_BESTPRICE: "bestprice",
}
_TIFS: dict[int, TimeInForce] = {
    pb.TIME_IN_FORCE_UNSPECIFIED: "day",
    pb.TIME_IN_FORCE_DAY: "day",
    pb.TIME_IN_FORCE_FILL_AND_KILL: "fak",
    pb.TIME_IN_FORCE_FILL_OR_KILL: "fok",
}
_PRICE_TYPES = (pb.PRICE_TYPE_UNSPECIFIED, pb.PRICE_TYPE_POINT, pb.PRICE_TYPE_CURRENCY)

# ---------------------------------------------------------------- instruments and depths


def instrument_id(request: Any) -> str:
    """The identifier of any request that has instrument_id or figi; an empty figi counts as absent."""
    return request.instrument_id or getattr(request, "figi", "")


def listing_of(exchange: Exchange, identifier: str) -> tuple[int, Listing]:
    """Raises Refusal 30093 for no identifier and 50002 for an unknown one."""
    if not identifier:
        raise Refusal("30093")
    found = find_listing(exchange.listings, identifier)
    if found is None:
        known = ", ".join(listing.instrument.ticker for listing in exchange.listings)
        raise Refusal("50002", f"{identifier!r}; the recording holds {known}")
    return found


def check_depth(depth: int) -> None:
    if depth == 0:
        raise Refusal("30031")
    if depth not in DEPTHS:
        raise Refusal("30032", str(depth))


# ---------------------------------------------------------------- accounts


def desk_of(exchange: Exchange, account_id: str, *, to_trade: bool = False) -> Desk:
    """The account's desk. Raises Refusal 30021 for no account, 50004 for an unknown one, 40002 for one that
    the caller's token may not see (or trade on), 30081 for trading on a closed one.
    """
    if not account_id:
        raise Refusal("30021")
    desk = exchange.desks.get(account_id)
    if desk is None:
        raise Refusal("50004", account_id)
    token = CALLER.get()
    if not token.sees(account_id):
        raise Refusal("40002", f"the token does not see account {account_id}")
    if to_trade and token.access == "read_only":
        raise Refusal("40002", "the token is read-only")
    if to_trade and desk.account.closed_ns is not None:
        raise Refusal("30081", account_id)
    return desk


# ---------------------------------------------------------------- orders


def check_key(key: str) -> None:
    """The idempotency key: UUID text. Raises Refusal 30027, 30055 or 30028."""
    if not key:
        raise Refusal("30027")
    if len(key) > MAX_KEY_CHARS:
        raise Refusal("30055", key)
    if not _is_uuid(key):
        raise Refusal("30028", key)


def check_idempotency_key(key: str) -> None:
    """The same under ReplaceOrder's name for it. Raises Refusal 30029 or 30030."""
    if not key:
        raise Refusal("30029")
    if len(key) > MAX_KEY_CHARS or not _is_uuid(key):
        raise Refusal("30030", key)


def check_quantity(quantity: int) -> None:
    """Lots. Raises Refusal 30015 or 30080."""
    if quantity == 0:
        raise Refusal("30015")
    if quantity < 0:
        raise Refusal("30080", str(quantity))


def side_of(direction: int) -> int:
    """BUY or SELL. Raises Refusal 30019 or 30020."""
    if direction == pb.ORDER_DIRECTION_UNSPECIFIED:
        raise Refusal("30019")
    if direction not in SIDES:
        raise Refusal("30020", str(direction))
    return SIDES[direction]


def order_request(exchange: Exchange, request: Any) -> OrderRequest:
    """Everything about a PostOrder(Async)Request that can be checked without the market."""
    _, listing = listing_of(exchange, instrument_id(request))
    check_quantity(request.quantity)
    side = side_of(request.direction)
    if request.order_type == pb.ORDER_TYPE_UNSPECIFIED:
        raise Refusal("30025")
    kind = _KINDS.get(request.order_type)
    if kind is None:
        raise Refusal("30026", str(request.order_type))
    if request.price_type not in _PRICE_TYPES:
        raise Refusal("30104", str(request.price_type))
    limit = kind == "limit"
    if limit and not request.HasField("price"):
        raise Refusal("30017")
    return OrderRequest(
        request.account_id,
        request.order_id,
        listing,
        side,
        request.quantity,
        kind,
        price_ticks(listing.instrument, request.price, request.price_type) if limit else None,
        _time_in_force(listing.instrument, request.time_in_force) if limit else "fak",
        request.confirm_margin_trade,
    )


def price_ticks(instrument: Instrument, price: Decimal9, price_type: int) -> int:
    """A price of one unit in ticks: points or, with PRICE_TYPE_CURRENCY, money for futures; money for shares.

    Raises Refusal 30085 for points of a share, 30017 for a broken decimal, 30100 for a price that is not
    positive where it must be, 30078 off the tick.
    """
    if price_type == pb.PRICE_TYPE_POINT and instrument.kind == "share":
        raise Refusal("30085")
    try:
        nano = to_nano(price)
    except ConversionError as error:
        raise Refusal("30017", str(error)) from None
    if nano == 0 or (nano < 0 and instrument.kind == "share"):
        raise Refusal("30100")
    return _on_tick(nano, price_step_nano(instrument, price_type))


def price_step_nano(instrument: Instrument, price_type: int) -> int:
    """One tick in the unit that the price type says, nano."""
    in_money = price_type == pb.PRICE_TYPE_CURRENCY and instrument.kind == "future"
    return instrument.tick_value_nano // instrument.lot if in_money else instrument.tick_nano


def find_order(exchange: Exchange, desk: Desk, order_id: str, id_type: int) -> PaperOrder:
    """By exchange id, or by idempotency key with ORDER_ID_TYPE_REQUEST. Raises Refusal 30027 or 50005."""
    if not order_id:
        raise Refusal("30027")
    by_key = id_type == pb.ORDER_ID_TYPE_REQUEST
    order = desk.orders.get(order_id) if by_key else exchange.by_exchange_id(order_id)
    if order is None or order.account_id != desk.account.account_id:
        raise Refusal("50005", order_id)
    return order


# ---------------------------------------------------------------- inside


def _is_uuid(key: str) -> bool:
    try:
        uuid.UUID(key)
    except ValueError:
        return False
    return True


def _on_tick(nano: int, step_nano: int) -> int:
    try:
        return nano_to_ticks(nano, step_nano)
    except ConversionError as error:
        raise Refusal("30078", str(error)) from None


def _time_in_force(instrument: Instrument, asked: int) -> TimeInForce:
    tif = _TIFS.get(asked)
    if tif is None:
        raise Refusal("30254", str(asked))
    if tif == "fok" and instrument.kind == "future":
        raise Refusal("30254", "FILL_OR_KILL is not available on the derivatives market")
    return tif
