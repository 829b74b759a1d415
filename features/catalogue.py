"""The declaration as text: for ``scalper features list`` and for ``docs/features.md``."""

from __future__ import annotations

from features.schema import EVEN, FEATURES, ODD, FeatureSpec


def lines() -> list[str]:
    """One line for each feature, in columns."""
    return [
        f"{f.name:<20} {_window(f):>6}  {f.unit:<34} {f.source}; masked: {f.mask}{_marks(f)}"
        for f in FEATURES
    ]


def markdown() -> str:
    """The same as a table of Markdown, without a newline at its end."""
    rows = ["| # | name | window | unit | formula and source | masked | marks |", "|" + "---|" * 7]
    rows += [
        f"| {k} | `{spec.name}` | {_window(spec)} | {spec.unit} | {spec.source} | {spec.mask} | "
        f"{_marks(spec).removeprefix('; ')} |"
        for k, spec in enumerate(FEATURES)
    ]
    return "\n".join(rows)


def _window(spec: FeatureSpec) -> str:
    return f"{spec.window_s:g} s" if spec.window_s else "-"


def _marks(spec: FeatureSpec) -> str:
    marks = [spec.mirror if spec.mirror in (ODD, EVEN) else f"mirrors {spec.mirror}"]
    marks += [name for name in ("aligned", "seasonal", "feed") if getattr(spec, name)]
    return "; " + ", ".join(marks)
