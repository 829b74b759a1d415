"""Writes QSH version 4 as QScalp does, from plain Python values: what the decoder is tested against."""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass, field

NET_EPOCH_MS = 62_135_596_800_000
MOSCOW_MS = 3 * 3_600_000
START_MS = NET_EPOCH_MS + 1_538_722_800_000  # 2018-10-05 07:00:00 UTC
ESCAPE = 268_435_455
QUOTES, DEALS, AUX_INFO, ORDER_LOG = 0x10, 0x20, 0x60, 0x70


def uleb(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = value >> 7, value & 127
        out.append(low | (128 if value else 0))
        if not value:
            return bytes(out)


def sleb(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = value >> 7, value & 127
        if value == (-1 if low & 64 else 0):
            out.append(low)
            return bytes(out)
        out.append(low | 128)


def grown(step: int) -> bytes:
    return uleb(step) if 0 <= step < ESCAPE else uleb(ESCAPE) + sleb(step)


def text(value: str) -> bytes:
    raw = value.encode()
    return uleb(len(raw)) + raw


@dataclass
class Writer:
    """One file. ``streams``: (type, "Connector:Ticker:Class:Id:step")."""

    streams: list[tuple[int, str]]
    start_ms: int = START_MS
    body: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self.ms = self.start_ms
        self.last: list[dict[str, int]] = [{} for _ in self.streams]

    def packed(self) -> bytes:
        return gzip.compress(self.plain(), mtime=0)

    def plain(self) -> bytes:
        head = b"QScalp History Data\x04" + text("a test") + text("комментарий")
        head += struct.pack("<q", self.start_ms * 10_000) + bytes([len(self.streams)])
        for kind, name in self.streams:
            head += bytes([kind]) + text(name)
        return head + bytes(self.body)

    def _frame(self, ms: int, stream: int) -> None:
        self.body += grown(ms - self.ms)
        self.ms = ms
        if len(self.streams) > 1:
            self.body.append(stream)

    def _step(self, stream: int, name: str, value: int) -> int:
        """How far ``value`` lies from the last one, which it becomes."""
        last = self.last[stream].get(name, 0)
        self.last[stream][name] = value
        return value - last

    def quotes(self, ms: int, changes: list[tuple[int, int]], stream: int = 0) -> None:
        self._frame(ms, stream)
        self.body += sleb(len(changes))
        for px, size in changes:
            self.body += sleb(self._step(stream, "px", px)) + sleb(size)

    def deal(
        self, ms: int, side: int, exch_ms: int, deal: int, order: int, px: int, lots: int, interest: int,
        stream: int = 0,
    ) -> None:  # fmt: skip
        self._frame(ms, stream)
        mask, tail = side, b""
        for bit, name, value in ((4, "exch", exch_ms), (8, "deal", deal)):
            if step := self._step(stream, name, value):
                mask, tail = mask | bit, tail + grown(step)
        for bit, name, value in ((16, "order", order), (32, "px", px)):
            if step := self._step(stream, name, value):
                mask, tail = mask | bit, tail + sleb(step)
        if self._step(stream, "lots", lots):
            mask, tail = mask | 64, tail + sleb(lots)
        if step := self._step(stream, "interest", interest):
            mask, tail = mask | 128, tail + sleb(step)
        self.body += bytes([mask]) + tail

    def aux(
        self, ms: int, exch_ms: int, totals: tuple[int, int, int, int], session: tuple[int, int, float],
        rate: float, message: str = "", stream: int = 0,
    ) -> None:  # fmt: skip
        self._frame(ms, stream)
        mask, tail = 1 | 32 | 64, grown(self._step(stream, "exch", exch_ms))
        for bit, value in enumerate(totals):
            if step := self._step(stream, f"total{bit}", value):
                mask, tail = mask | 2 << bit, tail + sleb(step)
        tail += sleb(session[0]) + sleb(session[1]) + struct.pack("<d", session[2]) + struct.pack("<d", rate)
        if message:
            mask, tail = mask | 128, tail + text(message)
        self.body += bytes([mask]) + tail

    def order(
        self, ms: int, exch_ms: int, flags: int, order: int, px: int, lots: int,
        fill: tuple[int, int, int, int] = (0, 0, 0, 0), stream: int = 0,
    ) -> None:  # fmt: skip
        """``fill``: rest, deal id, deal price, open interest; only written with flag 8."""
        self._frame(ms, stream)
        mask, tail = 0, b""
        if step := self._step(stream, "exch", exch_ms):
            mask, tail = mask | 1, tail + grown(step)
        kept = self.last[stream].get("order", 0)
        if order != kept:
            mask |= 2
            if flags & 4:
                tail += grown(self._step(stream, "order", order))
            else:
                tail += sleb(order - kept)
        if step := self._step(stream, "px", px):
            mask, tail = mask | 4, tail + sleb(step)
        if self._step(stream, "lots", lots):
            mask, tail = mask | 8, tail + sleb(lots)
        if flags & 8:
            rest, deal, deal_px, interest = fill
            if self._step(stream, "rest", rest):
                mask, tail = mask | 16, tail + sleb(rest)
            if step := self._step(stream, "deal", deal):
                mask, tail = mask | 32, tail + grown(step)
            for bit, name, value in ((64, "deal_px", deal_px), (128, "interest", interest)):
                if step := self._step(stream, name, value):
                    mask, tail = mask | bit, tail + sleb(step)
        self.body += bytes([mask]) + struct.pack("<H", flags) + tail
