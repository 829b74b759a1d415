"""The table of docs/operator.md: every sentence of the specification names a test that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "operator.md"
ROW = re.compile(r"^\| (?P<sentence>.+) \| `(?P<file>test_\w+)::(?P<test>test_\w+)` \|$")
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
            path = HERE / f"{file}.py"
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
