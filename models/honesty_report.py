"""All tiers over many seeds: the table, and the claims it must bear out (``docs/honesty.md``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from market.errors import ConfigError
from models import evaluate, honesty_gate
from models.honesty import (
    TIERS,
    Learner,
    Panel,
    Progress,
    Run,
    leaks,
    panels,
    run_tier,
    score,
    simulate,
    tier_of,
)
from models.honesty_controls import ahead, backwards, doubled, resend, shuffled

NULL_Z: Final = 2.0
NULL_GROSS_SHARE: Final = 0.15
MECHANICAL_IC: Final = (0.2, 0.33)
OF_ORACLE: Final = 0.85
MEDIUM_Z: Final = 3.0
TRADABLE_SHARE: Final = 0.9
MIN_SEEDS: Final = 4
MAX_SEEDS: Final = 200
FRESH_SEEDS: Final = MAX_SEEDS + 1
"""The first of the seeds on which N0 is looked at a second time: none of them is ever in the first look."""
CONTROL_HOURS: Final = 1.0
CONTROL_SEEDS: Final = 8
"""Controls compare runs on the same data, so they need less of it."""
CONTROL_Z: Final = 3.0
RESEND_EVERY: Final = 5
MORE_ROWS: Final = 0.02
"""Outcomes that a repeated snapshot may add by shifting the grid of decisions."""
GATE_SEEDS: Final = 4
GATE_ASKED: Final = (("N0", "free"), ("N1", "simulated"), ("P+", "simulated"), ("N1", "free"))
"""Tier and tariff. The last is looked at, not claimed: without any commission a book's own mechanics pay
whoever waits for the narrowest spread, so that N1 is then no null for a policy that weighs the cost of each
trade (``docs/honesty.md``)."""
NOT_CLAIMED: Final = ("N1", "free")


@dataclass(frozen=True, slots=True)
class Summary:
    """One tier over its seeds; ``*_se``: standard error of the mean, from the spread over seeds."""

    tier: str
    seeds: int
    test_rows: int
    ic: float
    ic_se: float
    ic_sd: float
    ic_oracle: float
    gross_ticks: float
    net_ticks: float
    gross_significant: float
    net_significant: float
    net_positive: float

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Summary:
        def mean(name: str) -> float:
            return float(np.mean([getattr(run, name) for run in runs]))

        sd = float(np.std([run.ic for run in runs], ddof=1))
        return cls(
            runs[0].tier, len(runs), sum(run.test_rows for run in runs), mean("ic"),
            sd / math.sqrt(len(runs)), sd, mean("ic_oracle"), mean("gross_ticks"), mean("net_ticks"),
            mean("gross_significant"), mean("net_significant"),
            float(np.mean([run.net_ticks > 0 for run in runs])),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """One claim: what it asks, what was measured, and whether that bears it out."""

    claim: str
    measured: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Control:
    """The runs of one seed whose answer is known; see ``honesty_controls``. ``honest`` is N1 untouched."""

    honest: Run
    doubled: Run
    resent: Run
    ahead: Run
    shuffled: Run
    backwards_n0: Run
    backwards_n1: Run


@dataclass(frozen=True, slots=True)
class Report:
    """What ``run_tiers`` found; ``holds`` when every claim does."""

    hours: float
    learner: str
    runs: tuple[Run, ...]
    tiers: tuple[Summary, ...]
    findings: tuple[Finding, ...]
    gate: tuple[honesty_gate.GateRun, ...]

    @property
    def holds(self) -> bool:
        return all(finding.holds for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; carries the watermark, for none of it is evidence of an edge in a market."""
        return evaluate.rounded(
            {
                "watermark": "SIMULATED", "hours": self.hours, "learner": self.learner, "holds": self.holds,
                "tiers": [asdict(tier) for tier in self.tiers],
                "findings": [asdict(finding) for finding in self.findings],
                "gate": [run.to_dict() for run in self.gate],
                "runs": [asdict(run) for run in self.runs],
            }
        )  # fmt: skip


def run_tiers(
    seeds: int = 20, hours: float = 6.0, progress: Progress = print, *, learner: Learner = "ridge",
    gate_seeds: int = GATE_SEEDS,
) -> Report:  # fmt: skip
    """Every tier on ``seeds`` seeds, ``hours`` of training and of test each; then the controls and the gate.

    ``gate_seeds``: of how many seeds the gate is asked (0: not at all). One thread; tiers and controls of 20
    seeds of 6 hours take about five minutes of processor time, the gate comes on top. ConfigError when
    there are too few seeds for a spread.
    """
    if not MIN_SEEDS <= seeds <= MAX_SEEDS:
        raise ConfigError(f"honesty tiers need {MIN_SEEDS} to {MAX_SEEDS} seeds, not {seeds}")
    runs = []
    for tier in TIERS:
        mine = [run_tier(tier, seed, hours, learner=learner) for seed in range(1, seeds + 1)]
        runs += mine
        said = Summary.of(mine)
        progress(
            f"{tier.name}: IC {said.ic:.3f} (oracle {said.ic_oracle:.3f}), net {said.net_ticks:+.2f} ticks"
        )
    table = summarise(runs)
    some = range(1, min(seeds, CONTROL_SEEDS) + 1)
    done = [control(seed, min(hours, CONTROL_HOURS), learner) for seed in some]
    progress(f"controls: {len(done)} seeds")
    again = None
    if not null_claim(table[0]).holds:
        fresh = range(FRESH_SEEDS, FRESH_SEEDS + seeds)
        again = Summary.of([run_tier(tier_of("N0"), seed, hours, learner=learner) for seed in fresh])
        progress(f"N0 again, on fresh seeds: IC {again.ic:.3f}")
    found = [*claims(table, again), *control_claims(done)]
    asked = []
    for name, tariff_name in GATE_ASKED:
        for seed in range(1, min(gate_seeds, seeds) + 1):
            asked.append(honesty_gate.run_gate(tier_of(name), seed, hours, tariff_name=tariff_name))
            verdict = "passed" if asked[-1].passed else "refused"
            progress(f"gate on {name}, tariff {tariff_name}, seed {seed}: {verdict}")
    return Report(hours, learner, tuple(runs), table, (*found, *gate_claims(asked)), tuple(asked))


def summarise(runs: Sequence[Run]) -> tuple[Summary, ...]:
    """One row per tier, in the order of ``TIERS``."""
    names = [tier.name for tier in TIERS if any(run.tier == tier.name for run in runs)]
    return tuple(Summary.of([run for run in runs if run.tier == name]) for name in names)


def null_claim(n0: Summary, again: Summary | None = None) -> Finding:
    """Nothing is found in the strict null.

    By luck alone one look in twenty breaks that, and the seeds are always the same: ``again`` is a second
    look, at as many others. All seeds of both are judged together: a look that failed is not thrown away.
    """
    ic, se, measured = n0.ic, n0.ic_se, f"{n0.ic:+.4f}, SE {n0.ic_se:.4f}"
    if again is not None:
        ic, se = _pooled(n0, again)
        measured += (
            f"; on {again.seeds} other seeds {again.ic:+.4f}, SE {again.ic_se:.4f}; "
            f"all {n0.seeds + again.seeds} together {ic:+.4f}, SE {se:.4f}, z {ic / se:+.1f}"
        )
    return Finding(f"N0: |mean IC| is under {NULL_Z:g} standard errors", measured, abs(ic) < NULL_Z * se)


def claims(table: Sequence[Summary], again: Summary | None = None) -> list[Finding]:
    """The claims of ``docs/honesty.md`` on a table that has every tier; ``again``: see ``null_claim``."""
    by = {row.tier: row for row in table}
    n0, n1, medium, plus = (by[name] for name in ("N0", "N1", "P medium", "P+"))
    low, high = MECHANICAL_IC
    gap_se = math.hypot(n1.ic_se, medium.ic_se)
    return [
        null_claim(n0, again),
        Finding(
            f"N0: at most {NULL_GROSS_SHARE:.0%} of seeds are significant before costs",
            f"{n0.gross_significant:.0%}", n0.gross_significant <= NULL_GROSS_SHARE,
        ),
        Finding(
            f"N1: a book alone is predictable, IC {low:g} to {high:g}", f"{n1.ic:.3f}", low <= n1.ic <= high
        ),
        Finding(
            "N0 and N1: no seed earns anything after the spread",
            f"{n0.net_positive:.0%} and {n1.net_positive:.0%}", n0.net_positive == n1.net_positive == 0,
        ),
        Finding(
            f"P medium: IC is at least {OF_ORACLE:g} of the oracle's",
            f"{medium.ic:.3f} of {medium.ic_oracle:.3f}, {medium.ic / medium.ic_oracle:.2f}",
            medium.ic >= OF_ORACLE * medium.ic_oracle,
        ),
        Finding(
            f"P medium: IC exceeds N1's by {MEDIUM_Z:g} standard errors",
            f"{medium.ic - n1.ic:+.3f}, SE {gap_se:.3f}, {(medium.ic - n1.ic) / gap_se:.1f} of them",
            medium.ic > n1.ic + MEDIUM_Z * gap_se,
        ),
        Finding(
            f"P+: at least {TRADABLE_SHARE:.0%} of seeds earn after the spread", f"{plus.net_positive:.0%}",
            plus.net_positive >= TRADABLE_SHARE,
        ),
    ]  # fmt: skip


def control(seed: int, hours: float, learner: Learner) -> Control:
    """Every experiment of ``honesty_controls`` on one seed."""
    n0, n1, plus = (simulate(tier_of(name), seed, hours) for name in ("N0", "N1", "P+"))
    train, test = panels(n1)

    def judged(tier: str, days: tuple[Panel, Panel]) -> Run:
        return score(tier, seed, *days, learner=learner)

    planted = panels(plus)
    return Control(
        honest=judged("N1", (train, test)),
        doubled=judged("N1", (doubled(train), doubled(test))),
        resent=judged("N1", panels(resend(n1, RESEND_EVERY))),
        ahead=judged("N1", (ahead(train), ahead(test))),
        shuffled=judged("P+", (shuffled(planted[0], 2 * seed), shuffled(planted[1], 2 * seed + 1))),
        backwards_n0=judged("N0", panels(backwards(n0))),
        backwards_n1=judged("N1", panels(backwards(n1))),
    )


def control_claims(done: Sequence[Control]) -> list[Finding]:
    """What must move, must; what must not, must not."""
    caught = [leaks(c.ahead.ic, c.honest.ic_oracle, c.ahead.test_rows) for c in done]
    same = [c.doubled == c.honest for c in done]
    more = max(c.resent.test_rows / c.honest.test_rows - 1 for c in done)
    blind, blind_se = _mean_ic([c.shuffled for c in done])
    back, back_se = _mean_ic([c.backwards_n0 for c in done])
    paid = max(c.backwards_n1.net_ticks for c in done)
    return [
        Finding(
            "P+ with labels shuffled by blocks: no alpha", f"IC {blind:+.3f}, SE {blind_se:.3f}",
            abs(blind) < CONTROL_Z * blind_se and not any(c.shuffled.net_significant for c in done),
        ),
        Finding(
            "N1 with features of one horizon ahead: IC explodes, and the oracle's bound calls it a leak",
            f"IC {np.mean([c.ahead.ic for c in done]):.3f}, {sum(caught)} of {len(done)} caught", all(caught),
        ),
        Finding(
            "N1 with every row twice: the very same verdict", f"{sum(same)} of {len(done)} equal", all(same)
        ),
        Finding(
            f"N1 with every {RESEND_EVERY}th snapshot sent twice: no more outcomes than before",
            f"{more:+.1%} at most", more < MORE_ROWS,
        ),
        Finding(
            "time reversed: N0 stays a null, and nobody is paid in N1",
            f"N0 IC {back:+.3f}, SE {back_se:.3f}; N1 net at most {paid:+.2f} ticks",
            abs(back) < CONTROL_Z * back_se and paid <= 0,
        ),
    ]  # fmt: skip


def gate_claims(asked: Sequence[honesty_gate.GateRun]) -> list[Finding]:
    """The gate refuses each null and lets the tradable plant through in most seeds."""
    if not asked:
        return []
    nulls = [run for run in asked if run.tier in ("N0", "N1") and (run.tier, run.tariff) != NOT_CLAIMED]
    plants = [run for run in asked if run.tier == "P+"]
    through = sum(run.calibrated.passed for run in plants)
    return [
        Finding(
            "the gate refuses N0 and N1, calibrated or forced to trade",
            f"{sum(run.passed for run in nulls)} of {len(nulls)} let through",
            not any(run.passed for run in nulls),
        ),
        Finding(
            "the gate passes P+ in more than half of the seeds",
            f"{through} of {len(plants)} passed", 2 * through > len(plants),
        ),
    ]  # fmt: skip


def _mean_ic(runs: Sequence[Run]) -> tuple[float, float]:
    """Mean over seeds and its standard error, never taken to be below that of independent rows."""
    values = [run.ic for run in runs]
    spread = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return float(np.mean(values)), max(spread, 1 / math.sqrt(sum(run.test_rows for run in runs)))


def _pooled(first: Summary, second: Summary) -> tuple[float, float]:
    """Mean IC and its standard error over the seeds of both, as if they had been one look."""
    n = first.seeds + second.seeds
    mean = (first.seeds * first.ic + second.seeds * second.ic) / n
    squares = sum(
        (look.seeds - 1) * look.ic_sd**2 + look.seeds * (look.ic - mean) ** 2 for look in (first, second)
    )
    return mean, math.sqrt(squares / (n - 1) / n)
