"""The trials of a calibration on a pool of workers, and kept for the next run; no result depends on it."""

from __future__ import annotations

import pickle
from pathlib import Path

from flows.compute import Pool
from models import policy_search
from models.learner import Progress
from models.policy import Player
from models.policy_search import Evaluate, Search, Trials
from models.trial_record import TrialRecord

SPILLED = Path("runtime/compute")


def search_on(pool: Pool, study: str = "") -> Search:
    """``policy_search.run_trials`` with the trials of a batch evaluated side by side by ``pool``;
    ``study``: a journal file or a database that keeps them, empty for none."""

    def search(
        player: Player, temperature: float, trials: int, seed: int, progress: Progress, *, batch: int
    ) -> Trials:
        kept = TrialRecord.open(study, pickle.dumps((player, temperature))) if study else None
        if kept is not None:
            progress(f"calibrate: {len(kept)} trials are known from {study.rpartition('@')[2]}")
        # One at a time is done sooner here than sent away.
        path = policy_search.spill(player, SPILLED) if pool.workers > 1 and batch > 1 else None
        try:
            return policy_search.run_trials(
                player, temperature, trials, seed, progress, batch=batch, kept=kept,
                evaluate_all=_away(pool, path) if path is not None else None,
            )  # fmt: skip
        finally:
            if path is not None:
                path.unlink(missing_ok=True)

    return search


def _away(pool: Pool, path: Path) -> Evaluate:
    where = str(path.resolve())
    return lambda picked: pool.map(policy_search.tried_at, [(where, choice) for choice in picked], "trial")
