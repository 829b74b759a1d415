"""Inputs that cannot happen. The driver that produced one is broken: it must stop trading, not go on."""

from __future__ import annotations

from market.errors import ScalperError


class ImpossibleEvent(ScalperError):
    """An event contradicts the engine's contract."""


class ClockWentBack(ImpossibleEvent):
    """``now_ns`` of an event is before that of the event handed over last."""


class UnknownTicker(ImpossibleEvent):
    """An event speaks of an instrument that the engine was not made for."""


class BadSnapshot(ScalperError):
    """A checkpoint cannot be restored into this engine."""
