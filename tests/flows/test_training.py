"""``scalper train`` and ``scalper calibrate``: the line's own stages on one file, and what they refuse."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import tiny_line
import yaml

from flows import plain_line, training
from flows.cli import main
from flows.training import Asked
from live.registry import pull
from market.errors import ConfigError, RecordingError
from market.simulator import SimSpec, simulate_market
from market.types import NANO
from models.bundle import Bundle
from models.inference import check_golden

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    **tiny_line.LEARNERS,
    # How long the networks learn is the option's business here.
    **{name: {k: v for k, v in tiny_line.LEARNERS[name].items() if k != "epochs"}
       for name in ("lstm", "transformer")},
    "labels.horizon_s": 10, "costs.tariff": "simulated",
}  # fmt: skip
SETS = [word for key, value in TINY.items() for word in ("--set", f"{key}={json.dumps(value)}")]


def _books_of_the_original(path: Path, hours: float) -> None:
    """A market of the simulator as the original system wrote its books: decimals, no trades."""
    days, _ = simulate_market([SimSpec("SBER", planted=True)], hours=hours, dt_s=0.5, seed=3)
    books, tick = days[0].books, days[0].instrument.tick_nano / NANO

    def side(px, qty, i: int) -> list[dict[str, float]]:  # type: ignore[no-untyped-def]
        return [
            {"price": round(float(px[i, k]) * tick, 6), "quantity": int(qty[i, k])}
            for k in range(10) if qty[i, k] > 0
        ]  # fmt: skip

    with path.open("w") as file:
        for i in range(len(books)):
            at = datetime.fromtimestamp(int(books.recv_ns[i]) / 1e9, UTC)
            line = {
                "figi": "SBER", "time": at.isoformat(),
                "bids": side(books.bid_px, books.bid_qty, i), "asks": side(books.ask_px, books.ask_qty, i),
            }  # fmt: skip
            file.write(json.dumps(line) + "\n")


# --- the order of the stages


def test_the_stages_come_from_dvc_yaml_each_after_what_it_reads() -> None:
    ordered = plain_line.stages()
    names = [stage.name for stage in ordered]
    assert sorted(names) == sorted(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
    for at, stage in enumerate(ordered):
        assert not any(plain_line.reads(stage, later) for later in ordered[at + 1 :]), stage.name
    assert names[:3] == ["record", "ingest", "features"] and names.index("bundle") < names.index("card")


def test_calibration_runs_what_reads_it_and_nothing_before() -> None:
    again = {stage.name for stage in plain_line.needed_from(plain_line.stages(), "calibrate")}
    assert {"calibrate", "backtest", "bundle", "card"} <= again
    assert not again & {"ingest", "features", "labels", "train_gbdt", "train_lstm", "ensemble", "quantise"}


def test_a_changed_parameter_is_named_down_to_its_key_and_only_for_stages_that_read_it() -> None:
    ordered = plain_line.stages()
    kept = [s for s in ordered if s not in plain_line.needed_from(ordered, "calibrate")]
    before = yaml.safe_load((ROOT / "params.yaml").read_text())
    now = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert plain_line.differences(before, now, kept) == []
    now["calibrate"]["trials"] = 5
    assert plain_line.differences(before, now, kept) == []
    now["labels"]["horizon_s"] = 20.0
    (first, *_) = plain_line.differences(before, now, kept)
    assert first == ("labels", "labels.horizon_s", before["labels"]["horizon_s"], 20.0)


def test_stages_that_wait_for_each_other_are_an_error(tmp_path: Path) -> None:
    loop = {"a": {"deps": ["y"], "outs": ["x"]}, "b": {"deps": ["x/part"], "outs": ["y"]}}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": loop}))
    with pytest.raises(ConfigError, match="a, b wait for each other"):
        plain_line.stages(tmp_path)


# --- the original's options


def test_epochs_and_rate_go_to_the_learners_that_have_them() -> None:
    found = Asked(epochs=3, learning_rate=0.01).overrides(None)
    assert found["lstm"]["epochs"] == 3 and found["transformer"]["learning_rate"] == 0.01
    assert "epochs" not in found.get("gbdt", {})
    kept = training.params_file.load(ROOT / "params.yaml").transformer
    assert {**kept, **found["transformer"]} == found["transformer"]  # what the file says stays


def test_an_option_and_a_set_of_one_section_are_joined_and_the_set_wins() -> None:
    both = training.joined({"lstm": {"epochs": 3, "hidden": 8}, "x": 1}, {"lstm": {"hidden": 4}, "y": 2})
    assert both == {"lstm": {"epochs": 3, "hidden": 4}, "x": 1, "y": 2}


def test_the_validation_share_is_taken_from_fit() -> None:
    found = Asked(validation_size=0.3).overrides(None)
    assert found["split.fit"] == pytest.approx(1 - 0.125 - 0.3)
    assert found["split.calibrate"] == found["split.score"] == pytest.approx(0.1)
    for bad in (Asked(validation_size=0.9), Asked(validation_size=0.0), Asked(epochs=0)):
        with pytest.raises(ConfigError, match="above 0"):
            bad.overrides(None)


# --- refusals


def test_what_cannot_be_trained_on_is_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RecordingError, match="nothing at"):
        training.train([tmp_path / "gone.jsonl"], tmp_path / "out")
    (tmp_path / "books.jsonl").write_text('{"figi":"X","time":"2026-01-15T07:00:00Z","bids":[],"asks":[]}\n')
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep me")
    with pytest.raises(ConfigError, match="holds other files"):
        training.train([tmp_path / "books.jsonl"], tmp_path / "full")
    assert not (tmp_path / "out").exists() and (tmp_path / "full" / "mine.txt").exists()
    assert main(["train", "--dataset", str(tmp_path / "gone"), "--output", str(tmp_path / "o")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_runners_configuration_is_not_taken_for_parameters(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("system: {mode: paper}\nrisk: {}\nmodel: {}\n")
    with pytest.raises(ConfigError, match=r"configuration of live-runner.*params\.yaml"):
        training.calibrate(config)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    with pytest.raises(ConfigError, match="does not lie in the output of a finished"):
        training.calibrate(tmp_path / "params.yaml")


# --- the whole of it


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_one_file_becomes_a_bundle_that_the_runner_loads_and_calibrates_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    books, out = tmp_path / "books.jsonl", tmp_path / "out"
    _books_of_the_original(books, 0.3)
    words = ["train", "--dataset", str(books), "--output", str(out), *SETS, "--epochs", "1"]
    assert main(words) != 0
    assert "--instrument" in capsys.readouterr().out + capsys.readouterr().err  # names the missing fact
    assert not (out / "bundle").exists()

    assert main([*words, "--instrument", "share", "--lot", "10"]) == 0, capsys.readouterr().out
    said = capsys.readouterr().out
    assert "1 of " in said and "REAL bundle" in said and "file://" in said
    for name in ("ensemble_weights.json", "quantization_plan.json", "lstm.training.json",
                 "model_card.html", "backtest.html", "params.yaml"):  # fmt: skip
        assert (out / name).is_file(), name
    bundle = Bundle.load(out / "bundle", out / "work" / "keys" / "signing.pub")
    check_golden(bundle)
    pulled = pull(f"file://{(out / 'bundle').resolve()}", "scalper", "prod", tmp_path / "pulled")
    assert pulled.manifest_sha256 == bundle.sha256  # the way that live-runner takes
    assert json.loads((out / "lstm.training.json").read_text())["epochs"] == 1
    assert set(json.loads((out / "ensemble_weights.json").read_text())["weights"]) == {
        "gbdt", "svm", "lstm", "transformer",
    }  # fmt: skip

    # More trials give another bundle, of the same members; what shaped those is refused.
    config = ["calibrate", "--config", str(out / "params.yaml")]
    assert main([*config, "--set", "calibrate.trials=5"]) == 0
    assert "train_" not in capsys.readouterr().out
    assert "trials: 5" in (out / "params.yaml").read_text()
    again = Bundle.load(out / "bundle", out / "work" / "keys" / "signing.pub")
    assert again.sha256 != bundle.sha256 and again.read("lstm.tflite") == bundle.read("lstm.tflite")
    assert main([*config, "--set", "labels.horizon_s=20"]) == 2
    assert "labels.horizon_s is 20" in capsys.readouterr().err

    # The card of what lies there, with this machine's latency; another bundle's card is refused.
    monkeypatch.chdir(out / "work")
    assert main(["card", "--out", "c.html", "--json", "c.json"]) == 0
    page, told = Path("c.html").read_text(), json.loads(Path("c.json").read_text())
    assert again.sha256 in page and "p99, us" in page and told["here"]["gate"]["alias"] == "prod"
    assert told["here"]["latency"][0]["forecast"] == "ensemble"
    stage = Path("artifacts/card/card.json")
    stage.write_text(stage.read_text().replace(again.sha256, "0" * 64))
    assert main(["card", "--out", "c.html"]) == 2
    assert "scalper repro card" in capsys.readouterr().err
