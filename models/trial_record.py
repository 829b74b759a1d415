"""What the trials of a search earned, kept in an Optuna study of a file or a database.

A search that was killed, or that another machine did before, costs only the trials that are not there yet.
The record answers questions and asks none: the search goes where its seed leads it, with or without. One
process asks and writes, however many evaluate, so that a file on a network's disk has one writer at a time.
``optuna-dashboard`` shows it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from market.errors import ConfigError
from models.learner import F64

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True, slots=True)
class Tried:
    """What one policy earned: ``returns`` float64 [bins] of net bps, all instruments together."""

    objective: float
    trades: int
    net_bps: float
    returns: F64


class TrialRecord:
    """The trials of one question. Get one by ``TrialRecord.open``."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._known = {
            _key(trial.params): Tried(
                float(trial.value), int(trial.user_attrs["trades"]), float(trial.user_attrs["net_bps"]),
                np.array(trial.user_attrs["returns"], np.float64),
            )
            for trial in study.get_trials(deepcopy=False)
            if trial.value is not None and "returns" in trial.user_attrs
        }  # fmt: skip

    @classmethod
    def open(cls, place: str, question: bytes) -> Self:
        """``place``: a journal file, or the address of a database (``postgresql://…``, ``sqlite:///…``);
        ``question``: what the answers depend on. ConfigError when the place cannot be read."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        name = f"calibrate-{sha256(question).hexdigest()[:16]}"
        try:
            storage: Any
            if "://" in place:
                storage = optuna.storages.RDBStorage(place)
            else:
                Path(place).parent.mkdir(parents=True, exist_ok=True)
                backend = optuna.storages.journal.JournalFileBackend(place)
                storage = optuna.storages.JournalStorage(backend)
            return cls(
                optuna.create_study(
                    storage=storage, study_name=name, direction="maximize", load_if_exists=True
                )
            )
        except Exception as error:  # noqa: BLE001 - whatever a file's parser or a database's driver raises
            shown = place.rpartition("@")[2]
            why = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
            raise ConfigError(
                f"compute.study {shown} cannot be read ({why}): name another file or database, or none"
            ) from None

    def __len__(self) -> int:
        return len(self._known)

    def of(self, trial: optuna.Trial) -> Tried | None:
        """What a trial with these very parameters earned; None if nobody knows."""
        return self._known.get(_key(trial.params))

    def add(self, trial: optuna.Trial, found: Tried) -> None:
        import optuna

        self._known[_key(trial.params)] = found
        self._study.add_trial(
            optuna.trial.create_trial(
                value=found.objective, params=trial.params, distributions=trial.distributions,
                user_attrs={
                    "trades": found.trades, "net_bps": found.net_bps, "returns": found.returns.tolist(),
                },
            )
        )  # fmt: skip


def _key(params: dict[str, float]) -> str:
    return json.dumps(params, sort_keys=True)
