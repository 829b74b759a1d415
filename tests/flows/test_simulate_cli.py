"""``scalper simulate``: recordings of days and sessions, and the report with its gates and its watermark."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flows.cli import main
from market.recording import Recording


def test_two_days_of_a_session(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "r"
    options = ["--session", "futures", "--preset", "LARGE", "--preset", "LARGE", "--hours", "0.02"]
    assert main(["simulate", str(out), *options, "--day", "2026-01-16", "--days", "2"]) == 0
    info = Recording.open(out).info
    assert info.days == {t: ("2026-01-16", "2026-01-19") for t in ("LARGE", "LARGE-2")}
    assert {i.kind for i in info.instruments} == {"future"}
    assert "SIMULATED" in capsys.readouterr().out


def test_two_linked_instruments(tmp_path: Path) -> None:
    out = tmp_path / "r"
    assert main(["simulate", str(out), "--linked", "--rho", "0.5", "--lag", "2", "--hours", "0.02"]) == 0
    info = Recording.open(out).info
    assert [i.ticker for i in info.instruments] == ["SIMG", "SIML"]
    assert info.provenance["common"]["rho"] == 0.5
    assert [spec["lag_s"] for spec in info.provenance["specs"]] == [0.0, 2.0]


def test_the_report_of_presets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "deep" / "facts.html"
    options = ["--preset", "SMALL", "--preset", "LARGE", "--seeds", "2", "--hours", "0.5", "--linked"]
    assert main(["simulate", "--report", str(page), *options]) == 0
    said = capsys.readouterr().out
    assert "SMALL, seed 7 (1 of 2)" in said and "LARGE, seed 8 (2 of 2)" in said
    assert "\nSIMULATED\n" in said and "gates passed" in said and "SIML leads SIMG: planted 1 s" in said
    assert re.search(r"OFI to mid move, 10 s, R2 +0\.\d+ .*0\.5 \.\. 0\.9", said)
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 3
    assert text.count("SIMULATED") >= 4 and "<script" not in text and "http" not in text


def test_the_report_of_a_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, page = tmp_path / "r", tmp_path / "facts.html"
    assert main(["simulate", str(out), "--preset", "LARGE", "--hours", "0.5"]) == 0
    assert main(["simulate", "--report", str(page), "--on", str(out)]) == 0
    said = capsys.readouterr().out
    assert "LARGE 2026-01-15: 7,200 books" in said
    assert "report: large tick" in said and "speed" not in said
    assert "SIMULATED" in page.read_text(), "the recording's own mark"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "needs a folder to write to, or --report"),
        (["out", "--on", "elsewhere"], "--on RECORDING goes with --report"),
        (["--report", "--seeds", "0"], "between 1 and 1000"),
        (["out", "--session", "night"], "unknown session 'night'; known: shares"),
        (["out", "--linked", "--preset", "SMALL"], "leave --preset out"),
        (["out", "--preset", "HUGE"], "unknown simulator preset 'HUGE'"),
        (["out", "--days", "0"], "at least 1"),
        (["out", "--day", "15.01.2026"], "YYYY-MM-DD"),
        (["out", "--linked", "--rho", "2"], "between 0 and 1"),
    ],
)
def test_what_cannot_be_done_is_named(
    arguments: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", *arguments]) == 2
    assert text in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
