"""How long news and orders travel: four timelines, each with its own delay.

* **feed**: a book or a print reaches us ``feed_ns`` after the recording says that it was there;
* **entry**: an order reaches the exchange ``entry_ns`` after it was sent;
* **cancel**: a cancel takes ``cancel_ns`` (the default is the entry's);
* **response**: what the exchange did comes back ``response_ns`` later.

An optional jitter adds 0 to ``jitter_ns`` to each message. It is no random draw: it is a hash of ``seed``,
the timeline and the message's number, so equal runs have equal delays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from market.types import MILLISECOND_NS

AS_ENTRY: Final = -1
"""As ``cancel_ns``: a cancel travels as long as an order."""
MAX_LATENCY_NS: Final = 60_000 * MILLISECOND_NS

_FEED, _ENTRY, _RESPONSE, _CANCEL = range(4)
_MASK: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Latency:
    """Delays in nanoseconds. Raises ValueError for one below 0 or above ``MAX_LATENCY_NS``.

    ``sequence`` in the methods is any number that tells the messages of a timeline apart. Without jitter it
    means nothing.
    """

    feed_ns: int = 0
    entry_ns: int = 0
    response_ns: int = 0
    cancel_ns: int = AS_ENTRY
    jitter_ns: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.cancel_ns == AS_ENTRY:
            object.__setattr__(self, "cancel_ns", self.entry_ns)
        for name in ("feed_ns", "entry_ns", "response_ns", "cancel_ns", "jitter_ns"):
            value = getattr(self, name)
            if not 0 <= value <= MAX_LATENCY_NS:
                raise ValueError(f"latency {name} is {value}; allowed: 0 to {MAX_LATENCY_NS}")

    @classmethod
    def of_ms(
        cls, entry: float, *, feed: float = 0, response: float = 0, cancel: float | None = None,
        jitter: float = 0, seed: int = 0,
    ) -> Self:  # fmt: skip
        """From milliseconds, as people write them; ``cancel`` None is as long as ``entry``."""
        feed_ns, entry_ns, response_ns, jitter_ns = (
            round(ms * MILLISECOND_NS) for ms in (feed, entry, response, jitter)
        )
        cancel_ns = AS_ENTRY if cancel is None else round(cancel * MILLISECOND_NS)
        return cls(feed_ns, entry_ns, response_ns, cancel_ns, jitter_ns, seed)

    def slower(self, by_ns: int) -> Self:
        """The same with ``by_ns`` more on the way to the exchange, for orders and cancels."""
        return type(self)(
            self.feed_ns, self.entry_ns + by_ns, self.response_ns, self.cancel_ns + by_ns, self.jitter_ns,
            self.seed,
        )  # fmt: skip

    def feed(self, sequence: int) -> int:
        """Nanoseconds that market message ``sequence`` takes to us."""
        return self.feed_ns + self._jitter(_FEED, sequence)

    def entry(self, sequence: int) -> int:
        """Nanoseconds that order ``sequence`` takes to the exchange."""
        return self.entry_ns + self._jitter(_ENTRY, sequence)

    def response(self, sequence: int) -> int:
        """Nanoseconds that answer ``sequence`` takes to us."""
        return self.response_ns + self._jitter(_RESPONSE, sequence)

    def cancel(self, sequence: int) -> int:
        """Nanoseconds that cancel ``sequence`` takes to the exchange."""
        return self.cancel_ns + self._jitter(_CANCEL, sequence)

    def _jitter(self, timeline: int, sequence: int) -> int:
        if not self.jitter_ns:
            return 0
        return _mixed(_mixed(_mixed(self.seed) + timeline) + sequence) % (self.jitter_ns + 1)


def _mixed(value: int) -> int:
    """The output function of splitmix64 (Steele, Lea and Flood 2014): 64 well-mixed bits of ``value``."""
    z = (value + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
