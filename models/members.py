"""The exported models of a bundle, one class per kind, each turning rows into log-probabilities. LEAN.

One interpreter per file, one thread. The LSTM keeps an explicit state per instrument and costs one step a
row; the Transformer sees the last T rows through a ring that is written twice, so that its window is a
contiguous view; LightGBM is called through its single-row C entry. A member answers with log-probabilities
(down, flat, up).
"""

from __future__ import annotations

import ctypes
import io
import math
import sys
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from market.errors import ScalperError
from models.bundle import MEMBER_FILES, SCALER, BundleFault
from models.scaling import Scaler

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]
Read = Callable[[str], bytes]

CLASSES = 3
P_FLOOR = 1e-7
LOG_FLOOR = math.log(P_FLOOR)
"""No member is surer than this; the same floor as in training (``models.evaluate``)."""
MAX_LOGIT = 1e6


class InferenceError(ScalperError):
    """A member could not score a row; ``member`` is its name. The instrument's state was reset."""

    def __init__(self, member: str, text: str) -> None:
        super().__init__(f"model {member}: {text}")
        self.member = member


# --- interpreters
# -------------------------------------------------------------------------------------------------


class Interpreter(Protocol):
    """The part of the TFLite interpreter's API that is used."""

    def allocate_tensors(self) -> None: ...
    def get_input_details(self) -> list[dict[str, Any]]: ...
    def get_output_details(self) -> list[dict[str, Any]]: ...
    def get_signature_list(self) -> dict[str, Any]: ...
    def set_tensor(self, tensor_index: int, value: NDArray[Any]) -> None: ...
    def get_tensor(self, tensor_index: int) -> NDArray[Any]: ...
    def invoke(self) -> None: ...


def backend() -> tuple[str, type]:
    """(package name, Interpreter class); BundleFault ``no_backend`` says what to install.

    ``tflite_runtime`` imports happily beside NumPy 2 and dies, or gives wrong numbers, later. It is taken
    only when ai-edge-litert cannot be imported, and an ``Ensemble`` on it must reproduce the golden rows
    before it is used.
    """
    reasons = []
    try:
        from ai_edge_litert.interpreter import Interpreter as LiteRT

        return "ai_edge_litert", LiteRT
    except ImportError as e:
        reasons.append(f"ai_edge_litert: {e}")
    try:
        from tflite_runtime.interpreter import Interpreter as Tflite

        return "tflite_runtime", Tflite
    except Exception as e:  # noqa: BLE001 its binary fails in several ways beside NumPy 2; any means "not here"
        reasons.append(f"tflite_runtime: {e}")
    raise BundleFault(
        "no_backend",
        f"no TFLite interpreter works here ({'; '.join(reasons)}); install one: pip install ai-edge-litert",
    )


def load_interpreter(model: Path | bytes) -> Interpreter:
    """An interpreter over a file or its bytes: one thread, tensors allocated, run once on zeros.

    Raises BundleFault ``bad_model`` for a file that cannot be loaded or run, ``no_backend`` without
    interpreter.
    """
    name, cls = backend()
    what = model.name if isinstance(model, Path) else "the model"
    try:
        content = model.read_bytes() if isinstance(model, Path) else model
        interpreter: Interpreter = cls(model_content=content, num_threads=1)
        interpreter.allocate_tensors()
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
        interpreter.invoke()
    except (ValueError, RuntimeError, OSError, SystemError, TypeError) as e:
        hint = (
            "" if name == "ai_edge_litert" else f" ({name} reads only old models: pip install ai-edge-litert)"
        )
        raise BundleFault("bad_model", f"{what} cannot be loaded as a TFLite model: {e}{hint}") from e
    return interpreter


def tensor_indices(interpreter: Interpreter) -> tuple[dict[str, int], dict[str, int]]:
    """Input and output tensor numbers by the names of the model's signature.

    Through the details, never a signature runner: a live runner keeps a reference that makes ``invoke`` fail.
    """
    signatures = interpreter.get_signature_list()
    if len(signatures) != 1:
        raise BundleFault("bad_model", f"a model must have one signature, this one has {len(signatures)}")
    key = next(iter(signatures))
    runner = interpreter.get_signature_runner(key)  # type: ignore[attr-defined]
    inputs = {name: int(d["index"]) for name, d in runner.get_input_details().items()}
    outputs = {name: int(d["index"]) for name, d in runner.get_output_details().items()}
    del runner
    return inputs, outputs


# --- members
# ------------------------------------------------------------------------------------------------------


class Member(Protocol):
    """One model. ``row`` float32 [F] is raw for LightGBM and scaled for the others."""

    name: str

    def start(self, ticker: str) -> None:
        """Forget the instrument's past."""

    def step(self, ticker: str, raw: F32, scaled: F32) -> bool:
        """Take the next row; ``logits`` is valid if True. False while the model still fills its window."""

    def score(self, ticker: str) -> list[float]:
        """Three log-probabilities for the row of the last ``step``."""


class _Graph:
    """What the TFLite members share: an interpreter and the checked numbers of its tensors."""

    def __init__(self, name: str, content: bytes, shapes: Mapping[str, tuple[int | None, ...]]) -> None:
        self.name = name
        try:
            self.interpreter = load_interpreter(content)
            self.inputs, self.outputs = tensor_indices(self.interpreter)
        except BundleFault as e:
            raise BundleFault(e.code, f"model {name}: {e}") from e
        by_index = {d["index"]: d for d in self.interpreter.get_input_details()}
        if set(self.inputs) != set(shapes) or "logits" not in self.outputs:
            raise BundleFault(
                "bad_model",
                f"model {name} has inputs {sorted(self.inputs)} and outputs {sorted(self.outputs)}; inputs "
                f"{sorted(shapes)} and an output 'logits' are needed",
            )
        self.shapes: dict[str, tuple[int, ...]] = {}
        for key, wanted in shapes.items():
            detail = by_index[self.inputs[key]]
            shape = tuple(int(n) for n in detail["shape"])
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

    def logits(self) -> list[float]:
        out: list[float] = self.interpreter.get_tensor(self.outputs["logits"])[0].tolist()
        return out


class _Svm(_Graph):
    def __init__(self, content: bytes, n_features: int) -> None:
        super().__init__("svm", content, {"x": (1, n_features)})

    def start(self, ticker: str) -> None:
        pass

    def step(self, ticker: str, raw: F32, scaled: F32) -> bool:
        self.interpreter.set_tensor(self.inputs["x"], scaled[None])
        return True

    def score(self, ticker: str) -> list[float]:
        self.interpreter.invoke()
        return log_softmax3(self.logits())


class _Lstm(_Graph):
    """Explicit state: (x, h, c) -> (logits, h, c). Scoring is part of the step, for the state moves with
    it.
    """

    def __init__(self, content: bytes, n_features: int) -> None:
        super().__init__("lstm", content, {"x": (1, n_features), "h": (1, None), "c": (1, None)})
        self.state: dict[str, tuple[F32, F32]] = {}
        self.zero = np.zeros(self.shapes["h"], np.float32)
        if not {"h", "c"} <= set(self.outputs) or self.shapes["h"] != self.shapes["c"]:
            raise BundleFault(
                "bad_model", "model lstm must return the states h and c in the shape it takes them"
            )

    def start(self, ticker: str) -> None:
        self.state[ticker] = self.zero, self.zero

    def step(self, ticker: str, raw: F32, scaled: F32) -> bool:
        h, c = self.state[ticker]
        graph, inputs, outputs = self.interpreter, self.inputs, self.outputs
        graph.set_tensor(inputs["x"], scaled[None])
        graph.set_tensor(inputs["h"], h)
        graph.set_tensor(inputs["c"], c)
        graph.invoke()
        # get_tensor copies, so the state of one instrument survives the step of another.
        self.state[ticker] = graph.get_tensor(outputs["h"]), graph.get_tensor(outputs["c"])
        return True

    def score(self, ticker: str) -> list[float]:
        return log_softmax3(self.logits())


class _Transformer(_Graph):
    def __init__(self, content: bytes, n_features: int) -> None:
        super().__init__("transformer", content, {"x": (1, None, n_features)})
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

    def score(self, ticker: str) -> list[float]:
        first = self.seen[ticker] % self.window_rows
        window = self.rings[ticker][:, first : first + self.window_rows]
        self.interpreter.set_tensor(self.inputs["x"], window)
        self.interpreter.invoke()
        return log_softmax3(self.logits())


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


class _Gbdt:
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
        self._config = ctypes.c_void_p()
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
        if getattr(self, "_config", None):
            self._lib.LGBM_FastConfigFree(self._config)
            self._config = ctypes.c_void_p()

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


def log_softmax3(z: list[float]) -> list[float]:
    """Log-probabilities of three logits, floored; raises ValueError if they are not finite."""
    top = max(z)
    if not all(abs(v) < MAX_LOGIT for v in z):
        raise ValueError(f"returned {z}")
    log_sum = top + math.log(sum(math.exp(v - top) for v in z))
    return [max(v - log_sum, LOG_FLOOR) for v in z]


def _scaler_from(data: bytes) -> Scaler:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return Scaler(
                arrays["center"].astype(np.float32), arrays["scale"].astype(np.float32), float(arrays["clip"])
            )
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as e:
        raise BundleFault("bad_model", f"{SCALER} is not a scaler: {e}") from e


class Members:
    """The exported members over raw rows, without weights: log-probabilities by name.

    ``source`` is a folder with member files and ``scaler.npz`` (nothing verified), or a ``Bundle.read``.
    ``names`` None takes every member that the folder holds.
    """

    def __init__(
        self, source: Path | Read, scaler: Scaler | None = None, *, names: Iterable[str] | None = None
    ) -> None:
        read = source if callable(source) else _folder_reader(Path(source))
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
        self._masked = np.zeros(self.n_features, bool)
        self._members = {name: _build(name, read(MEMBER_FILES[name]), self.n_features) for name in self.names}
        self.active: tuple[str, ...] = self.names
        self._started: set[str] = set()

    @property
    def window_rows(self) -> int:
        """Rows after a reset before the first score: T of the Transformer, 1 without it."""
        transformer = self._members.get("transformer")
        return (
            transformer.window_rows
            if isinstance(transformer, _Transformer) and "transformer" in self.active
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

    def reset(self, ticker: str) -> None:
        """Forget the instrument's past: LSTM state to zero, Transformer window empty."""
        for member in self._members.values():
            member.start(ticker)
        self._started.add(ticker)

    def step(self, ticker: str, x: F32) -> dict[str, F64] | None:
        """Log-probabilities float64 [3] by member for the raw row ``x`` float32 [F]; None while warming up.

        Raises InferenceError naming the member that failed; the instrument is then reset.
        """
        if not self.advance(ticker, x):
            return None
        return {name: np.array(self.score_one(name, ticker)) for name in self.active}

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
            except (ValueError, RuntimeError, OSError, SystemError, TypeError) as e:
                self.reset(ticker)
                raise InferenceError(name, str(e)) from e
        return ready

    def _scale(self, x: F32) -> F32:
        """``Scaler.apply`` to the bit for one row, without its allocations; the answer is overwritten next
        time.
        """
        scaled, clip = self._scaled, np.float32(self.scaler.clip)
        np.subtract(x, self.scaler.center, out=scaled)
        np.divide(scaled, self.scaler.scale, out=scaled)
        np.isnan(scaled, out=self._masked)
        scaled[self._masked] = 0.0
        np.maximum(scaled, -clip, out=scaled)
        np.minimum(scaled, clip, out=scaled)
        return scaled

    def score_one(self, name: str, ticker: str) -> list[float]:
        """Log-probabilities of one member for the row last fed to it."""
        try:
            return self._members[name].score(ticker)
        except (ValueError, RuntimeError, OSError, SystemError, TypeError) as e:
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


def _build(name: str, content: bytes, n_features: int) -> Member:
    if name == "gbdt":
        return _Gbdt(content.decode(errors="replace"), n_features)
    graphs: dict[str, type[_Svm] | type[_Lstm] | type[_Transformer]] = {
        "svm": _Svm,
        "lstm": _Lstm,
        "transformer": _Transformer,
    }
    return graphs[name](content, n_features)
