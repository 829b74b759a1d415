"""The flow around the gate: facts of a version, the incumbent beside it on the same market, the alias moved
or not, and every move explained.

Plain functions on a folder (the project or a workspace); ``scalper promote``, the demo and the Prefect flow
call them. What the gate asks is decided in ``models.gate``; that it is asked, and about what, here.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.schema import schema_hash
from flows import incumbent, publishing
from flows import params as params_file
from flows.signing import KEYS, ensure_keys, signed_bundle
from flows.stages.common import BUNDLE
from market.errors import ConfigError, RegistryError
from models.bundle import GOLDEN, Bundle
from models.gate import ALIASES, Check, GateResult, evaluate, facts_of
from models.inference import Ensemble, check_golden

TIMED_ROUNDS = 4
"""How often the golden rows are stepped through to time a step."""
NEVER_OVERRIDDEN = ("signature", "golden_rows", "feature_schema", "watermark", "request")
"""Checks of what a bundle *is*: the runner refuses such a bundle whatever the registry says."""
COMPARED = ("canary", "prod")
"""Aliases that risk money: there a candidate must beat the one that holds ``prod``."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate said, for people and for tables. ``held`` is where the alias stood when it was asked."""

    result: GateResult
    watermark: str
    held: int | None = None

    @property
    def passed(self) -> bool:
        return self.result.passed

    def headline(self) -> str:
        failed = sum(not check.passed for check in self.result.checks)
        mark = " [SIMULATED]" if self.watermark == "SIMULATED" else ""
        said = "passes" if self.passed else f"REFUSED: {failed} of {len(self.result.checks)} checks failed"
        return f"gate for alias {self.result.alias}: {said}{mark}"

    def rows(self) -> list[dict[str, str]]:
        """One row a check, all text."""
        return [
            {
                "check": check.name, "value": _shown(check.value), "limit": _shown(check.limit),
                "passed": "yes" if check.passed else "NO", "reason": check.reason,
            }
            for check in self.result.checks
        ]  # fmt: skip

    def text(self) -> str:
        return "\n".join([self.headline(), *(f"  {row}" for row in self.result.lines())])


@dataclass(frozen=True, slots=True)
class Promotion:
    """An alias that moved, or did not: then ``verdict`` says why. ``override``: moved all the same, because a
    person said so."""

    alias: str
    version: int
    moved: bool
    verdict: Verdict
    override: str = ""

    def text(self) -> str:
        if self.moved:
            said = f"{self.verdict.headline()}\nalias {self.alias} -> version {self.version}"
            return f"{said}\nOVERRIDE: {self.override}" if self.override else said
        reasons = "\n".join(f"  - {reason}" for reason in self.verdict.result.refusals)
        return f"{self.verdict.headline()}\n{reasons}\nalias {self.alias} stays where it is"


def judge(
    workdir: Path, alias: str, which: int | str | None = None, *, compared: Check | None = None
) -> Verdict:
    """The gate's verdict for ``alias`` on a registered version, or on the built bundle when ``which`` is
    None, with what is measured on this machine. ``compared``: the incumbent's row, if it is known already."""
    if alias not in ALIASES:
        raise ConfigError(f"there is no alias {alias!r} to be judged for; the ladder is {', '.join(ALIASES)}")
    params = params_file.load(workdir / params_file.PARAMS)
    held = publishing.aliases(workdir)
    with _candidate(workdir, which) as bundle:
        check_golden(bundle)
        facts = facts_of(
            bundle.manifest, signed=bundle.signed, golden_ok=True, schema_now=schema_hash(),
            latency_p99_us=step_p99_us(bundle),
        )  # fmt: skip
        result = evaluate(facts, alias, params.gate)
        if alias in COMPARED and result.passed and "prod" in held:
            # Last, because it costs two backtests: nothing that is refused anyway is compared.
            beats = compared or _beats_incumbent(workdir, bundle, held["prod"])
            result = replace(result, checks=(*result.checks, beats))
        return Verdict(result, bundle.watermark, held.get(alias))


def _beats_incumbent(workdir: Path, bundle: Bundle, number: int) -> Check:
    with _candidate(workdir, number) as champion:
        return incumbent.check(workdir, bundle, champion, number)


@contextmanager
def _candidate(workdir: Path, which: int | str | None) -> Iterator[Bundle]:
    """The bundle to look at, verified: the built one, or a version's files."""
    if which is None:
        yield signed_bundle(workdir / BUNDLE, workdir / KEYS)
        return
    from models import registry

    _, public = ensure_keys(workdir / KEYS)
    with tempfile.TemporaryDirectory(prefix="scalper-version-") as scratch:
        yield Bundle.load(registry.fetch(publishing.store(workdir), which, Path(scratch)), public)


def step_p99_us(bundle: Bundle) -> float:
    """99th percentile of one ensemble step over the golden rows on this machine, microseconds of the thread's
    own time: what other programs do to this machine is not the bundle's doing. The best of several rounds.
    """
    with np.load(io.BytesIO(bundle.read(GOLDEN)), allow_pickle=False) as golden:
        rows, ticker = golden["X"], str(golden["ticker"])
    ensemble = Ensemble(bundle, [ticker])
    return min(_round_p99_us(ensemble, ticker, rows) for _ in range(TIMED_ROUNDS))


def _round_p99_us(ensemble: Ensemble, ticker: str, rows: NDArray[np.float32]) -> float:
    micros = []
    for row in rows:
        begun = time.thread_time_ns()
        scored = ensemble.step(ticker, row)
        if scored is not None:
            micros.append((time.thread_time_ns() - begun) / 1e3)
    return float(np.percentile(micros, 99))


def promote(
    workdir: Path, alias: str, reason: str, *, which: int | str | None = None, climb: bool = False,
    override: str = "",
) -> Promotion:  # fmt: skip
    """Ask the gate about a version (the built bundle's, published if need be, when ``which`` is None), and
    move ``alias``; or say why it stays.

    A version takes the rungs of the ladder one after another: ``prod`` wants one that was ``canary``.
    ``climb`` takes the missing rungs on the way, each through the gate, and none at all when the last one
    would be refused. ``override`` is a person's reason to move the alias against the gate: it is written into
    the journal and onto the version for ever, and it does not help against ``NEVER_OVERRIDDEN``. Two
    promotions at once: one wins, the other gets a RegistryError.
    """
    from models import registry

    number = publishing.publish(workdir).version if which is None else publishing.number_of(workdir, which)
    rungs = (*(ALIASES[: ALIASES.index(alias)] if climb and alias in ALIASES else ()), alias)
    verdicts: dict[str, Verdict] = {}
    compared: Check | None = None
    for rung in reversed(rungs):
        verdicts[rung] = judge(workdir, rung, number, compared=compared)
        compared = compared or _comparison(verdicts[rung])
        if not verdicts[rung].passed and not _may_override(verdicts[rung], override):
            return Promotion(rung, number, False, verdicts[rung])
    journal = publishing.journal(workdir)
    for rung in rungs:
        said = reason if rung == alias else f"{reason} (on the way to {alias})"
        against = "" if verdicts[rung].passed else override
        registry.promote(
            publishing.store(workdir), number, rung, verdicts[rung].result, said, journal=journal,
            override=against, expected=verdicts[rung].held,
        )  # fmt: skip
    return Promotion(alias, number, True, verdicts[alias], "" if verdicts[alias].passed else override)


def _comparison(verdict: Verdict) -> Check | None:
    """The incumbent's row: it is the same for every rung, and it costs two backtests."""
    return next((check for check in verdict.result.checks if check.name == incumbent.NAME), None)


def _may_override(verdict: Verdict, override: str) -> bool:
    if not override.strip():
        return False
    fatal = [c.name for c in verdict.result.checks if not c.passed and c.name in NEVER_OVERRIDDEN]
    if fatal:
        raise RegistryError(
            f"{', '.join(fatal)} cannot be overridden: the runner would refuse this bundle whatever the "
            "alias says"
        )
    return True


def rollback(workdir: Path, reason: str) -> dict[str, Any]:
    """``prod`` back to ``previous`` (and that to where ``prod`` was); the journal's entry."""
    from models import registry

    return registry.rollback(publishing.store(workdir), reason, journal=publishing.journal(workdir))


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
