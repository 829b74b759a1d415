"""Whole numbers as people read them, without a float on the way."""

from __future__ import annotations

KOPECK_NANO = 10_000_000


def decimal(value: int, places: int) -> str:
    """``value`` with the last ``places`` digits behind the point: decimal(4150, 2) is 41.5."""
    whole, part = divmod(abs(value), 10**places)
    digits = f"{part:0{places}}".rstrip("0")
    return f"{'-' if value < 0 else ''}{whole}{'.' + digits if digits else ''}"


def roubles(nano: int) -> str:
    """To the kopek, with the sign of a gain or a loss: roubles(-2_000_500_000_000) is -2000.50 RUB."""
    rounded = (abs(nano) + KOPECK_NANO // 2) // KOPECK_NANO
    sign = "-" if nano < 0 and rounded else "+"
    return f"{sign}{rounded // 100}.{rounded % 100:02} RUB"
