"""What every call has in common: the token, the limits, the metadata and the API's way of refusing."""

from __future__ import annotations

import hmac
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import grpc

from market.paper.limits import RateLimits
from market.paper.refusals import Refusal


class Context(Protocol):
    """What is used of grpc.aio's ServicerContext, which the library's stubs leave untyped."""

    async def write(self, message: Any) -> None: ...
    async def send_initial_metadata(self, initial_metadata: Any) -> None: ...
    async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Any = ()) -> Any: ...
    def invocation_metadata(self) -> Any: ...


def tracking_id() -> str:
    """32 hex digits, as the broker's."""
    return uuid.uuid4().hex


class Guard:
    """Wraps behaviours. ``lost_replies`` counts, by method, replies that still have to be lost on the way."""

    def __init__(self, token: str, *, enforce_limits: bool) -> None:
        self.token = token
        self._expected = f"Bearer {token}"
        self._limits = RateLimits()
        self._enforce_limits = enforce_limits
        self.lost_replies: Counter[str] = Counter()

    def unary(self, key: str, behaviour: Callable[[Any], Awaitable[Any]]) -> Callable[[Any, Context], Any]:
        """A unary behaviour that raises Refusal becomes a handler that answers as the broker does.

        Success: tracking id and rate limit as initial metadata. Refusal: no initial metadata at all
        (Trailers-Only), details = the 5-digit code, the same keys and ``message`` as trailers.
        """

        async def call(request: Any, context: Context) -> Any:
            metadata = {"x-tracking-id": tracking_id()}
            try:
                self._authenticate(context)
                within, headers = self._limits.count(key)
                metadata |= headers
                if self._enforce_limits and not within:
                    raise Refusal("80002", key)
                reply = await behaviour(request)
                if self.lost_replies[key] > 0:
                    self.lost_replies[key] -= 1
                    raise Refusal("70002")
            except Refusal as refusal:
                await self._abort(context, refusal, metadata)
            await context.send_initial_metadata(tuple(metadata.items()))
            return reply

        return call

    def stream(self, behaviour: Callable[[Any, Context], Awaitable[None]]) -> Callable[[Any, Context], Any]:
        """A streaming behaviour that writes to the context itself."""

        async def call(request: Any, context: Context) -> None:
            metadata = {"x-tracking-id": tracking_id()}
            try:
                self._authenticate(context)
            except Refusal as refusal:
                await self._abort(context, refusal, metadata)
            await context.send_initial_metadata(tuple(metadata.items()))
            await behaviour(request, context)

        return call

    def unknown(self) -> grpc.GenericRpcHandler:
        """Answers every method that nobody else serves with 12001."""
        guard = self

        class Unknown(grpc.GenericRpcHandler):
            def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
                async def refuse(request: bytes, context: Context) -> bytes:
                    name = handler_call_details.method.rsplit(".", 1)[-1]
                    await guard._abort(context, Refusal("12001", name), {"x-tracking-id": tracking_id()})
                    return b""

                return grpc.unary_unary_rpc_method_handler(refuse)

        return Unknown()

    def _authenticate(self, context: Context) -> None:
        given = dict(context.invocation_metadata() or ()).get("authorization", "")
        if not hmac.compare_digest(str(given).encode(), self._expected.encode()):
            raise Refusal("40003")

    async def _abort(self, context: Context, refusal: Refusal, metadata: dict[str, str]) -> None:
        trailers = (*metadata.items(), ("message", refusal.text.encode("ascii", "replace").decode()))
        await context.abort(refusal.status, refusal.code, trailing_metadata=trailers)
