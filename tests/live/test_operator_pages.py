"""The operator's pages say of each hold what the engine really does with it, in both languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from live.core.holds import KINDS

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = {
    "operator.md": ("**Do:**", "kept", "by hand"),
    "ru/operator.md": ("**Что делать:**", "сохраняется", "вручную"),
}


def sections(page: str) -> dict[str, str]:
    parts = re.split(r"^### ([A-Z_]+)\n", (DOCS / page).read_text(), flags=re.M)
    return dict(zip(parts[1::2], (text.split("\n## ")[0] for text in parts[2::2]), strict=True))


@pytest.mark.parametrize("page", PAGES)
def test_each_hold_has_its_section(page):
    assert set(sections(page)) == set(KINDS)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", sorted(KINDS))
def test_what_a_section_says_is_what_the_engine_does(page, name):
    todo, kept, by_hand = PAGES[page]
    text, kind = sections(page)[name], KINDS[name]
    bold = re.match(r"\s*\*\*([A-Z_]+)([^*]*)\*\*", text)
    assert bold is not None and bold[1] == kind.severity.name, f"{page}: {name} forbids {kind.severity.name}"
    assert (kept in bold[2]) == kind.kept and (by_hand in bold[2]) == kind.by_hand
    assert todo in text and len(text.split(todo)[1].split()) >= 1
    lifted = re.findall(r"resume --hold ([A-Z_]+)", text)
    assert set(lifted) <= {name} and (not lifted or kind.by_hand)
