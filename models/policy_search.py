"""The search for a policy: Optuna over weights, temperature and thresholds, every trial logged with what it
earned in every bin of time.

The objective is the lower confidence bound of net basis points an hour, so a lucky handful of trades does not
win.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models import ensemble, evaluate
from models.learner import F64, Progress
from models.policy import NO_EVIDENCE, Choice, Player

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


def run_trials(player: Player, temperature: float, trials: int, seed: int, progress: Progress) -> Trials:
    """Optuna in one worker, in memory; the first trial is the plain choice, which knows nothing of the
    block."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = [m for m, w in player.base.items() if w > 0]
    c = player.median_cost

    def choice(ask: Callable[[str, float, float], float]) -> Choice:
        tilts = {m: ask(f"tilt_{m}", -TILT, TILT) for m in names[1:]}
        raw = {m: w * math.exp(tilts.get(m, 0.0)) for m, w in player.base.items()}
        total = sum(raw.values())
        kept = {m: raw[m] / total for m in names}
        capped = ensemble.temper(kept, 0.0, player.cap) if max(kept.values()) > player.cap else kept
        # What is stored is what is judged: the file's decimals, not the search's.
        return Choice(
            ensemble.normalised({m: capped.get(m, 0.0) for m in player.base}),
            *(round(v, 6) for v in (
                temperature * math.exp(ask("temperature_tilt", -TILT / 2, TILT / 2)),
                ask("threshold_cost_share", 0.0, 1.0), ask("exit_move_share", -0.5, 1.0) * c,
                ask("stop_multiplier", 0.5, 3.0),
            )),
        )  # fmt: skip

    log: list[dict[str, Any]] = []
    choices: list[Choice] = []
    returns: list[F64] = []

    def objective(trial: optuna.Trial) -> float:
        picked = choice(trial.suggest_float)
        played = [player.play(p, picked) for p in player.prepared]
        value = player.objective(played)
        earned = np.sum([o.returns for o in played], axis=0)
        log.append(
            {
                "number": trial.number, "objective": value, "trades": sum(len(o.net_bps) for o in played),
                "net_bps": float(sum(o.net_bps.sum() for o in played)), "sharpe": evaluate.sharpe(earned),
                **trial.params,
            }
        )  # fmt: skip
        choices.append(picked)
        returns.append(earned)
        if (trial.number + 1) % 20 == 0:
            top = max(t["objective"] for t in log)
            said = (
                f"best lower bound {top:.2f} bps an hour" if top > NO_EVIDENCE else "none traded enough yet"
            )
            progress(f"calibrate: trial {trial.number + 1}/{trials}, {said}")
        return value

    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True)
    )
    plain = {f"tilt_{m}": 0.0 for m in names[1:]} | {
        "temperature_tilt": 0.0, "threshold_cost_share": PLAIN_THRESHOLD_SHARE,
        "exit_move_share": PLAIN_EXIT_SHARE, "stop_multiplier": 1.0,
    }  # fmt: skip
    study.enqueue_trial(plain)
    study.optimize(objective, n_trials=trials, n_jobs=1)
    return Trials(choices, log, np.stack(returns, axis=1))


def csv_of(log: Sequence[Mapping[str, Any]]) -> str:
    columns = list(log[0])
    lines = [",".join(columns)]
    for t in log:
        lines.append(",".join(str(v) if isinstance(v := t[c], int) else f"{v:.6g}" for c in columns))
    return "\n".join(lines) + "\n"
