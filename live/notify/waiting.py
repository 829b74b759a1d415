"""Notices that wait for a slow Telegram: bounded, and what matters most goes first and is dropped last."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from live.notify.notice import Notice, Severity

SEPARATOR = "\n"


class Waiting:
    """Not thread-safe: its owner locks."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lanes: dict[Severity, deque[Notice]] = {s: deque() for s in sorted(Severity, reverse=True)}
        self.dropped = 0

    def __len__(self) -> int:
        return sum(len(lane) for lane in self._lanes.values())

    def put(self, notice: Notice) -> None:
        """The newest of its severity. A full room loses the oldest of the least severe."""
        self._lanes[notice.severity].append(notice)
        self._shrink()

    def put_back(self, batch: Sequence[Notice]) -> None:
        """A batch that could not be sent is the first of its severity again."""
        for notice in reversed(batch):
            self._lanes[notice.severity].appendleft(notice)
        self._shrink()

    def _shrink(self) -> None:
        while len(self) > self._limit:
            least = [lane for lane in self._lanes.values() if lane][-1]
            least.popleft()
            self.dropped += 1

    def take(self, max_chars: int, overhead: int = 0) -> list[Notice]:
        """The next message: the worst notice and those of its severity and chat that fit in with it.

        ``overhead``: characters that each line gets besides its text.
        """
        for lane in self._lanes.values():
            if not lane:
                continue
            batch: list[Notice] = []
            rest: deque[Notice] = deque()
            length = 0
            for notice in lane:
                added = len(notice.text) + len(SEPARATOR) + overhead
                if batch and (notice.chat_id != batch[0].chat_id or length + added > max_chars):
                    rest.append(notice)
                    continue
                batch.append(notice)
                length += added
            lane.clear()
            lane.extend(rest)
            return batch
        return []

    def forget_older(self, at_s: float, severity: Severity) -> int:
        """Drops what nobody needs any more; returns how many."""
        lane = self._lanes[severity]
        before = len(lane)
        while lane and lane[0].at_s < at_s:
            lane.popleft()
        self.dropped += before - len(lane)
        return before - len(lane)
