"""Commission by tariff: parts per million of the traded value, a side, rounded up to the nano-rouble."""

from __future__ import annotations

from dataclasses import dataclass

from market.errors import ConfigError
from market.types import Instrument


@dataclass(frozen=True, slots=True)
class Tariff:
    """What one side of a deal costs, in parts per million of its value (100 ppm = 1 bp)."""

    name: str
    share_ppm: int
    future_ppm: int

    def ppm(self, instrument: Instrument) -> int:
        return self.share_ppm if instrument.kind == "share" else self.future_ppm


# T-Invest publishes "from" rates; the futures rates are taken from users' reports and deals (the exchange fee
# comes on top). They are defaults to be calibrated from OrderState.executed_commission, not promises.
TARIFFS: dict[str, Tariff] = {
    t.name: t
    for t in (
        Tariff("investor", 3000, 3000),
        Tariff("trader", 500, 400),
        Tariff("premium", 400, 250),
        Tariff("simulated", 50, 50),
        Tariff("free", 0, 0),
    )
}


def tariff(name: str) -> Tariff:
    """The tariff called ``name``; raises ConfigError with the known names."""
    try:
        return TARIFFS[name]
    except KeyError:
        raise ConfigError(f"unknown tariff {name!r}; known tariffs: {', '.join(sorted(TARIFFS))}") from None


def fee_nano(notional_nano: int, ppm: int) -> int:
    """Commission of one deal in nano-roubles, never rounded in our favour."""
    return -(-abs(notional_nano) * ppm // 1_000_000)
