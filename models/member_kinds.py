"""One class per kind of exported model, each turning rows into log-probabilities. LEAN.

The LSTM carries an explicit state per instrument and costs one step a row; the Transformer sees the last T
rows through a ring that is written twice, so that its window is a contiguous view; LightGBM is called through
its single-row C entry. What a member remembers of an instrument can be taken out (``memory``) and put back.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.bundle import BundleFault
from models.interpreters import load_interpreter, tensor_indices

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

CLASSES = 3
P_FLOOR = 1e-7
LOG_FLOOR = math.log(P_FLOOR)
"""No member is surer than this; the same floor as in training (``models.evaluate``)."""
MAX_LOGIT = 1e6


class Member(Protocol):
    """One model. ``row`` float32 [F] is raw for LightGBM and scaled for the others."""

    name: str

    def start(self, ticker: str) -> None:
        """Forget the instrument's past."""

    def step(self, ticker: str, raw: F32, scaled: F32) -> bool:
        """Take the next row; ``score`` is valid if True. False while the model still fills its window."""

    def score(self, ticker: str) -> list[float]:
        """Three log-probabilities for the row of the last ``step``."""

    def memory(self, ticker: str) -> dict[str, F32]:
        """Copies of what the model remembers of a started instrument, by name; empty if it has no memory."""

    def remember(self, ticker: str, memory: Mapping[str, F32]) -> None:
        """The opposite of ``memory``; ValueError for another model's memory."""


class _Graph:
    """What the TFLite members share: an interpreter and the checked numbers of its tensors.

    ``shapes``: the inputs by name, None for any length. Further inputs are allowed with ``states``, which
    must come back as outputs of the same name and shape.
    """

    def __init__(
        self, name: str, content: bytes, shapes: Mapping[str, tuple[int | None, ...]], *, backend: str,
        threads: int, states: bool = False,
    ) -> None:  # fmt: skip
        self.name = name
        try:
            self.interpreter = load_interpreter(content, backend=backend, threads=threads)
            self.inputs, self.outputs = tensor_indices(self.interpreter)
        except BundleFault as e:
            raise BundleFault(e.code, f"model {name}: {e}") from e
        details = {d["index"]: d for d in self.interpreter.get_input_details()}
        extra = set(self.inputs) - set(shapes)
        if set(shapes) - set(self.inputs) or (extra and not states) or "logp" not in self.outputs:
            raise BundleFault(
                "bad_model",
                f"model {name} has inputs {sorted(self.inputs)} and outputs {sorted(self.outputs)}; inputs "
                f"{sorted(shapes)} and an output 'logp' are needed",
            )
        self.shapes: dict[str, tuple[int, ...]] = {}
        for key, index in self.inputs.items():
            detail = details[index]
            shape = tuple(int(n) for n in detail["shape"])
            wanted = shapes.get(key, (1, None))
            fits = len(shape) == len(wanted) and all(
                w in (None, n) for w, n in zip(wanted, shape, strict=True)
            )
            if not fits or detail["dtype"] is not np.float32:
                raise BundleFault(
                    "bad_model",
                    f"model {name}: input {key} is {detail['dtype'].__name__} {shape}; float32 {wanted} is "
                    "needed",
                )
            self.shapes[key] = shape

    def answer(self) -> list[float]:
        out: list[float] = self.interpreter.get_tensor(self.outputs["logp"])[0].tolist()
        return out


class Svm(_Graph):
    """Random Fourier features; no memory."""

    def __init__(self, content: bytes, n_features: int, *, backend: str, threads: int) -> None:
        super().__init__("svm", content, {"x": (1, n_features)}, backend=backend, threads=threads)

    def start(self, ticker: str) -> None:
        pass

    def step(self, ticker: str, raw: F32, scaled: F32) -> bool:
        self.interpreter.set_tensor(self.inputs["x"], scaled[None])
        return True

    def score(self, ticker: str) -> list[float]:
        self.interpreter.invoke()
        return log_softmax3(self.answer())

    def memory(self, ticker: str) -> dict[str, F32]:
        return {}

    def remember(self, ticker: str, memory: Mapping[str, F32]) -> None:
        _check_memory(self.name, memory, {})


class Lstm(_Graph):
    """Explicit state: (x, states) -> (logp, states), each state zero at the start.

    The states are h and c of the cell, and the running mean and variance of the features where the model
    normalises by them. Scoring is part of the step, for the states move with it.
    """

    def __init__(self, content: bytes, n_features: int, *, backend: str, threads: int) -> None:
        shapes = {"x": (1, n_features), "h": (1, None), "c": (1, None)}
        super().__init__("lstm", content, shapes, backend=backend, threads=threads, states=True)
        self.states = tuple(sorted(set(self.inputs) - {"x"}))
        given = {d["index"]: tuple(int(n) for n in d["shape"]) for d in self.interpreter.get_output_details()}
        for key in self.states:
            if given.get(self.outputs.get(key, -1)) != self.shapes[key]:
                raise BundleFault(
                    "bad_model", f"model lstm must return the state {key} in the shape it takes it"
                )
        self.state: dict[str, tuple[F32, ...]] = {}
        self._zeros = tuple(np.zeros(self.shapes[key], np.float32) for key in self.states)
        self._into = tuple(self.inputs[key] for key in self.states)
        self._out_of = tuple(self.outputs[key] for key in self.states)
        self._x = self.inputs["x"]

    def start(self, ticker: str) -> None:
        self.state[ticker] = self._zeros

    def step(self, ticker: str, raw: F32, scaled: F32) -> bool:
        graph = self.interpreter
        graph.set_tensor(self._x, scaled[None])
        for index, value in zip(self._into, self.state[ticker], strict=True):
            graph.set_tensor(index, value)
        graph.invoke()
        # get_tensor copies, so the state of one instrument survives the step of another.
        self.state[ticker] = tuple(graph.get_tensor(index) for index in self._out_of)
        return True

    def score(self, ticker: str) -> list[float]:
        return log_softmax3(self.answer())

    def memory(self, ticker: str) -> dict[str, F32]:
        return {k: v.copy() for k, v in zip(self.states, self.state[ticker], strict=True)}

    def remember(self, ticker: str, memory: Mapping[str, F32]) -> None:
        _check_memory(self.name, memory, {key: self.shapes[key] for key in self.states})
        self.state[ticker] = tuple(memory[key].copy() for key in self.states)


class Transformer(_Graph):
    """The last T rows; its memory is the rows seen so far, at most T."""

    def __init__(self, content: bytes, n_features: int, *, backend: str, threads: int) -> None:
        shapes = {"x": (1, None, n_features)}
        super().__init__("transformer", content, shapes, backend=backend, threads=threads)
        self.window_rows = self.shapes["x"][1]
        self.rings: dict[str, F32] = {}
        self.seen: dict[str, int] = {}

    def start(self, ticker: str) -> None:
        self.rings[ticker] = np.zeros((1, 2 * self.window_rows, self.shapes["x"][2]), np.float32)
        self.seen[ticker] = 0

    def step(self, ticker: str, raw: F32, scaled: F32) -> bool:
        ring, at = self.rings[ticker], self.seen[ticker] % self.window_rows
        ring[0, at] = scaled
        ring[0, at + self.window_rows] = scaled
        self.seen[ticker] += 1
        return self.seen[ticker] >= self.window_rows

    def _window(self, ticker: str) -> F32:
        first = self.seen[ticker] % self.window_rows
        return self.rings[ticker][:, first : first + self.window_rows]

    def score(self, ticker: str) -> list[float]:
        self.interpreter.set_tensor(self.inputs["x"], self._window(ticker))
        self.interpreter.invoke()
        return log_softmax3(self.answer())

    def memory(self, ticker: str) -> dict[str, F32]:
        if self.seen[ticker] >= self.window_rows:
            return {"rows": self._window(ticker)[0].copy()}
        return {"rows": self.rings[ticker][0, : self.seen[ticker]].copy()}

    def remember(self, ticker: str, memory: Mapping[str, F32]) -> None:
        rows = memory.get("rows")
        count = 0 if rows is None else min(len(rows), self.window_rows)
        _check_memory(self.name, memory, {"rows": (count, self.shapes["x"][2])})
        self.start(ticker)
        for row in memory["rows"]:
            self.step(ticker, row, row)


def _check_memory(name: str, memory: Mapping[str, F32], wanted: Mapping[str, tuple[int, ...]]) -> None:
    have = {key: (value.dtype.name, value.shape) for key, value in memory.items()}
    if have != {key: ("float32", shape) for key, shape in wanted.items()}:
        raise ValueError(f"model {name} remembers {dict(wanted)}, the state given holds {have}")
    if bad := [key for key, value in memory.items() if not np.isfinite(value).all()]:
        raise ValueError(f"model {name}: the state given has {bad[0]} that is not finite")


def import_lightgbm() -> ModuleType:
    """LightGBM as the trading box has it, without its optional half.

    Where they are installed it imports scikit-learn, pandas and dask for estimators that nobody here uses:
    seconds and a hundred megabytes in every process that only predicts.
    """
    hidden = [name for name in ("sklearn", "pandas", "dask") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: "not installed"
    try:
        import lightgbm
    finally:
        for name in hidden:
            del sys.modules[name]
    return lightgbm


class Gbdt:
    """LightGBM by ``LGBM_BoosterPredictForMatSingleRowFast``: the bits of ``Booster.predict`` without its
    overhead.

    Rows are float32 here and in batch, so both see the same thresholds. One call at a time: the row, the
    answer and the native settings are shared.
    """

    name = "gbdt"

    def __init__(self, text: str, n_features: int) -> None:
        lightgbm = import_lightgbm()
        try:
            self.booster = lightgbm.Booster(model_str=text)
        except lightgbm.basic.LightGBMError as e:
            raise BundleFault("bad_model", f"model gbdt: gbdt.txt cannot be loaded: {e}") from e
        if self.booster.num_feature() != n_features or self.booster.num_model_per_iteration() != CLASSES:
            raise BundleFault(
                "bad_model",
                f"model gbdt takes {self.booster.num_feature()} features for "
                f"{self.booster.num_model_per_iteration()} classes; {n_features} for {CLASSES} are needed",
            )
        self._row = np.zeros(n_features, np.float32)
        self._p = np.zeros(CLASSES)
        self._n = ctypes.c_int64()
        self._lib = lightgbm.basic._LIB
        self._config: ctypes.c_void_p | None = ctypes.c_void_p()
        failed = self._lib.LGBM_BoosterPredictForMatSingleRowFastInit(
            self.booster._handle, ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(-1), ctypes.c_int(0),
            ctypes.c_int32(n_features), b"num_threads=1", ctypes.byref(self._config),
        )  # fmt: skip
        if failed:
            raise BundleFault(
                "bad_model", f"model gbdt: LightGBM refuses single-row prediction: {self._reason()}"
            )
        self._arguments = (
            self._config,
            self._row.ctypes.data_as(ctypes.c_void_p),
            ctypes.byref(self._n),
            self._p.ctypes.data_as(ctypes.c_void_p),
        )

    def __del__(self) -> None:
        config = getattr(self, "_config", None)
        if config:
            self._config = None  # modules may be gone by now: nothing of theirs is asked for
            self._lib.LGBM_FastConfigFree(config)

    def _reason(self) -> str:
        self._lib.LGBM_GetLastError.restype = ctypes.c_char_p
        text: bytes = self._lib.LGBM_GetLastError()
        return text.decode(errors="replace")

    def start(self, ticker: str) -> None:
        pass

    def step(self, ticker: str, raw: F32, scaled: F32) -> bool:
        self._row[:] = raw
        return True

    def probabilities(self) -> F64:
        """float64 [3] for the row of the last ``step``; the array is reused."""
        if self._lib.LGBM_BoosterPredictForMatSingleRowFast(*self._arguments):
            raise RuntimeError(self._reason())
        return self._p

    def score(self, ticker: str) -> list[float]:
        return [math.log(p) if p > P_FLOOR else LOG_FLOOR for p in self.probabilities().tolist()]

    def memory(self, ticker: str) -> dict[str, F32]:
        return {}

    def remember(self, ticker: str, memory: Mapping[str, F32]) -> None:
        _check_memory(self.name, memory, {})


def log_softmax3(z: list[float]) -> list[float]:
    """Log-probabilities of three logits, floored; raises ValueError if they are not finite.

    The graphs end in log-softmax themselves; what is undone here is the rounding of an eight-bit answer.
    """
    a, b, c = z
    if not (abs(a) < MAX_LOGIT and abs(b) < MAX_LOGIT and abs(c) < MAX_LOGIT):
        raise ValueError(f"returned {z}")
    top = max(a, b, c)
    log_sum = top + math.log(math.exp(a - top) + math.exp(b - top) + math.exp(c - top))
    return [max(a - log_sum, LOG_FLOOR), max(b - log_sum, LOG_FLOOR), max(c - log_sum, LOG_FLOOR)]


def build(name: str, content: bytes, n_features: int, *, backend: str, threads: int) -> Member:
    """The member of that name over its file. LightGBM always runs on the processor, on one thread a row."""
    if name == "gbdt":
        return Gbdt(content.decode(errors="replace"), n_features)
    graphs: dict[str, type[Svm] | type[Lstm] | type[Transformer]] = {
        "svm": Svm,
        "lstm": Lstm,
        "transformer": Transformer,
    }
    return graphs[name](content, n_features, backend=backend, threads=threads)
