"""Checks of what clients send, with the API's own refusals; what passes is in ticks, lots and our own
words.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from market.contract import invest_pb2 as pb
from market.contract.convert import ConversionError, nano_to_ticks, to_nano
from market.matching import TimeInForce
from market.paper.exchange import Exchange, Listing, PaperOrder
from market.paper.refusals import Refusal
from market.paper.streams import find_listing
from market.types import BUY, SELL, Instrument

DEPTHS = (1, 10, 20, 30, 40, 50)
MAX_KEY_CHARS = 36

_SIDES = {pb.ORDER_DIRECTION_BUY: BUY, pb.ORDER_DIRECTION_SELL: SELL}
_TIFS: dict[int, TimeInForce] = {
    pb.TIME_IN_FORCE_UNSPECIFIED: "day",
    pb.TIME_IN_FORCE_DAY: "day",
    pb.TIME_IN_FORCE_FILL_AND_KILL: "fak",
    pb.TIME_IN_FORCE_FILL_OR_KILL: "fok",
}


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """A PostOrderRequest that may be accepted."""

    key: str
    listing: Listing
    side: int
    lots: int
    price_ticks: int | None
    tif: TimeInForce


def instrument_id(request: pb.GetOrderBookRequest) -> str:
    """The identifier of any request that has instrument_id and figi; an empty figi counts as absent."""
    return request.instrument_id or request.figi


def listing_of(exchange: Exchange, identifier: str) -> tuple[int, Listing]:
    """Raises Refusal 30093 for no identifier and 50002 for an unknown one."""
    if not identifier:
        raise Refusal("30093")
    found = find_listing(exchange.listings, identifier)
    if found is None:
        known = ", ".join(listing.instrument.ticker for listing in exchange.listings)
        raise Refusal("50002", f"{identifier!r}; the recording holds {known}")
    return found


def check_account(exchange: Exchange, account_id: str) -> None:
    if not account_id:
        raise Refusal("30021")
    if account_id != exchange.account.account_id:
        raise Refusal("50004", account_id)


def check_depth(depth: int) -> None:
    if depth == 0:
        raise Refusal("30031")
    if depth not in DEPTHS:
        raise Refusal("30032", str(depth))


def check_key(key: str) -> None:
    """The idempotency key: UUID text. Raises Refusal 30027, 30055 or 30028."""
    if not key:
        raise Refusal("30027")
    if len(key) > MAX_KEY_CHARS:
        raise Refusal("30055", key)
    try:
        uuid.UUID(key)
    except ValueError:
        raise Refusal("30028", key) from None


def order_request(exchange: Exchange, request: pb.PostOrderRequest) -> OrderRequest:
    """Everything about a new order that can be checked without the market."""
    _, listing = listing_of(exchange, request.instrument_id or request.figi)
    if request.quantity == 0:
        raise Refusal("30015")
    if request.quantity < 0:
        raise Refusal("30080", str(request.quantity))
    if request.direction == pb.ORDER_DIRECTION_UNSPECIFIED:
        raise Refusal("30019")
    if request.direction not in _SIDES:
        raise Refusal("30020", str(request.direction))
    if request.order_type == pb.ORDER_TYPE_UNSPECIFIED:
        raise Refusal("30025")
    if request.order_type not in (pb.ORDER_TYPE_LIMIT, pb.ORDER_TYPE_MARKET):
        raise Refusal("30026", str(request.order_type))
    limit = request.order_type == pb.ORDER_TYPE_LIMIT
    return OrderRequest(
        request.order_id,
        listing,
        _SIDES[request.direction],
        request.quantity,
        _limit_ticks(listing.instrument, request) if limit else None,
        _time_in_force(listing.instrument, request) if limit else "fak",
    )


def find_order(exchange: Exchange, order_id: str, id_type: int) -> PaperOrder:
    """By exchange id, or by idempotency key with ORDER_ID_TYPE_REQUEST. Raises Refusal 50005."""
    by_key = id_type == pb.ORDER_ID_TYPE_REQUEST
    order = exchange.by_key(order_id) if by_key else exchange.by_exchange_id(order_id)
    if order is None:
        raise Refusal("50005", order_id)
    return order


def _time_in_force(instrument: Instrument, request: pb.PostOrderRequest) -> TimeInForce:
    tif = _TIFS.get(request.time_in_force)
    if tif is None:
        raise Refusal("30254", str(request.time_in_force))
    if tif == "fok" and instrument.kind == "future":
        raise Refusal("30254", "FILL_OR_KILL is not available on the derivatives market")
    return tif


def _limit_ticks(instrument: Instrument, request: pb.PostOrderRequest) -> int:
    if not request.HasField("price"):
        raise Refusal("30017")
    if request.price_type == pb.PRICE_TYPE_POINT and instrument.kind == "share":
        raise Refusal("30085")
    try:
        nano = to_nano(request.price)
    except ConversionError as error:
        raise Refusal("30017", str(error)) from None
    if nano == 0 or (nano < 0 and instrument.kind == "share"):
        raise Refusal("30100")
    in_money = request.price_type == pb.PRICE_TYPE_CURRENCY and instrument.kind == "future"
    step = instrument.tick_value_nano // instrument.lot if in_money else instrument.tick_nano
    try:
        return nano_to_ticks(nano, step)
    except ConversionError as error:
        raise Refusal("30078", str(error)) from None
