"""``broker.transport: sdk``: unary calls through the broker's official Python SDK, where it is installed.

The SDK's services get our channel (its own accepts no root certificates), an interceptor gives every call a
deadline and catches the headers that it throws away, and its dataclasses are turned into the contract's
messages field by field. For compliance or comparison: it is slower, loses nanoseconds of time stamps, and
knows nothing that the native transport does not.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import keyword
import logging
from collections.abc import Iterable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import grpc.aio
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from live.broker.channel import Access, open_channel
from live.broker.errors import CallFailed, Failure, Verdict, as_text, headers_of
from market.contract import convert
from market.contract import invest_pb2 as pb
from market.contract.methods import METHODS
from market.errors import BrokerError
from market.types import NANO

MODULES = ("t_tech.invest", "tinkoff.invest")
PACKAGE = "t-tech-investments"
INDEX = "https://opensource.tbank.ru/api/v4/projects/238/packages/pypi/simple"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

CALLS: dict[str, str] = {
    "UsersService/GetAccounts": "users.get_accounts",
    "UsersService/GetInfo": "users.get_info",
    "UsersService/GetUserTariff": "users.get_user_tariff",
    "InstrumentsService/ShareBy": "instruments.share_by",
    "InstrumentsService/FutureBy": "instruments.future_by",
    "InstrumentsService/GetInstrumentBy": "instruments.get_instrument_by",
    "InstrumentsService/FindInstrument": "instruments.find_instrument",
    "InstrumentsService/GetFuturesMargin": "instruments.get_futures_margin",
    "InstrumentsService/TradingSchedules": "instruments.trading_schedules",
    "MarketDataService/GetOrderBook": "market_data.get_order_book",
    "MarketDataService/GetTradingStatus": "market_data.get_trading_status",
    "OrdersService/PostOrder": "orders.post_order",
    "OrdersService/CancelOrder": "orders.cancel_order",
    "OrdersService/GetOrderState": "orders.get_order_state",
    "OrdersService/GetOrders": "orders.get_orders",
    "OperationsService/GetPositions": "operations.get_positions",
    "OperationsService/GetOperationsByCursor": "operations.get_operations_by_cursor",
    "MarketDataService/GetLastPrices": "market_data.get_last_prices",
    "StopOrdersService/PostStopOrder": "stop_orders.post_stop_order",
    "StopOrdersService/GetStopOrders": "stop_orders.get_stop_orders",
    "StopOrdersService/CancelStopOrder": "stop_orders.cancel_stop_order",
}
"""Where the SDK keeps each method that the client uses; they take keyword arguments, save ``AS_REQUEST``."""
AS_REQUEST = {"OperationsService/GetOperationsByCursor": "GetOperationsByCursorRequest"}
"""Methods that take one request object, and its class."""


class SdkMissing(BrokerError):
    """``broker.transport`` is sdk and the SDK is not importable: what to install, from where, how."""

    def __init__(self) -> None:
        super().__init__(
            f"broker.transport is sdk, but neither {' nor '.join(MODULES)} can be imported here: install the "
            f"package {PACKAGE} from the broker's own index (pip install --no-deps --index-url {INDEX} "
            f"{PACKAGE}; then pip install 'cachetools<6' 'python-dateutil<3' deprecation), never from PyPI, "
            "where the broker does not publish and anyone may take the name; or set broker.transport: native"
        )


def find_sdk() -> tuple[Any, Any, Any]:
    """(async services, schemas, exceptions) of the SDK under either of its names. Raises SdkMissing."""
    for name in MODULES:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
                continue
            raise BrokerError(
                f"the SDK's module {name} cannot be imported: it misses {error.name}; install that package"
            ) from None
        parts = [importlib.import_module(f"{name}.{p}") for p in ("async_services", "schemas", "exceptions")]
        return parts[0], parts[1], parts[2]
    raise SdkMissing


class SdkTransport:
    """Unary calls by the SDK's services over a channel of ours."""

    def __init__(self, access: Access) -> None:
        services, self._schemas, self._exceptions = find_sdk()
        # It logs every refusal as an error; what a refusal means is said by its caller.
        logging.getLogger(services.__name__.rpartition(".")[0]).setLevel(logging.CRITICAL)
        self._catch = _Deadline()
        self._channel = open_channel(access, interceptors=[self._catch])
        self._services = services.AsyncServices(self._channel, token=access.token, app_name=access.app_name)

    @property
    def channel(self) -> grpc.aio.Channel:
        return self._channel

    async def call(self, key: str, request: Any, *, timeout_s: float) -> tuple[Any, dict[str, str]]:
        service, _, name = CALLS[key].partition(".")
        method = getattr(getattr(self._services, service), name)
        flight = _Flight(timeout_s)
        token = _flight.set(flight)
        try:
            arguments = self._arguments(request)
            if key in AS_REQUEST:
                kind = getattr(self._schemas, AS_REQUEST[key])
                nothing = _nothing(request, [f.name for f in dataclasses.fields(kind)])
                arguments = {"request": kind(**{**nothing, **arguments})}
            answer = await method(**arguments)
        except self._exceptions.AioRequestError as error:
            cause = error.__cause__
            if isinstance(cause, grpc.aio.AioRpcError):
                raise cause from None
            raise CallFailed(key, Failure(Verdict.UNKNOWN, error.code.name, str(error.details))) from None
        except self._exceptions.RequestError as error:  # refused by the SDK itself, before sending
            raise CallFailed(key, Failure(Verdict.REFUSED, "SDK", str(error.details))) from None
        finally:
            _flight.reset(token)
        return fill(METHODS[key].response(), answer), flight.headers

    async def close(self) -> None:
        await self._channel.close()

    def _arguments(self, request: Message) -> dict[str, Any]:
        """The request's fields as the SDK's keyword arguments; filters are flat there."""
        arguments: dict[str, Any] = {}
        for field, value in request.ListFields():
            if field.name == "advanced_filters":
                arguments |= self._arguments(value)
            elif isinstance(value, pb.Quotation):
                # Set after it is made: the SDK's constructor turns -0.25 into -1 + 0.75, mixed signs on the
                # wire, which the broker refuses.
                price = self._schemas.Quotation(units=0, nano=0)
                price.units, price.nano = value.units, value.nano
                arguments[field.name] = price
            elif isinstance(value, Timestamp):
                arguments[_argument(field.name)] = value.ToDatetime(UTC)
            elif field.enum_type is not None:
                kind = getattr(self._schemas, field.enum_type.name)
                arguments[field.name] = [kind(v) for v in value] if field.is_repeated else kind(value)
            else:
                arguments[field.name] = list(value) if field.is_repeated else value
        return arguments


def _argument(name: str) -> str:
    """The SDK's name of a field: a keyword of Python gets an underscore."""
    return f"{name}_" if keyword.iskeyword(name) else name


def _nothing(request: Message, names: Iterable[str]) -> dict[str, Any]:
    """What the SDK takes for each field that is not set: it goes through lists without looking."""
    known = {_argument(field.name): field for field in request.DESCRIPTOR.fields}
    return {name: [] if name in known and known[name].is_repeated else None for name in names}


def fill(message: Any, value: Any) -> Any:
    """``message`` with the fields of the SDK's dataclass ``value`` that have the same names (but for keywords
    of Python)."""
    if isinstance(message, Timestamp):
        since = value - _EPOCH
        message.seconds, message.nanos = since.days * 86_400 + since.seconds, since.microseconds * 1_000
        return message
    if isinstance(message, pb.Quotation | pb.MoneyValue):
        # The SDK normalises the nano part to be positive; the contract wants both parts of one sign.
        exact = convert.quotation(value.units * NANO + value.nano)
        message.units, message.nano = exact.units, exact.nano
        if isinstance(message, pb.MoneyValue):
            message.currency = value.currency
        return message
    for field in message.DESCRIPTOR.fields:
        item = getattr(value, _argument(field.name), None)
        if item is None:
            continue
        if field.is_repeated:
            target = getattr(message, field.name)
            if field.message_type is None:
                target.extend(item)
            else:
                for element in item:
                    fill(target.add(), element)
        elif field.message_type is None:
            setattr(message, field.name, item)
        else:
            fill(getattr(message, field.name), item)
    return message


class _Flight:
    """What the interceptor and the caller tell each other about one call."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.headers: dict[str, str] = {}


_flight: ContextVar[_Flight] = ContextVar("scalper_sdk_flight")


class _Deadline(grpc.aio.UnaryUnaryClientInterceptor):
    """The SDK sends without a deadline and keeps only the tracking id of the headers."""

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        flight = _flight.get()
        call = await continuation(client_call_details._replace(timeout=flight.timeout_s), request)
        try:
            flight.headers = as_text(await call.initial_metadata())
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            flight.headers = headers_of(error) if isinstance(error, grpc.aio.AioRpcError) else {}
        return call
