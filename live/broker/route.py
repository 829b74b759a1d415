"""A channel by a chosen way out of this machine: ``connectivity.primary`` and ``backup`` with ``bind`` or
``interface``.

gRPC cannot choose the local address of a connection. So the channel connects to a loopback port of ours, and
what arrives there leaves through a socket that is bound to the address or the network interface. TLS stays
between gRPC and the broker: the relay sees cipher text only, and the certificate is checked against the
broker's real name.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import replace

from live.broker.channel import Access
from live.config_schema import Channel, Connectivity
from market.errors import BrokerError

CHUNK_BYTES = 1 << 16
CONNECT_TIMEOUT_S = 5.0


class Route:
    """The relay of one channel; ``await open()`` first. ``target`` is what gRPC connects to."""

    def __init__(self, target: str, *, bind: str = "", interface: str = "") -> None:
        host, _, port = target.rpartition(":")
        self.host, self._port = host.strip("[]"), int(port)
        self._bind, self._interface = bind, interface
        self._server: asyncio.Server | None = None
        self._flows: set[asyncio.Task[None]] = set()
        self.connected = 0
        self.last_error = ""

    async def open(self) -> Route:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    @property
    def target(self) -> str:
        if self._server is None:
            raise AssertionError("a route is opened before it is used")
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for flow in list(self._flows):
            flow.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._flows.add(task)
            task.add_done_callback(self._flows.discard)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                far_reader, far_writer = await self._connect()
        except (OSError, TimeoutError) as error:
            self.last_error = f"{self._interface or self._bind}: {error or 'no answer in time'}"
            writer.close()
            return
        self.connected += 1
        # Whichever side ends, both end: a half-open relay would hide a dead line from the watchdog.
        flows = [asyncio.ensure_future(_copy(*pair)) for pair in ((reader, far_writer), (far_reader, writer))]
        try:
            await asyncio.wait(flows, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for flow in flows:
                flow.cancel()
            for end in (writer, far_writer):
                end.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if not self._interface:
            return await asyncio.open_connection(self.host, self._port, local_addr=(self._bind, 0))
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self.host, self._port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        line = socket.socket(family, kind, protocol)
        try:
            line.setblocking(False)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._interface.encode() + b"\0")
            if self._bind:
                line.bind((self._bind, 0))
            await loop.sock_connect(line, address)
        except BaseException:
            line.close()
            raise
        return await asyncio.open_connection(sock=line)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()


async def routed(access: Access, channel: Channel) -> tuple[Access, Route | None]:
    """``access`` by the way that ``channel`` names; the route must be closed at the end.

    Raises BrokerError for an interface that this machine does not have.
    """
    if channel.target:
        access = replace(access, target=channel.target)
    if not channel.bind and not channel.interface:
        return access, None
    if channel.interface:
        present = [name for _, name in socket.if_nameindex()]
        if channel.interface not in present:
            raise BrokerError(
                f"no network interface {channel.interface!r} on this machine; there are {', '.join(present)}"
            )
    route = await Route(access.target, bind=channel.bind, interface=channel.interface).open()
    return replace(access, target=route.target, server_name=route.host), route


class Ways:
    """The primary and the backup channel of a configuration, by their ways: ``await open()`` once."""

    def __init__(self, connectivity: Connectivity) -> None:
        self._connectivity = connectivity
        self._routes: list[Route] = []
        self.backup: Access | None = None
        """Only where ``connectivity.backup`` names anything."""

    async def open(self, access: Access) -> Access:
        """``access`` by the primary channel's way."""
        primary, route = await routed(access, self._connectivity.primary)
        self._remember(route)
        backup = self._connectivity.backup
        if backup.target or backup.bind or backup.interface:
            self.backup, route = await routed(access, backup)
            self._remember(route)
        return primary

    async def close(self) -> None:
        for route in self._routes:
            await route.close()

    def _remember(self, route: Route | None) -> None:
        if route is not None:
            self._routes.append(route)
