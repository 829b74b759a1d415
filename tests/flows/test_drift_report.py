"""The drift report: the rows that a runner kept, against the bundle that scored them; pages that open without
a network."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from features.schema import NAMES, schema_hash
from flows import drift_page, drift_rows
from live.drift import COLUMNS
from live.drift_samples import SampleWriter
from market.errors import ScalperError
from models import drift
from models.bundle import MANIFEST_FIELDS, Bundle, generate_keys, write_bundle
from models.drift import LEAST_ROWS, THIN_NS
from models.drift_reference import Rows, build

START_NS = 1_768_460_400_000_000_000  # 2026-01-15 in UTC
WATCHED = (*NAMES[:8], drift.SCORE, drift.ENTROPY)


class Outside(HTMLParser):
    """Addresses outside the page that a browser would load by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        loaded = [value or "" for name, value in attrs if name == "src" or (name == "href" and tag == "link")]
        self.found += [value for value in loaded if re.match(r"\s*(https?:)?//", value)]

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.found += re.findall(r"@import[^;]*|url\(\s*[\"']?(?:https?:)?//[^)]*", data)


def reference(names: tuple[str, ...] = WATCHED) -> drift.Reference:
    """Of two hours of an ordinary market."""
    x = np.random.default_rng(1).standard_normal((1_440, len(names)))
    recv_ns = START_NS - 2 * drift.HOUR_NS + np.arange(len(x)) * THIN_NS
    return build(names, {"SIMP": Rows(recv_ns, x)})[0]


def build_bundle(workdir: Path, *, watched: bool = True) -> Bundle:
    """A signed bundle with nothing but the reference in it."""
    private, _ = generate_keys(workdir / "keys")
    path = workdir / "reference.npz"
    drift.save(reference(), path)
    manifest = dict.fromkeys(MANIFEST_FIELDS, 0) | {
        "watermark": "SIMULATED", "feature_schema_hash": schema_hash(), "features": list(NAMES),
        "instruments": [],
    }  # fmt: skip
    files = {drift.FILE: path} if watched else {"model_card.md": b"#"}
    return write_bundle(workdir / "artifacts" / "bundle", files, manifest, private)


def keep_rows(workdir: Path, sha256: str, count: int, *, shift: float = 0.0, ticker: str = "SIMP") -> None:
    """What a runner keeps of ``count`` rows of a market whose every column moved by ``shift``."""
    rng = np.random.default_rng(2)
    writer = SampleWriter(workdir / "runtime", COLUMNS, sha256)
    for i in range(count):
        row = (rng.standard_normal(len(COLUMNS)) + shift).astype(np.float32)
        writer.write(START_NS + i * THIN_NS, ticker, row)


def test_rows_of_a_runner_are_judged_by_the_bundle_that_scored_them(tmp_path: Path) -> None:
    bundle = build_bundle(tmp_path)
    keep_rows(tmp_path, bundle.sha256, 500)
    quiet = drift_rows.collect(tmp_path, tmp_path / "features", hours=1.0)
    (watched,) = quiet.watched
    assert quiet.state == "ok" and quiet.compared == len(WATCHED) and quiet.drifted == 0
    assert watched.source == "runner" and watched.manifest_sha256 == bundle.sha256
    assert len(watched.moments) == (500 - LEAST_ROWS) // drift.EVERY_ROWS + 1

    keep_rows(tmp_path, bundle.sha256, 500, shift=1.5)  # later rows of the same file
    loud = drift_rows.collect(tmp_path, tmp_path / "features", hours=1.0)
    assert loud.state == "critical" and loud.headline().startswith("CRITICAL drift: 10 of 10 columns")
    assert {row["drifted"] for row in loud.rows()} == {"YES"} and len(loud.rows()) == len(WATCHED)


def test_what_cannot_be_compared_is_named(tmp_path: Path) -> None:
    bundle = build_bundle(tmp_path)
    keep_rows(tmp_path, bundle.sha256, LEAST_ROWS)
    keep_rows(tmp_path, "cd" * 32, 400, ticker="GONE")
    keep_rows(tmp_path, bundle.sha256, 400, ticker="NEW")
    keep_rows(tmp_path, bundle.sha256, 5, ticker="SHORT")
    found = drift_rows.collect(tmp_path, tmp_path / "features", hours=1.0)
    assert [w.ticker for w in found.watched] == ["SIMP"]
    notes = " ".join(found.notes)
    assert "bundle cdcdcdcdcdcd" in notes and "NEW: bundle" in notes
    assert "not compared" in found.markdown()


def test_without_a_runner_the_newest_features_are_looked_at(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts" / "drift"
    folder.mkdir(parents=True)
    drift.save(reference(), folder / "reference.npz")
    rng = np.random.default_rng(3)
    for day, shift in (("2026-01-14", 3.0), ("2026-01-15", 0.0)):
        x = rng.standard_normal((2_000, len(NAMES))).astype(np.float32) + shift
        path = tmp_path / "features" / "SIMP" / f"{day}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        recv_ns = START_NS + np.arange(len(x)) * THIN_NS // 4
        np.savez(path, recv_ns=recv_ns, X=x, status=np.zeros(len(x), np.uint8))
    found = drift_rows.collect(tmp_path, tmp_path / "features", hours=1.0)
    assert found.state == "ok" and found.compared == 8  # features; there are no scores
    assert found.watched[0].source == "features"


def test_nothing_to_compare_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ScalperError, match="scalper repro"):
        drift_rows.collect(tmp_path, tmp_path / "features", hours=1.0)
    bundle = build_bundle(tmp_path)
    keep_rows(tmp_path, bundle.sha256, 10)
    folder = tmp_path / "artifacts" / "drift"
    folder.mkdir(parents=True)
    drift.save(reference(), folder / "reference.npz")
    with pytest.raises(ScalperError, match="10 rows, 120 are needed"):
        drift_rows.collect(tmp_path, tmp_path / "features", hours=1.0)


def test_a_bundle_without_a_reference_is_said(tmp_path: Path) -> None:
    bundle = build_bundle(tmp_path, watched=False)
    keep_rows(tmp_path, bundle.sha256, 400)
    folder = tmp_path / "artifacts" / "drift"
    folder.mkdir(parents=True)
    drift.save(reference(), folder / "reference.npz")
    with pytest.raises(ScalperError, match="carries no drift reference"):
        drift_rows.collect(tmp_path, tmp_path / "features", hours=1.0)


def test_page_json_and_picture_open_without_a_network(tmp_path: Path) -> None:
    bundle = build_bundle(tmp_path)
    keep_rows(tmp_path, bundle.sha256, 400, shift=1.5)
    found = drift_rows.collect(tmp_path, tmp_path / "features", hours=1.0)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "evidently-OLD-12345678.html").write_text("of an earlier report")
    page = drift_page.write(found, tmp_path / "out")
    facts = json.loads((tmp_path / "out" / drift_page.FACTS).read_text())
    assert facts["schema"] == drift_rows.SCHEMA and facts["state"] == found.state == "critical"
    (instrument,) = facts["instruments"]
    assert instrument["ticker"] == "SIMP" and len(instrument["columns"]) == len(WATCHED)
    assert instrument["looks"][-1]["warning"] and instrument["drifted"]
    (picture,) = (tmp_path / "out").glob("evidently-*.html")
    assert picture.name == f"evidently-SIMP-{bundle.sha256[:8]}.html" and picture.stat().st_size > 100_000
    text = page.read_text()
    assert picture.name in text and "<svg" in text
    for html in (text, picture.read_text()):
        parser = Outside()
        parser.feed(html)
        assert parser.found == []
        assert NAMES[0] in html and drift.SCORE in html
