"""The equity curve, read bit by bit: a day has tens of thousands of points, a screen has hundreds."""

from __future__ import annotations

import sqlite3
from typing import Any

MAX_POINTS = 400


class Curve:
    """Of one session at a time. Points are [now_ns, net_nano, drawdown_nano]; the drawdown is <= 0 and never
    lost by thinning.
    """

    def __init__(self) -> None:
        self._start("")

    def _start(self, session: str) -> None:
        self._session, self._last_ns = session, -1
        self._per_point = 1
        self._points: list[list[int]] = []
        self._in_last = 0
        self.peak_nano = 0
        self.worst_nano = 0
        self.low_nano = self.high_nano = 0

    def read(self, connection: sqlite3.Connection, session: str) -> dict[str, Any]:
        """Takes in what is new and returns the whole curve."""
        if session != self._session:
            self._start(session)
        rows = connection.execute(
            "SELECT now_ns, net_nano FROM equity WHERE session_id = ? AND now_ns > ? ORDER BY now_ns",
            (session, self._last_ns),
        )
        for now_ns, net_nano in rows:
            self._add(now_ns, net_nano)
        return {
            "points": self._points,
            "worst_nano": self.worst_nano,
            "now_nano": self._points[-1][2] if self._points else 0,
            "low_nano": self.low_nano,
            "high_nano": self.high_nano,
        }

    def _add(self, now_ns: int, net_nano: int) -> None:
        self._last_ns = now_ns
        self.peak_nano = max(self.peak_nano, net_nano)
        self.low_nano, self.high_nano = min(self.low_nano, net_nano), max(self.high_nano, net_nano)
        drawdown = net_nano - self.peak_nano
        self.worst_nano = min(self.worst_nano, drawdown)
        if self._points and self._in_last < self._per_point:
            point = self._points[-1]
            self._points[-1] = [now_ns, net_nano, min(point[2], drawdown)]
            self._in_last += 1
            return
        self._points.append([now_ns, net_nano, drawdown])
        self._in_last = 1
        if len(self._points) > MAX_POINTS:
            self._halve()

    def _halve(self) -> None:
        """Two points become one: the later result, the deeper drawdown. The first point stays."""
        first, rest = self._points[0], self._points[1:]
        pairs = [
            [later[0], later[1], min(earlier[2], later[2])]
            for earlier, later in zip(rest[0::2], rest[1::2], strict=False)
        ]
        self._points = [first, *pairs, *([rest[-1]] if len(rest) % 2 else [])]
        self._per_point *= 2
        self._in_last = 1 if len(rest) % 2 else self._per_point
