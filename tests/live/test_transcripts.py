"""The terminals of the documentation, typed again. Those of place ``day`` are typed in test_operator_day."""

from __future__ import annotations

import pytest
from transcripts import PLACES, Block, blocks, fits, type_again

PAGES = sorted({block.page for block in blocks("empty")})


@pytest.mark.parametrize("page", PAGES)
def test_what_the_page_shows_is_what_is_said(page, tmp_path):
    for block in blocks("empty"):
        if block.page == page:
            type_again(block, tmp_path)


def test_no_block_is_left_untyped():
    found = blocks()
    assert {block.place for block in found} <= set(PLACES)
    assert sum(len(block.steps) for block in found) >= 15
    assert all(block.steps for block in found)


def test_a_page_that_says_something_else_is_found_out(tmp_path):
    right = Block("p.md", 1, "empty", (("echo one; echo two", ("o…", "two")), ("false; echo $?", ("1",))))
    type_again(right, tmp_path)
    for shown in (("one",), ("one", "three"), ("one", "two", "…", "three"), ("o", "two")):
        with pytest.raises(AssertionError, match="and now says"):
            type_again(Block("p.md", 1, "empty", (("echo one; echo two", shown),)), tmp_path)


@pytest.mark.parametrize(
    ("shown", "said", "right"),
    [
        (("a … c",), "a b c\n", True),
        (("a … c",), "a b\nc\n", False),
        (("a", "…", "d"), "a\nb\nc\nd\n", True),
        (("a", "…"), "a\n", True),
        ((), "", True),
        ((), "a\n", False),
        (("a.c",), "abc\n", False),
    ],
)
def test_an_ellipsis_stands_for_anything_in_its_line_or_for_lines(shown, said, right):
    assert fits(shown, said) is right
