"""The table of docs/operator.md: every sentence of the specification names a test that exists."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SPECIFICATION = "SCALPER_SPEC"
"""Environment variable: the path of the specification."""
PAGE = HERE.parents[1] / "docs" / "operator.md"
ROW = re.compile(r"^\| (?P<sentence>.+) \| `(?P<file>(?:\w+/)?test_\w+)::(?P<test>test_\w+)` \|$")
HEADING = "## What the specification says, and the test that shows it"


def rows() -> list[str]:
    section = PAGE.read_text(encoding="utf-8").partition(HEADING)[2].partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("|")][2:]


def test_every_row_of_the_table_names_a_test_that_exists() -> None:
    known: dict[str, set[str]] = {}
    missing = []
    for row in rows():
        found = ROW.fullmatch(row)
        assert found, f"this row names no test: {row}"
        file = found["file"]
        if file not in known:
            path = (HERE.parent if "/" in file else HERE) / f"{file}.py"
            tree = ast.parse(path.read_text(encoding="utf-8")) if path.exists() else ast.Module([], [])
            known[file] = {
                node.name
                for node in ast.walk(tree)
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            }
        if found["test"] not in known[file]:
            missing.append(f"{file}::{found['test']}")
    assert missing == []


def test_no_sentence_stands_twice_and_the_table_is_not_empty() -> None:
    sentences = [found["sentence"] for row in rows() if (found := ROW.fullmatch(row))]
    twice = {s for s in sentences if sentences.count(s) > 1} - {"with hysteresis"}
    assert twice == set() and len(sentences) > 80


LITTLE_WORDS = frozenset(
    re.findall(
        r"\w+",
        "that this with when from them then they each into only whose what will would have which other same "
        "there their before after",
    )
)
NEAR = 2
"""So many words in common make a row be about a sentence."""
ENOUGH = 0.6
"""Of a sentence's words must be in the rows about it; the rest are examples and little words."""
OF_THE_PLATFORM = "Training and calibration of the original"


def words(text: str) -> set[str]:
    """The telling words of a text, plural or not."""
    return {w.rstrip("s") for w in re.findall(r"[a-z0-9_]{4,}", text.lower()) if w not in LITTLE_WORDS}


def sentences(specification: Path) -> Iterator[str]:
    """Of the chapter that says how the runner behaves."""
    chapter = specification.read_text(encoding="utf-8").partition("## Runner: behaviour")[2]
    for paragraph in re.split(r"\n\n|\n- ", chapter.partition("\n## ")[0]):
        yield from re.split(r"(?<=[.;])\s+", " ".join(paragraph.split()))


def test_every_sentence_of_the_specification_has_rows_that_speak_of_it() -> None:
    if not os.environ.get(SPECIFICATION):
        pytest.skip(f"set {SPECIFICATION} to the path of the specification")
    table = [words(row.replace("::", " ").replace("_", " ") + " " + row) for row in rows()]
    without = []
    for sentence in sentences(Path(os.environ[SPECIFICATION])):
        wanted = words(sentence)
        if not wanted or sentence.startswith(OF_THE_PLATFORM):
            continue
        near = [row for row in table if len(row & wanted) >= min(NEAR, len(wanted))]
        if len(wanted & set().union(*near)) < ENOUGH * len(wanted):
            without.append(sentence)
    assert without == []


def test_a_sentence_without_rows_would_be_noticed() -> None:
    table = [words(row) for row in rows()]
    new = words("Weekly the operator receives a printed invoice by courier in triplicate.")
    near = [row for row in table if len(row & new) >= NEAR]
    assert len(new & set().union(*near)) < ENOUGH * len(new)
