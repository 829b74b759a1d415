"""Fail-over and recovery told: ``CONNECTIVITY_FAILOVER``, ``CONNECTIVITY_RECOVERED``, and how long it took.

The link switches; the engine distrusts every book and asks for reconciliation when the channel of a
``Connection`` changed. Here people and the audit hear of it, and the caches of the old channel are cleared.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from live.core.commands import TONE_RISK_HZ
from live.core.events import Connection
from live.notify import Notifier
from market.types import MILLISECOND_NS

PRIMARY = "primary"


class FailoverWatch:
    """Feed it every ``Connection``. ``switched_mono_ns`` answers when the link last began to switch."""

    def __init__(
        self, limit_ms: int, switched_mono_ns: Callable[[], int], clear_caches: Callable[[], None],
        audit: Callable[..., None], notifier: Notifier,
        *, mono_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:  # fmt: skip
        self._limit_ms, self._switched_mono_ns, self._clear = limit_ms, switched_mono_ns, clear_caches
        self._audit, self._notifier, self._mono_ns = audit, notifier, mono_ns
        self._channel = PRIMARY
        self._last_error = ""
        self.failovers = 0
        self.last_ms: float | None = None
        """How long the last switch took, from the decision to both streams being subscribed."""

    def on_connection(self, event: Connection) -> None:
        if not event.up:
            self._last_error = event.error or self._last_error
            return
        if event.channel == self._channel:
            return
        self._channel = event.channel
        self._clear()
        self.last_ms = round((self._mono_ns() - self._switched_mono_ns()) / MILLISECOND_NS, 1)
        if event.channel == PRIMARY:
            self._tell("CONNECTIVITY_RECOVERED", "back on the primary channel", None)
            return
        self.failovers += 1
        self._tell(
            "CONNECTIVITY_FAILOVER", f"on the {event.channel} channel; last error: {self._last_error}",
            TONE_RISK_HZ,
        )  # fmt: skip
        if self.last_ms > self._limit_ms:
            fields: dict[str, Any] = {"took_ms": self.last_ms, "limit_ms": self._limit_ms}
            self._audit("CONNECTIVITY", "FAILOVER_SLOW", **fields)
            self._notifier.send(
                f"FAILOVER_SLOW: the switch took {self.last_ms:g} ms, {self._limit_ms} ms are allowed"
            )

    def _tell(self, event: str, words: str, tone_hz: int | None) -> None:
        self._audit(
            "CONNECTIVITY", event, channel=self._channel, took_ms=self.last_ms, reason=self._last_error
        )
        self._notifier.send(f"{event}: {words} ({self.last_ms:g} ms)", tone_hz)
