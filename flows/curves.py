"""Curves as SVG text: no library, no outside reference, the same bytes for the same points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, EDGE = 720, 260, 46
COLOURS = ("#1f6feb", "#bf3989", "#1a7f37", "#9a6700", "#57606a")
"""Told apart by people who see fewer colours; each line is named as well."""

Points = Sequence[tuple[float, float]]


def curve_svg(lines: Mapping[str, Points], *, title: str, x_label: str = "") -> str:
    """Lines with their names. Without ``x_label`` x is time in seconds and shown as minutes since the first
    point. Empty lines are left out."""
    shown = {name: points for name, points in lines.items() if len(points) > 1}
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12" role="img"><title>{escape(title)}</title>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>'
        f'<text x="{EDGE}" y="18" font-weight="bold" fill="#1f2328">{escape(title)}</text>'
    )
    if not shown:
        return f'{head}<text x="{EDGE}" y="{HEIGHT // 2}" fill="#57606a">nothing to draw</text></svg>'
    xs = [x for points in shown.values() for x, _ in points]
    ys = [y for points in shown.values() for _, y in points] + [0.0]
    x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)
    wide, high = (x1 - x0) or 1.0, (y1 - y0) or 1.0

    def at(x: float, y: float) -> str:
        px = EDGE + (x - x0) / wide * (WIDTH - 2 * EDGE)
        py = HEIGHT - EDGE - (y - y0) / high * (HEIGHT - 2 * EDGE)
        return f"{px:.1f},{py:.1f}"

    across = f"{x_label} {x0:,.4g} to {x1:,.4g}" if x_label else f"{(x1 - x0) / 60:,.4g} minutes"
    zero = at(x0, 0.0).split(",")[1]
    parts = [
        head,
        f'<line x1="{EDGE}" x2="{WIDTH - EDGE}" y1="{zero}" y2="{zero}" stroke="#d0d7de"/>',
        f'<text x="4" y="{EDGE}" fill="#57606a">{y1:,.4g}</text>',
        f'<text x="4" y="{HEIGHT - EDGE}" fill="#57606a">{y0:,.4g}</text>',
        f'<text x="{WIDTH - EDGE}" y="{HEIGHT - EDGE + 16}" text-anchor="end" fill="#57606a">'
        f"{escape(across)}</text>",
    ]
    for number, (name, points) in enumerate(shown.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(at(x, y) for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts.append(
            f'<text x="{EDGE + 150 * number}" y="{HEIGHT - 10}" fill="{colour}">{escape(name)}</text>'
        )
    return "".join([*parts, "</svg>"])


def grid_svg(
    rows: Sequence[str], columns: Sequence[str], shares: Sequence[Sequence[float]], *, title: str
) -> str:
    """A table of shares as shaded cells, each with its figure: a confusion matrix."""
    wide, high, left, top = 110, 44, 110, 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + wide * len(columns) + 20} '
        f'{top + high * len(rows) + 20}" font-family="sans-serif" font-size="12" role="img">'
        f'<title>{escape(title)}</title><rect width="100%" height="100%" fill="#ffffff"/>'
        f'<text x="8" y="18" font-weight="bold" fill="#1f2328">{escape(title)}</text>'
    ]
    for j, name in enumerate(columns):
        x = left + wide * j + wide / 2
        parts.append(
            f'<text x="{x}" y="{top - 10}" text-anchor="middle" fill="#57606a">{escape(name)}</text>'
        )
    for i, name in enumerate(rows):
        y = top + high * i
        parts.append(f'<text x="8" y="{y + high / 2 + 4}" fill="#57606a">{escape(name)}</text>')
        for j, share in enumerate(shares[i]):
            x = left + wide * j
            dark = "#ffffff" if share > 0.5 else "#1f2328"
            parts.append(
                f'<rect x="{x}" y="{y}" width="{wide - 2}" height="{high - 2}" fill="#1f6feb" '
                f'fill-opacity="{share:.3f}" stroke="#d0d7de"/>'
                f'<text x="{x + wide / 2}" y="{y + high / 2 + 4}" text-anchor="middle" '
                f'fill="{dark}">{share:.1%}</text>'
            )
    return "".join([*parts, "</svg>"])
