"""The exported models of a bundle as one set: scaled once, stepped together, scored by name. LEAN.

What the set remembers of its instruments can be taken out as JSON and put back, to the bit: a checkpoint, a
log of states, a move from the GPU to the processor in the middle of a session.
"""

from __future__ import annotations

import base64
import binascii
import io
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from market.errors import ScalperError
from models.bundle import MEMBER_FILES, SCALER, BundleFault
from models.interpreters import check_backend
from models.member_kinds import CLASSES, F32, F64, Member, Transformer, build
from models.scaling import Scaler

Mask = NDArray[np.bool_]
Read = Callable[[str], bytes]

FAULTS = (ValueError, RuntimeError, OSError, SystemError, TypeError)
"""What an interpreter or LightGBM raises when a model cannot answer."""


class InferenceError(ScalperError):
    """A member could not score a row; ``member`` is its name. The instrument's state was reset."""

    def __init__(self, member: str, text: str) -> None:
        super().__init__(f"model {member}: {text}")
        self.member = member


class StateError(ScalperError):
    """A stored state does not belong to these models; nothing was changed."""


class Members:
    """The exported members over raw rows, without weights: log-probabilities by name.

    ``source`` is a folder with member files and ``scaler.npz`` (nothing verified), or a ``Bundle.read``.
    ``names`` None takes every member that the folder holds. ``backend`` cpu or gpu and ``threads`` are those
    of the TFLite interpreters.
    """

    def __init__(
        self, source: Path | Read, scaler: Scaler | None = None, *, names: Iterable[str] | None = None,
        backend: str = "cpu", threads: int = 1,
    ) -> None:  # fmt: skip
        check_backend(backend, threads)
        self._read = read = source if callable(source) else _folder_reader(Path(source))
        if names is None:
            if callable(source):
                raise TypeError("names are needed where the source cannot be listed")
            names = [name for name, file in MEMBER_FILES.items() if (Path(source) / file).is_file()]
        self.names: tuple[str, ...] = tuple(sorted(names))
        unknown = [name for name in self.names if name not in MEMBER_FILES]
        if unknown or not self.names:
            raise BundleFault(
                "bad_model", f"members {list(self.names)}; known ones are {', '.join(MEMBER_FILES)}"
            )
        self.scaler = scaler if scaler is not None else _scaler_from(read(SCALER))
        self.n_features = len(self.scaler.center)
        self._scaled = np.zeros(self.n_features, np.float32)
        self.backend, self.threads = backend, threads
        self._members = self._built(backend)
        self.active: tuple[str, ...] = self.names
        self._started: set[str] = set()

    def _built(self, backend: str) -> dict[str, Member]:
        return {
            name: build(
                name, self._read(MEMBER_FILES[name]), self.n_features, backend=backend, threads=self.threads
            )
            for name in self.names
        }

    @property
    def window_rows(self) -> int:
        """Rows after a reset before the first score: T of the Transformer, 1 without it."""
        transformer = self._members.get("transformer")
        return (
            transformer.window_rows
            if isinstance(transformer, Transformer) and "transformer" in self.active
            else 1
        )

    def use_only(self, names: Collection[str] | None) -> None:
        """Run only these members (None: all). Every instrument starts afresh, for the others saw no rows."""
        chosen = self.names if names is None else tuple(n for n in self.names if n in names)
        absent = set(names or ()) - set(self.names)
        if absent or not chosen:
            raise BundleFault(
                "bad_model", f"members {sorted(absent or {'(none)'})} are not among {', '.join(self.names)}"
            )
        self.active = chosen
        self._started.clear()

    def use_backend(self, backend: str) -> None:
        """Move the TFLite members to ``cpu`` or ``gpu``; what they remember of the instruments goes along.

        Raises BundleFault and changes nothing where the models cannot run there.
        """
        check_backend(backend, self.threads)
        if backend == self.backend:
            return
        kept = self.state()
        self._members = self._built(backend)
        self.backend = backend
        self.restore(kept)

    def reset(self, ticker: str) -> None:
        """Forget the instrument's past: LSTM state to zero, Transformer window empty."""
        for member in self._members.values():
            member.start(ticker)
        self._started.add(ticker)

    # --- what is remembered

    def state(self) -> dict[str, Any]:
        """JSON of what the active members remember of each instrument, exact to the bit.

        ``{ticker: {member: {array: {"shape": [...], "f32": base64 of little-endian float32}}}}``
        """
        return {
            ticker: {
                name: {key: _packed(value) for key, value in self._members[name].memory(ticker).items()}
                for name in self.active
            }
            for ticker in sorted(self._started)
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state`` gave; instruments that it does not name start afresh.

        StateError, with every instrument reset, for a state of other members, other shapes or damaged
        content: scores from a wrong memory would look like any others.
        """
        try:
            self._started.clear()
            for ticker, members in state.items():
                if set(members) != set(self.active):
                    raise ValueError(f"{ticker} has a state of {sorted(members)}, {sorted(self.active)} run")
                self.reset(ticker)
                for name, arrays in members.items():
                    memory = {key: _unpacked(value) for key, value in arrays.items()}
                    self._members[name].remember(ticker, memory)
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as e:
            self._started.clear()
            raise StateError(
                f"the stored state of the models cannot be used ({e}); they start afresh and warm up"
            ) from e

    # --- rows in, log-probabilities out

    def step(self, ticker: str, x: F32) -> dict[str, F64] | None:
        """Log-probabilities float64 [3] by member for the raw row ``x`` float32 [F]; None while warming up.

        Raises InferenceError naming the member that failed; the instrument is then reset.
        """
        told = self.answers(ticker, x)
        return None if told is None else {name: np.array(logp) for name, logp in told.items()}

    def answers(self, ticker: str, x: F32) -> dict[str, list[float]] | None:
        """``step`` in plain numbers."""
        if not self.advance(ticker, x):
            return None
        return {name: self.score_one(name, ticker) for name in self.active}

    def advance(self, ticker: str, x: F32) -> bool:
        """Feed a row to the active members; True if they can be scored."""
        if ticker not in self._started:
            self.reset(ticker)
        if x.shape != (self.n_features,) or x.dtype != np.float32:
            raise ValueError(f"a row is float32 [{self.n_features}], got {x.dtype} {x.shape}")
        scaled = self._scale(x)
        ready = True
        for name in self.active:
            try:
                ready &= self._members[name].step(ticker, x, scaled)
            except FAULTS as e:
                self.reset(ticker)
                raise InferenceError(name, str(e)) from e
        return ready

    def _scale(self, x: F32) -> F32:
        """The scaled row; it is overwritten by the next one."""
        try:
            self.scaler.apply_row(x, self._scaled)
        except TypeError:  # a view with gaps, or one that may not be written to
            self.scaler.apply_row(np.array(x), self._scaled)
        return self._scaled

    def score_one(self, name: str, ticker: str) -> list[float]:
        """Log-probabilities of one member for the row last fed to it."""
        try:
            return self._members[name].score(ticker)
        except FAULTS as e:
            self.reset(ticker)
            raise InferenceError(name, str(e)) from e

    def run(
        self, X: F32, usable: Mask, reset: Mask, *, emit: Mask | None = None, ticker: str = ""
    ) -> dict[str, F32]:
        """Replay rows in order, bit for bit what ``step`` gives: float32 [n, 3] by member, NaN where none.

        ``X`` float32 [n, F] raw, ``usable`` and ``reset`` bool [n] (a reset comes before its row is fed).
        Rows outside ``emit`` move the states but are not scored, which spares most of the time.
        """
        wanted = np.ones(len(X), bool) if emit is None else emit
        out = {name: np.full((len(X), CLASSES), np.nan, np.float32) for name in self.active}
        X = np.ascontiguousarray(X, np.float32)
        self.reset(ticker)
        for i in range(len(X)):
            if reset[i]:
                self.reset(ticker)
            if usable[i] and self.advance(ticker, X[i]) and wanted[i]:
                for name in self.active:
                    out[name][i] = self.score_one(name, ticker)
        return out


def _folder_reader(folder: Path) -> Read:
    def read(name: str) -> bytes:
        try:
            return (folder / name).read_bytes()
        except OSError as e:
            raise BundleFault("missing_file", f"cannot read {folder / name}: {e.strerror}") from e

    return read


def _scaler_from(data: bytes) -> Scaler:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return Scaler(
                arrays["center"].astype(np.float32), arrays["scale"].astype(np.float32), float(arrays["clip"])
            )
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as e:
        raise BundleFault("bad_model", f"{SCALER} is not a scaler: {e}") from e


def _packed(value: F32) -> dict[str, Any]:
    return {"shape": list(value.shape), "f32": base64.b64encode(value.astype("<f4").tobytes()).decode()}


def _unpacked(value: Mapping[str, Any]) -> F32:
    flat = np.frombuffer(base64.b64decode(value["f32"], validate=True), "<f4")
    return flat.astype(np.float32).reshape(value["shape"])
