"""What all pages of the platform's models share: one look, one watermark, tables, and no other file.

A page opens anywhere: no script, no network, pictures inline. It follows the screen's light or dark, scrolls
a wide table instead of the page on a phone, and prints on white paper.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SIMULATED = "SIMULATED"
SIMULATED_BANNER = (
    "SIMULATED: this market was made by a program. A profit on it proves that the machinery works, and "
    "nothing about any real market."
)
REAL_BANNER = "REAL recording, historical; not a forecast."

Row = Mapping[str, Any]
WRAPPED_CHARS = 26
"""A column with a longer text than this may break its lines; shorter ones never do."""
_FIGURE = re.compile(r"[\d\s.,+%\[\]-]*")


@dataclass(frozen=True, slots=True)
class Figure:
    """A cell of a table: a figure and, smaller below it, how sure it is."""

    shown: str
    below: str = ""


def head(title: str, watermark: str, banner: str | None = None) -> Iterator[str]:
    """Everything before the content; ``watermark`` is SIMULATED, REAL, or another word with its own
    ``banner``."""
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width,initial-scale=1">'
    yield '<meta name="color-scheme" content="light dark">'
    yield f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>"
    if watermark == SIMULATED:
        yield '<div class="tiles" aria-hidden="true">' + "<span>SIMULATED</span>" * 60 + "</div>"
        yield f'<div class="mark">{SIMULATED_BANNER}</div>'
    else:
        yield f'<div class="mark real">{html.escape(banner or REAL_BANNER)}</div>'
    yield f"<main><h1>{html.escape(title)}</h1>"


def tail() -> str:
    return "</main></body></html>"


def write(parts: Iterable[str], path: Path) -> None:
    """The page to ``path`` by way of a temporary name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text("\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    draft.replace(path)


def section(title: str, *parts: str) -> str:
    """A heading and what belongs to it; nothing where there is nothing to say."""
    inside = "\n".join(part for part in parts if part)
    return f"<section><h2>{html.escape(title)}</h2>\n{inside}</section>" if inside else ""


def text(said: str, kind: str = "") -> str:
    """A paragraph of plain text; what stands in `backticks` is code."""
    return f"<p{f' class={kind}' if kind else ''}>{_coded(said)}</p>" if said else ""


def bullets(lines: Iterable[str]) -> str:
    inside = "".join(f"<li>{_coded(line)}</li>" for line in lines)
    return f"<ul>{inside}</ul>" if inside else ""


def _coded(said: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(said, quote=False))


def verdict(said: str) -> str:
    """The one word that a reader looks for, in its colour: edge, inconclusive, no edge, passes, refused."""
    return f'<p class="verdict {said.replace(" ", "-")}">{html.escape(said)}</p>'


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Names and values, one below the other."""
    inside = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in rows)
    return f"<table class='facts'>{inside}</table>" if inside else ""


def table(rows: Sequence[Row], *, strong: str | None = None) -> str:
    """Rows with the same keys; a row whose first cell is ``strong`` stands out. Empty for no rows."""
    if not rows:
        return ""
    kinds = {key: _kind([row.get(key) for row in rows]) for key in rows[0]}
    first = next(iter(kinds))
    head = "".join(f"<th{kind}>{html.escape(key)}</th>" for key, kind in kinds.items())
    body = "".join(
        f"<tr{' class=ours' if strong is not None and row.get(first) == strong else ''}>"
        + "".join(f"<td{kind}>{cell(row.get(key))}</td>" for key, kind in kinds.items())
        + "</tr>"
        for row in rows
    )
    return f"<div class='wide'><table><tr>{head}</tr>{body}</table></div>"


def _kind(values: Sequence[Any]) -> str:
    """The class of a column: figures to the right, words to the left, sentences with line breaks."""
    words = [v for v in values if isinstance(v, str) and not _FIGURE.fullmatch(v)]
    if not words:
        return ""
    return ' class="t w"' if max(map(len, words)) > WRAPPED_CHARS else " class=t"


def cell(value: Any) -> str:
    if isinstance(value, Figure):
        return html.escape(value.shown) + (
            f"<small>{html.escape(value.below)}</small>" if value.below else ""
        )
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return html.escape(f"{value:,}" if isinstance(value, int) else str(value))


def interval(low: float | None, high: float | None, form: str = "{:.3f}") -> str:
    """``[low, high]``, or a dash."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return "-"
    return f"[{form.format(low)}, {form.format(high)}]"


def utc(ns: int) -> str:
    """A moment as a person writes it, to the second, UTC."""
    return str(np.datetime64(ns, "ns").astype("datetime64[s]")).replace("T", " ")


STYLE = """
:root{color-scheme:light dark;--ink:#1f2328;--paper:#fff;--soft:#57606a;--rule:#d0d7de;--row:#f6f8fa;
--good:#116329;--fair:#7d4e00;--bad:#a40e26;--c0:#bc4c00;--c1:#6e7781;--c2:#0969da;--c3:#8250df;--c4:#1a7f37}
@media(prefers-color-scheme:dark){:root{--ink:#d1d7de;--paper:#0d1117;--soft:#9198a1;--rule:#30363d;--row:#161b22;
--good:#56d364;--fair:#e3b341;--bad:#ff7b72;--c0:#f0883e;--c1:#9198a1;--c2:#58a6ff;--c3:#bc8cff;--c4:#56d364}}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;margin:0;color:var(--ink);background:var(--paper)}
main{max-width:62rem;margin:0 auto;padding:1rem;position:relative}
h1{font-size:1.5rem;line-height:1.25;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:2.2rem 0 .6rem;border-top:1px solid var(--rule);padding-top:1rem}
h3{font-size:1rem;margin:1.2rem 0 .3rem}
p,li{max-width:46rem;overflow-wrap:anywhere}.soft{color:var(--soft)}
code{font:13px/1.4 ui-monospace,monospace;overflow-wrap:anywhere}
.wide{overflow-x:auto;margin:.5rem 0}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid var(--rule);vertical-align:top}
th{font-weight:600}.wide td{white-space:nowrap}
th.t,td.t,th:first-child,td:first-child{text-align:left}
.wide td.w{white-space:normal;min-width:14rem}
small{display:block;color:var(--soft);font-weight:normal;font-size:.85em}
.facts th{text-align:left;font-weight:normal;color:var(--soft)}
.facts td{text-align:left;overflow-wrap:anywhere}
tr.ours{background:var(--row);font-weight:600}
figure{margin:.6rem 0}figcaption{color:var(--soft);font-size:.88rem;max-width:46rem}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,21rem),1fr));gap:.4rem 1.4rem}
svg{display:block;width:100%;max-width:34rem;height:auto;font:11px system-ui,sans-serif}
svg.broad{max-width:58rem}svg text{fill:var(--ink)}
svg .axis{stroke:var(--soft)}svg .grid-line{stroke:var(--rule)}
.verdict{font-size:1.6rem;font-weight:bold;margin:.4rem 0}
.edge,.passes{color:var(--good)}.inconclusive{color:var(--fair)}.no-edge,.refused{color:var(--bad)}
.mark{position:sticky;top:0;z-index:2;background:#a40e26;color:#fff;padding:.4rem 1rem;font-weight:bold}
.mark.real{background:#57606a;font-weight:normal}
.tiles{position:fixed;inset:0;display:flex;flex-wrap:wrap;gap:4rem;overflow:hidden;pointer-events:none;
opacity:.06;z-index:1}
.tiles span{font-size:2rem;font-weight:bold;transform:rotate(-20deg)}
@media(max-width:34rem){main{padding:.7rem}th,td{padding:.25rem .45rem}.mark{font-size:.85rem}
.facts th{width:40%}}
@media print{:root{color-scheme:light;--ink:#000;--paper:#fff;--soft:#444;--rule:#bbb;--row:#eee;
--good:#116329;--fair:#7d4e00;--bad:#a40e26;--c0:#bc4c00;--c1:#6e7781;--c2:#0969da;--c3:#8250df;--c4:#1a7f37}
body{font-size:10.5pt}main{max-width:none;padding:0}.mark{position:static;print-color-adjust:exact}
.wide{overflow:visible}table{font-size:8.5pt}figure,tr,.facts{break-inside:avoid}h2{break-after:avoid}
.wide td,.wide th{padding:.15rem .35rem;white-space:normal}}
"""
