"""What a training has come to after its last whole epoch, so that one that was killed goes on from there.

It goes on exactly: parameters, optimiser and random numbers are what they were, so the weights come out as if
nothing had happened. A question (data, settings, code) that is not the one of the file starts anew.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.dataset import Dataset


class Resume:
    """The file ``path`` of one training; ``question`` is a hash of all that shapes its weights."""

    def __init__(self, path: Path, question: str) -> None:
        self.path, self.question = path, question

    def load(self) -> dict[str, Any] | None:
        """What ``keep`` was given last for this question; None where there is no such file."""
        import torch

        try:
            kept = torch.load(self.path, weights_only=True)
        except (FileNotFoundError, EOFError, RuntimeError, pickle.UnpicklingError):
            return None  # never kept, or half a file of another program: start anew
        return kept["state"] if isinstance(kept, dict) and kept.get("question") == self.question else None

    def keep(self, state: Mapping[str, Any]) -> None:
        """Tensors, numbers, texts, lists and dictionaries of them; whole or not at all."""
        import torch

        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f"{self.path.name}.part")
        torch.save({"question": self.question, "state": dict(state)}, draft)
        draft.replace(self.path)

    def forget(self) -> None:
        """The training is done."""
        self.path.unlink(missing_ok=True)


class Epochs:
    """The epochs of a training with early stopping, which go on where ``resume`` says that they stopped.

    ``best`` are the weights with the lowest loss so far. ``parts`` are what else has to be as it was: tensors
    are restored in place, a numpy generator and whatever has a ``state_dict`` by their states.
    """

    def __init__(
        self, count: int, patience: int, start: Mapping[str, NDArray[Any]], resume: Resume | None,
        parts: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self.best, self.best_loss, self.waited = dict(start), float("inf"), 0
        self.history: list[float] = []
        self._count, self._patience, self._resume, self._parts = count, patience, resume, parts
        kept = resume.load() if resume is not None else None
        if kept is not None:
            self.best = {name: tensor.numpy() for name, tensor in kept["best"].items()}
            self.best_loss, self.waited = kept["best_loss"], kept["waited"]
            self.history = list(kept["history"])
            for name, part in parts.items():
                _restore(part, kept["parts"][name])

    def __iter__(self) -> Iterator[int]:
        # Without any patience there is still one epoch, or nothing would have been learnt.
        while len(self.history) < self._count and (not self.history or self.waited < self._patience):
            yield len(self.history)

    def take(self, loss: float, weights: Mapping[str, NDArray[Any]]) -> None:
        """An epoch is over: its loss on the stopping rows, and the weights that gave it."""
        import torch

        self.history.append(loss)
        self.waited = 0 if loss < self.best_loss else self.waited + 1
        if loss < self.best_loss:
            self.best, self.best_loss = dict(weights), loss
        if self._resume is not None:
            self._resume.keep({
                "best": {name: torch.from_numpy(value) for name, value in self.best.items()},
                "best_loss": float(self.best_loss), "waited": self.waited,
                "history": [float(value) for value in self.history],
                "parts": {name: _state(part) for name, part in self._parts.items()},
            })  # fmt: skip


def _state(part: Any) -> Any:
    if isinstance(part, Mapping):
        return {name: value.detach().clone() for name, value in part.items()}
    if isinstance(part, np.random.Generator):
        return part.bit_generator.state
    return part.get_state() if hasattr(part, "get_state") else _plain(part.state_dict())


def _plain(value: Any) -> Any:
    """Numpy's numbers as Python's: a learning rate may be one, and only plain things are read back."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value.item() if isinstance(value, np.generic) else value


def _restore(part: Any, state: Any) -> None:
    if isinstance(part, Mapping):
        for name, value in part.items():
            value.data.copy_(state[name])
    elif isinstance(part, np.random.Generator):
        part.bit_generator.state = state
    elif hasattr(part, "set_state"):
        part.set_state(state)
    else:
        part.load_state_dict(state)


def question(dataset: Dataset, code: str, **settings: Any) -> str:
    """SHA-256 (hex) over everything that a training is given; ``code``: of the learner and its libraries."""
    total = hashlib.sha256(f"{code}\n{sorted(settings.items())!r}\n{dataset.blocks!r}\n".encode())
    for ticker, series in sorted(dataset.series.items()):
        total.update(ticker.encode())
        for field in fields(series):
            value = getattr(series, field.name)
            total.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return total.hexdigest()
