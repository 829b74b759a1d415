"""The contract: field numbers, method paths, and decimals without a float in sight."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market.contract import convert
from market.contract import invest_pb2 as pb
from market.contract.convert import ConversionError
from market.contract.methods import METHODS, SERVICES
from market.types import NANO, Instrument

ROOT = Path(__file__).resolve().parents[2]

NANOS = st.integers(-(10**6) * NANO, 10**6 * NANO)

# Numbers of the official contract 1.43 that are easy to get wrong: gaps, high ones, one name, two numbers.
NUMBERS = {
    "Quotation": {"units": 1, "nano": 2},
    "MoneyValue": {"currency": 1, "units": 2, "nano": 3},
    "Ping": {"time": 1, "stream_id": 2, "ping_request_time": 4},
    "PingDelaySettings": {"ping_delay_ms": 15},
    "ResponseMetadata": {"tracking_id": 42, "server_time": 43},
    "ErrorDetail": {"code": 1, "message": 3},
    "GetInfoResponse": {"tariff": 4, "user_id": 9, "risk_level_code": 12},
    "Share": {"lot": 5, "name": 15, "min_price_increment": 31, "uid": 33, "dlong_client": 90},
    "Future": {"lot": 4, "name": 13, "min_price_increment": 29, "uid": 31, "min_price_increment_amount": 63},
    "Instrument": {"min_price_increment": 23, "uid": 25, "instrument_kind": 40, "dlong_client": 490},
    "MarketDataRequest": {"subscribe_order_book_request": 2, "ping": 7, "ping_settings": 15},
    "MarketDataResponse": {"trade": 6, "orderbook": 7, "trading_status": 8, "ping": 9, "last_price": 11},
    "OrderBookInstrument": {"figi": 1, "depth": 2, "instrument_id": 3, "order_book_type": 4},
    "TradeInstrument": {"figi": 1, "instrument_id": 2},
    "OrderBook": {"is_consistent": 3, "bids": 4, "asks": 5, "time": 6, "instrument_uid": 9, "ticker": 11},
    "Trade": {"direction": 2, "price": 3, "quantity": 4, "time": 5, "instrument_uid": 6},
    "LastPrice": {"price": 2, "time": 3, "ticker": 9, "instrument_uid": 11},
    "GetOrderBookResponse": {"bids": 3, "asks": 4, "instrument_uid": 9, "orderbook_ts": 23},
    "PostOrderRequest": {
        "figi": 1, "quantity": 2, "price": 3, "direction": 4, "account_id": 5, "order_type": 6, "order_id": 7,
        "instrument_id": 8, "time_in_force": 9, "price_type": 10, "confirm_margin_trade": 11,
    },
    "PostOrderAsyncRequest": {"instrument_id": 1, "time_in_force": 8, "price_type": 9},
    "PostOrderResponse": {
        "lots_executed": 4, "executed_commission": 9, "figi": 11, "order_request_id": 20,
        "response_metadata": 254,
    },
    "OrderState": {"executed_commission": 10, "stages": 14, "instrument_uid": 19, "order_request_id": 20},
    "OrderStage": {"price": 1, "quantity": 2, "trade_id": 3, "execution_time": 5},
    "ReplaceOrderRequest": {"account_id": 1, "order_id": 6, "idempotency_key": 7, "quantity": 11,
    "price": 12},
    "OrderTrade": {"date_time": 1, "price": 2, "quantity": 3, "trade_id": 4},
    "OrderStateStreamRequest": {"accounts": 1, "ping_delay_millis": 15},
    "OrderStateStreamResponse.OrderState": {
        "order_request_id": 2, "status_info": 6, "order_price": 23, "lots_executed": 28, "marker": 31,
        "trades": 33,
        "completion_time": 35, "instrument_uid": 41,
    },
    "SubscriptionResponse": {"tracking_id": 1, "status": 2, "stream_id": 4, "accounts": 5, "error": 7},
    "PositionsResponse": {"money": 1, "blocked": 2, "securities": 3, "futures": 5, "account_id": 15},
    "PositionsSecurities": {"blocked": 2, "balance": 3, "instrument_uid": 5, "instrument_type": 16},
    "PositionsStreamResponse": {"subscriptions": 1, "position": 2, "ping": 3, "initial_positions": 5},
    "PostStopOrderRequest": {
        "quantity": 2, "price": 3, "stop_price": 4, "direction": 5, "account_id": 6, "expiration_type": 7,
        "stop_order_type": 8, "expire_date": 9, "instrument_id": 10, "exchange_order_type": 11,
        "take_profit_type": 12, "trailing_data": 13, "price_type": 14, "order_id": 15,
        "confirm_margin_trade": 16,
    },
    "PostStopOrderResponse": {"stop_order_id": 1, "order_request_id": 2, "response_metadata": 254},
    "StopOrder": {"price": 10, "stop_price": 11, "trailing_data": 14, "status": 15, "exchange_order_id": 17},
    "StopOrder.TrailingData": {"indent": 1, "spread_type": 4, "status": 5, "price": 7, "extr": 8},
    "Operation": {"payment": 4, "quantity": 7, "date": 11, "operation_type": 13, "instrument_uid": 18},
    "GetOperationsByCursorRequest": {
        "account_id": 1, "instrument_id": 2, "from": 6, "to": 7, "cursor": 11, "limit": 12,
        "operation_types": 13, "state": 14, "without_commissions": 15, "without_trades": 16,
    },
    "GetOperationsByCursorResponse": {"has_next": 1, "next_cursor": 2, "items": 6},
    "OperationItem": {
        "cursor": 1, "id": 16, "date": 21, "type": 22, "payment": 41, "commission": 43, "quantity": 51,
        "trades_info": 61,
    },
    "OperationItemTrade": {"num": 1, "date": 6, "quantity": 11, "price": 16, "yield": 21},
    "SandboxPayInRequest": {"account_id": 1, "amount": 2},
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
def test_field_numbers(name: str) -> None:
    descriptor = pb.DESCRIPTOR.message_types_by_name[name.split(".")[0]]
    for nested in name.split(".")[1:]:
        descriptor = descriptor.nested_types_by_name[nested]
    numbers = {field.name: field.number for field in descriptor.fields}
    assert {field: numbers.get(field) for field in NUMBERS[name]} == NUMBERS[name]


def test_enum_values_that_are_not_in_order() -> None:
    assert pb.RESULT_SUBSCRIPTION_STATUS_ERROR == 13
    assert pb.OrderStateStreamResponse.CAUSE_CANCELLED_BY_CLIENT == 15
    assert pb.EXECUTION_REPORT_STATUS_FILL == 1
    assert pb.EXECUTION_REPORT_STATUS_NEW == 4
    assert pb.GetCandlesRequest.CANDLE_SOURCE_INCLUDE_WEEKEND == 3
    assert pb.SECURITY_TRADING_STATUS_NORMAL_TRADING == 5


def test_paths_are_the_official_ones() -> None:
    assert (
        METHODS["OrdersService/PostOrder"].path
        == "/tinkoff.public.invest.api.contract.v1.OrdersService/PostOrder"
    )
    assert METHODS["MarketDataStreamService/MarketDataStream"].kind == "bidi"
    assert METHODS["OrdersService/GetOrderState"].response is pb.OrderState
    assert sum(len(methods) for methods in SERVICES.values()) == len(METHODS)


def test_our_messages_have_their_own_package() -> None:
    """Else they could not live in one process with the official SDK."""
    assert pb.DESCRIPTOR.package == "scalper.invest.contract"


@pytest.mark.skipif(find_spec("grpc_tools") is None, reason="grpcio-tools is a development tool")
def test_generated_code_is_what_the_proto_says(tmp_path: Path) -> None:
    out = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi")]
    proto = "market/contract/invest.proto"
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I.", *out, proto], cwd=ROOT, check=True)
    for name in ("invest_pb2.py", "invest_pb2.pyi"):
        folder = Path("market/contract")
        assert (tmp_path / folder / name).read_text() == (ROOT / folder / name).read_text()


# ---------------------------------------------------------------- decimals


@given(NANOS)
def test_quotation_and_money_round_trip(nano: int) -> None:
    for message in (convert.quotation(nano), convert.money(nano)):
        assert convert.to_nano(message) == nano
        assert convert.to_nano(type(message).FromString(message.SerializeToString())) == nano
        assert abs(message.nano) < NANO
        assert message.units * message.nano >= 0
        assert Decimal(message.units) + Decimal(message.nano) / NANO == Decimal(nano) / NANO


def test_a_small_negative_has_no_units() -> None:
    assert convert.quotation(-10_000_000) == pb.Quotation(units=0, nano=-10_000_000)


@pytest.mark.parametrize(("units", "nano"), [(-1, 750_000_000), (1, -1), (0, NANO), (0, -NANO)])
def test_impossible_decimals_are_refused(units: int, nano: int) -> None:
    with pytest.raises(ConversionError):
        convert.to_nano(pb.Quotation(units=units, nano=nano))


@given(st.integers(-(10**9), 10**9), st.sampled_from([1, 500_000, 10_000_000, NANO, 10 * NANO]))
def test_ticks_round_trip(ticks: int, tick_nano: int) -> None:
    assert convert.quotation_to_ticks(convert.ticks_to_quotation(ticks, tick_nano), tick_nano) == ticks


@given(st.integers(-(10**6), 10**6), st.integers(1, 9_999_999))
def test_a_price_between_ticks_is_an_error(ticks: int, off: int) -> None:
    with pytest.raises(ConversionError, match="not a multiple"):
        convert.nano_to_ticks(ticks * 10_000_000 + off, 10_000_000)


def test_an_instrument_without_a_tick_is_an_error() -> None:
    with pytest.raises(ConversionError, match="no usable price step"):
        convert.nano_to_ticks(5, 0)


@given(st.integers(0, 2**62))
def test_time_round_trip(ns: int) -> None:
    assert convert.to_ns(convert.timestamp(ns)) == ns


@given(st.lists(st.tuples(st.integers(1, 10**7), st.integers(1, 10**6)), max_size=20))
def test_book_levels(levels: list[tuple[int, int]]) -> None:
    tick = 10_000_000
    orders = [pb.Order(price=convert.ticks_to_quotation(p, tick), quantity=q) for p, q in levels]
    assert convert.book_levels(orders, tick) == (tuple(p for p, _ in levels), tuple(q for _, q in levels))


@pytest.mark.parametrize("price", [pb.Quotation(units=1, nano=-1), pb.Quotation(units=0, nano=5)])
def test_bad_book_levels_are_refused(price: pb.Quotation) -> None:
    with pytest.raises(ConversionError):
        convert.book_levels([pb.Order(price=price, quantity=1)], 10_000_000)


def test_instruments_know_what_a_tick_is_worth() -> None:
    tick = convert.quotation(10_000_000)
    share = convert.share(pb.Share(ticker="SBER", lot=10, min_price_increment=tick, currency="RUB"))
    assert (share.tick_value_nano, share.currency) == (100_000_000, "rub")
    future = convert.future(
        pb.Future(
            ticker="RIH6", lot=1, min_price_increment=pb.Quotation(units=10),
            min_price_increment_amount=pb.Quotation(units=14, nano=500_000_000),
        )
    )  # fmt: skip
    assert future.tick_value_nano == 14_500_000_000
    assert future.notional_nano(10_000, 2) == 290_000 * NANO
    assert convert.unit_money_nano(future, 10_000) == 145_000 * NANO


def test_a_future_without_a_tick_value_is_refused() -> None:
    with pytest.raises(ConversionError, match="GetFuturesMargin"):
        convert.future(pb.Future(ticker="RIH6", lot=1, min_price_increment=pb.Quotation(units=10)))


@given(st.integers(-(10**7), 10**7))
def test_unit_money_of_a_share_is_its_price(ticks: int) -> None:
    share = Instrument("u", "T", "TQBR", "f", "share", 10, 10_000_000, 100_000_000)
    assert convert.unit_money_nano(share, ticks) == ticks * share.tick_nano
