"""The drift report as files: our verdict as a page and as JSON, and Evidently's picture of each instrument.

Evidently shows; it does not judge. Its own rules count rows as if they were independent, so each column gets
the limit of ``models.drift`` as its threshold. Everything opens without a network.
"""

from __future__ import annotations

import os
from html import escape
from pathlib import Path

import numpy as np

from flows.curves import curve_svg
from flows.drift_rows import DriftRows, Watched, dumps
from flows.performance_page import STYLE
from models import drift

PAGE, FACTS = "drift.html", "drift.json"
PICTURED = 24
"""Columns in Evidently's page: the scores and the most surprising features. More take minutes and tens of
megabytes."""


def write(found: DriftRows, folder: Path, *, pictures: bool = True) -> Path:
    """``drift.html``, ``drift.json`` and, with ``pictures``, one Evidently page an instrument; returns the
    first. Pictures of an earlier report go."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("evidently-*.html"):
        old.unlink()
    made = {w.name: evidently_page(w, folder) for w in found.watched} if pictures else {}
    _replace(folder / FACTS, dumps(found))
    _replace(folder / PAGE, html(found, {name: path.name for name, path in made.items()}))
    return folder / PAGE


def html(found: DriftRows, pictures: dict[str, str]) -> str:
    """The whole page as text. ``pictures``: file of the Evidently page by ``Watched.name``."""
    parts = "".join(_instrument(w, pictures.get(w.name)) for w in found.watched)
    notes = "".join(f"<li>{escape(note)}</li>" for note in found.notes)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Drift</title><style>{STYLE}</style></head><body>
<h1>{escape(found.headline())}</h1>
<p class="note">Half hours of rows, one every five seconds, against training at the same hour of the day where
training knew enough days, else against all of it. Limits know how few independent values a half hour holds.
Columns are chosen at a false discovery rate; three of them, a fifth of the models' importance, or the scores
make an alarm, and three looks in a row, five minutes apart, a warning.</p>
{parts}
{f"<h2>Not compared</h2><ul>{notes}</ul>" if notes else ""}
</body></html>
"""


def _instrument(w: Watched, picture: str | None) -> str:
    start = int(w.recv_ns[0])
    curve = [((m.now_ns - start) / 1e9, float(m.drifted)) for m in w.moments]
    of = f"{w.reference.days} training days" if w.reference.days > 1 else "one training day"
    at = w.reference.phases[w.phase]
    hour = "the whole day" if at == drift.WHOLE_DAY else f"{at:02d}:00 to {at + 1:02d}:00 UTC"
    rows = "".join(
        f"<tr><td>{escape(c.name)}</td><td>{c.psi:.3f}</td><td>{c.psi_limit:.3f}</td><td>{c.w1:.3f}</td>"
        f"<td>{c.w1_limit:.3f}</td><td>{c.p:.2g}</td><td>{c.n_eff:.0f} of {c.rows}</td>"
        f"<td>{c.weight:.1%}</td><td>{'YES' if c.name in w.last.drifted else ''}</td></tr>"
        for c in w.surprising()[:PICTURED]
    )
    rates = w.last.trade_rate
    traded = f" It would trade on {rates[0]:.1%} of rows, in training {rates[1]:.1%}." if rates else ""
    link = f'<p><a href="{escape(picture)}">Distributions (Evidently)</a></p>' if picture else ""
    return f"""<h2>{escape(w.ticker)}</h2>
<p>{escape(w.line())}. Compared with {hour} of {of}{", limits x " + format(w.reference.strictness, "g")}; rows
from {"the runner" if w.source == "runner" else "feature tables, without scores"}.{escape(traded)}</p>
{curve_svg({"drifted columns": curve}, title=f"{w.ticker}: columns that drifted, look by look")}
<div class="wide"><table><thead><tr><th>column</th><th>PSI</th><th>limit</th><th>W1/sd</th><th>limit</th>
<th>p</th><th>effective rows</th><th>importance</th><th>drifted</th></tr></thead><tbody>{rows}</tbody></table>
</div>{link}
"""


def evidently_page(w: Watched, folder: Path) -> Path:
    """Evidently's drift page of the newest window against quantiles of the reference: self-contained HTML."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    import pandas as pd
    from evidently import Report
    from evidently.presets import DataDriftPreset

    chosen = [c for c in w.columns if c.name in drift.SCORES and c.name != drift.TRADE]
    chosen += [c for c in w.surprising() if c.name not in drift.SCORES]
    chosen = chosen[:PICTURED]
    window = w.x[-drift.WINDOW_ROWS :]
    at = {name: j for j, name in enumerate(w.reference.names)}
    current = pd.DataFrame({c.name: window[:, at[c.name]] for c in chosen})
    known = pd.DataFrame({c.name: w.reference.quantiles[w.phase, at[c.name]] for c in chosen})
    preset = DataDriftPreset(
        columns=[c.name for c in chosen],
        num_method="wasserstein",
        per_column_threshold={c.name: float(np.float32(c.w1_limit)) for c in chosen},
    )
    made = Report([preset]).run(current, known)  # current first
    path = folder / f"evidently-{w.name.replace(' ', '-')}.html"
    draft = path.with_suffix(".draft")
    made.save_html(str(draft))  # a Path would write nothing, without a word
    draft.replace(path)
    return path


def _replace(path: Path, text: str) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
