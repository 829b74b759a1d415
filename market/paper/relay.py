"""A TCP relay in front of the server, for one fault: a connection that stays up and is dead."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from market.paper.faults import Faults


class Relay:
    """Listens on a port of its own and hands every connection on to ``target_port`` of the same host.

    A connection that the fault half_open strikes is dead from then on: what comes from either side is thrown
    away, nothing is answered and nothing is closed until the client closes it. Each new connection is one
    chance; ``kill`` gives one to every connection that is open.
    """

    def __init__(self, host: str, faults: Faults) -> None:
        self._host = host
        self._faults = faults
        self._target_port = 0
        self._server: asyncio.Server | None = None
        self._pairs: set[_Pair] = set()

    async def start(self, port: int, target_port: int) -> int:
        """Returns the port; raises OSError when ``port`` is taken."""
        self._target_port = target_port
        self._server = await asyncio.get_running_loop().create_server(self._accept, self._host, port)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for pair in list(self._pairs):
            pair.close()
        self._server = None

    def kill(self) -> None:
        """Gives half_open its chance at every open connection."""
        for pair in self._pairs:
            pair.dead = pair.dead or self._faults.strikes("half_open") is not None

    def _accept(self) -> asyncio.Protocol:
        pair = _Pair(self._pairs)
        pair.dead = self._faults.strikes("half_open") is not None
        return _Client(pair, self._host, self._target_port)


class _Pair:
    """Both ends of one connection."""

    def __init__(self, pairs: set[_Pair]) -> None:
        self.dead = False
        self.ends: list[_End] = []
        self._pairs = pairs
        pairs.add(self)

    def other(self, end: _End) -> _End | None:
        return next((e for e in self.ends if e is not end), None)

    def close(self) -> None:
        self._pairs.discard(self)
        for end in self.ends:
            end.transport.close()


class _End(asyncio.Protocol):
    """One end; what it reads goes to the other."""

    transport: asyncio.Transport

    def __init__(self, pair: _Pair) -> None:
        self.pair = pair

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.pair.ends.append(self)

    def data_received(self, data: bytes) -> None:
        other = self.pair.other(self)
        if other is not None and not self.pair.dead:
            other.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        # A dead connection's server side may give up; the client must not notice.
        if not self.pair.dead or isinstance(self, _Client):
            self.pair.close()

    def pause_writing(self) -> None:
        other = self.pair.other(self)
        if other is not None:
            other.transport.pause_reading()

    def resume_writing(self) -> None:
        other = self.pair.other(self)
        if other is not None:
            other.transport.resume_reading()


class _Client(_End):
    """The client's end: opens the way to the server before it reads."""

    def __init__(self, pair: _Pair, host: str, port: int) -> None:
        super().__init__(pair)
        self._host, self._port = host, port
        self._opening: asyncio.Task[Any] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.pause_reading()
        self._opening = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: _End(self.pair), self._host, self._port
            )
        except OSError:
            self.pair.close()
            return
        self.transport.resume_reading()
