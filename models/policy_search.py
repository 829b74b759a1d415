"""The search for a policy: Optuna over weights, temperature and thresholds, every trial logged with what it
earned in every bin of time.

The objective is the lower confidence bound of net basis points an hour, so a lucky handful of trades does not
win.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from models import ensemble, evaluate
from models.learner import F64, Progress
from models.policy import NO_EVIDENCE, Choice, Player
from models.trial_record import TrialRecord, Tried

TILT = 0.3
"""How far (in logs) the search may push a member's weight, and its square root bounds the temperature's
tilt.
"""
PLAIN_THRESHOLD_SHARE = 0.25
PLAIN_EXIT_SHARE = 0.1
"""Of the usual cost. The plain policy, one for every market: enter when a quarter of the cost is left over,
and past the horizon hold only while the model still speaks for the position (abstaining, it does not)."""
PLAIN_TRIED = 30
"""How many settings (abstention, exit, threshold) were looked at before these were taken, once, on blocks
``calibrate`` and ``threshold`` of the default simulated market (seed 7), never on ``score``. The deflated
Sharpe ratio counts them as tries on every market, though on another they are fixed beforehand."""


@dataclass(frozen=True, slots=True)
class Trials:
    """Every policy that was tried, the plain one first: what was chosen, what is logged of it, and its net
    bps in every bin of block ``threshold``, float64 [bins, trials]."""

    choices: list[Choice]
    log: list[dict[str, Any]]
    returns: F64

    @property
    def best(self) -> int:
        return max(range(len(self.log)), key=lambda i: (self.log[i]["objective"], -i))


Evaluate = Callable[[Sequence[Choice]], Iterable[Tried]]


class Search(Protocol):
    """``run_trials``, wherever the trials are evaluated."""

    def __call__(
        self, player: Player, temperature: float, trials: int, seed: int, progress: Progress, *, batch: int
    ) -> Trials: ...


def tried(player: Player, picked: Choice) -> Tried:
    """``picked`` played on every instrument."""
    played = [player.play(p, picked) for p in player.prepared]
    return Tried(
        player.objective(played), sum(len(o.net_bps) for o in played),
        float(sum(o.net_bps.sum() for o in played)), np.sum([o.returns for o in played], axis=0),
    )  # fmt: skip


def run_trials(
    player: Player, temperature: float, trials: int, seed: int, progress: Progress, *, batch: int = 1,
    evaluate_all: Evaluate | None = None, kept: TrialRecord | None = None,
) -> Trials:  # fmt: skip
    """Optuna's search; the first trial is the plain choice, which knows nothing of the block.

    ``batch`` trials are asked for before the first of them is known, so it shapes the result; by whom they
    are evaluated (``evaluate_all``) and in what order they become known does not. ``kept`` remembers what was
    evaluated: it saves the work of a search that was killed and never changes where the search goes.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = [m for m, w in player.base.items() if w > 0]
    c = player.median_cost

    def choice(ask: Callable[[str, float, float], float]) -> Choice:
        tilts = {m: ask(f"tilt_{m}", -TILT, TILT) for m in names[1:]}
        raw = {m: w * math.exp(tilts.get(m, 0.0)) for m, w in player.base.items()}
        total = sum(raw.values())
        shares = {m: raw[m] / total for m in names}
        capped = ensemble.temper(shares, 0.0, player.cap) if max(shares.values()) > player.cap else shares
        # What is stored is what is judged: the file's decimals, not the search's.
        return Choice(
            ensemble.normalised({m: capped.get(m, 0.0) for m in player.base}),
            *(round(v, 6) for v in (
                temperature * math.exp(ask("temperature_tilt", -TILT / 2, TILT / 2)),
                ask("threshold_cost_share", 0.0, 1.0), ask("exit_move_share", -0.5, 1.0) * c,
                ask("stop_multiplier", 0.5, 3.0),
            )),
        )  # fmt: skip

    def here(picked: Sequence[Choice]) -> Iterable[Tried]:
        return (tried(player, one) for one in picked)

    evaluate_new = evaluate_all or here
    log: list[dict[str, Any]] = []
    choices: list[Choice] = []
    returns: list[F64] = []
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True)
    )
    plain = {f"tilt_{m}": 0.0 for m in names[1:]} | {
        "temperature_tilt": 0.0, "threshold_cost_share": PLAIN_THRESHOLD_SHARE,
        "exit_move_share": PLAIN_EXIT_SHARE, "stop_multiplier": 1.0,
    }  # fmt: skip
    study.enqueue_trial(plain)
    while len(log) < trials:
        asked = [study.ask() for _ in range(min(max(batch, 1), trials - len(log)))]
        picked = [choice(trial.suggest_float) for trial in asked]
        known = [kept.of(trial) if kept is not None else None for trial in asked]
        new = iter(evaluate_new([p for p, k in zip(picked, known, strict=True) if k is None]))
        for trial, one, found in zip(asked, picked, known, strict=True):
            if found is None:
                found = next(new)
                if kept is not None:
                    kept.add(trial, found)
            study.tell(trial, found.objective)
            log.append(
                {
                    "number": trial.number, "objective": found.objective, "trades": found.trades,
                    "net_bps": found.net_bps, "sharpe": evaluate.sharpe(found.returns), **trial.params,
                }
            )  # fmt: skip
            choices.append(one)
            returns.append(found.returns)
            if len(log) % 20 == 0:
                top = max(t["objective"] for t in log)
                said = (
                    f"best lower bound {top:.2f} bps an hour"
                    if top > NO_EVIDENCE
                    else "none traded enough yet"
                )
                progress(f"calibrate: trial {len(log)}/{trials}, {said}")
    return Trials(choices, log, np.stack(returns, axis=1))


# --- by other processes


def spill(player: Player, folder: Path) -> Path:
    """``player`` in a file of its own, for processes that are told its path; named after its content."""
    content = pickle.dumps(player, protocol=5)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"player-{sha256(content).hexdigest()[:16]}.pickle"
    draft = path.with_name(path.name + ".part")
    draft.write_bytes(content)
    draft.replace(path)
    return path


def tried_at(asked: tuple[str, Choice]) -> Tried:
    """``tried`` with the player that ``spill`` left at a path."""
    path, picked = asked
    return tried(_spilled(path), picked)


@lru_cache(maxsize=1)
def _spilled(path: str) -> Player:
    player: Player = pickle.loads(Path(path).read_bytes())
    return player


def csv_of(log: Sequence[Mapping[str, Any]]) -> str:
    columns = list(log[0])
    lines = [",".join(columns)]
    for t in log:
        lines.append(",".join(str(v) if isinstance(v := t[c], int) else f"{v:.6g}" for c in columns))
    return "\n".join(lines) + "\n"
