"""The port of the paper exchange: TLS, HTTP/2, and the faults that concern the connection itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from market.contract.methods import MAX_MESSAGE_BYTES
from market.errors import BrokerError
from market.paper.faults import MILLISECONDS_PER_SECOND, Faults
from market.paper.relay import Relay
from market.paper.tls import ServerCertificate

BIND_TO = "127.0.0.1"
CHANCE_S = 1.0
"""Wall time between two chances of the faults goaway and half_open; the first comes when they are set."""
REBIND_S = 5.0
REBIND_PAUSE_S = 0.01

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Clients that ping every second on an idle connection are welcome; the library's default kicks them out.
    ("grpc.http2.min_ping_interval_without_data_ms", 500),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    # Without this a second exchange on the same port would start and quietly take half of the calls.
    ("grpc.so_reuseport", 0),
)


class Transport:
    """One port on the loopback. ``handlers`` makes the services anew for every server that is started.

    ``wire_faults`` puts a relay in front, which the fault half_open needs; it costs a tenth of a millisecond
    a message.
    """

    def __init__(
        self,
        handlers: Callable[[], Sequence[grpc.GenericRpcHandler]],
        faults: Faults,
        *,
        host: str,
        wire_faults: bool,
    ) -> None:
        self._handlers = handlers
        self._faults = faults
        self._host = host
        self._relay = Relay(BIND_TO, faults) if wire_faults else None
        self._server: Any = None
        self._credentials: Any = None
        self._own_port = 0
        self._chances: asyncio.Task[None] | None = None
        self._set = asyncio.Event()
        self._leaving: set[asyncio.Task[Any]] = set()
        self.restarts = 0

    async def start(self, certificate: ServerCertificate, port: int) -> int:
        """Serves on ``port`` (0: any free one) and returns it. BrokerError names a port that is taken."""
        self._credentials = grpc.ssl_server_credentials([(certificate.key_pem, certificate.cert_pem)])
        self._own_port = await self._serve(0 if self._relay else port)
        outer = self._own_port
        if self._relay is not None:
            try:
                outer = await self._relay.start(port, self._own_port)
            except (OSError, OverflowError) as error:
                await self._server.stop(None)
                raise self._taken(port, error) from error
        self._faults.on_change = self._set.set
        self._chances = asyncio.create_task(self._give_chances())
        return outer

    @property
    def watching(self) -> asyncio.Task[None]:
        """Runs as long as the port serves; done with an error when it cannot be served any more."""
        if self._chances is None:
            raise BrokerError("the paper exchange is not started; call start() first")
        return self._chances

    async def stop(self, grace_s: float) -> None:
        self._faults.on_change = lambda: None
        if self._chances is not None:
            self._chances.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._chances
        if self._relay is not None:
            await self._relay.stop()
        await self._server.stop(grace_s)
        if self._leaving:
            await asyncio.wait(self._leaving)

    async def go_away(self, grace_s: float) -> None:
        """GOAWAY on every connection; calls have ``grace_s`` to finish, then they are cancelled. The port
        serves again at once.
        """
        leaving = asyncio.ensure_future(self._server.stop(grace_s))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        loop = asyncio.get_running_loop()
        until_s = loop.time() + REBIND_S
        while True:
            await asyncio.sleep(REBIND_PAUSE_S)  # the old server closes its listening socket
            try:
                await self._serve(self._own_port)
            except BrokerError:
                if loop.time() > until_s:
                    raise
            else:
                break
        self.restarts += 1

    # ------------------------------------------------------------------ inside

    async def _give_chances(self) -> None:
        while True:
            if self._faults.quiet:
                await self._set.wait()
            self._set.clear()
            fault = self._faults.strikes("goaway")
            if fault is not None:
                await self.go_away(fault.delay_ms / MILLISECONDS_PER_SECOND)
            if self._relay is not None:
                self._relay.kill()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHANCE_S):
                    await self._set.wait()

    async def _serve(self, port: int) -> int:
        server = grpc.aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers(tuple(self._handlers()))
        # The certificate and the promise are for IPv4's loopback; "localhost" may also mean ::1.
        try:
            # Asked by hand first: the library would print its own complaint before ours.
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((BIND_TO, port))
                probe.listen()
            bound = server.add_secure_port(f"{BIND_TO}:{port}", self._credentials)
        except (OSError, OverflowError, RuntimeError) as error:
            raise self._taken(port, error) from error
        await server.start()
        self._server = server
        return int(bound)

    def _taken(self, port: int, error: Exception) -> BrokerError:
        return BrokerError(
            f"port {port} on {self._host} cannot be used ({error}): something may listen there already; "
            "choose another with --port, or --port 0 for any free one"
        )
