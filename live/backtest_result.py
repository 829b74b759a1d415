"""What a backtest gave, under one set of assumptions and beside the others."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from live.backtest_assumptions import Assumptions
from market.matching import FillModel

MAX_CURVE_POINTS = 500


@dataclass(slots=True)
class BacktestResult:
    """What one set of assumptions gave. Money in nano-roubles; ``trips`` are round trips with bps of their
    entry value.
    """

    watermark: str
    manifest_sha256: str
    tickers: tuple[str, ...]
    from_ns: int
    to_ns: int
    assumed: Assumptions
    books: int = 0
    prints: int = 0
    scores: int = 0
    inference_failures: int = 0
    signals: int = 0
    orders: int = 0
    fills: int = 0
    taken_lots: int = 0
    """Lots of deals that took from the book; ``rested_lots`` were hit where they rested."""
    rested_lots: int = 0
    gross_nano: int = 0
    fees_nano: int = 0
    net_nano: int = 0
    """Realised result after fees plus the open result at the last touch."""
    unrealised_nano: int = 0
    crossed_spread_nano: int = 0
    """The spread at the moment of each taking deal times its lots: half of it is what taking cost."""
    max_drawdown_nano: int = 0
    order_list_hash: str = ""
    truncated: bool = False
    """``max_orders`` ended the run early."""
    trips: list[dict[str, Any]] = field(default_factory=list)
    equity: list[tuple[int, int]] = field(default_factory=list)
    """(time ns, result so far nano-roubles), at most ``MAX_CURVE_POINTS``."""
    holds_raised: int = 0
    holds: list[dict[str, Any]] = field(default_factory=list)
    """The first of them."""
    refusals: dict[str, int] = field(default_factory=dict)
    exit_reasons: dict[str, int] = field(default_factory=dict)
    open_lots: dict[str, int] = field(default_factory=dict)
    other_fill_models: dict[str, BacktestResult] = field(default_factory=dict)
    variants: dict[str, BacktestResult] = field(default_factory=dict)
    """The same scores under other assumptions, by the name of what differs."""

    @property
    def fill_model(self) -> FillModel:
        return self.assumed.fills

    @property
    def wins(self) -> int:
        return sum(1 for trip in self.trips if trip["net_nano"] > 0)

    @property
    def by_fill_model(self) -> dict[str, BacktestResult]:
        """All fill models that were asked for, the first one first."""
        return {self.fill_model: self, **self.other_fill_models}

    def to_dict(self) -> dict[str, Any]:
        """JSON-able. ``variants`` shortened to their figures."""
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        out["assumed"] = asdict(self.assumed)
        out["fill_model"], out["wins"] = self.fill_model, self.wins
        out["other_fill_models"] = {name: r.to_dict() for name, r in self.other_fill_models.items()}
        out["variants"] = {name: r.figures() for name, r in self.variants.items()}
        return out

    def figures(self) -> dict[str, Any]:
        """One row of a table: what people compare."""
        return {
            "orders": self.orders, "fills": self.fills, "rested_lots": self.rested_lots,
            "taken_lots": self.taken_lots, "trips": len(self.trips), "wins": self.wins,
            "gross_nano": self.gross_nano, "fees_nano": self.fees_nano, "net_nano": self.net_nano,
            "max_drawdown_nano": self.max_drawdown_nano, "truncated": self.truncated,
        }  # fmt: skip


def max_drawdown(curve: list[tuple[int, int]]) -> int:
    """Largest fall from an earlier high of the curve (which starts at 0), >= 0."""
    high = worst = 0
    for _, value in curve:
        high = max(high, value)
        worst = max(worst, high - value)
    return worst


def thinned(curve: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """At most ``MAX_CURVE_POINTS`` points, first and last kept, evenly chosen between."""
    if len(curve) <= MAX_CURVE_POINTS:
        return curve
    step = (len(curve) - 1) / (MAX_CURVE_POINTS - 1)
    return [curve[round(i * step)] for i in range(MAX_CURVE_POINTS)]
