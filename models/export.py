"""Keras mirrors of the trained networks and their TFLite files. The only module that imports TensorFlow.

Run as a process of its own (``python -m models.export``): TensorFlow costs seconds and 700 MB, prints to
stdout, and a converter that crashes must not take a pipeline with it. ``models.quantise`` drives it.

Modes: ``float32`` (the reference for parity, not shipped), ``fp16`` (half-size weights, computed in float32),
``int8`` (dynamic range: int8 weights, float in and out; on x86 the smallest and fastest) and ``int8_full``
(activations and carried states in eight bits too, calibrated on recorded rows). Each input has batch size 1,
so that no Flex operation is needed, and each graph ends in log-softmax.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from market.errors import ScalperError
from models import folding
from models.interpreters import load_interpreter, tensor_indices

MODES = ("float32", "fp16", "int8", "int8_full")
NETWORKS = ("lstm", "svm", "transformer")
CALIBRATION_ROWS = 400
"""Inputs that ``int8_full`` is calibrated on, evenly spaced over the rows given."""
CELL_CLAMP = 2.0
LN_EPS = 1e-5
BIN_EPS = 1e-2
MAX_SCORE = 60.0
"""Of attention, either way, for an exponential without care: e^-87 and e^88 are the limits of float32."""

Weights = Mapping[str, NDArray[Any]]


class ExportError(ScalperError):
    """Weights are missing or have other shapes than the layout that the mirrors know."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m models.export", description="weights.npz -> TFLite")
    parser.add_argument("--models", type=Path, required=True, help="folder with <name>/weights.npz")
    parser.add_argument("--out", type=Path, required=True, help="folder for <name>.<mode>.tflite")
    parser.add_argument("--rows", type=Path, help="rows.npz: scaled x [n, F], fresh [n]; for int8_full")
    parser.add_argument("want", nargs="+", metavar="NAME:MODE", help="for example lstm:int8")
    arguments = parser.parse_args(argv)
    try:
        wanted = [_wanted(text) for text in arguments.want]
        weights = {name: load_weights(arguments.models / name / "weights.npz") for name, _ in wanted}
        arguments.out.mkdir(parents=True, exist_ok=True)
        rows = load_weights(arguments.rows) if arguments.rows else None
        for name in weights:
            export(name, weights[name], [m for n, m in wanted if n == name], arguments.out, rows)
    except ScalperError as e:
        print(e, file=sys.stderr)
        return e.exit_code
    return 0


def _wanted(text: str) -> tuple[str, str]:
    name, _, mode = text.partition(":")
    if name not in NETWORKS or mode not in MODES:
        raise ExportError(f"{text!r} is not NAME:MODE with a name of {NETWORKS} and a mode of {MODES}")
    return name, mode


def load_weights(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (OSError, ValueError) as e:
        raise ExportError(f"cannot read the weights {path}: {e}; run the stage that trains this model") from e


def export(name: str, weights: Weights, modes: list[str], out: Path, rows: Weights | None = None) -> None:
    """Write ``out/<name>.<mode>.tflite`` for each mode; equal weights (and ``rows``) give equal bytes."""
    if "int8_full" in modes and rows is None:
        raise ExportError(f"{name}:int8_full is calibrated on recorded rows: give --rows")
    tf = _tensorflow()
    contents: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as folder, _quiet():
        saved = _saved(tf, name, weights, Path(folder) / "float")
        for mode in sorted(modes):  # float32 before int8_full
            inputs: list[Weights] = []
            if mode == "int8_full" and rows is not None:
                float32 = contents.get("float32") or _convert(tf, saved, "float32")
                inputs = calibration_inputs(float32, rows)
                if name == "transformer":
                    saved = _saved(tf, name, weights, Path(folder) / "integer", integer=True)
            contents[mode] = _convert(tf, saved, mode, inputs)
    for mode in modes:
        part = out / f"{name}.{mode}.tflite.part"
        part.write_bytes(contents[mode])
        part.replace(out / f"{name}.{mode}.tflite")


def _saved(tf: Any, name: str, weights: Weights, folder: Path, **form: bool) -> str:
    """The mirror as a SavedModel: one serves all modes, the converter's own route from Keras saves each.

    Models are named, or Keras counts them and the order of a run would show in the bytes.
    """
    build: Callable[..., Any] = {"lstm": _lstm, "svm": _svm, "transformer": _transformer}[name]
    try:
        model = build(tf, weights, **form)
    except (KeyError, ValueError) as e:
        raise ExportError(f"weights of {name} do not have the layout of this version: {e}") from e
    model.export(str(folder), verbose=False)
    return str(folder)


def calibration_inputs(float32: bytes, rows: Weights) -> list[Weights]:
    """Inputs that the float32 model really meets on ``rows``: windows whole, states carried by itself.

    Zeros or noise in the place of carried states would give the state a range that it never has.
    """
    interpreter = load_interpreter(float32)
    inputs, outputs = tensor_indices(interpreter)
    shapes = {d["index"]: tuple(d["shape"]) for d in interpreter.get_input_details()}
    states = sorted(set(inputs) - {"x"})
    window = shapes[inputs["x"]][1] if len(shapes[inputs["x"]]) == 3 else 1
    x, fresh = rows["x"].astype(np.float32), rows["fresh"].astype(bool)
    since = np.arange(len(x)) - np.maximum.accumulate(np.where(fresh, np.arange(len(x)), 0))
    ends = np.flatnonzero(since >= window - 1)
    chosen = set(ends[:: max(1, len(ends) // CALIBRATION_ROWS)].tolist())
    found: list[Weights] = []
    held = {key: np.zeros(shapes[inputs[key]], np.float32) for key in states}
    for row in range(len(x)):
        if fresh[row]:
            held = {key: np.zeros_like(value) for key, value in held.items()}
        last = x[row - window + 1 : row + 1][None] if len(shapes[inputs["x"]]) == 3 else x[row][None]
        if row in chosen:
            found.append({"x": last, **held})
        if states:
            for key, value in {"x": last, **held}.items():
                interpreter.set_tensor(inputs[key], value)
            interpreter.invoke()
            held = {key: interpreter.get_tensor(outputs[key]) for key in states}
    if not found:
        raise ExportError(f"{len(x)} rows hold no whole window of {window} to calibrate int8_full on")
    return found


def _tensorflow() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    with _quiet():
        import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    tf.config.experimental.enable_op_determinism()
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    return tf


def _convert(tf: Any, saved_model: str, mode: str, inputs: list[Weights] | None = None) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if mode == "int8_full":
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: iter(inputs or [])
    if mode != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if mode == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    content: bytes = converter.convert()
    return content


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The converter writes to file descriptors 1 and 2 from C++; errors still arrive as exceptions."""
    saved = os.dup(1), os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for fd in (*saved, sink):
            os.close(fd)


# --- mirrors


def _layer(tf: Any, name: str, forward: Callable[[Any], Any]) -> Any:
    """A Keras layer that calls ``forward(inputs)``; the weights are constants of the graph, so nothing is
    trained.
    """

    class Mirror(tf.keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            return forward(inputs)

    return Mirror(name=name)


def _constants(tf: Any, weights: Weights) -> dict[str, Any]:
    return {k: tf.constant(v.astype(np.float32)) for k, v in weights.items() if v.dtype.kind == "f"}


def _standard(tf: Any, x: Any, axis: int, eps: float) -> Any:
    """Mean 0 and variance 1 along ``axis``, as mean and rsqrt: Keras' own layers bring operations that leave
    TFLite's fast path."""
    x = x - tf.reduce_mean(x, axis, keepdims=True)
    return x * tf.math.rsqrt(tf.reduce_mean(x * x, axis, keepdims=True) + eps)


def _blend(w: Mapping[str, Any], x: Any, over_time: Any, over_features: Any) -> Any:
    """The bilinear normalisation of ``models.bilinear``; ``over_time`` None where there is no such half."""
    g = w["bin_g"]
    y = x * g[0] + over_features * g[2] + w["bin_b"]
    return y if over_time is None else y + over_time * g[1]


def _svm(tf: Any, weights: Weights) -> Any:
    """x (1, F) -> logp (1, 3) = log p, p_c = sigmoid(z_c) / sum, z = rff(x) @ w + b (Platt folded into w,
    b).
    """
    w = _constants(tf, weights)
    features, width = weights["rff_w"].shape
    amplitude = float(np.sqrt(2.0 / width))

    def forward(x: Any) -> dict[str, Any]:
        lifted = tf.cos(tf.matmul(x, w["rff_w"]) + w["rff_b"]) * amplitude
        z = tf.matmul(lifted, w["w"]) + w["b"]
        # log sigmoid without overflow on either side, from operations that TFLite has
        log_sigmoid = tf.minimum(z, 0.0) - tf.math.log(1.0 + tf.exp(-tf.abs(z)))
        return {"logp": tf.nn.log_softmax(log_sigmoid)}

    x = tf.keras.Input((features,), batch_size=1, name="x")
    return tf.keras.Model({"x": x}, _layer(tf, "svm", forward)(x), name="mirror")


def _lstm(tf: Any, weights: Weights) -> Any:
    """(x (1, F), h (1, H), c (1, H)) -> (logp (1, 3), h, c): one step, cell clamped to +-2.

    With the running half of the normalisation there are two states more, m and v (1, F): the running mean,
    and the running variance less one, so that zeros are the start of every state.
    """
    w = _constants(tf, weights)
    hidden = weights["head_w"].shape[0]
    features = weights["w"].shape[0] - hidden
    if weights["w"].shape[1] != 4 * hidden:
        raise ValueError(f"w is {weights['w'].shape}, ({features + hidden}, {4 * hidden}) is needed")
    rate = float(weights["bin_rate"].reshape(-1)[0]) if "bin_rate" in weights else 0.0

    def normalise(x: Any, m: Any, v: Any) -> tuple[Any, dict[str, Any]]:
        if "bin_g" not in w:
            return x, {}
        over_features = _standard(tf, x, -1, BIN_EPS)
        if not rate:
            return _blend(w, x, None, over_features), {}
        off = x - m
        m = m + rate * off
        spread = (1.0 - rate) * ((v + 1.0) + rate * (off * off))
        over_time = (x - m) * tf.math.rsqrt(spread + BIN_EPS)
        return _blend(w, x, over_time, over_features), {"m": m, "v": spread - 1.0}

    def forward(inputs: Any) -> dict[str, Any]:
        x, states = normalise(inputs["x"], inputs.get("m"), inputs.get("v"))
        gates = tf.matmul(tf.concat([x, inputs["h"]], -1), w["w"]) + w["b"]
        i, f, g, o = tf.split(gates, 4, -1)
        c = tf.sigmoid(f) * inputs["c"] + tf.sigmoid(i) * tf.tanh(g)
        c = tf.clip_by_value(c, -CELL_CLAMP, CELL_CLAMP)
        h = tf.sigmoid(o) * tf.tanh(c)
        logp = tf.nn.log_softmax(tf.matmul(h, w["head_w"]) + w["head_b"])
        return {"logp": logp, "h": h, "c": c, **states}

    lengths = {"x": features, "h": hidden, "c": hidden} | ({"m": features, "v": features} if rate else {})
    inputs = {key: tf.keras.Input((n,), batch_size=1, name=key) for key, n in lengths.items()}
    return tf.keras.Model(inputs, _layer(tf, "lstm", forward)(inputs), name="mirror")


def _transformer(tf: Any, weights: Weights, *, integer: bool = False) -> Any:
    """x (1, T, F) -> logp (1, 3): bilinear normalisation if any, pre-LN encoder, ReLU, mean pool; the weights
    as ``models.folding`` has them.

    XNNPACK's softmax takes longer than exponential, mean and division by themselves. It is kept where scores
    could leave what float32 can take the exponential of, and for ``integer``: its eight bits are for shares.
    """
    heads, rows = int(weights["n_heads"].reshape(-1)[0]), int(weights["T"].reshape(-1)[0])
    features, width = weights["in_w"].shape
    layers = sum(1 for key in weights if key.endswith("_wq"))
    if width % heads or weights["pos"].shape != (rows, width) or not layers:
        raise ValueError(
            f"width {width}, {heads} heads, pos {weights['pos'].shape}, {layers} layers, T {rows}"
        )
    folded = folding.folded(weights)
    plain = not integer and folding.largest_score(folded) < MAX_SCORE
    w = _constants(tf, folded)

    def norm(x: Any) -> Any:
        """LayerNorm of rows that have no mean."""
        return x * tf.math.rsqrt(tf.reduce_mean(x * x, -1, keepdims=True) + LN_EPS)

    def dense(x: Any, name: str) -> Any:
        return tf.matmul(x, w[f"{name}_w"]) + w[f"{name}_b"]

    def attend(u: Any, n: str) -> Any:
        asked = tf.reshape(dense(u, f"{n}ask"), (1, rows * heads, width))
        score = tf.matmul(asked, u, transpose_b=True)
        if plain:
            share = tf.exp(score)  # a sum of it, written as such, would be turned back into a softmax
            mixed = tf.matmul(share, u) / (tf.reduce_mean(share, -1, keepdims=True) * float(rows))
        else:
            mixed = tf.matmul(tf.nn.softmax(score), u)
        return dense(tf.reshape(mixed, (1, rows, heads * width)), f"{n}tell")

    def normalise(x: Any) -> Any:
        mean = tf.reduce_mean(x, 1, keepdims=True)
        off = x - mean
        scale = tf.math.rsqrt(tf.reduce_mean(off * off, 1, keepdims=True) + BIN_EPS)
        now = off * (w["bin_now"] + w["bin_past"] * scale) + mean * w["bin_now"]
        return now + _standard(tf, x, -1, BIN_EPS) * w["bin_others"]

    def forward(x: Any) -> dict[str, Any]:
        x = dense(normalise(x) if "bin_now" in w else x, "in")
        for layer in range(layers):
            n = f"l{layer}_"
            x = x + attend(norm(x), n)
            x = x + dense(tf.nn.relu(dense(norm(x), f"{n}ff1")), f"{n}ff2")
        return {"logp": tf.nn.log_softmax(dense(tf.reduce_mean(norm(x), 1), "head"))}

    x = tf.keras.Input((rows, features), batch_size=1, name="x")
    return tf.keras.Model({"x": x}, _layer(tf, "transformer", forward)(x), name="mirror")


if __name__ == "__main__":
    raise SystemExit(main())
