"""Quiet or dead? A stream that is connected, pings, and says nothing about one instrument.

An instrument without a book for the silence limit is asked for by a unary call. If the broker's book is the
last one streamed, the market is quiet and the next question comes later. If it is another one and no message
follows within the grace, the subscription is dead and is made again; the second time in the life of a stream,
the whole stream is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from live.broker.levels import Levels
from market.errors import BrokerError
from market.types import Instrument

MIN_SILENCE_S = 1.0
"""Wall time: an accelerated paper clock must not turn a busy machine into a dead stream."""
LOOKS_PER_LIMIT = 4
GRACE_S = 0.5
MAX_PROBE_PAUSE_S = 60.0


class Watched(Protocol):
    """What is watched: ``MarketDataStream``."""

    @property
    def generation(self) -> int: ...
    @property
    def up(self) -> bool: ...
    def watched(self) -> Mapping[str, Instrument]: ...
    def book_of(self, uid: str) -> tuple[float, Levels | None]: ...
    async def resubscribe(self, uid: str) -> None: ...
    def fail(self, reason: str) -> None: ...
    def distrust(self, uid: str, why: str) -> None: ...


class Prober(Protocol):
    """Who is asked: ``BrokerClient``."""

    async def order_book(self, instrument: Instrument, depth: int) -> Levels: ...


@dataclass(slots=True)
class _Silence:
    """One silence of one instrument."""

    generation: int
    since: float
    next_probe: float
    pause_s: float


class SilenceWatch:
    """``run`` never returns by itself; the counters are for the status page."""

    def __init__(
        self, stream: Watched, prober: Prober, *, depth: int, silence_s: float, grace_s: float = GRACE_S
    ) -> None:
        self._stream, self._prober, self._depth = stream, prober, depth
        self._limit_s = max(MIN_SILENCE_S, silence_s)
        self._grace_s = grace_s
        self._silences: dict[str, _Silence] = {}
        self._mended: dict[str, int] = {}
        self.probes = 0
        self.quiet = 0
        self.failed_probes = 0
        self.resubscribed = 0
        self.reconnected = 0
        self.last_error = ""

    def report(self) -> dict[str, int | str]:
        return {
            "silent_now": len(self._silences),
            "probes": self.probes,
            "quiet": self.quiet,
            "failed_probes": self.failed_probes,
            "resubscribed": self.resubscribed,
            "reconnected": self.reconnected,
            "last_error": self.last_error,
        }

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._limit_s / LOOKS_PER_LIMIT)
            for uid, instrument in self._stream.watched().items():
                await self._look(uid, instrument)

    async def _look(self, uid: str, instrument: Instrument) -> None:
        now = asyncio.get_running_loop().time()
        at, _ = self._stream.book_of(uid)
        if not self._stream.up or now - at < self._limit_s:
            self._silences.pop(uid, None)
            return
        silence = self._silences.get(uid)
        if silence is None or silence.generation != self._stream.generation or silence.since != at:
            silence = _Silence(self._stream.generation, at, now, self._limit_s)
            self._silences[uid] = silence
        if now >= silence.next_probe:
            await self._probe(uid, instrument, silence)

    async def _probe(self, uid: str, instrument: Instrument, silence: _Silence) -> None:
        """Twice, the grace apart: a book that is on its way to us at this very moment proves nothing."""
        for attempt in range(2):
            self.probes += 1
            try:
                book = await self._prober.order_book(instrument, self._depth)
            except BrokerError as error:
                self.failed_probes += 1
                self.last_error = str(error)
                self._later(silence)
                return
            at, streamed = self._stream.book_of(uid)
            if at != silence.since or self._stream.generation != silence.generation:
                return  # it spoke meanwhile, or another stream has taken over
            if book == streamed:
                self.quiet += 1
                self._later(silence)
                return
            if attempt == 0:
                await asyncio.sleep(self._grace_s)
        await self._dead(uid, instrument, silence)

    async def _dead(self, uid: str, instrument: Instrument, silence: _Silence) -> None:
        age_s = asyncio.get_running_loop().time() - silence.since
        self.last_error = (
            f"{instrument.ticker} is mute: no book for {age_s:.1f} s while the broker's book moved"
        )
        self._stream.distrust(uid, self.last_error)
        if self._mended.get(uid) == silence.generation:
            self.reconnected += 1
            self._stream.fail(self.last_error)
            return
        self._mended[uid] = silence.generation
        silence.next_probe = asyncio.get_running_loop().time() + self._grace_s
        self.resubscribed += 1
        await self._stream.resubscribe(uid)

    def _later(self, silence: _Silence) -> None:
        silence.next_probe = asyncio.get_running_loop().time() + silence.pause_s
        silence.pause_s = min(MAX_PROBE_PAUSE_S, silence.pause_s * 2)
