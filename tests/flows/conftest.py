"""What the tests of the flows share."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_line


@pytest.fixture(scope="session")
def line_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny line, built once for all test processes. Read only."""
    return tiny_line.once(tmp_path_factory)


@pytest.fixture(scope="module")
def built(line_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace after its first ``dvc repro``, this module's own."""
    return tiny_line.copy(line_once, tmp_path_factory.mktemp("line") / "one")
