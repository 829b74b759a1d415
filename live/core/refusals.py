"""Saying things once: refusals with names, told at most once a minute for each subject, counted always."""

from __future__ import annotations

from enum import StrEnum

from live.core.config import MINUTE_NS

MAX_SUBJECTS = 10_000
"""Bound of the memory; subjects are (instrument, reason), both from closed lists."""


class Reason(StrEnum):
    """Why a signal was no order; holds refuse as ``HOLD_<name>``, volumes as ``VOLUME_<limit>``."""

    NO_THRESHOLD = "NO_THRESHOLD"
    NO_BOOK = "NO_BOOK"
    STALE_BOOK = "STALE_BOOK"
    ATR_WARMUP = "ATR_WARMUP"
    ORDER_WORKING = "ORDER_WORKING"
    ORDER_RATE = "ORDER_RATE"
    PRICE_COLLAR = "PRICE_COLLAR"
    BEYOND_STOP = "BEYOND_STOP"
    LATE_REST = "LATE_REST"


class Throttle:
    """Lets one event of each subject through per ``interval_ns`` and counts those it kept back."""

    def __init__(self, interval_ns: int = MINUTE_NS) -> None:
        self._interval_ns = interval_ns
        self._told: dict[tuple[str, str], tuple[int, int]] = {}  # subject -> (told_ns, kept back since)

    def count(self, now_ns: int, ticker: str, what: str) -> int:
        """0 when it is too early to tell again, else how many have happened since the last telling, this one
        too.
        """
        subject = (ticker, what)
        told = self._told.get(subject)
        if told is not None and now_ns - told[0] < self._interval_ns:
            self._told[subject] = (told[0], told[1] + 1)
            return 0
        if told is None and len(self._told) >= MAX_SUBJECTS:
            del self._told[next(iter(self._told))]
        self._told[subject] = (now_ns, 0)
        return 1 if told is None else told[1] + 1
