"""The methods of the Invest API that this product knows: official paths, message types, kinds.

One table drives both ends: ``stub`` makes a client callable, ``rpc_handlers`` makes a server's generic
handlers. The broker's message package never travels, so our own messages under the official method paths are
the contract.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import grpc
from google.protobuf.message import Message

from market.contract import invest_pb2 as pb

PACKAGE = "tinkoff.public.invest.api.contract.v1"

MAX_MESSAGE_BYTES = 10 * 1024 * 1024
"""What the official SDK accepts in one message; use it for both ends."""

Kind = Literal["unary", "server_stream", "bidi"]


@dataclass(frozen=True, slots=True)
class Method:
    """One remote method. ``key`` is "Service/Method"; ``path`` is what travels in the HTTP/2 header."""

    service: str
    name: str
    request: type[Message]
    response: type[Message]
    kind: Kind = "unary"

    @property
    def key(self) -> str:
        return f"{self.service}/{self.name}"

    @property
    def path(self) -> str:
        return f"/{PACKAGE}.{self.service}/{self.name}"


def _methods() -> Iterator[Method]:
    yield from (
        Method("UsersService", name, getattr(pb, f"{name}Request"), getattr(pb, f"{name}Response"))
        for name in ("GetAccounts", "GetMarginAttributes", "GetUserTariff", "GetInfo")
    )
    instruments = "InstrumentsService"
    yield Method(instruments, "TradingSchedules", pb.TradingSchedulesRequest, pb.TradingSchedulesResponse)
    yield Method(instruments, "ShareBy", pb.InstrumentRequest, pb.ShareResponse)
    yield Method(instruments, "Shares", pb.InstrumentsRequest, pb.SharesResponse)
    yield Method(instruments, "FutureBy", pb.InstrumentRequest, pb.FutureResponse)
    yield Method(instruments, "Futures", pb.InstrumentsRequest, pb.FuturesResponse)
    yield Method(instruments, "GetInstrumentBy", pb.InstrumentRequest, pb.InstrumentResponse)
    yield Method(instruments, "FindInstrument", pb.FindInstrumentRequest, pb.FindInstrumentResponse)
    yield Method(instruments, "GetFuturesMargin", pb.GetFuturesMarginRequest, pb.GetFuturesMarginResponse)
    yield from (
        Method("MarketDataService", name, getattr(pb, f"{name}Request"), getattr(pb, f"{name}Response"))
        for name in (
            "GetCandles", "GetLastPrices", "GetOrderBook",
            "GetTradingStatus", "GetTradingStatuses", "GetLastTrades",
        )
    )  # fmt: skip
    stream = "MarketDataStreamService"
    yield Method(stream, "MarketDataStream", pb.MarketDataRequest, pb.MarketDataResponse, "bidi")
    yield Method(
        stream, "MarketDataServerSideStream", pb.MarketDataServerSideStreamRequest, pb.MarketDataResponse,
        "server_stream",
    )  # fmt: skip
    orders = "OrdersService"
    yield Method(orders, "PostOrder", pb.PostOrderRequest, pb.PostOrderResponse)
    yield Method(orders, "PostOrderAsync", pb.PostOrderAsyncRequest, pb.PostOrderAsyncResponse)
    yield Method(orders, "CancelOrder", pb.CancelOrderRequest, pb.CancelOrderResponse)
    yield Method(orders, "GetOrderState", pb.GetOrderStateRequest, pb.OrderState)
    yield Method(orders, "GetOrders", pb.GetOrdersRequest, pb.GetOrdersResponse)
    yield Method(orders, "ReplaceOrder", pb.ReplaceOrderRequest, pb.PostOrderResponse)
    yield Method(orders, "GetMaxLots", pb.GetMaxLotsRequest, pb.GetMaxLotsResponse)
    yield Method(orders, "GetOrderPrice", pb.GetOrderPriceRequest, pb.GetOrderPriceResponse)
    stream = "OrdersStreamService"
    yield Method(stream, "TradesStream", pb.TradesStreamRequest, pb.TradesStreamResponse, "server_stream")
    yield Method(
        stream, "OrderStateStream", pb.OrderStateStreamRequest, pb.OrderStateStreamResponse, "server_stream"
    )
    operations = "OperationsService"
    yield Method(operations, "GetOperations", pb.OperationsRequest, pb.OperationsResponse)
    yield Method(
        operations, "GetOperationsByCursor", pb.GetOperationsByCursorRequest, pb.GetOperationsByCursorResponse
    )
    yield Method(operations, "GetPositions", pb.PositionsRequest, pb.PositionsResponse)
    yield Method(operations, "GetPortfolio", pb.PortfolioRequest, pb.PortfolioResponse)
    yield Method(operations, "GetWithdrawLimits", pb.WithdrawLimitsRequest, pb.WithdrawLimitsResponse)
    stream = "OperationsStreamService"
    yield Method(
        stream, "PortfolioStream", pb.PortfolioStreamRequest, pb.PortfolioStreamResponse, "server_stream"
    )
    yield Method(
        stream, "PositionsStream", pb.PositionsStreamRequest, pb.PositionsStreamResponse, "server_stream"
    )
    stop = "StopOrdersService"
    yield Method(stop, "PostStopOrder", pb.PostStopOrderRequest, pb.PostStopOrderResponse)
    yield Method(stop, "GetStopOrders", pb.GetStopOrdersRequest, pb.GetStopOrdersResponse)
    yield Method(stop, "CancelStopOrder", pb.CancelStopOrderRequest, pb.CancelStopOrderResponse)
    sandbox = "SandboxService"
    yield Method(sandbox, "OpenSandboxAccount", pb.OpenSandboxAccountRequest, pb.OpenSandboxAccountResponse)
    yield Method(
        sandbox, "CloseSandboxAccount", pb.CloseSandboxAccountRequest, pb.CloseSandboxAccountResponse
    )
    yield Method(sandbox, "SandboxPayIn", pb.SandboxPayInRequest, pb.SandboxPayInResponse)


SANDBOX_NAMES: dict[str, str] = {
    "SandboxService/GetSandboxAccounts": "UsersService/GetAccounts",
    "SandboxService/PostSandboxOrder": "OrdersService/PostOrder",
    "SandboxService/PostSandboxOrderAsync": "OrdersService/PostOrderAsync",
    "SandboxService/ReplaceSandboxOrder": "OrdersService/ReplaceOrder",
    "SandboxService/GetSandboxOrders": "OrdersService/GetOrders",
    "SandboxService/CancelSandboxOrder": "OrdersService/CancelOrder",
    "SandboxService/GetSandboxOrderState": "OrdersService/GetOrderState",
    "SandboxService/GetSandboxOrderPrice": "OrdersService/GetOrderPrice",
    "SandboxService/GetSandboxMaxLots": "OrdersService/GetMaxLots",
    "SandboxService/GetSandboxPositions": "OperationsService/GetPositions",
    "SandboxService/GetSandboxPortfolio": "OperationsService/GetPortfolio",
    "SandboxService/GetSandboxOperations": "OperationsService/GetOperations",
    "SandboxService/GetSandboxOperationsByCursor": "OperationsService/GetOperationsByCursor",
    "SandboxService/GetSandboxWithdrawLimits": "OperationsService/GetWithdrawLimits",
    "SandboxService/PostSandboxStopOrder": "StopOrdersService/PostStopOrder",
    "SandboxService/GetSandboxStopOrders": "StopOrdersService/GetStopOrders",
    "SandboxService/CancelSandboxStopOrder": "StopOrdersService/CancelStopOrder",
}
"""A sandbox method -> the ordinary method whose messages and meaning it has."""


def _all_methods() -> dict[str, Method]:
    methods = {m.key: m for m in _methods()}
    for key, ordinary in SANDBOX_NAMES.items():
        service, name = key.split("/")
        methods[key] = Method(service, name, methods[ordinary].request, methods[ordinary].response)
    return methods


METHODS: dict[str, Method] = _all_methods()
"""Every known method by "Service/Method"."""

SERVICES: dict[str, tuple[Method, ...]] = {
    service: tuple(m for m in METHODS.values() if m.service == service)
    for service in dict.fromkeys(m.service for m in METHODS.values())
}
"""The same methods grouped by service."""


def stub(channel: Any, key: str, *, read: Callable[[bytes], Any] | None = None) -> Any:
    """A client callable for "Service/Method" on a ``grpc.Channel`` or ``grpc.aio.Channel``.

    It is the ordinary multi-callable of grpc: give it the request (or nothing, for a bidi stream) and
    metadata. ``read`` makes something else of an answer's bytes than the contract's message. Raises KeyError
    for a method that is not in ``METHODS``.
    """
    method = METHODS[key]
    make = {
        "unary": channel.unary_unary,
        "server_stream": channel.unary_stream,
        "bidi": channel.stream_stream,
    }[method.kind]
    return make(
        method.path,
        request_serializer=method.request.SerializeToString,
        response_deserializer=read or method.response.FromString,
    )


def _serialize(message: Message | bytes) -> bytes:
    # A stream that sends one book to many subscribers serialises it once and hands out the bytes.
    return message if isinstance(message, bytes) else message.SerializeToString()


_HANDLER_FACTORY: dict[Kind, Callable[..., grpc.RpcMethodHandler]] = {
    "unary": grpc.unary_unary_rpc_method_handler,
    "server_stream": grpc.unary_stream_rpc_method_handler,
    "bidi": grpc.stream_stream_rpc_method_handler,
}


def rpc_handlers(behaviours: Mapping[str, Callable[..., Any]]) -> list[grpc.GenericRpcHandler]:
    """Generic handlers, one per service, that answer the official paths with
    ``behaviours["Service/Method"]``.

    Give the result to ``server.add_generic_rpc_handlers``. A streaming behaviour may yield or write either
    messages or bytes already serialised. Raises KeyError for a key that is not in ``METHODS``.
    """
    by_service: dict[str, dict[str, grpc.RpcMethodHandler]] = {}
    for key, behaviour in behaviours.items():
        method = METHODS[key]
        by_service.setdefault(method.service, {})[method.name] = _HANDLER_FACTORY[method.kind](
            behaviour,
            request_deserializer=method.request.FromString,
            response_serializer=_serialize,
        )
    return [
        grpc.method_handlers_generic_handler(f"{PACKAGE}.{service}", handlers)
        for service, handlers in by_service.items()
    ]
