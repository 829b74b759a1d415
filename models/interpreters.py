"""The TFLite engine that trades: which package, on which processor, with how many threads. LEAN."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from models.bundle import BundleFault

Backend = Literal["cpu", "gpu"]
BACKENDS: Final[tuple[Backend, ...]] = ("cpu", "gpu")
GPU_DELEGATES: Final = ("libtensorflowlite_gpu_delegate.so", "libLiteRtGpuAccelerator.so")
"""Libraries that carry the GPU delegate, looked up as the system's loader does; no wheel brings them."""


class Interpreter(Protocol):
    """The part of the TFLite interpreter's API that is used."""

    def allocate_tensors(self) -> None: ...
    def get_input_details(self) -> list[dict[str, Any]]: ...
    def get_output_details(self) -> list[dict[str, Any]]: ...
    def get_signature_list(self) -> dict[str, Any]: ...
    def set_tensor(self, tensor_index: int, value: NDArray[Any]) -> None: ...
    def get_tensor(self, tensor_index: int) -> NDArray[Any]: ...
    def invoke(self) -> None: ...


def engine() -> tuple[str, type]:
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


def check_backend(backend: str, threads: int) -> None:
    """BundleFault ``no_backend`` for a choice that does not exist."""
    if backend not in BACKENDS:
        raise BundleFault("no_backend", f"inference backend {backend!r}; known: {', '.join(BACKENDS)}")
    if threads < 1:
        raise BundleFault("no_backend", f"{threads} threads of inference; 1 or more are needed")


def load_interpreter(model: Path | bytes, *, backend: str = "cpu", threads: int = 1) -> Interpreter:
    """An interpreter over a file or its bytes: tensors allocated, run once on zeros.

    One thread is the fastest for models of this size. Raises BundleFault ``bad_model`` for a file that
    cannot be loaded or run, ``no_backend`` without an interpreter or without the GPU's delegate.
    """
    check_backend(backend, threads)
    name, cls = engine()
    what = model.name if isinstance(model, Path) else "the model"
    delegates = [_gpu_delegate()] if backend == "gpu" else None
    try:
        content = model.read_bytes() if isinstance(model, Path) else model
        interpreter: Interpreter = cls(
            model_content=content, num_threads=threads, experimental_delegates=delegates
        )
        interpreter.allocate_tensors()
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
        interpreter.invoke()
    except (ValueError, RuntimeError, OSError, SystemError, TypeError) as e:
        hint = (
            "" if name == "ai_edge_litert" else f" ({name} reads only old models: pip install ai-edge-litert)"
        )
        if backend == "gpu":
            hint += " on the GPU; set model.backend to cpu"
        raise BundleFault("bad_model", f"{what} cannot be loaded as a TFLite model: {e}{hint}") from e
    return interpreter


def _gpu_delegate() -> Any:
    name, _ = engine()
    if name == "ai_edge_litert":
        from ai_edge_litert.interpreter import load_delegate
    else:
        from tflite_runtime.interpreter import load_delegate
    reasons = []
    for library in GPU_DELEGATES:
        try:
            ctypes.CDLL(library)  # the delegate's own destructor stumbles over a library that is not there
            return load_delegate(library)
        except (ValueError, OSError, RuntimeError) as e:
            reasons.append(str(e))
    raise BundleFault(
        "no_backend",
        f"the GPU cannot run models here: {'; '.join(reasons)}. Put one of {', '.join(GPU_DELEGATES)} where "
        "the loader finds it, or set model.backend to cpu",
    )


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
