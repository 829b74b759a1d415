"""The performance report as one page that opens without a network, and as JSON."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

from flows.curves import curve_svg
from flows.performance import Performance
from flows.stages.common import write_json

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem;
       color: #1f2328; background: #fff; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #d0d7de; padding: .35rem .6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.wide { overflow-x: auto; } svg { max-width: 100%; height: auto; } .note { color: #57606a; }
@media (prefers-color-scheme: dark) { body { color: #e6edf3; background: #0d1117; }
  th, td { border-color: #30363d; } .note { color: #8b949e; } }
"""


def write(found: Performance, folder: Path) -> Path:
    """``performance.html`` and ``performance.json`` in ``folder``; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / "performance.json",
        {
            "days": found.days,
            "versions": found.rows(),
            "duels": [duel.line() for duel in found.duels],
            "notes": found.notes(),
        },
    )
    page = folder / "performance.html"
    draft = page.with_suffix(".draft")
    draft.write_text(html(found), encoding="utf-8")
    draft.replace(page)
    return page


def html(found: Performance) -> str:
    """The whole page as text."""
    duels = "".join(f"<li>{escape(duel.line())}{escape(found.mark)}</li>" for duel in found.duels)
    notes = "".join(f"<li>{escape(note)}</li>" for note in found.notes())
    refusals = {
        v.name: dict(sorted(v.outcomes.items(), key=lambda item: -item[1])[:6]) for v in found.versions
    }
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Performance{escape(found.mark)}</title><style>{STYLE}</style></head><body>
<h1>Performance, the last {found.days} days{escape(found.mark)}</h1>
<p>{escape(found.headline())}</p>
<div class="wide">{_table(found)}</div>
<h2>Champion and challenger</h2>
<p class="note">Net result per minute of market time that both saw, challenger minus champion. An interval
that holds 0 shows no difference; with fewer than thirty round trips in that time none is given.
What a shadow "beside" a session would have done was filled by the simulated broker, the champion's
orders by the exchange.</p>
<ul>{duels or "<li>No challenger ran on the same market time as the champion.</li>"}</ul>
{f'<p class="note">Compared only on the time that each record tells of:</p><ul>{notes}</ul>' if notes else ""}
<h2>Net of fees</h2>
{curve_svg(found.curves(), title=f"net of fees, RUB{found.mark}")}
<h2>What became of the signals</h2>
<pre>{escape(json.dumps(refusals, indent=1, ensure_ascii=False))}</pre>
<p class="note">Databases: {escape(", ".join(found.databases) or "none")}. A result of a few sessions is a
fact
about these sessions.</p>
</body></html>
"""


def _table(found: Performance) -> str:
    rows = found.rows()
    if not rows:
        return "<p>Nothing ran.</p>"
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(value)}</td>" for value in row.values()) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
