"""How a unary call travels: our own stubs (``native``), or the official SDK (``sdk``, see ``sdk.py``).

Both take and give the contract's messages, put a deadline on every call, and raise ``CallFailed`` with one
meaning for one failure. Streams are always native: the SDK's objects cost 80 to 100 times as much per book.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

import grpc.aio

from live.broker.channel import Access, open_channel
from live.broker.errors import RATE_LIMITED, CallFailed, Failure, Verdict, as_text, classify, headers_of
from live.broker.limits import RateLimits
from market.contract.methods import stub

DEADLINES_S: dict[str, float] = {
    "UsersService/GetAccounts": 2.0, "UsersService/GetInfo": 2.0, "UsersService/GetUserTariff": 2.0,
    "InstrumentsService/ShareBy": 2.0, "InstrumentsService/FutureBy": 2.0,
    "InstrumentsService/GetInstrumentBy": 2.0,
    "InstrumentsService/FindInstrument": 2.0, "InstrumentsService/GetFuturesMargin": 2.0,
    "InstrumentsService/TradingSchedules": 2.0,
    "OrdersService/PostOrder": 1.5, "OrdersService/CancelOrder": 1.5, "OrdersService/GetOrderState": 0.6,
    "OrdersService/GetOrders": 1.0, "OperationsService/GetPositions": 2.0,
    "OperationsService/GetOperationsByCursor": 5.0,
    "MarketDataService/GetOrderBook": 1.0, "MarketDataService/GetTradingStatus": 1.0,
    "StopOrdersService/PostStopOrder": 1.5, "StopOrdersService/GetStopOrders": 1.0,
    "StopOrdersService/CancelStopOrder": 1.5, "MarketDataService/GetLastPrices": 1.0,
}  # fmt: skip
"""What the broker recommends, doubled for reads: they cost nothing to wait for."""

Headers = Mapping[str, str]


class Transport(Protocol):
    """Carries unary calls over ``channel``, which the streams share."""

    @property
    def channel(self) -> grpc.aio.Channel: ...

    async def call(self, key: str, request: Any, *, timeout_s: float) -> tuple[Any, Headers]:
        """(answer, its headers) of "Service/Method". Raises grpc.aio.AioRpcError, CallFailed or what grpc
        raises when the channel is closed under a call.
        """
        ...

    async def close(self) -> None: ...


class NativeTransport:
    """The bundled contract over one channel."""

    def __init__(self, access: Access) -> None:
        self._channel = open_channel(access)
        self._metadata = access.metadata
        self._stubs: dict[str, Any] = {}

    @property
    def channel(self) -> grpc.aio.Channel:
        return self._channel

    async def call(self, key: str, request: Any, *, timeout_s: float) -> tuple[Any, Headers]:
        if key not in self._stubs:
            self._stubs[key] = stub(self._channel, key)
        call = self._stubs[key](request, timeout=timeout_s, metadata=self._metadata)
        answer = await call
        return answer, as_text(await call.initial_metadata())

    async def close(self) -> None:
        await self._channel.close()


def open_transport(kind: str, access: Access) -> Transport:
    """``native`` or ``sdk``. Raises SdkMissing, which says what to install and from where."""
    if kind == "native":
        return NativeTransport(access)
    from live.broker.sdk import SdkTransport

    return SdkTransport(access)


async def guarded(transport: Transport, limits: RateLimits, key: str, request: Any, *, wait_s: float) -> Any:
    """One call in its turn: waits at most ``wait_s`` for the rate budget, feeds the answer's headers back to
    it, and raises CallFailed for everything that went wrong.
    """
    wait = limits.wait_s(key)
    if wait > wait_s:
        raise CallFailed(key, Failure(Verdict.REFUSED, "OWN_RATE_LIMIT", f"the next turn is in {wait:.1f} s"))
    if wait > 0:
        await asyncio.sleep(wait)
    limits.take(key)
    headers: Headers = {}
    try:
        answer, headers = await transport.call(key, request, timeout_s=DEADLINES_S[key])
        return answer
    except CallFailed as error:
        failure = error.failure
    except grpc.aio.AioRpcError as error:
        failure, headers = classify(error), headers_of(error)
    except asyncio.CancelledError:
        # grpc.aio raises CancelledError as well when the channel is closed under a call (fail-over).
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
        failure = Failure(Verdict.UNKNOWN, "CHANNEL_CLOSED", "the connection was replaced during the call")
    except grpc.aio.UsageError as error:
        failure = Failure(Verdict.UNKNOWN, "CHANNEL_CLOSED", str(error))
    finally:
        limits.done(key, headers)
    if failure.code == RATE_LIMITED:
        limits.exhausted(key, failure.retry_after_s)
    raise CallFailed(key, failure)
