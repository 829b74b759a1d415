"""README.ru.md says what README.md says: the same chapters, commands, links, tables and figures."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENGLISH, RUSSIAN = ((ROOT / name).read_text() for name in ("README.md", "README.ru.md"))


USED = ("make ", "scalper ", "dvc ", "live-runner ")


def commands(text: str) -> list[str]:
    fenced = re.findall(r"^```\n(.*?)^```$", text, re.M | re.S)
    lines = [line.partition("  #")[0].strip() for block in fenced for line in block.splitlines()]
    return [line for line in lines if line.startswith(("make", "live-runner", "scalper"))]


def bodies(text: str) -> str:
    """Without pictures in fences."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def test_the_same_chapters_and_tables():
    for mark in (r"^#+ ", r"^\|"):
        counts = [len(re.findall(mark, bodies(text), re.M)) for text in (ENGLISH, RUSSIAN)]
        assert counts[0] == counts[1], mark


def test_the_same_commands():
    assert commands(RUSSIAN) == commands(ENGLISH) != []
    spans = [
        {
            words
            for span in re.findall(r"`([^`]+)`", bodies(text))
            if (words := " ".join(span.split())).startswith(USED)
        }
        for text in (ENGLISH, RUSSIAN)
    ]
    assert spans[0] <= spans[1], f"README.ru.md lacks {sorted(spans[0] - spans[1])}"


def test_the_same_links_and_they_lead_somewhere():
    links = [set(re.findall(r"\]\(([^)#]+)", text)) for text in (ENGLISH, RUSSIAN)]
    missing = links[0] - links[1] - {"README.ru.md"}
    assert not missing, f"README.ru.md lacks {sorted(missing)}"
    assert all((ROOT / link).exists() for link in links[1] if "://" not in link)


def test_the_same_figures_about_money():
    def figures(text: str) -> list[str]:
        chapter = re.split(r"^## ", text, flags=re.M)[-2]
        return sorted(re.findall(r"\d+(?:\.\d+)?(?=[ –]?(?:%|bp|б\.п\.|\d))", chapter))

    assert figures(RUSSIAN) == figures(ENGLISH) != []
