"""From a built bundle to a registered version to an alias: outside the DAG, idempotent, and only through the
gate.

Plain functions on a folder (the project or a workspace); the ``scalper`` command, the demo and the Prefect
flows call them.
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.schema import schema_hash
from flows import params as params_file
from flows.identity import PROJECT, file_sha256, git_state, value_sha256
from flows.platform import registry_settings
from flows.signing import KEYS, PUBLIC, signed_bundle
from flows.stages.common import BACKTEST, BUNDLE
from market.errors import ConfigError
from models.bundle import GOLDEN, Bundle
from models.gate import ALIASES, GateResult, evaluate, facts_of
from models.inference import Ensemble, check_golden

TIMED_ROUNDS = 4
"""How often the golden rows are stepped through to time a step."""


@dataclass(frozen=True, slots=True)
class Published:
    """A registered version of the built bundle."""

    version: int
    manifest_sha256: str
    watermark: str

    def line(self) -> str:
        return f"published {self.watermark} bundle {self.manifest_sha256[:12]} as version {self.version}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate said, for people and for tables."""

    result: GateResult
    watermark: str

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
    """An alias that moved, or did not: then ``verdict`` says why."""

    alias: str
    version: int
    moved: bool
    verdict: Verdict

    def text(self) -> str:
        if self.moved:
            return f"{self.verdict.headline()}\nalias {self.alias} -> version {self.version}"
        reasons = "\n".join(f"  - {reason}" for reason in self.verdict.result.refusals)
        return f"{self.verdict.headline()}\n{reasons}\nalias {self.alias} stays where it is"


def store(workdir: Path) -> str:
    """The registry's address for ``workdir``: the store of ``mlflow/registry.yaml``, made absolute."""
    uri = registry_settings()["store"]
    prefix = "sqlite:///"
    if not uri.startswith(prefix):
        return uri
    return f"{prefix}{(workdir / uri.removeprefix(prefix)).resolve()}"


def publish(workdir: Path) -> Published:
    """Register ``artifacts/bundle``; a bundle that is registered already keeps its version.

    The signature is verified first, and renewed where it is missing or of another key.
    """
    from models import registry

    uri = store(workdir)
    bundle = signed_bundle(workdir / BUNDLE, workdir / KEYS)
    report = workdir / BACKTEST / "report.html"
    number = registry.publish(
        bundle.path, uri=uri, tags=lineage(workdir, bundle), public_key_path=workdir / PUBLIC,
        attachments=[report] if report.is_file() else [],
    )  # fmt: skip
    if uri.startswith("sqlite:"):
        # Registered once for each manifest, so perhaps under a key that has been replaced since.
        signed_bundle(registry.local_path(uri, number), workdir / KEYS)
    return Published(number, bundle.sha256, bundle.watermark)


def lineage(workdir: Path, bundle: Bundle) -> dict[str, str]:
    """Where a bundle comes from: git, the lock of the line, parameters. (Data and code hashes are in its
    manifest.)"""
    return {
        **git_state(PROJECT),
        "dvc.lock": file_sha256(workdir / "dvc.lock"),
        "params.hash": value_sha256(bundle.manifest["params"]),
    }


def judge(workdir: Path, alias: str) -> Verdict:
    """The gate's verdict on the built bundle for ``alias``, with what is measured on this machine."""
    if alias not in ALIASES:
        raise ConfigError(f"there is no alias {alias!r} to be judged for; the ladder is {', '.join(ALIASES)}")
    params = params_file.load(workdir / params_file.PARAMS)
    bundle = signed_bundle(workdir / BUNDLE, workdir / KEYS)
    check_golden(bundle)
    facts = facts_of(
        bundle.manifest, signed=bundle.signed, golden_ok=True, schema_now=schema_hash(),
        latency_p99_us=step_p99_us(bundle),
    )  # fmt: skip
    return Verdict(evaluate(facts, alias, params.gate), bundle.watermark)


def step_p99_us(bundle: Bundle) -> float:
    """99th percentile of one ensemble step over the golden rows on this machine, microseconds.

    The best of several rounds: what other programs do to this machine is not the bundle's doing.
    """
    with np.load(io.BytesIO(bundle.read(GOLDEN)), allow_pickle=False) as golden:
        rows, ticker = golden["X"], str(golden["ticker"])
    ensemble = Ensemble(bundle, [ticker])
    return min(_round_p99_us(ensemble, ticker, rows) for _ in range(TIMED_ROUNDS))


def _round_p99_us(ensemble: Ensemble, ticker: str, rows: NDArray[np.float32]) -> float:
    micros = []
    for row in rows:
        begun = time.perf_counter_ns()
        scored = ensemble.step(ticker, row)
        if scored is not None:
            micros.append((time.perf_counter_ns() - begun) / 1e3)
    return float(np.percentile(micros, 99))


def promote(workdir: Path, alias: str, reason: str, *, climb: bool = False) -> Promotion:
    """Publish if need be, ask the gate, and move ``alias``; or say why it stays.

    A version takes the rungs of the ladder one after another: ``prod`` wants one that was ``canary``.
    ``climb`` takes the missing rungs on the way, each through the gate, and none at all when the last one
    would be refused.
    """
    from models import registry

    published = publish(workdir)
    verdict = judge(workdir, alias)
    if not verdict.passed:
        return Promotion(alias, published.version, False, verdict)
    uri = store(workdir)
    for rung in ALIASES[: ALIASES.index(alias)] if climb else ():
        below = judge(workdir, rung)
        if not below.passed:
            return Promotion(rung, published.version, False, below)
        registry.promote(uri, published.version, rung, below.result, f"{reason} (on the way to {alias})")
    registry.promote(uri, published.version, alias, verdict.result, reason)
    return Promotion(alias, published.version, True, verdict)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
