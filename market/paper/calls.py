"""What every call has in common: the token, the limits, the metadata and the API's way of refusing."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

import grpc

from market.paper.access import CALLER, Tokens
from market.paper.faults import MILLISECONDS_PER_SECOND, Faults
from market.paper.limits import RateLimits, exhausted
from market.paper.refusals import Refusal

GATEWAY_TEXT = "upstream connect error or disconnect/reset before headers. reset reason: connection failure"
"""What a gateway says for a service that it cannot reach: no code of the API, no metadata."""


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
    """Wraps behaviours. ``names_of`` gives every name of the instrument that a request is about."""

    def __init__(
        self,
        tokens: Tokens,
        limits: RateLimits,
        faults: Faults,
        names_of: Callable[[Any], Iterable[str]] = lambda request: (),
    ) -> None:
        self._tokens = tokens
        self._limits = limits
        self._faults = faults
        self._names_of = names_of

    def unary(self, key: str, behaviour: Callable[[Any], Awaitable[Any]]) -> Callable[[Any, Context], Any]:
        """A unary behaviour that raises Refusal becomes a handler that answers as the broker does.

        Success: tracking id and rate limit as initial metadata. Refusal: no initial metadata at all
        (Trailers-Only), details = the 5-digit code, the same keys and ``message`` as trailers.
        """

        async def call(request: Any, context: Context) -> Any:
            metadata = {"x-tracking-id": tracking_id()}
            names = () if self._faults.quiet else tuple(self._names_of(request))
            if self._faults.strikes("unavailable", method=key, names=names):
                await context.abort(grpc.StatusCode.UNAVAILABLE, GATEWAY_TEXT)
            try:
                self._authenticate(context)
                metadata |= self._limits.count(key)
                if self._faults.strikes("resource_exhausted", method=key, names=names):
                    raise exhausted(key, metadata)
                reply = await behaviour(request)
                if slow := self._faults.strikes("slow_ack", method=key, names=names):
                    await asyncio.sleep(slow.delay_ms / MILLISECONDS_PER_SECOND)
                if self._faults.strikes("lost_reply_70002", method=key, names=names):
                    raise Refusal("70002")
            except Refusal as refusal:
                await self._abort(context, refusal, metadata)
            await context.send_initial_metadata(tuple(metadata.items()))
            return reply

        return call

    def stream(
        self, key: str, behaviour: Callable[[Any, Context], Awaitable[None]]
    ) -> Callable[[Any, Context], Any]:
        """A streaming behaviour that writes to the context itself; a Refusal ends the stream with its code.

        Only a stream that is refused at once has its metadata in the trailers.
        """

        async def call(request: Any, context: Context) -> None:
            metadata = {"x-tracking-id": tracking_id()}
            if self._faults.strikes("unavailable", method=key):
                await context.abort(grpc.StatusCode.UNAVAILABLE, GATEWAY_TEXT)
            try:
                self._authenticate(context)
                if self._faults.strikes("resource_exhausted", method=key):
                    raise Refusal("80001", key)
                with self._limits.stream(key):
                    await context.send_initial_metadata(tuple(metadata.items()))
                    await behaviour(request, context)
            except Refusal as refusal:
                await self._abort(context, refusal, metadata)

        return call

    def control(self, behaviour: Callable[[bytes], bytes]) -> Callable[[bytes, Context], Any]:
        """A call of our own service: the token is checked, faults and limits do not touch it. ValueError
        becomes INVALID_ARGUMENT with its text as details.
        """

        async def call(request: bytes, context: Context) -> bytes:
            try:
                self._authenticate(context)
                if CALLER.get().access != "full":
                    raise Refusal("40002", "the token is read-only")
            except Refusal as refusal:
                await self._abort(context, refusal, {})
            try:
                return behaviour(request)
            except ValueError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise AssertionError("abort returned")

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
        """From here on ``CALLER`` is the token of this call."""
        given = dict(context.invocation_metadata() or ()).get("authorization", "")
        token = self._tokens.find(str(given))
        if token is None:
            raise Refusal("40003")
        CALLER.set(token)

    async def _abort(self, context: Context, refusal: Refusal, metadata: dict[str, str]) -> None:
        known = metadata | refusal.metadata
        trailers = (*known.items(), ("message", refusal.text.encode("ascii", "replace").decode()))
        await context.abort(refusal.status, refusal.code, trailing_metadata=trailers)
