"""A GPU failure moves inference to the CPU at 5 Hz and is told; what models remember survives a restart."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from core_bench import KEY
from small_bundle import make_bundle, make_recording
from test_connectivity import Said
from test_live_models import market

from features.schema import NAMES
from live.core import events as ev
from live.gpu import GpuFailover
from live.modes import PipelineModes
from live.pipeline import SignalPipeline
from market.types import SECOND_NS
from models.bundle import Bundle
from models.inference import Ensemble, InferenceError

pytestmark = pytest.mark.slow  # the platform's TensorFlow takes its time to load


class DeviceLost:
    """A real interpreter whose delegate dies: ``invoke`` raises what TFLite raises."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def invoke(self) -> None:
        raise RuntimeError("GpuDelegate: Invoke() failed: device lost")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Bundle]:
    """A recording, and a bundle with a network (a linear one) beside the trees."""
    tf = pytest.importorskip("tensorflow", reason="making a TFLite file needs the platform install")
    folder = tmp_path_factory.mktemp("gpu")
    recording = make_recording(folder / "recording")
    made = make_bundle(folder / "bundle", recording, folder / "keys")
    weights = np.zeros((len(NAMES), 3), np.float32)

    class Linear(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([1, len(NAMES)], tf.float32, name="x")])
        def score(self, x: Any) -> Any:
            z = tf.matmul(x, tf.constant(weights)) + tf.constant([[0.1, 0.5, 0.4]])
            return {"logp": tf.nn.log_softmax(z)}

    module = Linear()
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [module.score.get_concrete_function()], module
    )
    parts = folder / "bundle-parts"
    (parts / "svm.tflite").write_bytes(converter.convert())
    settings = json.loads((parts / "ensemble.json").read_text())
    settings["members"] = {"gbdt": 0.5, "svm": 0.5}
    (parts / "ensemble.json").write_text(json.dumps(settings))
    files = {p.name: p for p in parts.iterdir() if p.name != "golden.npz"}
    return recording, Bundle.draft(files, made.manifest)


class Shell:
    """The part of the loop that matters here: books in, errors to the fail-over, its events back in."""

    def __init__(self, ensemble: Ensemble) -> None:
        self.posted: list[ev.Event] = []
        self.audit: list[tuple[str, str, dict[str, Any]]] = []
        self.said = Said()
        self.now_ns = 0
        self.pipeline = SignalPipeline(["SIMP"], ensemble, KEY)
        modes = PipelineModes(self._post, lambda: self.now_ns)
        self.gpu = GpuFailover(
            modes, self._post, lambda: self.now_ns,
            lambda tag, event, **fields: self.audit.append((tag, event, fields)), self.said,
        )  # fmt: skip

    def _post(self, event: ev.Event) -> None:
        self.posted.append(event)
        if isinstance(event, ev.PipelineMode):
            self.pipeline.set_mode(event.members, event.min_interval_ns)
        elif isinstance(event, ev.PipelineReset):
            self.pipeline.reset(event.ticker)

    def take(self, event: ev.Event) -> ev.Event | None:
        self.now_ns = event.now_ns
        if isinstance(event, ev.Trade):
            self.pipeline.on_trade(event)
            return None
        answer = self.pipeline.on_book(event)
        if self.pipeline.error is not None:
            error, self.pipeline.error = self.pipeline.error, None
            self.gpu.on_error(self.pipeline.ensemble, error)
        return answer


def on_a_gpu_that_dies(bundle: Bundle, after: int) -> tuple[Shell, Ensemble]:
    """An ensemble that believes it runs on a GPU; its delegate dies after so many scores."""
    ensemble = Ensemble(bundle, ["SIMP"])
    ensemble.members.backend = "gpu"
    graph = ensemble.members._members["svm"]
    real, shell = graph.interpreter, Shell(ensemble)

    class Countdown(DeviceLost):
        left = after

        def invoke(self) -> None:
            self.left -= 1
            if self.left < 0:
                super().invoke()
            real.invoke()

    graph.interpreter = Countdown(real)
    return shell, ensemble


def test_a_gpu_failure_moves_inference_to_the_cpu_lowers_the_rate_to_5_hz_clears_feature_caches_and_notifies(
    source: tuple[Any, Bundle],
) -> None:
    recording, bundle = source
    shell, ensemble = on_a_gpu_that_dies(bundle, after=10)
    answers = [(e.now_ns, shell.take(e)) for e in market(recording, "SIMP")]
    failures = [a for _, a in answers if isinstance(a, ev.InferenceFailed)]
    assert len(failures) == 1 and "device lost" in failures[0].error
    assert ensemble.members.backend == "cpu"
    assert [e for _, e, _ in shell.audit] == ["GPU_FAILOVER"] and shell.audit[0][2]["mode"] == "cpu"
    assert shell.said.texts[0].startswith("GPU_FAILOVER mode=cpu")
    resets = [e for e in shell.posted if isinstance(e, ev.PipelineReset)]
    (mode,) = [e for e in shell.posted if isinstance(e, ev.PipelineMode)]
    assert [r.ticker for r in resets] == ["*"] and mode.min_interval_ns == SECOND_NS // 5
    after = [at for at, a in answers if isinstance(a, ev.Scores) and at > resets[0].now_ns]
    assert len(after) > 100
    assert after[0] - resets[0].now_ns >= 120 * SECOND_NS  # the features warm up anew
    assert all(b - a >= SECOND_NS // 5 for a, b in pairwise(after))


def test_a_failure_that_is_not_the_gpus_leaves_it_alone(source: tuple[Any, Bundle]) -> None:
    shell, ensemble = on_a_gpu_that_dies(source[1], after=10**9)
    shell.gpu.on_error(ensemble, InferenceError("gbdt", "a row of the wrong length"))
    shell.gpu.on_error(ensemble, ValueError("not a model's"))
    assert ensemble.members.backend == "gpu" and not shell.audit
    ensemble.members.backend = "cpu"
    shell.gpu.on_error(ensemble, InferenceError("svm", "on the CPU already"))
    assert not shell.audit


def test_a_restart_goes_on_with_the_features_and_the_model_memory_of_the_checkpoint(
    source: tuple[Any, Bundle],
) -> None:
    recording, bundle = source
    events = market(recording, "SIMP")
    half = len(events) // 2
    whole, first = Shell(Ensemble(bundle, ["SIMP"])), Shell(Ensemble(bundle, ["SIMP"]))
    for event in events[:half]:
        whole.take(event)
        first.take(event)
    kept = json.loads(json.dumps(first.pipeline.state()))
    again = Shell(Ensemble(bundle, ["SIMP"]))
    assert again.pipeline.restore(kept) == ""
    for event in events[half:]:
        a, b = whole.take(event), again.take(event)
        if isinstance(a, ev.Scores):
            assert isinstance(b, ev.Scores) and (a.p_e6, a.expected_move_millibps) == (
                b.p_e6, b.expected_move_millibps,
            )  # fmt: skip
        else:
            assert a is None and b is None


@pytest.mark.parametrize("damage", ["features", "models", "both"])
def test_a_damaged_or_foreign_model_memory_starts_afresh_and_says_why(
    source: tuple[Any, Bundle], damage: str, tmp_path: Path
) -> None:
    shell = Shell(Ensemble(source[1], ["SIMP"]))
    kept = shell.pipeline.state()
    if damage in ("features", "both"):
        kept["features"]["SIMP"]["fstate"] = "AAAA"
    if damage in ("models", "both"):
        kept["models"]["manifest_sha256"] = "another"
    why = Shell(Ensemble(source[1], ["SIMP"])).pipeline.restore(kept)
    assert why


def test_a_book_after_a_pause_finds_the_gap_itself(source: tuple[Any, Bundle]) -> None:
    recording, bundle = source
    books = [e for e in market(recording, "SIMP") if isinstance(e, ev.Book)]
    first = Shell(Ensemble(bundle, ["SIMP"]))
    for event in books[:1000]:
        first.take(event)
    again = Shell(Ensemble(bundle, ["SIMP"]))
    assert again.pipeline.restore(first.pipeline.state()) == ""
    later = [b for b in books if b.now_ns > books[999].now_ns + 30 * SECOND_NS]
    assert again.take(later[0]) is None  # a gap: nothing is scored from an old memory
