"""`live-runner backtest CONFIG --dataset FILE --output REPORT`: any dataset in, a report and a page out."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from small_bundle import make_bundle, make_recording

from live import backtest_page
from live.backtest_cli import dataset, unseen
from live.cli import main
from market.exporters import export_jsonl
from market.matching import FILL_MODELS
from market.recording import Recording
from market.types import NANO
from models.bundle import Bundle


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording, the same as JSON lines, a bundle, a configuration."""
    folder = tmp_path_factory.mktemp("backtest")
    recording = make_recording(folder / "recording")
    make_bundle(folder / "bundle", recording, folder / "keys")
    export_jsonl(recording, folder / "books.jsonl.gz")
    (folder / "live.yaml").write_text(
        f"backtest: {{dataset_path: {folder / 'recording'}, initial_capital: 500_000, latency_ms: 20}}\n"
        f"model: {{verification_key: {folder / 'keys' / 'signing.pub'}, registry: 'file://{folder}/bundle'}}\n"
        f"system: {{runtime_dir: {folder / 'runtime'}}}\n"
        "session: {enabled: false}\n"
    )
    return folder


def backtest(built: Path, output: Path, *more: str) -> dict[str, Any]:
    assert main(["backtest", str(built / "live.yaml"), "--output", str(output), *more]) == 0
    return json.loads(output.read_text())


@pytest.fixture(scope="module")
def report(built: Path) -> dict[str, Any]:
    return backtest(built, built / "report.json", "--bundle", str(built / "bundle"))


def test_the_json_report_has_pnl_gross_and_net_share_of_profitable_trades_equity_curve_and_orders_against_max(
    report: dict[str, Any],
) -> None:
    assert report["orders"] > 0 and report["max_orders"] == 100_000
    assert report["net_rub"] == pytest.approx(
        report["gross_rub"] - report["fees_rub"] + report["unrealised_nano"] / NANO
    )
    assert report["net_pct_of_capital"] == pytest.approx(100 * report["net_rub"] / 500_000)
    assert report["profitable_share"] == pytest.approx(report["wins"] / len(report["trips"]), abs=1e-4)
    assert len(report["equity"]) > 10
    assert set(report["fill_models"]) == set(FILL_MODELS)


def test_an_html_page_with_plots_lies_beside_it_and_needs_no_network(
    built: Path, report: dict[str, Any]
) -> None:
    page = (built / "report.html").read_text()
    assert page.count("<svg") == 3 and "polyline" in page and "SIMULATED" in page
    assert all(name in page for name in FILL_MODELS)
    assert "http" not in page and "<script" not in page


def test_json_lines_give_the_same_orders_as_the_recording(built: Path, report: dict[str, Any]) -> None:
    bundle = str(built / "bundle")
    found = backtest(built, built / "b.json", "--bundle", bundle, "--dataset", str(built / "books.jsonl.gz"))
    assert found["order_list_hash"] == report["order_list_hash"]


def test_a_parquet_recording_is_a_dataset_as_it_is(built: Path, tmp_path: Path) -> None:
    assert dataset(built / "recording", tmp_path).path == built / "recording"


def test_without_a_bundle_the_one_behind_the_alias_is_taken(built: Path, report: dict[str, Any]) -> None:
    found = backtest(built, built / "c.json")
    assert found["manifest_sha256"] == report["manifest_sha256"]


def test_max_orders_ends_it_early_and_both_say_so(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--bundle", str(built / "bundle"), "--set", "backtest.max_orders=5", "--json"]
    found = backtest(built, built / "d.json", *words)
    assert json.loads(capsys.readouterr().out) == found  # and with --json nothing else is printed
    assert found["truncated"] and 5 <= found["orders"] < 20
    assert "TRUNCATED" in (built / "d.html").read_text()


def test_progress_is_told_while_it_runs_to_who_looks(
    built: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    backtest(built, built / "p.json", "--bundle", str(built / "bundle"), "--set", "backtest.max_orders=2")
    shown = [int(n) for n in re.findall(r"(\d+) % of [\d,]+ events", capsys.readouterr().err)]
    assert shown and shown == sorted(shown) and shown[-1] <= 100


def test_by_default_only_what_the_model_never_saw_is_played(built: Path) -> None:
    recording, bundle = Recording.open(built / "recording"), Bundle.load(built / "bundle", None)
    assert unseen(recording, bundle, None) == (bundle.manifest["live_from_ns"], [])
    assert unseen(recording, bundle, 5) == (5, [])


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["--dataset", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--config", "other.yaml"], "given twice"),
    ],
)
def test_what_cannot_be_is_one_line(
    built: Path, command: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["backtest", str(built / "live.yaml"), "--bundle", str(built / "bundle"), *command]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_a_backtest_without_a_trade_still_makes_a_page(report: dict[str, Any], built: Path) -> None:
    found = backtest(
        built, built / "e.json", "--bundle", str(built / "bundle"), "--set", "risk.price_collar_bps=1",
        "--set", "execution.slippage_ticks=1000",
    )  # fmt: skip
    assert found["profitable_share"] is None
    assert "No round trip" in (built / "e.html").read_text()
    assert backtest_page.WIDTH > 0
